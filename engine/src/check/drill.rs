//! The restore drill: a random sample of paths is read as a restore would, and goes nowhere.
//!
//! Nodes and chunks come from the storage, never from a local cache, and each is compared with its
//! id. So a drill says of a few paths, at little cost, what restoring them would say.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use larder_format::attributes;
use larder_format::cell::{Cell, Source};
use larder_format::entry::{Attributes, Content, Entry, EntryType, Extent};
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkType, SessionId};
use larder_format::list::{ListChild, ListInterior, decode_list_leaf};
use larder_format::names;
use larder_format::node::{Interior, decode_leaf};

use super::context::Context;
use super::findings::{Damage, DraftId};
use super::nodes::Nodes;
use super::quick::note_view;
use super::walk::{CONTRADICTION, path_of};
use super::{CheckReport, Checked, Severity};
use crate::error::{EngineError, Result};
use crate::snapshots::clean_path;
use crate::source::living::Living;
use crate::view::{self, View};

/// Bytes of a hole that are compared with a living file at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Paths that a drill draws at most: what was drawn is kept in memory.
pub const SAMPLE_MAX: u64 = 1_000_000;

/// How a drill is made.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// Paths that are drawn, each once, unless there are fewer; at most [`SAMPLE_MAX`] of them.
    pub sample: u64,
    /// Decides which: the same seed draws the same paths of the same snapshots.
    pub seed: u64,
    /// Compares also with the files below this path that have the size and time they had.
    pub against: Option<PathBuf>,
    /// Records damaged packs as suspect.
    pub records_suspects: bool,
}

/// What a drill read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Drilled {
    /// The seed that drew the sample.
    pub seed: u64,
    /// Paths that were restored whole.
    pub paths: u64,
    /// Paths that could not be.
    pub failed: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Living files that were compared with it.
    pub compared: u64,
    /// Living files that have other bytes although they have the same size and time.
    pub differing: u64,
}

/// Draws a sample and restores it to nowhere, once.
pub(super) fn check_once(context: &Context<'_>, options: &DrillOptions) -> Result<Checked> {
    let repository = context.repository;
    let mut damage = Damage::new(repository.cache_dir());
    context.progress.phase("reading the index", None, None);
    let view = view::read(repository, true, None)?;
    note_view(&view, &mut damage);
    let against = options.against.as_ref();
    let against = against.map(|path| clean_path(path.as_os_str().as_bytes()));
    let drawn = candidates(&view, against.as_deref());
    let drawn = drawn.and_then(|candidates| {
        let snapshots = candidates.len() as u64;
        let drilled = restore_sample(context, options, candidates, against, &mut damage)?;
        Ok((drilled, snapshots))
    });
    // What was salvaged must not be deduplicated against afterwards.
    repository.index().drop_pending()?;
    let (drilled, snapshots) = drawn?;
    let damaged = damage.packs();
    let known = view.collection.suspects().copied().collect();
    Ok(Checked {
        report: CheckReport {
            findings: damage.into_findings(&known),
            snapshots,
            bytes_read: context.bytes_read(),
            drilled: Some(drilled),
            ..CheckReport::default()
        },
        seen: (!view.lacks_collection).then(|| view.collection.numbers()),
        damaged,
    })
}

fn restore_sample(
    context: &Context<'_>,
    options: &DrillOptions,
    candidates: Vec<Candidate<'_>>,
    against: Option<Vec<u8>>,
    damage: &mut Damage,
) -> Result<Drilled> {
    let progress = context.progress;
    let there = candidates.iter().map(|one| one.entries);
    let sample = options.sample.min(SAMPLE_MAX);
    let sample = sample.min(there.fold(0, u64::saturating_add));
    progress.phase("restoring a sample", Some(sample), None);
    let mut drill = Drill {
        context,
        damage,
        nodes: Nodes::new(context)?,
        malformed: BTreeMap::new(),
        against,
        drilled: Drilled {
            seed: options.seed,
            ..Drilled::default()
        },
    };
    let mut urn = Urn {
        candidates,
        dice: Dice::new(options.seed),
    };
    for _ in 0..sample {
        context.cancel.check()?;
        let Some((cell, source, number)) = urn.draw() else {
            break;
        };
        let bytes = drill.drilled.bytes;
        let is_whole = drill.restore(&Site { cell, source }, number)?;
        drill.drilled.paths += u64::from(is_whole);
        drill.drilled.failed += u64::from(!is_whole);
        progress.advance(1, drill.drilled.bytes - bytes);
    }
    Ok(drill.drilled)
}

/// A snapshot to draw from.
struct Candidate<'a> {
    cell: &'a Cell,
    sources: Vec<&'a Source>,
    /// Entries of all its sources.
    entries: u64,
    /// The numbers of those that were drawn.
    drawn: BTreeSet<u64>,
}

impl<'a> Candidate<'a> {
    fn new(cell: &'a Cell, sources: Vec<&'a Source>) -> Self {
        let entries = sources.iter().map(|source| source.entries);
        Self {
            cell,
            entries: entries.fold(0, u64::saturating_add),
            sources,
            drawn: BTreeSet::new(),
        }
    }

    /// Gives an entry by its number among those of all sources.
    fn nth(&self, mut number: u64) -> Option<(&'a Cell, &'a Source, u64)> {
        for source in &self.sources {
            if number < source.entries {
                return Some((self.cell, source, number));
            }
            number -= source.entries;
        }
        None
    }
}

/// Gives the snapshots to draw from, with their sources that have entries and, where that is asked for,
/// may have some below a path.
fn candidates<'a>(view: &'a View, against: Option<&[u8]>) -> Result<Vec<Candidate<'a>>> {
    let is_meant = |source: &&Source| {
        let path = clean_path(&source.path);
        source.entries > 0
            && against.is_none_or(|against| is_below(&path, against) || is_below(against, &path))
    };
    let cells = view.snapshots();
    let found =
        cells.map(|cell| Candidate::new(cell, cell.sources.iter().filter(is_meant).collect()));
    let found: Vec<Candidate<'a>> = found.filter(|one| one.entries > 0).collect();
    match against {
        Some(path) if found.is_empty() => Err(EngineError::Request(format!(
            "no snapshot has a source at, above or below {}; `larder snapshots` lists the sources",
            String::from_utf8_lossy(path)
        ))),
        _ => Ok(found),
    }
}

/// Tells whether a clean path is another one or below it.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// What is left to be drawn.
struct Urn<'a> {
    candidates: Vec<Candidate<'a>>,
    dice: Dice,
}

impl<'a> Urn<'a> {
    /// Draws a snapshot, then one of its entries that was not drawn yet; all entries of a snapshot are alike.
    fn draw(&mut self) -> Option<(&'a Cell, &'a Source, u64)> {
        let at = usize::try_from(self.dice.below(self.candidates.len() as u64)).ok()?;
        let candidate = self.candidates.get_mut(at)?;
        let mut number = self.dice.below(candidate.entries);
        while !candidate.drawn.insert(number) {
            number = self.dice.below(candidate.entries);
        }
        let entry = candidate.nth(number);
        if candidate.drawn.len() as u64 == candidate.entries {
            self.candidates.swap_remove(at);
        }
        entry
    }
}

/// Numbers that a seed decides.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(b"larder restore drill")
            .update(&seed.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    /// Gives a number below a limit; 0 if that is 0.
    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        let product = u128::from(u64::from_le_bytes(bytes)) * u128::from(limit);
        u64::try_from(product >> 64).unwrap_or_default()
    }
}

/// Whose tree is read.
struct Site<'a> {
    cell: &'a Cell,
    source: &'a Source,
}

/// The file that is read, and the living one beside it.
struct File<'a> {
    site: &'a Site<'a>,
    path: String,
    offset: u64,
    living: Option<Living>,
    is_same: bool,
}

struct Drill<'a, 'b> {
    context: &'a Context<'b>,
    damage: &'a mut Damage,
    nodes: Nodes<'a, 'b>,
    malformed: BTreeMap<SessionId, DraftId>,
    against: Option<Vec<u8>>,
    drilled: Drilled,
}

impl Drill<'_, '_> {
    /// Restores one entry to nowhere; tells whether all of it is there.
    fn restore(&mut self, site: &Site<'_>, number: u64) -> Result<bool> {
        let Some(entry) = self.entry(site, number)? else {
            return Ok(false);
        };
        let path = path_of(site.source, &entry.key);
        let mut file = File {
            site,
            offset: 0,
            living: self.living(site, &entry),
            is_same: true,
            path,
        };
        let mut is_whole = self.attributes(&file, &entry)?;
        is_whole &= self.content(&mut file, &entry)?;
        if is_whole && !entry.flags.unreadable && file.offset != entry.size && is_file(&entry) {
            is_whole = self.is_malformed(site, &CONTRADICTION, &file.path);
        }
        self.settle_living(&file, is_whole);
        Ok(is_whole)
    }

    /// Finds an entry by its number in the tree.
    fn entry(&mut self, site: &Site<'_>, number: u64) -> Result<Option<Entry>> {
        let (mut id, mut level, mut left) = (site.source.root, site.source.level, number);
        let root = path_of(site.source, b"");
        loop {
            let read = self
                .nodes
                .read(ChunkType::of_tree(level), &id, self.damage)?;
            let page = match read {
                Ok(page) => page,
                Err(blame) => {
                    self.suffer(site, &blame, &root);
                    return Ok(None);
                }
            };
            if level == 0 {
                return Ok(match decode_leaf(&page).map(|entries| nth(entries, left)) {
                    Ok(Some(entry)) => Some(entry),
                    Ok(None) => self.no_entry(site, &CONTRADICTION, &root),
                    Err(error) => self.no_entry(site, &error, &root),
                });
            }
            let node = match Interior::decode(&page) {
                Ok(node) if node.level == level => node,
                Ok(_) => return Ok(self.no_entry(site, &CONTRADICTION, &root)),
                Err(error) => return Ok(self.no_entry(site, &error, &root)),
            };
            let mut children = node.children.iter();
            let child = children.find(|child| {
                let is_here = left < child.entries;
                left -= if is_here { 0 } else { child.entries };
                is_here
            });
            match child {
                Some(child) => (id, level) = (child.id, level - 1),
                None => return Ok(self.no_entry(site, &CONTRADICTION, &root)),
            }
        }
    }

    fn no_entry(&mut self, site: &Site<'_>, error: &FormatError, path: &str) -> Option<Entry> {
        self.is_malformed(site, error, path);
        None
    }

    fn attributes(&mut self, file: &File<'_>, entry: &Entry) -> Result<bool> {
        let Attributes::OutOfLine(id) = &entry.attributes else {
            return Ok(true);
        };
        match self.nodes.read(ChunkType::Value, id, self.damage)? {
            Ok(record) => {
                let decoded = match entry.kind {
                    EntryType::Object => attributes::decode_properties(&record).map(drop),
                    _ => attributes::decode(&record).map(drop),
                };
                Ok(match decoded {
                    Ok(()) => true,
                    Err(error) => self.is_malformed(file.site, &error, &file.path),
                })
            }
            Err(blame) => {
                self.suffer(file.site, &blame, &file.path);
                Ok(false)
            }
        }
    }

    fn content(&mut self, file: &mut File<'_>, entry: &Entry) -> Result<bool> {
        match &entry.content {
            Content::None => Ok(true),
            Content::Whole(id) => self.data(file, id, entry.size),
            Content::Extents(extents) => self.extents(file, extents),
            Content::List { root, level } => {
                let root = ListChild {
                    id: *root,
                    bytes: entry.size,
                    extents: 0,
                };
                self.list(file, &root, *level)
            }
        }
    }

    /// Reads a node of a file's list and all below it.
    fn list(&mut self, file: &mut File<'_>, claim: &ListChild, level: u8) -> Result<bool> {
        let chunk_type = ChunkType::of_list(level);
        let page = match self.nodes.read(chunk_type, &claim.id, self.damage)? {
            Ok(page) => page,
            Err(blame) => {
                self.suffer(file.site, &blame, &file.path);
                file.offset = file.offset.saturating_add(claim.bytes);
                return Ok(false);
            }
        };
        let contradiction = |sum: u64| (sum != claim.bytes).then_some(CONTRADICTION);
        if level == 0 {
            let extents = decode_list_leaf(&page).and_then(|extents| {
                let sum = extents.iter().map(Extent::length);
                contradiction(sum.fold(0, u64::saturating_add)).map_or(Ok(extents), Err)
            });
            return match extents {
                Ok(extents) => self.extents(file, &extents),
                Err(error) => Ok(self.is_malformed(file.site, &error, &file.path)),
            };
        }
        let node = ListInterior::decode(&page).and_then(|node| {
            let sum = node.children.iter().map(|child| child.bytes);
            let sum = sum.fold(0, u64::saturating_add);
            let is_right = node.level == level && sum == claim.bytes;
            is_right.then_some(node).ok_or(CONTRADICTION)
        });
        match node {
            Ok(node) => {
                let mut is_whole = true;
                for child in &node.children {
                    is_whole &= self.list(file, child, level.saturating_sub(1))?;
                }
                Ok(is_whole)
            }
            Err(error) => Ok(self.is_malformed(file.site, &error, &file.path)),
        }
    }

    fn extents(&mut self, file: &mut File<'_>, extents: &[Extent]) -> Result<bool> {
        let mut is_whole = true;
        for extent in extents {
            match extent {
                Extent::Data { id, length } => is_whole &= self.data(file, id, *length)?,
                Extent::Hole { length } => self.hole(file, *length)?,
            }
        }
        Ok(is_whole)
    }

    fn data(&mut self, file: &mut File<'_>, id: &ChunkId, length: u64) -> Result<bool> {
        self.context.cancel.check()?;
        let offset = file.offset;
        file.offset = offset.saturating_add(length);
        match self.nodes.read(ChunkType::Data, id, self.damage)? {
            Ok(chunk) if chunk.len() as u64 == length => {
                self.drilled.bytes += length;
                file.compare(offset, &chunk);
                Ok(true)
            }
            Ok(_) => Ok(self.is_malformed(file.site, &CONTRADICTION, &file.path)),
            Err(blame) => {
                self.suffer(file.site, &blame, &file.path);
                Ok(false)
            }
        }
    }

    fn hole(&mut self, file: &mut File<'_>, length: u64) -> Result<()> {
        let end = file.offset.saturating_add(length);
        let mut at = file.offset;
        while at < end && file.living.is_some() && file.is_same {
            self.context.cancel.check()?;
            let piece = usize::try_from(end - at).unwrap_or(usize::MAX);
            let zeros = ZEROS.get(..piece).unwrap_or(&ZEROS);
            file.compare(at, zeros);
            at += zeros.len() as u64;
        }
        file.offset = end;
        Ok(())
    }

    /// Opens the living file of an entry, where that is asked for and it looks unchanged.
    fn living(&self, site: &Site<'_>, entry: &Entry) -> Option<Living> {
        let root = clean_path(&site.source.path);
        let path = match entry.key.as_slice() {
            b"" => root,
            key => [root.strip_suffix(b"/").unwrap_or(&root), b"/", key].concat(),
        };
        let is_wanted = self
            .against
            .as_ref()
            .is_some_and(|against| is_below(&path, against));
        let is_readable = is_wanted && !entry.flags.unreadable && entry.kind == EntryType::File;
        is_readable.then(|| Living::open(&path, entry)).flatten()
    }

    /// Reports a living file that looks unchanged and has other bytes.
    fn settle_living(&mut self, file: &File<'_>, is_whole: bool) {
        let Some(living) = &file.living else {
            return;
        };
        if !is_whole || !living.is_unchanged() {
            return;
        }
        self.drilled.compared += 1;
        if !file.is_same {
            self.drilled.differing += 1;
            let problem = "the file there now has other bytes, though its size and time are the same: either of the two is not what was backed up";
            let cell = &file.site.cell.id;
            let draft = self.damage.add(Severity::Loss, names::cell(cell), problem);
            self.damage.suffer(draft, cell, Some(&file.path));
        }
    }

    fn suffer(&mut self, site: &Site<'_>, blame: &[DraftId], path: &str) {
        for draft in blame {
            self.damage.suffer(*draft, &site.cell.id, Some(path));
        }
    }

    /// Reports what opens and contradicts the format or itself; gives false.
    fn is_malformed(&mut self, site: &Site<'_>, error: &FormatError, path: &str) -> bool {
        let id = site.cell.id;
        let damage = &mut *self.damage;
        let draft = *self
            .malformed
            .entry(id)
            .or_insert_with(|| damage.add_malformed(&id, error));
        self.damage.suffer(draft, &id, Some(path));
        false
    }
}

impl File<'_> {
    fn compare(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(living) = &mut self.living
            && self.is_same
        {
            match living.has(offset, bytes) {
                Ok(is_same) => self.is_same = is_same,
                // What cannot be read is not compared.
                Err(_) => self.living = None,
            }
        }
    }
}

fn is_file(entry: &Entry) -> bool {
    matches!(entry.content, Content::Extents(_) | Content::List { .. })
}

fn nth(entries: Vec<Entry>, number: u64) -> Option<Entry> {
    entries.into_iter().nth(usize::try_from(number).ok()?)
}
