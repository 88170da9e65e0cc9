//! `larder serve user` and `larder serve token`: what the service keeps of users and tokens, changed while it is run or not.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::{Timestamp, Zoned};
use larder_server::problem::Problem;
use larder_server::tokens::{Scope, Token};
use larder_server::users::{Kind, Limits, Users};
use serde::Serialize;

use crate::context::Context;
use crate::render::{self, Side};
use crate::{output, sealing, times};

/// Keep the users of the service: each has locations, jobs and snapshots of their own, and sees nothing of another's
///
/// A user needs a token: larder serve token add NAME --user USER. The service sees each change at once.
///
/// Examples: larder serve user add ann --path /srv/ann --kind folder --kind s3 --max-bytes 500G
///           larder serve user edit ann --path /srv/ann --path /home/ann
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct UserArgs {
    #[command(subcommand)]
    what: UserWhat,
}

#[derive(Debug, Subcommand)]
enum UserWhat {
    /// Add a user, who may use nothing but what is named
    Add {
        /// What they are called: small letters, digits, '-' and '_'
        name: String,
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List the users, and what they may use
    List {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Change what a user may use; what is not named stays
    Edit {
        /// What they are called
        name: String,
        #[command(flatten)]
        limits: LimitArgs,
        /// Take a limit away: max-bytes, max-locations, max-jobs, max-runs, or path; may be repeated
        #[arg(long, value_name = "LIMIT", value_parser = ["max-bytes", "max-locations", "max-jobs", "max-runs", "path"])]
        unset: Vec<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Remove a user who has no run; their repositories stay, and what opens them is put aside
    Remove {
        /// What they are called
        name: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// Keep the tokens of the service: the administrator's, or with --user those of a user
///
/// Examples: larder serve token add 'the phone of ann' --user ann --scope operate
///           larder serve token revoke t1a2b3c4 --user ann
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct TokenArgs {
    #[command(subcommand)]
    what: TokenWhat,
}

#[derive(Debug, Subcommand)]
enum TokenWhat {
    /// Make a token, which is shown this once
    Add {
        /// Whose it is, or what for
        name: String,
        /// What it opens: admin, operate, backup-only, read-only or portable
        #[arg(long, default_value = "admin", value_parser = scope)]
        scope: Scope,
        /// From when on it opens nothing
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        #[command(flatten)]
        user: OfUser,
    },
    /// List the tokens, never themselves
    List {
        #[command(flatten)]
        user: OfUser,
    },
    /// Revoke a token
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        user: OfUser,
    },
}

/// What a user may use.
#[derive(Debug, Args)]
struct LimitArgs {
    /// Let sources, repositories in folders and targets of restores lie below this folder; may be repeated
    #[arg(long, value_name = "DIR")]
    path: Vec<PathBuf>,
    /// Let repositories be there: folder, s3, gs, az, sftp, ftp, webdav, dropbox; may be repeated
    #[arg(long, value_parser = kind)]
    kind: Vec<Kind>,
    /// Let hooks and other commands be set: they are run as the account of the service, and reach all that it reaches
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_commands: Option<bool>,
    /// Let databases of PostgreSQL be backed up and restored
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_postgres: Option<bool>,
    /// Begin no backup once the repositories have so many bytes, as they were last measured
    #[arg(long, value_name = "SIZE", value_parser = times::bytes)]
    max_bytes: Option<u64>,
    /// Let there be so many locations at most
    #[arg(long, value_name = "N")]
    max_locations: Option<u64>,
    /// Let there be so many jobs at most
    #[arg(long, value_name = "N")]
    max_jobs: Option<u64>,
    /// Let so many runs be under way at most
    #[arg(long, value_name = "N")]
    max_runs: Option<u64>,
}

/// Where the service keeps its files.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// The folder that the service was given with --data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Whose tokens are meant.
#[derive(Debug, Args)]
struct OfUser {
    /// The user; the administrator's without it
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    made: &'a Token,
    user: Option<&'a str>,
    token: &'a str,
}

/// Manages users.
///
/// # Errors
/// When what is asked for makes no sense, or cannot be written.
pub fn user(context: &Context, args: &UserArgs) -> anyhow::Result<()> {
    match &args.what {
        UserWhat::Add {
            name,
            limits,
            place,
        } => {
            let users = open(context, place)?;
            let mut all = Limits::default();
            limits.say(&mut all)?;
            users.add(name, all.clone()).map_err(worded)?;
            told(context, name, &all, "added")?;
            if context.talks() {
                output::line(&format!(
                    "make a token with `larder serve token add NAME --user {name}`"
                ))?;
            }
            Ok(())
        }
        UserWhat::List { place } => list(context, &open(context, place)?),
        UserWhat::Edit {
            name,
            limits,
            unset,
            place,
        } => {
            let users = open(context, place)?;
            let changed = users.edit(name, |all| {
                unset.iter().for_each(|limit| take_away(all, limit));
                let said = limits.say(all);
                said.map_err(|error| Problem::bad(format!("{error:#}")))
            });
            let changed = changed.map_err(worded)?;
            told(context, name, &changed, "changed")
        }
        UserWhat::Remove { name, place } => {
            let users = open(context, place)?;
            let removed = users.remove(name, Timestamp::now()).map_err(worded)?;
            if context.json() {
                return output::json(&removed);
            }
            if context.talks() {
                output::line(&format!(
                    "removed the user {name}; the repositories stay as they are, and larder.toml, passwords and history lie in {}",
                    removed.kept_in
                ))?;
            }
            Ok(())
        }
    }
}

/// Manages tokens.
///
/// # Errors
/// When what is asked for makes no sense, or cannot be written.
pub fn token(context: &Context, args: &TokenArgs) -> anyhow::Result<()> {
    let tokens = |user: &OfUser| {
        let tokens = open(context, &user.place)?.tokens(user.user.as_deref());
        tokens.map_err(worded)
    };
    match &args.what {
        TokenWhat::Add {
            name,
            scope,
            expires,
            user,
        } => {
            let expires = expires.as_deref();
            let expires = expires.map(|text| times::point(text, &Zoned::now()));
            let expires = expires.transpose().context("--expires")?;
            let made = tokens(user)?.add(name, *scope, expires, Timestamp::now());
            let (made, text) = made.map_err(worded)?;
            if context.json() {
                return output::json(&Made {
                    made: &made,
                    user: user.user.as_deref(),
                    token: text.as_str(),
                });
            }
            // Nobody can tell it again, so it is printed whatever is asked for.
            output::line(text.as_str())?;
            Ok(())
        }
        TokenWhat::List { user } => {
            let all = tokens(user)?.list();
            if context.json() {
                return output::json(&all);
            }
            let rows = all.iter().map(|token| {
                let expires = token.expires.map_or(String::new(), |time| time.to_string());
                vec![
                    vec![token.id.clone()],
                    vec![render::printable(token.name.as_bytes())],
                    vec![token.scope.word().to_owned()],
                    vec![expires],
                ]
            });
            let table = render::Table {
                columns: &[
                    ("Id", Side::Left),
                    ("Name", Side::Left),
                    ("Scope", Side::Left),
                    ("Expires", Side::Left),
                ],
                rows: rows.collect(),
                footer: render::counted(all.len() as u64, "token", "tokens"),
            };
            shown(&table)
        }
        TokenWhat::Revoke { id, user } => {
            let revoked = tokens(user)?.revoke(id, Timestamp::now());
            revoked.map_err(worded)?;
            if context.json() {
                return output::json(&serde_json::json!({"id": id}));
            }
            if context.talks() {
                output::line(&format!("revoked the token {id}"))?;
            }
            Ok(())
        }
    }
}

fn list(context: &Context, users: &Users) -> anyhow::Result<()> {
    let all = users.list();
    if context.json() {
        let all: Vec<_> = all
            .iter()
            .map(|(name, limits)| limits.shown(name))
            .collect();
        return output::json(&all);
    }
    let rows = all.iter().map(|(name, limits)| {
        let kinds: Vec<_> = limits.kinds.iter().map(|kind| kind.word()).collect();
        vec![
            vec![name.clone()],
            vec![kinds.join(", ")],
            vec![render::printable(limits.paths.join(", ").as_bytes())],
            vec![limits.bytes_max.map_or(String::new(), render::size)],
        ]
    });
    let table = render::Table {
        columns: &[
            ("Name", Side::Left),
            ("Kinds", Side::Left),
            ("Paths", Side::Left),
            ("At most", Side::Right),
        ],
        rows: rows.collect(),
        footer: render::counted(all.len() as u64, "user", "users"),
    };
    shown(&table)
}

fn shown(table: &render::Table<'_>) -> anyhow::Result<()> {
    let mut out = output::Output::new();
    table.write(&mut out)?;
    Ok(std::io::Write::flush(&mut out)?)
}

fn told(context: &Context, name: &str, limits: &Limits, did: &str) -> anyhow::Result<()> {
    if context.json() {
        return output::json(&limits.shown(name));
    }
    if context.talks() {
        output::line(&format!("{did} the user {name}"))?;
    }
    Ok(())
}

fn open(context: &Context, place: &PlaceArgs) -> anyhow::Result<Users> {
    let data = super::data_folder(place.data.as_deref())?;
    let config = context.settings.file.iter();
    let closed = config.flat_map(|file| [file.clone(), sealing::key_path(file)]);
    let closed: Vec<PathBuf> = closed.collect();
    let users = Users::open(&data, &closed);
    users.with_context(|| format!("cannot read the users in {}", data.display()))
}

impl LimitArgs {
    fn say(&self, limits: &mut Limits) -> anyhow::Result<()> {
        if !self.path.is_empty() {
            let paths = self.path.iter().map(|path| {
                let path = std::path::absolute(path)
                    .with_context(|| format!("the path {}", path.display()))?;
                let path = path.into_os_string().into_string();
                path.map_err(|path| anyhow!("the path {} is not UTF-8", path.display()))
            });
            limits.paths = paths.collect::<anyhow::Result<Vec<String>>>()?;
        }
        if !self.kind.is_empty() {
            limits.kinds = self.kind.clone();
        }
        limits.commands = self.allow_commands.unwrap_or(limits.commands);
        limits.postgres = self.allow_postgres.unwrap_or(limits.postgres);
        limits.bytes_max = self.max_bytes.or(limits.bytes_max);
        limits.locations_max = self.max_locations.or(limits.locations_max);
        limits.jobs_max = self.max_jobs.or(limits.jobs_max);
        limits.runs_max = self.max_runs.or(limits.runs_max);
        Ok(())
    }
}

fn take_away(limits: &mut Limits, what: &str) {
    match what {
        "max-bytes" => limits.bytes_max = None,
        "max-locations" => limits.locations_max = None,
        "max-jobs" => limits.jobs_max = None,
        "max-runs" => limits.runs_max = None,
        _ => limits.paths.clear(),
    }
}

fn kind(word: &str) -> anyhow::Result<Kind> {
    Kind::of_word(word).with_context(|| {
        let all = Kind::ALL.map(Kind::word).join(", ");
        format!("there is no such kind; there are {all}")
    })
}

fn scope(word: &str) -> anyhow::Result<Scope> {
    let found = Scope::ALL.into_iter().find(|scope| scope.word() == word);
    found.with_context(|| {
        let all = Scope::ALL.map(Scope::word).join(", ");
        format!("there is no such scope; there are {all}")
    })
}

fn worded(problem: Problem) -> anyhow::Error {
    anyhow!("{}", problem.detail)
}
