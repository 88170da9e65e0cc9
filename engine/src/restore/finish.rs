//! What comes after the data: further names, superfluous entries, verification, directories.

use larder_format::entry::{Entry, EntryType};
use larder_format::node::decode_leaf;

use crate::error::{EngineError, Result};
use crate::scratch::ScratchMap;
use crate::target::{Metadata, NodeId};

use super::Overwrite;
use super::compare::{There, compare};
use super::files::{Context, Hand};
use super::plan::Files;
use super::planner::Planner;
use super::tally::is_damage;

const MAP_BYTES: usize = 4 << 20;

/// Takes the one entry out of a leaf.
fn only_entry(leaf: &[u8]) -> Result<Entry> {
    let first = decode_leaf(leaf)?.into_iter().next();
    first.ok_or_else(|| EngineError::Internal("a kept entry is lost".to_owned()))
}

/// Gives nodes their further names. Where the first name failed, the next one is planned as a
/// node of its own; tells whether anything was planned.
pub(super) fn link_names(planner: &mut Planner<'_>) -> Result<bool> {
    let context = planner.context;
    let empty = ScratchMap::new(context.scratch(), MAP_BYTES);
    let later = std::mem::replace(&mut planner.later, empty);
    let mut is_planned = false;
    let mut tried = ScratchMap::new(context.scratch(), MAP_BYTES);
    for item in later.iter_from(&[]) {
        context.cancel.check()?;
        let (_, leaf) = item?;
        let entry = only_entry(&leaf)?;
        match context.remembered(&entry)? {
            Some((id, first)) => is_planned |= !link(planner, &entry, &first, &id)?,
            None => {
                is_planned = true;
                let key = super::files::link_key(&entry);
                if tried.get(&key)?.is_some() {
                    planner.further_name(&entry)?;
                } else {
                    tried.insert(&key, &[])?;
                    planner.node(&entry, false)?;
                }
            }
        }
    }
    Ok(is_planned)
}

/// Makes a hard link; false if the entry was planned as a node of its own instead.
fn link(planner: &mut Planner<'_>, entry: &Entry, first: &[u8], id: &NodeId) -> Result<bool> {
    let context = planner.context;
    let there = match context.target.existing(&entry.key) {
        Ok(there) => there,
        Err(error) => return context.tally.failed(error).map(|()| true),
    };
    if is_right(context, there.as_ref(), Some(id)) {
        context.tally.count(|report| report.unchanged += 1);
        return Ok(true);
    }
    match context.target.link(first, id, &entry.key) {
        Ok(()) => count_link(context, entry),
        // Too many names, or a file system without them: a copy is better than nothing.
        Err(error) if !error.is_out_of_space() => {
            let shown = crate::target::error::Escaped(&entry.key);
            let text = format!("{shown} is restored as a file of its own: {error}");
            context.tally.warning(text);
            let single = Entry {
                links: 1,
                ..entry.clone()
            };
            planner.node(&single, false)?;
            return Ok(false);
        }
        Err(error) => context.tally.failed(error)?,
    }
    Ok(true)
}

fn count_link(context: &Context<'_>, entry: &Entry) {
    let is_file = entry.kind == EntryType::File;
    context.tally.count(|report| match is_file {
        true => report.files += 1,
        false => report.others += 1,
    });
}

/// Counts further names in a dry run.
pub(super) fn count_links(planner: &Planner<'_>) -> Result<()> {
    let context = planner.context;
    for item in planner.later.iter_from(&[]) {
        let entry = only_entry(&item?.1)?;
        let first = context.remembered(&entry)?.map(|(id, _)| id);
        match context.target.existing(&entry.key) {
            Ok(there) if is_right(context, there.as_ref(), first.as_ref()) => {
                context.tally.count(|report| report.unchanged += 1);
            }
            Ok(_) => count_link(context, &entry),
            Err(error) => context.tally.failed(error)?,
        }
    }
    Ok(())
}

/// Tells whether a further name is to stay as it is.
fn is_right(context: &Context<'_>, there: Option<&Metadata>, first: Option<&NodeId>) -> bool {
    there.is_some_and(|there| {
        context.options.overwrite == Overwrite::Never || Some(&there.id) == first
    })
}

/// Removes what the snapshot does not have from the directories that were there.
pub(super) fn remove_extras(planner: &Planner<'_>) -> Result<()> {
    let context = planner.context;
    if !context.options.delete {
        return Ok(());
    }
    if planner.has_gaps {
        let text = "nothing is deleted, because parts of the snapshot cannot be read";
        context.tally.warning(text.to_owned());
        return Ok(());
    }
    for item in planner.directories.iter_from(&[]) {
        context.cancel.check()?;
        let (_, value) = item?;
        let Some((0, leaf)) = value.split_first().map(|(new, leaf)| (*new, leaf)) else {
            continue;
        };
        remove_extras_of(planner, &only_entry(leaf)?)?;
    }
    for item in planner.implied.iter_from(&[]) {
        context.cancel.check()?;
        let (key, root) = item?;
        let root = root.as_slice().try_into().map_or(0, u64::from_be_bytes);
        if is_there(context, &key)? {
            let folder = Entry {
                key,
                ordinal: root,
                ..Entry::default()
            };
            remove_extras_of(planner, &folder)?;
        }
    }
    Ok(())
}

/// Tells whether there is a folder of a key; in a dry run it was not made.
fn is_there(context: &Context<'_>, key: &[u8]) -> Result<bool> {
    if key.is_empty() {
        return Ok(true);
    }
    match context.target.existing(key) {
        Ok(there) => Ok(there.is_some_and(|there| there.kind == EntryType::Directory)),
        Err(error) => context.tally.failed(error).map(|()| false),
    }
}

fn remove_extras_of(planner: &Planner<'_>, directory: &Entry) -> Result<()> {
    // Of a folder that could not be read nobody knows what the snapshot should have.
    if directory.flags.unreadable {
        return Ok(());
    }
    let context = planner.context;
    let key = &directory.key;
    let mut failure = std::cell::RefCell::new(None);
    let keep = |name: &[u8]| {
        let whole = [key, name].concat();
        match planner.is_kept(&whole, directory.ordinal) {
            Ok(kept) => kept,
            Err(error) => {
                failure.borrow_mut().get_or_insert(error);
                true
            }
        }
    };
    let count = || context.tally.count(|report| report.deleted += 1);
    let mut out_of_space = Ok(());
    let removed = if context.options.dry_run {
        context.target.list_extras(key, keep, |_, _| count())
    } else {
        context
            .target
            .remove_extras(key, keep, |_, result| match result {
                Ok(()) => count(),
                Err(error) => out_of_space = context.tally.failed(error),
            })
    };
    if let Some(error) = failure.get_mut().take() {
        return Err(error);
    }
    out_of_space?;
    match removed {
        Ok(()) => Ok(()),
        Err(error) => context.tally.failed(error),
    }
}

/// Reads every file back that was restored, and compares it with the snapshot.
pub(super) fn verify(context: &Context<'_>, files: &Files) -> Result<()> {
    context.progress.phase("verifying", None, None);
    let mut hand = Hand::new(context.repository)?;
    for item in files.iter() {
        context.cancel.check()?;
        let (file, entry) = item?;
        if context.has_failed(file)? {
            continue;
        }
        context.progress.current(&entry.key);
        if let Err(why) = verify_one(context, &entry, &mut hand)? {
            context.give_up(
                file,
                &entry,
                &format!("it is not right after the restore: {why}"),
            )?;
        }
        context.progress.advance(1, entry.size);
    }
    Ok(())
}

fn verify_one(
    context: &Context<'_>,
    entry: &Entry,
    hand: &mut Hand,
) -> Result<std::result::Result<(), String>> {
    let there = match context.target.open_existing(&entry.key) {
        Ok(Some(there)) => there,
        Ok(None) => return Ok(Err("it is not there".to_owned())),
        Err(error) => return Ok(Err(error.to_string())),
    };
    if there.metadata.size != entry.size {
        let (found, size) = (there.metadata.size, entry.size);
        return Ok(Err(format!("it has {found} bytes in place of {size}")));
    }
    let mut wrong = None;
    let mut read_at = |buffer: &mut [u8], offset| there.read_at(buffer, offset);
    let keyring = context.repository.keyring();
    let compared = compare(
        keyring,
        entry,
        &mut hand.reader,
        &mut read_at,
        &mut |offset| there.data_from(offset),
        &mut |offset, _, there| {
            if there == There::Differs {
                wrong.get_or_insert(offset);
            }
            Ok(())
        },
    );
    match compared {
        Ok(()) => Ok(match wrong {
            None => Ok(()),
            Some(offset) => Err(format!("its bytes from {offset} on differ")),
        }),
        Err(error) if is_damage(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Completes the directories, the deepest first.
pub(super) fn directories(planner: &Planner<'_>) -> Result<()> {
    let context = planner.context;
    let mut hand = Hand::new(context.repository)?;
    for item in planner.directories.iter_from(&[]) {
        let (_, value) = item?;
        let Some((new, leaf)) = value.split_first() else {
            continue;
        };
        if *new == 0 && context.options.overwrite == Overwrite::Never {
            continue;
        }
        let entry = only_entry(leaf)?;
        let attributes = context.attributes(&entry, &mut hand.reader)?;
        let done = context
            .target
            .finish_directory(&entry.key, &entry, &attributes);
        if let Err(error) = done {
            context.tally.failed(error)?;
        }
    }
    Ok(())
}
