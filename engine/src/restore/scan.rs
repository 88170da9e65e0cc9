//! Going through a tree in order: what is selected, and what of it cannot be read.

use larder_format::entry::{Entry, EntryType};
use larder_format::tree::read::{Cursor, Gap};

use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::storage::bucket::is_cold;

use super::objects::{Mapped, Mapping};
use super::planner::Planner;
use super::roots::Root;
use super::select::{Choice, Verdict};
use super::tally::is_damage;

/// Why entries are missing that a repair could not read.
pub(super) const LEFT_OUT: &str = "they were in a part of the tree that a repair found nowhere";

/// One root that is gone through.
pub(super) struct Scan<'a, 'b> {
    pub planner: &'b mut Planner<'a>,
    pub root: &'b Root,
    /// The root's number, which tells hard links of different roots apart.
    pub number: u64,
    pub choice: &'b Choice,
    /// Directories from the root down that are made once something in them is selected.
    above: Vec<Entry>,
    /// The directory that was made new last: nothing can be in it yet.
    new: Option<Vec<u8>>,
    /// Whether directories may be missing in the tree because it is damaged.
    has_gaps: bool,
    /// Which files objects become.
    mapping: Mapping,
    /// The folder of the last object that is restored, and that of the last one at all.
    folder: Vec<u8>,
    met: Vec<u8>,
}

impl<'a, 'b> Scan<'a, 'b> {
    pub(super) fn new(
        planner: &'b mut Planner<'a>,
        root: &'b Root,
        number: u64,
        choice: &'b Choice,
    ) -> Self {
        Self {
            planner,
            root,
            number,
            choice,
            above: Vec::new(),
            new: None,
            has_gaps: false,
            mapping: Mapping::default(),
            folder: Vec::new(),
            met: Vec::new(),
        }
    }

    /// Goes through everything of the root.
    pub(super) fn run(mut self, reader: &mut ChunkReader) -> Result<()> {
        let root = self.root;
        for gap in &root.lost {
            self.miss(gap, LEFT_OUT);
        }
        let mut cursor = Cursor::new(reader, &self.root.tree);
        if !self.skip_to(&mut cursor, &self.root.prefix)? {
            return Ok(());
        }
        loop {
            self.planner.context.cancel.check()?;
            let entry = match cursor.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(error) => match self.pass(&mut cursor, error)? {
                    true => continue,
                    false => return Ok(()),
                },
            };
            let inside = if self.root.single {
                entry.key == self.root.prefix
            } else {
                entry.key.starts_with(&self.root.prefix)
            };
            if !inside {
                return Ok(());
            }
            if entry.ordinal != 0 {
                continue;
            }
            if let Some(past) = self.entry(entry)?
                && !self.skip_to(&mut cursor, &past)?
            {
                return Ok(());
            }
        }
    }

    fn skip_to(&mut self, cursor: &mut Cursor<&mut ChunkReader>, key: &[u8]) -> Result<bool> {
        loop {
            match cursor.skip_to(key) {
                Ok(()) => return Ok(true),
                Err(error) => {
                    if !self.pass(cursor, error)? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Goes on behind a node that cannot be read; false if all behind it is outside of the root.
    fn pass(&mut self, cursor: &mut Cursor<&mut ChunkReader>, error: EngineError) -> Result<bool> {
        if !is_damage(&error) {
            return Err(error);
        }
        let Some(gap) = cursor.go_on() else {
            return Err(error);
        };
        let prefix = &self.root.prefix;
        if gap.from > *prefix && !gap.from.starts_with(prefix) {
            return Ok(false);
        }
        self.has_gaps = true;
        self.miss(&gap, &error.to_string());
        Ok(true)
    }

    /// Says what of the root is missing.
    fn miss(&mut self, gap: &Gap, why: &str) {
        self.planner.has_gaps = true;
        let why = format!("{}: {why}", self.shown(gap));
        let from = self.place(&gap.from);
        let entries = gap.entries.max(1);
        self.planner.context.tally.lost(&from, &why, entries);
    }

    fn shown(&self, gap: &Gap) -> String {
        let entries = gap.entries;
        match &gap.to {
            Some(to) => {
                let to = self.place(to);
                let to = crate::target::error::Escaped(&to);
                format!("{entries} entries from here to before {to} are lost")
            }
            None => format!("{entries} entries from here on are lost"),
        }
    }

    /// Gives the key in the target that a key of the tree gets.
    fn place(&self, key: &[u8]) -> Vec<u8> {
        let rest = key.strip_prefix(self.root.prefix.as_slice());
        [&self.root.place, rest.unwrap_or_default()].concat()
    }

    /// Plans an entry; gives where to go on if all below it is to be left out.
    fn entry(&mut self, mut entry: Entry) -> Result<Option<Vec<u8>>> {
        let below = entry
            .key
            .get(self.root.prefix.len()..)
            .unwrap_or_default()
            .to_vec();
        let original = std::mem::take(&mut entry.key);
        entry.key = self.place(&original);
        entry.ordinal = self.number;
        let is_directory = entry.kind == EntryType::Directory;
        if let Err(error) = entry.check() {
            // Its key grew past the limit with the place it gets.
            let tally = &self.planner.context.tally;
            tally.issue(&entry.key, &error.to_string(), 1);
            return Ok(is_directory.then(|| past(original)));
        }
        if entry.kind == EntryType::Object {
            return self.object(&below, entry).map(|()| None);
        }
        while let Some(last) = self.above.last()
            && !entry.key.starts_with(&last.key)
        {
            self.above.pop();
        }
        let verdict = if self.root.single {
            Verdict::Selected
        } else {
            self.choice.verdict(&below)
        };
        match verdict {
            Verdict::Excluded if is_directory && !below.is_empty() => Ok(Some(past(original))),
            Verdict::Excluded => Ok(None),
            Verdict::OnlyAsParent => {
                if is_directory {
                    self.above.push(entry);
                }
                Ok(None)
            }
            Verdict::Selected => {
                for directory in std::mem::take(&mut self.above) {
                    if !self.directory(directory)? {
                        return Ok(None);
                    }
                }
                if self.has_gaps && !self.planner.parents(&entry.key)? {
                    return Ok(is_directory.then(|| past(original)));
                }
                if is_directory {
                    let is_made = self.directory(entry)?;
                    return Ok((!is_made).then(|| past(original)));
                }
                let is_new = self.is_in_new(&entry.key);
                self.planner.leaf(entry, is_new)?;
                Ok(None)
            }
        }
    }

    /// Plans the file that an object becomes.
    fn object(&mut self, below: &[u8], entry: Entry) -> Result<()> {
        let name = if self.root.single { &entry.key } else { below };
        let mapped = self.mapping.map(name, entry.size);
        if let Mapped::Refused(why) = &mapped {
            self.planner.context.tally.refused(&entry.key, why);
            return Ok(());
        }
        let slash = entry.key.iter().rposition(|byte| *byte == b'/');
        let folder = slash.and_then(|slash| entry.key.get(..=slash));
        let folder = folder.unwrap_or_default().to_vec();
        if folder != self.met {
            self.planner.implied_folders(&folder, self.number)?;
            self.met.clone_from(&folder);
        }
        let is_wanted = self.root.single || self.choice.verdict(below) == Verdict::Selected;
        if !is_wanted || mapped == Mapped::Target {
            return Ok(());
        }
        if folder != self.folder {
            if !self.planner.parents(&[&folder[..], b"x"].concat())? {
                return Ok(());
            }
            self.folder = folder;
        }
        match mapped {
            Mapped::File if entry.flags.unreadable && is_cold(&entry.class) => {
                self.planner.context.tally.cold();
                self.planner.keep(&entry.key)
            }
            Mapped::File => self.planner.leaf(as_file(entry), false),
            _ => Ok(()),
        }
    }

    fn directory(&mut self, entry: Entry) -> Result<bool> {
        let is_in_new = self.is_in_new(&entry.key);
        let key = entry.key.clone();
        let made = self.planner.directory(entry, is_in_new)?;
        if made == Some(true) && !is_in_new {
            self.new = Some(key);
        }
        Ok(made.is_some())
    }

    fn is_in_new(&self, key: &[u8]) -> bool {
        self.new.as_ref().is_some_and(|new| key.starts_with(new))
    }
}

/// Gives the file that an object becomes: it belongs to whoever restores it.
fn as_file(object: Entry) -> Entry {
    Entry {
        key: object.key,
        ordinal: object.ordinal,
        kind: EntryType::File,
        size: object.size,
        mode: 0o644,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: object.mtime,
        links: 1,
        flags: object.flags,
        content: object.content,
        ..Entry::default()
    }
}

/// Gives the first key behind everything in a directory; the source itself has nothing behind.
fn past(mut directory: Vec<u8>) -> Vec<u8> {
    match directory.last_mut() {
        Some(last) => *last = b'/' + 1,
        None => directory = vec![0xff; 2],
    }
    directory
}
