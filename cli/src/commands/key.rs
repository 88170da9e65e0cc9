//! `larder key`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use larder_engine::keys::{self, KeyInfo};
use larder_engine::repository::{KdfCost, Secret};
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::password::{self, SecretFlags};
use crate::render::{self, Side, Table};

/// Manage the passwords and keys that open the repository
///
/// Each key slot opens the whole repository. Removing a slot does not take back what its holder
/// has copied.
///
/// Example: larder key add --label laptop
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the key slots
    List,
    /// Add a slot for another password or key file
    Add {
        #[command(flatten)]
        new: NewSecret,
        /// Label of the slot
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        label: String,
        /// Say what would be done, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Remove a slot; the last one stays
    Remove {
        /// The slot's id, or the beginning of it
        id: String,
        /// Say what would be done, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Replace the slot that opens the repository now by one with another secret
    Passwd {
        #[command(flatten)]
        new: NewSecret,
        /// Say what would be done, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Add a slot for a recovery key, and print that key once, to be kept on paper
    Recovery {
        /// Label of the slot
        #[arg(long, value_name = "TEXT", default_value = "recovery")]
        label: String,
        /// Say what would be done, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Write a new random key into a file, for --key-file and --new-key-file
    Generate {
        /// The file; it must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Say what would be done, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// Where a new secret comes from; it is asked for twice if nothing says so.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
struct NewSecret {
    /// Take the new password from a file
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Take the new password from what a shell command prints
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<std::ffi::OsString>,
    /// Take the raw key in a file, as `larder key generate` makes one
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
}

impl NewSecret {
    fn read(&self) -> anyhow::Result<Secret> {
        let flags = SecretFlags {
            password_file: self.new_password_file.clone(),
            password_command: self.new_password_command.clone(),
            key_file: self.new_key_file.clone(),
            recovery_key_file: None,
        };
        password::fresh(flags.source(), "new password")
    }
}

/// What a change of the slots did.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    dry_run: bool,
}

/// Manages key slots.
///
/// # Errors
/// What the engine answers, or what keeps the new secret from being had.
pub fn run(context: &Context, args: &KeyArgs) -> anyhow::Result<Exit> {
    match &args.what {
        What::List => list(context)?,
        What::Add {
            new,
            label,
            dry_run,
        } => {
            let repository = context.open_to_change()?;
            let secret = new.read()?;
            if *dry_run {
                return told(context, None, "would add a key slot", true);
            }
            let id = keys::add(&repository, &secret, false, label, KdfCost::default())?;
            return told(context, Some(&id), "added key slot", false);
        }
        What::Remove { id, dry_run } => {
            let repository = context.open_to_change()?;
            let slots = keys::list(&repository)?;
            if *dry_run {
                let slot = removable(&slots, id)?;
                return told(context, Some(&slot.id), "would remove key slot", true);
            }
            let id = keys::remove(&repository, id)?;
            if context.talks() {
                if slots.iter().any(|slot| slot.current && slot.id == id) {
                    eprintln!(
                        "larder: warning: this slot opened the repository now; what opened it opens nothing any more"
                    );
                }
                eprintln!("{}", keys::REMOVAL_NOTE);
            }
            return told(context, Some(&id), "removed key slot", false);
        }
        What::Passwd { new, dry_run } => {
            let repository = context.open_to_change()?;
            let secret = new.read()?;
            if *dry_run {
                return told(context, None, "would replace the key slot in use", true);
            }
            let id = keys::replace_current(&repository, &secret, KdfCost::default())?;
            return told(context, Some(&id), "replaced the key slot by", false);
        }
        What::Recovery { label, dry_run } => recovery(context, label, *dry_run)?,
        What::Generate { file, dry_run } => generate(context, file, *dry_run)?,
    }
    Ok(Exit::Success)
}

/// Tells what was done to a slot.
fn told(context: &Context, id: Option<&str>, what: &str, dry_run: bool) -> anyhow::Result<Exit> {
    if context.json() {
        output::json(&Changed {
            id,
            recovery_key: None,
            file: None,
            dry_run,
        })?;
    } else if context.talks() {
        output::line(format!("{what} {}", id.unwrap_or_default()).trim_end())?;
    }
    Ok(Exit::Success)
}

fn list(context: &Context) -> anyhow::Result<()> {
    let slots = keys::list(&*context.open()?)?;
    if context.json() {
        return output::json(&slots);
    }
    let mut out = Output::new();
    table(&slots).write(&mut out)?;
    Ok(out.flush()?)
}

fn table(slots: &[KeyInfo]) -> Table<'static> {
    let row = |slot: &KeyInfo| {
        let mark = if slot.current { "*" } else { "" };
        let created = slot.created.parse();
        let zone = jiff::tz::TimeZone::system();
        let created = created.map_or_else(
            |_| render::printable(slot.created.as_bytes()),
            |time| render::time(time, &zone),
        );
        let id = slot.id.clone();
        let label = render::printable(slot.label.as_bytes());
        [mark.to_owned(), id, slot.kind.to_owned(), created, label]
            .map(|cell| vec![cell])
            .to_vec()
    };
    Table {
        columns: &[
            ("", Side::Left),
            ("ID", Side::Left),
            ("Kind", Side::Left),
            ("Made", Side::Left),
            ("Label", Side::Left),
        ],
        rows: slots.iter().map(row).collect(),
        footer: "* opened the repository now".into(),
    }
}

/// Finds the one slot that a removal would take.
fn removable<'a>(slots: &'a [KeyInfo], id: &str) -> anyhow::Result<&'a KeyInfo> {
    let mut matching = slots.iter().filter(|slot| slot.id.starts_with(id));
    match (matching.next(), matching.next()) {
        (None, _) => bail!("there is no key slot whose id begins with '{id}'"),
        (Some(_), Some(_)) => bail!("several key slots begin with '{id}'; give more of the id"),
        (Some(_), None) if slots.len() == 1 => {
            bail!("this is the last key slot; without it nobody could open the repository")
        }
        (Some(slot), None) => Ok(slot),
    }
}

fn recovery(context: &Context, label: &str, dry_run: bool) -> anyhow::Result<()> {
    let repository = context.open_to_change()?;
    if dry_run {
        return told(context, None, "would add a recovery key", true).map(|_| ());
    }
    let (secret, _, text) = keys::generate_raw()?;
    let id = keys::add(&repository, &secret, true, label, KdfCost::default())?;
    if context.json() {
        return output::json(&Changed {
            id: Some(&id),
            recovery_key: Some(&text),
            file: None,
            dry_run,
        });
    }
    if context.talks() {
        eprintln!(
            "This key opens the repository when the password is lost. It is shown this once: print \
             it\nor write it down, keep it where the repository is not, and type it when the \
             password is\nasked for, or give --recovery-key-file FILE. Case, spaces and hyphens \
             do not matter.\nKey slot {id}.\n"
        );
    }
    output::line(&text)
}

fn generate(context: &Context, path: &Path, dry_run: bool) -> anyhow::Result<()> {
    let tried = || format!("cannot write the key file {}", path.display());
    if dry_run {
        if path.symlink_metadata().is_ok() {
            bail!("{}: it exists already", tried());
        }
    } else {
        let (_, text, _) = keys::generate_raw()?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path);
        let file = file
            .as_mut()
            .map_err(|error| anyhow::anyhow!("{}: {error}", tried()))?;
        file.write_all(text.trim_end().as_bytes())
            .with_context(tried)?;
        file.write_all(b"\n").with_context(tried)?;
        file.sync_all().with_context(tried)?;
    }
    if context.json() {
        let file = Some(path.to_string_lossy().into_owned());
        return output::json(&Changed {
            id: None,
            recovery_key: None,
            file,
            dry_run,
        });
    }
    if context.talks() {
        let verb = if dry_run { "would write" } else { "wrote" };
        output::line(&format!("{verb} a new key into {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn slot(id: &str) -> KeyInfo {
        KeyInfo {
            id: id.into(),
            kind: "passphrase",
            label: "first\u{1b}".into(),
            created: "2026-11-01T00:00:00Z".into(),
            current: id.starts_with('a'),
        }
    }

    #[test]
    fn only_one_of_several_slots_can_be_removed() {
        let slots = [slot("aabb"), slot("aacc")];
        assert_eq!(removable(&slots, "aab").unwrap().id, "aabb");
        assert!(
            removable(&slots, "aa")
                .unwrap_err()
                .to_string()
                .contains("several")
        );
        assert!(
            removable(&slots, "b")
                .unwrap_err()
                .to_string()
                .contains("no key slot")
        );
        let last = [slot("aabb")];
        assert!(
            removable(&last, "aa")
                .unwrap_err()
                .to_string()
                .contains("last")
        );
    }

    #[test]
    fn the_list_marks_the_slot_in_use() {
        let mut bytes = Vec::new();
        table(&[slot("aabb"), slot("cc")])
            .write(&mut bytes)
            .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("*  aabb  passphrase  2026-1"), "{text}");
        assert!(text.contains("   cc    passphrase  2026-1"), "{text}");
        assert!(text.contains("first\\u{1b}"), "{text}");
    }
}
