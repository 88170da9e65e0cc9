//! `larder location`.

mod change;
mod seal;
mod secret;
mod validate;

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use larder_engine::storage::location::{place, shown};
use larder_engine::storage::secret::MASK;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::parse_setting;
use crate::context::Context;
use crate::exit::Exit;
use crate::locations::Table;
use crate::output::{self, Output};
use crate::render::{self, Side};

/// Name places for repositories, and try them out
///
/// A location is a name in larder.toml for a URL with its settings; `-r NAME` means it anywhere.
/// What is changed here keeps the comments and the order of the file.
///
/// Examples: larder location add nas sftp://me@nas/srv/larder --set identity-file=~/.ssh/nas
///           larder location validate nas
///           larder -r nas init
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct LocationArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Name a place; --set says how it is reached
    ///
    /// Secrets are asked for on a terminal where this kind of place usually needs one. A file or a
    /// command may give one instead: --set password-file=FILE, --set password-command=COMMAND.
    Add {
        /// What it is to be called: letters, digits, '-', '_' and '.'
        name: String,
        /// Where it is: a URL or a path
        url: String,
        /// Say how it is reached; may be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
        set: Vec<(String, String)>,
        /// Ask for this secret, or read it from standard input, one a line; may be repeated
        #[arg(long, value_name = "KEY")]
        secret: Vec<String>,
        /// Seal its secrets: they stand in larder.toml encrypted, and larder.key beside it opens them
        #[arg(long)]
        seal: bool,
        /// Try it out once it is written, or with --dry-run without that
        #[arg(long)]
        validate: bool,
        /// With --validate, make its folder where it is missing
        #[arg(long, requires = "validate")]
        create: bool,
        /// Say what would be changed, and leave larder.toml as it is
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// List the locations
    List,
    /// Show one, with secrets masked
    Show {
        /// Its name
        name: String,
    },
    /// Change one; --set says what is new about how it is reached
    Edit {
        /// Its name
        name: String,
        /// Where it is from now on
        #[arg(long)]
        url: Option<String>,
        /// Say what is new about how it is reached; may be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
        set: Vec<(String, String)>,
        /// Say nothing more about this setting; may be repeated
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
        /// Ask for this secret, or read it from standard input, one a line; may be repeated
        #[arg(long, value_name = "KEY")]
        secret: Vec<String>,
        /// Seal its secrets, also those that it has already; what was sealed stays so without this
        #[arg(long)]
        seal: bool,
        /// Try it out once it is written, or with --dry-run without that
        #[arg(long)]
        validate: bool,
        /// With --validate, make its folder where it is missing
        #[arg(long, requires = "validate")]
        create: bool,
        /// Say what would be changed, and leave larder.toml as it is
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Forget the name; nothing at the place itself is touched
    Remove {
        /// Its name
        name: String,
        /// Say what would be changed, and leave larder.toml as it is
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Give one another name
    Rename {
        /// Its name
        old: String,
        /// What it is to be called
        new: String,
        /// Say what would be changed, and leave larder.toml as it is
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Seal all secrets that stand in larder.toml for everybody to read: those of locations, and `password`
    ///
    /// They are encrypted under larder.key, a file of mode 0600 beside larder.toml (LARDER_SEAL_KEY_FILE names another one).
    /// It is made where there is none; without it nothing that is sealed opens, so keep it as you keep passwords.
    Seal {
        /// Say what would be changed, and leave larder.toml as it is
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Try whether a repository would work there
    ///
    /// Looks the host up, connects, logs in, and writes, reads, lists and deletes small objects of
    /// its own; then measures. A repository that is there is not touched. Ends with 0 only if a
    /// repository would work.
    Validate {
        /// The name of a location, a URL or a path
        location: String,
        /// Make its folder where it is missing; a bucket is never made
        #[arg(long)]
        create: bool,
    },
}

/// A location as it is shown.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Location")]
pub struct Shown<'a> {
    name: &'a str,
    /// Masked where it is not understood and may have a password in it.
    url: &'a str,
    settings: BTreeMap<&'a str, String>,
    /// Which of them are sealed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sealed: Vec<&'a str>,
    /// Whether `repository` names it.
    usual: bool,
    /// What is wrong with it: then it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    mistake: Option<&'a str>,
}

/// Manages locations.
///
/// # Errors
/// When larder.toml cannot be changed, or what is asked for makes no sense.
pub fn run(context: &Context, args: &LocationArgs) -> anyhow::Result<Exit> {
    match &args.what {
        What::Add {
            name,
            url,
            set,
            secret,
            seal,
            validate,
            create,
            dry_run,
        } => {
            let secrets = change::Secrets {
                named: secret,
                seal: *seal,
            };
            let place = change::add(context, name, url, set, &secrets, *dry_run)?;
            if *validate {
                return validate::run(context, &place, *create);
            }
        }
        What::List => list(context)?,
        What::Show { name } => show(context, name)?,
        What::Edit {
            name,
            url,
            set,
            unset,
            secret,
            seal,
            validate,
            create,
            dry_run,
        } => {
            let url = url.as_deref();
            let secrets = change::Secrets {
                named: secret,
                seal: *seal,
            };
            let place = change::edit(context, name, url, set, unset, &secrets, *dry_run)?;
            if *validate {
                return validate::run(context, &place, *create);
            }
        }
        What::Remove { name, dry_run } => change::remove(context, name, *dry_run)?,
        What::Seal { dry_run } => seal::all(context, *dry_run)?,
        What::Rename { old, new, dry_run } => change::rename(context, old, new, *dry_run)?,
        What::Validate { location, create } => {
            return validate::run(context, &context.place_of(location)?, *create);
        }
    }
    Ok(Exit::Success)
}

fn list(context: &Context) -> anyhow::Result<()> {
    let locations = &context.settings.locations.0;
    let all = locations
        .iter()
        .map(|(name, table)| shown_location(context, name, table));
    if context.json() {
        return output::json(&all.collect::<Vec<_>>());
    }
    let row = |one: Shown<'_>| {
        let remark = match (one.mistake, one.usual) {
            (Some(_), _) => "has a mistake",
            (None, true) => "usual",
            (None, false) => "",
        };
        [one.name, one.url, remark]
            .map(|cell| vec![render::printable(cell.as_bytes())])
            .to_vec()
    };
    let table = render::Table {
        columns: &[
            ("Name", Side::Left),
            ("Where", Side::Left),
            ("", Side::Left),
        ],
        rows: all.map(row).collect(),
        footer: render::counted(locations.len() as u64, "location", "locations"),
    };
    let mut out = Output::new();
    table.write(&mut out)?;
    Ok(out.flush()?)
}

fn show(context: &Context, name: &str) -> anyhow::Result<()> {
    let one = shown_location(context, name, table(context, name)?);
    if context.json() {
        return output::json(&one);
    }
    let mut lines = vec![("url", one.url.to_owned())];
    let is_sealed = |key: &&str| one.sealed.contains(key);
    lines.extend(one.settings.into_iter().map(|(key, value)| {
        let value = match is_sealed(&key) {
            true => format!("{value} (sealed)"),
            false => value,
        };
        (key, value)
    }));
    lines.extend(one.mistake.map(|mistake| ("mistake", mistake.to_owned())));
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, value) in lines {
        let value = render::printable(value.as_bytes());
        output::line(&format!("{key:<width$}  {value}"))?;
    }
    Ok(())
}

fn shown_location<'a>(context: &Context, name: &'a str, table: &'a Table) -> Shown<'a> {
    let scheme = table.scheme();
    let settings = table.settings.iter();
    let settings = settings.map(|(key, value)| (key.as_str(), shown(scheme, key, value)));
    let sealed = table.sealed.keys().map(String::as_str);
    let masked = sealed.clone().map(|key| (key, MASK.to_owned()));
    Shown {
        name,
        url: match place::parse(&table.url) {
            Err(_) if table.url.contains('@') => MASK,
            _ => &table.url,
        },
        settings: settings.chain(masked).collect(),
        sealed: sealed.collect(),
        usual: context.settings.repository.as_deref() == Some(name),
        mistake: table.mistake.as_deref(),
    }
}

fn table<'a>(context: &'a Context, name: &str) -> anyhow::Result<&'a Table> {
    let locations = &context.settings.locations;
    locations.0.get(name).with_context(|| {
        let hint = locations
            .nearest(name)
            .map(|near| format!("; did you mean '{near}'?"));
        format!(
            "there is no location '{name}' in larder.toml{}",
            hint.unwrap_or_default()
        )
    })
}
