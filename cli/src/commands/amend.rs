//! `larder tag`, `larder pin` and `larder unpin`.

use std::ffi::OsString;

use anyhow::bail;
use clap::Args;
use larder_engine::amend::{Amended, Wish, amend_all};
use larder_engine::snapshots::Which;
use serde::Serialize;

use crate::args::FilterArgs;
use crate::context::{Context, parse_whole};
use crate::exit::Exit;
use crate::{output, person, render};

/// Change the tags of snapshots
///
/// Without SNAPSHOT, all snapshots of --host, --tag and --path are changed.
///
/// Examples: larder tag --add keep,before-upgrade latest
///           larder tag --tag old --remove old --add new
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[group(id = "change", required = true, multiple = true, args = ["add", "remove", "set"])]
pub struct TagArgs {
    /// Snapshots to change: ids, latest, latest~2, '@[2026-11-01]'
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<OsString>,
    /// Add these tags
    #[arg(long, value_name = "TAG[,TAG...]", value_delimiter = ',')]
    add: Vec<String>,
    /// Remove these tags
    #[arg(long, value_name = "TAG[,TAG...]", value_delimiter = ',')]
    remove: Vec<String>,
    /// Put these in place of all tags; '' for none
    #[arg(long, value_name = "TAG[,TAG...]", value_delimiter = ',', conflicts_with_all = ["add", "remove"])]
    set: Option<Vec<String>>,
    /// Say what would be changed; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Keep snapshots from being forgotten, until they are unpinned
///
/// Example: larder pin latest
#[derive(Debug, Args)]
pub struct PinArgs {
    /// Snapshots to pin: ids, latest, latest~2, '@[2026-11-01]'
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<OsString>,
    /// Say what would be changed; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Let snapshots be forgotten again
///
/// Example: larder unpin 4f2a91c3
#[derive(Debug, Args)]
pub struct UnpinArgs {
    /// Snapshots to unpin: ids, latest, latest~2, '@[2026-11-01]'
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<OsString>,
    /// Say what would be changed; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Serialize)]
struct Changed<'a> {
    dry_run: bool,
    changed: usize,
    snapshots: &'a [Amended],
}

/// Changes tags.
///
/// # Errors
/// What the engine answers.
pub fn tag(context: &Context, args: &TagArgs) -> anyhow::Result<Exit> {
    let filter = &args.filter;
    if args.snapshots.is_empty() && !filter.is_narrowed() {
        bail!(
            "no snapshot was named; give some, e.g. latest, or choose with --host, --tag or --path"
        );
    }
    let wish = match &args.set {
        Some(tags) => Wish::SetTags(tags.iter().filter(|tag| !tag.is_empty()).cloned().collect()),
        None => Wish::ChangeTags {
            remove: args.remove.clone(),
            add: args.add.clone(),
        },
    };
    let deed = Deed {
        wish,
        done: "changed the tags of",
        undone: "would change the tags of",
        dry_run: args.dry_run,
    };
    change(context, &args.snapshots, filter, &deed)
}

/// Pins snapshots.
///
/// # Errors
/// What the engine answers.
pub fn pin(context: &Context, args: &PinArgs) -> anyhow::Result<Exit> {
    let deed = Deed {
        wish: Wish::Pin,
        done: "pinned",
        undone: "would pin",
        dry_run: args.dry_run,
    };
    change(context, &args.snapshots, &args.filter, &deed)
}

/// Unpins snapshots.
///
/// # Errors
/// What the engine answers.
pub fn unpin(context: &Context, args: &UnpinArgs) -> anyhow::Result<Exit> {
    let deed = Deed {
        wish: Wish::Unpin,
        done: "unpinned",
        undone: "would unpin",
        dry_run: args.dry_run,
    };
    change(context, &args.snapshots, &args.filter, &deed)
}

/// What is done to snapshots, and how that is told.
struct Deed {
    wish: Wish,
    done: &'static str,
    undone: &'static str,
    dry_run: bool,
}

fn change(
    context: &Context,
    snapshots: &[OsString],
    filter: &FilterArgs,
    deed: &Deed,
) -> anyhow::Result<Exit> {
    let names: anyhow::Result<Vec<Which>> =
        snapshots.iter().map(|name| parse_whole(name)).collect();
    let author = person::author(context)?;
    let names = names?;
    let repository = context.open()?;
    let list = amend_all(
        &repository,
        &names,
        &filter.filter(),
        &deed.wish,
        &author,
        deed.dry_run,
        context.cancel(),
    )?;
    if context.json() {
        let changed = list.iter().filter(|one| one.changed).count();
        output::json(&Changed {
            dry_run: deed.dry_run,
            changed,
            snapshots: &list,
        })?;
    } else if context.talks() {
        let done = if deed.dry_run { deed.undone } else { deed.done };
        output::line(&told(&list, done))?;
    }
    Ok(Exit::Success)
}

fn told(list: &[Amended], done: &str) -> String {
    let (changed, same): (Vec<&Amended>, Vec<&Amended>) = list.iter().partition(|one| one.changed);
    let count = |number: usize| render::counted(number as u64, "snapshot", "snapshots");
    let mut text = match changed.as_slice() {
        [] => String::new(),
        [one] => format!("{done} snapshot {}", one.id.get(..8).unwrap_or(&one.id)),
        several => format!("{done} {}", count(several.len())),
    };
    if !same.is_empty() {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let was = if same.len() == 1 { "was" } else { "were" };
        text.push_str(&format!("{} {was} so already", count(same.len())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told() {
        let one = |changed| Amended {
            id: "0123456789abcdef".into(),
            changed,
            tags: Vec::new(),
            pinned: true,
        };
        let shown = |list: &[bool]| {
            let list: Vec<Amended> = list.iter().map(|changed| one(*changed)).collect();
            told(&list, "pinned")
        };
        assert_eq!(shown(&[true]), "pinned snapshot 01234567");
        assert_eq!(shown(&[false]), "1 snapshot was so already");
        assert_eq!(
            shown(&[true, true, false, false]),
            "pinned 2 snapshots; 2 snapshots were so already"
        );
    }
}
