//! `larder diff`.

use std::ffi::OsString;
use std::io::Write as _;

use clap::Args;
use larder_engine::browse::{self, Difference, Item};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{FilterArgs, SNAPSHOT_HELP};
use crate::context::{Context, parse_spec, resolve};
use crate::exit::Exit;
use crate::item::ItemJson;
use crate::output::{self, Output};
use crate::render;

/// What the letters mean, for the long help.
const LETTERS: &str = "\
The letters:
  +  only the second has it
  -  only the first has it
  M  the content differs
  T  it is of another type
  U  only metadata differs (owner, permissions, times, attributes)";

/// Compare two snapshots
///
/// Each path that differs is one line, which begins with a letter for how it differs.
///
/// Example: larder diff latest~1 latest
#[derive(Debug, Args)]
#[command(after_long_help = format!("{LETTERS}\n\n{SNAPSHOT_HELP}"))]
pub struct DiffArgs {
    /// The first snapshot, and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    first: OsString,
    /// The second snapshot, and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    second: OsString,
    #[command(flatten)]
    filter: FilterArgs,
}

/// What the differences come to, for a program.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Differences")]
pub struct Summary {
    added: u64,
    removed: u64,
    content_changed: u64,
    type_changed: u64,
    metadata_changed: u64,
    bytes_added: u64,
    bytes_removed: u64,
}

/// A difference, for a program.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Difference")]
pub struct Change {
    /// `+`, `-`, `M`, `T` or `U`, as `larder diff --help` explains them.
    change: char,
    path: String,
    old: Option<ItemJson>,
    new: Option<ItemJson>,
}

/// Compares two snapshots.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &DiffArgs) -> anyhow::Result<Exit> {
    let (first, second) = (parse_spec(&args.first)?, parse_spec(&args.second)?);
    let repository = context.open()?;
    let filter = args.filter.filter();
    let a = resolve(&repository, &first, &filter)?;
    let b = resolve(&repository, &second, &filter)?;
    let (a, b) = ((&a, first.path.as_deref()), (&b, second.path.as_deref()));
    let mut out = Output::new();
    let mut summary = Summary::default();
    browse::diff(&repository, a, b, &mut |difference| {
        summary.count(&difference);
        let written = if context.json() {
            output::message(&mut out, "change", &change(&difference))
        } else {
            let path = render::printable(&named(&difference).path);
            writeln!(out, "{} {path}", letter(&difference))
        };
        written.map_err(output::failed)
    })?;
    out.flush()?;
    if context.json() {
        output::summary(&summary)?;
    } else if context.talks() && summary != Summary::default() {
        output::line(&summary.text())?;
    }
    Ok(Exit::Success)
}

fn letter(difference: &Difference) -> char {
    match difference {
        Difference::Added(_) => '+',
        Difference::Removed(_) => '-',
        Difference::Changed { old, new, .. } if old.entry.kind != new.entry.kind => 'T',
        Difference::Changed { content: true, .. } => 'M',
        Difference::Changed { content: false, .. } => 'U',
    }
}

/// Gives the side of a difference that its line names.
fn named(difference: &Difference) -> &Item {
    match difference {
        Difference::Added(item) | Difference::Removed(item) => item,
        Difference::Changed { new, .. } => new,
    }
}

fn change(difference: &Difference) -> Change {
    let (old, new) = match difference {
        Difference::Added(new) => (None, Some(new)),
        Difference::Removed(old) => (Some(old), None),
        Difference::Changed { old, new, .. } => (Some(old), Some(new)),
    };
    Change {
        change: letter(difference),
        path: String::from_utf8_lossy(&named(difference).path).into_owned(),
        old: old.map(ItemJson::from),
        new: new.map(ItemJson::from),
    }
}

impl Summary {
    fn count(&mut self, difference: &Difference) {
        let number = match letter(difference) {
            '+' => &mut self.added,
            '-' => &mut self.removed,
            'T' => &mut self.type_changed,
            'M' => &mut self.content_changed,
            _ => &mut self.metadata_changed,
        };
        *number += 1;
        let (gone, come) = match difference {
            Difference::Added(item) => (0, item.entry.size),
            Difference::Removed(item) => (item.entry.size, 0),
            Difference::Changed { content: false, .. } => (0, 0),
            Difference::Changed { old, new, .. } => (old.entry.size, new.entry.size),
        };
        self.bytes_removed = self.bytes_removed.saturating_add(gone);
        self.bytes_added = self.bytes_added.saturating_add(come);
    }

    fn text(&self) -> String {
        format!(
            "\n{} added, {} removed, {} changed, {} of another type, {} in metadata alone\n\
             files that are new or changed hold {}, those gone or replaced held {}",
            render::count(self.added),
            render::count(self.removed),
            render::count(self.content_changed),
            render::count(self.type_changed),
            render::count(self.metadata_changed),
            render::size(self.bytes_added),
            render::size(self.bytes_removed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_engine::format::entry::{Entry, EntryType};

    fn item(kind: EntryType, size: u64) -> Item {
        let entry = Entry {
            kind,
            size,
            ..Entry::default()
        };
        Item {
            path: b"/a".to_vec(),
            entry,
        }
    }

    #[test]
    fn each_difference_has_its_letter_and_is_counted() {
        let changed = |new, content| Difference::Changed {
            old: item(EntryType::File, 10),
            new,
            content,
        };
        let differences = [
            Difference::Added(item(EntryType::File, 1)),
            Difference::Removed(item(EntryType::File, 2)),
            changed(item(EntryType::File, 30), true),
            changed(item(EntryType::Symlink, 0), true),
            changed(item(EntryType::File, 10), false),
        ];
        let letters: String = differences.iter().map(letter).collect();
        assert_eq!(letters, "+-MTU");
        let mut summary = Summary::default();
        differences
            .iter()
            .for_each(|difference| summary.count(difference));
        let expected = Summary {
            added: 1,
            removed: 1,
            content_changed: 1,
            type_changed: 1,
            metadata_changed: 1,
            bytes_added: 31,
            bytes_removed: 22,
        };
        assert_eq!(summary, expected);
    }
}
