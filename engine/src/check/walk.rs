//! Every snapshot's trees, down to the places of their chunks.
//!
//! A node is read once, whichever snapshots share it: of a node below which everything is there,
//! that is remembered. One with damage below is walked again in each snapshot, so that all paths
//! and snapshots that suffer are known after one walk.
//!
//! What files say of their chunks is written down and compared with the index at the end, from end to end
//! and not chunk by chunk. Only where something is missing the trees are walked again, to tell what suffers.
//!
//! The index knows half of each id. What else may have an id that begins alike is told apart by what packs were found to
//! hold when they were opened; and where two files mean two chunks that begin alike, these are read.

use std::collections::{BTreeMap, HashSet};

use larder_format::attributes;
use larder_format::cell::{Cell, Source};
use larder_format::entry::{Attributes, Content, Entry, Extent};
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkPrefix, ChunkType, SessionId};
use larder_format::limits::INLINE_EXTENTS;
use larder_format::list::{ListChild, ListInterior, decode_list_leaf};
use larder_format::names;
use larder_format::node::{Child, Interior, decode_leaf};
use larder_format::tree::read::{check_interior, check_leaf};

use super::Severity;
use super::context::Context;
use super::findings::{Damage, DraftId};
use super::nodes::Nodes;
use super::opened::{HELD, Opened};
use crate::error::Result;
use crate::index::{PackKind, Place};
use crate::mark::Marks;
use crate::scratch::ScratchMap;
use crate::scratch::runs::Sorter;
use crate::snapshots::lost;
use crate::view::View;

/// Memory of each set of what was seen, before it goes to disk.
const SEEN_BYTES: usize = 6 << 20;

/// What was walked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Walked {
    pub snapshots: u64,
    pub nodes: u64,
    pub chunks: u64,
}

/// Walks every snapshot that is not forgotten, and the checkpoints that no later one replaces.
pub(super) fn check(
    context: &Context<'_>,
    view: &View,
    opened: &Opened,
    damage: &mut Damage,
) -> Result<Walked> {
    let live: Vec<&Cell> = view
        .live()
        .iter()
        .filter_map(|id| view.cells.get(id))
        .collect();
    let progress = context.progress;
    progress.phase("checking snapshots", Some(live.len() as u64), None);
    note_lost(&live, damage);
    let mut malformed = BTreeMap::new();
    let scratch = context.repository.cache_dir();
    let claims = Claims::Taken(Sorter::new(scratch, CLAIMS_BYTES));
    let mut walk = Walk::new(context, damage, claims)?;
    walk.snapshots(&live, &mut malformed)?;
    let (claims, mut walked, damage) = (walk.claims, walk.walked, walk.damage);
    let mut doubts = ScratchMap::new(scratch, DOUBTS_BYTES);
    let (chunks, all_placed) = match claims {
        Claims::Taken(claims) => place(context, damage, opened, claims, &mut doubts)?,
        Claims::Doubted(_) => (0, true),
    };
    walked.chunks += chunks;
    if all_placed {
        return Ok(walked);
    }
    progress.phase("telling what suffers", Some(live.len() as u64), None);
    let mut walk = Walk::new(context, damage, Claims::Doubted(doubts))?;
    walk.snapshots(&live, &mut malformed)?;
    walk.walked.chunks += chunks;
    Ok(walk.walked)
}

/// Notes what repairs left out of snapshots.
fn note_lost(cells: &[&Cell], damage: &mut Damage) {
    for cell in cells {
        let entries = lost::entries(cell);
        if entries > 0 {
            let problem = format!(
                "it has what a repair found of a damaged snapshot, and lacks {entries} of its entries; restores name them"
            );
            let note = damage.add(Severity::Note, names::cell(&cell.id), problem);
            damage.concerns(note, &cell.id);
        }
    }
}

/// Bytes of a claim, which is what a file says of a chunk: its id, and its length, big-endian.
const CLAIM: usize = HELD + 4;
/// Memory of the claims, before they go to disk.
const CLAIMS_BYTES: usize = 16 << 20;
/// Memory of the claims that are in doubt, before they go to disk.
const DOUBTS_BYTES: usize = 4 << 20;

/// What is done with what files say of their chunks.
enum Claims {
    /// It is written down.
    Taken(Sorter<CLAIM>),
    /// It was compared with the index: a [`Doubt`] of each that is not there for certain.
    Doubted(ScratchMap),
}

/// What is known of a chunk that is not there for certain, as it stands beside the claim.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Doubt {
    /// No place holds it.
    Lost = 0,
    /// A place holds it or one whose id begins alike, which some file means.
    Contested = 1,
    /// It was read.
    Read = 2,
}

/// Compares claims with the index and with what was opened, and takes down which are in doubt; gives how many chunks they
/// are of, and whether none is.
fn place(
    context: &Context<'_>,
    damage: &Damage,
    opened: &Opened,
    claims: Sorter<CLAIM>,
    doubts: &mut ScratchMap,
) -> Result<(u64, bool)> {
    let marks = Marks::of(claims.finish()?, 0);
    let (mut chunks, mut all) = (0, true);
    let mut found = opened.chunks()?;
    marks.join(context.repository.index(), |prefix, places, claims| {
        let held: &[[u8; HELD]] = match claims.is_empty() {
            true => &[],
            false => found.of(prefix)?,
        };
        let mut ids: Vec<&[u8]> = claims.iter().filter_map(|one| one.get(..HELD)).collect();
        ids.dedup();
        for claim in claims {
            chunks += 1;
            let spot = Spot {
                prefix,
                places,
                held,
                is_contested: ids.len() > 1,
            };
            if let Some(doubt) = spot.doubt(damage, opened, claim)? {
                all = false;
                doubts.insert(claim, &[doubt as u8])?;
            }
        }
        Ok(())
    })?;
    Ok((chunks, all))
}

/// What is known of a prefix.
struct Spot<'a> {
    prefix: &'a ChunkPrefix,
    places: &'a [Place],
    /// Chunks of files in opened packs.
    held: &'a [[u8; HELD]],
    /// Whether files mean several chunks.
    is_contested: bool,
}

impl Spot<'_> {
    /// Tells what there is to doubt about a claim; nothing if one of the places holds its chunk, as far as is known.
    fn doubt(
        &self,
        damage: &Damage,
        opened: &Opened,
        claim: &[u8; CLAIM],
    ) -> Result<Option<Doubt>> {
        let is_held = self.held.iter().any(|held| claim.starts_with(held));
        let mut doubt = Doubt::Lost;
        for place in self.places.iter().filter(|at| is_it(at, length_of(claim))) {
            if !damage.holds(self.prefix, place)? {
                continue;
            }
            match opened.has(&place.pack) {
                true if is_held => return Ok(None),
                true => {}
                false if self.is_contested => doubt = Doubt::Contested,
                false => return Ok(None),
            }
        }
        Ok(Some(doubt))
    }
}

/// Tells whether a place is that of a chunk of a file with this length.
fn is_it(place: &Place, length: u64) -> bool {
    place.pack_kind == PackKind::Data && u64::from(place.length) == length
}

fn length_of(claim: &[u8; CLAIM]) -> u64 {
    claim
        .last_chunk()
        .map_or(0, |length| u64::from(u32::from_be_bytes(*length)))
}

/// Gives what a file says of a chunk; nothing if no chunk is that long.
fn claim_of(id: &ChunkId, length: u64) -> Option<[u8; CLAIM]> {
    let length = u32::try_from(length).ok()?.to_be_bytes();
    let mut claim = [0; CLAIM];
    let bytes = id.0.into_iter().chain(length);
    for (to, from) in claim.iter_mut().zip(bytes) {
        *to = from;
    }
    Some(claim)
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(context: &'a Context<'b>, damage: &'a mut Damage, claims: Claims) -> Result<Self> {
        let scratch = context.repository.cache_dir();
        Ok(Self {
            context,
            damage,
            nodes: Nodes::new(context)?,
            seen_nodes: ScratchMap::new(scratch, SEEN_BYTES),
            seen_values: ScratchMap::new(scratch, SEEN_BYTES),
            claims,
            damaged_lists: HashSet::new(),
            walked: Walked::default(),
        })
    }

    /// Walks the trees of snapshots; `malformed` has the findings about those whose nodes contradict each other.
    fn snapshots(
        &mut self,
        cells: &[&Cell],
        malformed: &mut BTreeMap<SessionId, DraftId>,
    ) -> Result<()> {
        for cell in cells {
            self.snapshot(cell, malformed)?;
            self.walked.snapshots += 1;
            self.context.progress.advance(1, 0);
        }
        Ok(())
    }

    fn snapshot(
        &mut self,
        cell: &Cell,
        malformed: &mut BTreeMap<SessionId, DraftId>,
    ) -> Result<()> {
        for source in &cell.sources {
            let mut place = Site {
                cell,
                source,
                malformed: &mut *malformed,
            };
            let root = Claim {
                id: source.root,
                level: source.level,
                entries: source.entries,
                bytes: source.bytes,
                rank: 0,
                lower: (&[], 0),
                upper: None,
                is_root: true,
            };
            self.tree(&mut place, &root)?;
        }
        Ok(())
    }
}

struct Walk<'a, 'b> {
    context: &'a Context<'b>,
    damage: &'a mut Damage,
    nodes: Nodes<'a, 'b>,
    /// Where everything below a node is there, what was said of it above, by id: another node may say something else of it.
    seen_nodes: ScratchMap,
    /// 1 where a value can be read, else 0, by id.
    seen_values: ScratchMap,
    /// What files say of their chunks.
    claims: Claims,
    /// Nodes of this file's list with damage below: a list may repeat itself.
    damaged_lists: HashSet<ChunkId>,
    walked: Walked,
}

/// Bits of what is known of a node of a list: everything below it is there; it starts, and it ends in a hole.
const CLEAN: u8 = 1;
const STARTS_IN_HOLE: u8 = 2;
const ENDS_IN_HOLE: u8 = 4;

/// What stands in a node of a list.
enum Items {
    Extents(Vec<Extent>),
    Nodes(Vec<ListChild>),
}

impl Items {
    /// Tells whether they are what is said of them above.
    fn fit(&self, claim: &ListChild, is_root: bool) -> bool {
        let sum = |sum: Option<u64>, more: u64| sum.and_then(|sum| sum.checked_add(more));
        let (bytes, extents) = match self {
            Self::Extents(extents) => {
                let bytes = extents.iter().map(Extent::length).fold(Some(0), sum);
                (bytes, Some(extents.len() as u64))
            }
            Self::Nodes(nodes) => (
                nodes.iter().map(|node| node.bytes).fold(Some(0), sum),
                nodes.iter().map(|node| node.extents).fold(Some(0), sum),
            ),
        };
        let is_long = extents.is_some_and(|extents| match is_root {
            true => extents > INLINE_EXTENTS as u64,
            false => extents == claim.extents,
        });
        let is_alone = is_root && matches!(self, Self::Nodes(nodes) if nodes.len() == 1);
        bytes == Some(claim.bytes) && is_long && !is_alone
    }
}

/// Whose tree is walked.
struct Site<'a> {
    cell: &'a Cell,
    source: &'a Source,
    /// The findings about snapshots whose nodes contradict each other.
    malformed: &'a mut BTreeMap<SessionId, DraftId>,
}

/// What is said of a node above it.
struct Claim<'a> {
    id: ChunkId,
    level: u8,
    entries: u64,
    bytes: u64,
    /// The boundary rank of its last key.
    rank: u8,
    /// No key is below this one.
    lower: (&'a [u8], u64),
    /// All keys are below this one.
    upper: Option<(&'a [u8], u64)>,
    is_root: bool,
}

impl Walk<'_, '_> {
    /// Walks a node of a tree and all below it; tells whether everything is there.
    fn tree(&mut self, site: &mut Site<'_>, claim: &Claim<'_>) -> Result<bool> {
        let mark = claim.mark();
        if self.seen(&claim.id)?.as_deref() == Some(&mark) {
            return Ok(true);
        }
        let chunk_type = ChunkType::of_tree(claim.level);
        let page = match self.nodes.read(chunk_type, &claim.id, self.damage)? {
            Ok(page) => page,
            Err(blame) => {
                self.suffer(site, &blame, &lost_range(site.source, claim));
                return self.forget(&claim.id);
            }
        };
        let clean = if claim.level == 0 {
            match decode_leaf(&page) {
                Ok(entries) => self.leaf(site, claim, &entries)?,
                Err(error) => self.malformed(site, &error, &lost_range(site.source, claim)),
            }
        } else {
            match Interior::decode(&page) {
                Ok(node) => self.interior(site, claim, &node)?,
                Err(error) => self.malformed(site, &error, &lost_range(site.source, claim)),
            }
        };
        if !clean {
            return self.forget(&claim.id);
        }
        self.seen_nodes.insert(&claim.id.0, &mark)?;
        Ok(true)
    }

    fn leaf(&mut self, site: &mut Site<'_>, claim: &Claim<'_>, entries: &[Entry]) -> Result<bool> {
        let checked = check_leaf(entries, &claim.child(), claim.upper, claim.is_root);
        let mut clean = match checked {
            Ok(()) => true,
            Err(error) => self.malformed(site, &error, &lost_range(site.source, claim)),
        };
        for entry in entries {
            clean &= self.content(site, entry)?;
            if let Attributes::OutOfLine(id) = &entry.attributes {
                clean &= self.value(site, id, &entry.key)?;
            }
        }
        Ok(clean)
    }

    fn interior(
        &mut self,
        site: &mut Site<'_>,
        claim: &Claim<'_>,
        node: &Interior,
    ) -> Result<bool> {
        let (upper, is_root) = (claim.upper, claim.is_root);
        if let Err(error) = check_interior(node, &claim.child(), claim.level, upper, is_root) {
            // Going below could take for ever: somebody hostile may have written it.
            return Ok(self.malformed(site, &error, &lost_range(site.source, claim)));
        }
        let mut clean = true;
        let separators = node.children.iter().skip(1).map(separator);
        let uppers = separators.map(Some).chain([claim.upper]);
        for (child, upper) in node.children.iter().zip(uppers) {
            let below = Claim {
                id: child.id,
                level: claim.level.saturating_sub(1),
                entries: child.entries,
                bytes: child.bytes,
                rank: child.rank,
                lower: separator(child),
                upper,
                is_root: false,
            };
            clean &= self.tree(site, &below)?;
        }
        Ok(clean)
    }

    fn content(&mut self, site: &mut Site<'_>, entry: &Entry) -> Result<bool> {
        match &entry.content {
            Content::None => Ok(true),
            Content::Whole(id) => self.data(site, id, entry.size, &entry.key),
            Content::Extents(extents) => self.extents(site, extents, &entry.key),
            Content::List { root, level } => {
                let root = ListChild {
                    id: *root,
                    bytes: entry.size,
                    extents: 0,
                };
                self.damaged_lists.clear();
                let seen = self.list(site, &root, *level, true, &entry.key)?;
                Ok(seen & CLEAN != 0)
            }
        }
    }

    fn extents(&mut self, site: &mut Site<'_>, extents: &[Extent], key: &[u8]) -> Result<bool> {
        let mut clean = true;
        for extent in extents {
            if let Extent::Data { id, length } = extent {
                clean &= self.data(site, id, *length, key)?;
            }
        }
        Ok(clean)
    }

    /// Walks a node of a file's list and all below it; gives whether everything is there, and where it has holes.
    fn list(
        &mut self,
        site: &mut Site<'_>,
        claim: &ListChild,
        level: u8,
        is_root: bool,
        key: &[u8],
    ) -> Result<u8> {
        let mark = mark_of_list(claim, is_root);
        let known = self.seen(&claim.id)?;
        if let Some((seen, known)) = known.as_deref().and_then(<[u8]>::split_last)
            && known == mark
        {
            return Ok(*seen);
        }
        if self.damaged_lists.contains(&claim.id) {
            return Ok(0);
        }
        let chunk_type = ChunkType::of_list(level);
        let page = match self.nodes.read(chunk_type, &claim.id, self.damage)? {
            Ok(page) => page,
            Err(blame) => {
                self.suffer(site, &blame, &path_of(site.source, key));
                self.forget(&claim.id)?;
                return Ok(0);
            }
        };
        let decoded = match level {
            0 => decode_list_leaf(&page).map(Items::Extents),
            _ => ListInterior::decode(&page).and_then(|node| match node.level == level {
                true => Ok(Items::Nodes(node.children)),
                false => Err(CONTRADICTION),
            }),
        };
        let seen = match decoded {
            Ok(items) => {
                let fits = items.fit(claim, is_root);
                let path = path_of(site.source, key);
                let fits = fits || self.malformed(site, &CONTRADICTION, &path);
                let seen = self.items(site, &items, level, key)?;
                if fits { seen } else { seen & !CLEAN }
            }
            Err(error) => {
                self.malformed(site, &error, &path_of(site.source, key));
                0
            }
        };
        if seen & CLEAN == 0 {
            self.damaged_lists.insert(claim.id);
            self.forget(&claim.id)?;
            return Ok(0);
        }
        let known = [mark.as_slice(), &[seen]].concat();
        self.seen_nodes.insert(&claim.id.0, &known)?;
        Ok(seen)
    }

    /// Walks what stands in a node of a list.
    fn items(&mut self, site: &mut Site<'_>, items: &Items, level: u8, key: &[u8]) -> Result<u8> {
        let children = match items {
            Items::Extents(extents) => {
                let clean = self.extents(site, extents, key)?;
                let is_hole = |extent: Option<&Extent>| matches!(extent, Some(Extent::Hole { .. }));
                let (starts, ends) = (is_hole(extents.first()), is_hole(extents.last()));
                return Ok(u8::from(clean) | u8::from(starts) << 1 | u8::from(ends) << 2);
            }
            Items::Nodes(children) => children,
        };
        let (mut clean, mut starts, mut before) = (CLEAN, None, 0);
        for child in children {
            let seen = self.list(site, child, level.saturating_sub(1), false, key)?;
            if before & ENDS_IN_HOLE != 0 && seen & STARTS_IN_HOLE != 0 {
                self.malformed(site, &CONTRADICTION, &path_of(site.source, key));
                clean = 0;
            }
            clean &= seen;
            starts = starts.or(Some(seen & STARTS_IN_HOLE));
            before = seen;
        }
        Ok(clean | starts.unwrap_or(0) | (before & ENDS_IN_HOLE))
    }

    /// Tells whether a chunk of a file has a usable place, as far as that is known by now.
    fn data(&mut self, site: &mut Site<'_>, id: &ChunkId, length: u64, key: &[u8]) -> Result<bool> {
        let claim = claim_of(id, length);
        let doubt = match (&mut self.claims, claim) {
            (Claims::Taken(claims), Some(claim)) => {
                claims.push(claim)?;
                return Ok(true);
            }
            (Claims::Doubted(doubts), Some(claim)) => doubts.get(&claim)?,
            (_, None) => Some(vec![Doubt::Lost as u8]),
        };
        let is = |doubt: &Option<Vec<u8>>, kind: Doubt| doubt.as_deref() == Some(&[kind as u8]);
        if doubt.is_none() || is(&doubt, Doubt::Read) {
            return Ok(true);
        }
        let blame = match is(&doubt, Doubt::Contested) {
            true => self.nodes.read(ChunkType::Data, id, self.damage)?.err(),
            false => {
                let mut places = self.context.repository.index().lookup(&id.prefix())?;
                places.retain(|place| is_it(place, length));
                Some(self.damage.blame(&places, &format!("the chunk {id}")))
            }
        };
        let Some(blame) = blame else {
            if let (Claims::Doubted(doubts), Some(claim)) = (&mut self.claims, claim) {
                doubts.insert(&claim, &[Doubt::Read as u8])?;
            }
            return Ok(true);
        };
        self.suffer(site, &blame, &path_of(site.source, key));
        Ok(false)
    }

    /// Reads the attributes that an entry keeps out of line.
    fn value(&mut self, site: &mut Site<'_>, id: &ChunkId, key: &[u8]) -> Result<bool> {
        let seen_key = id.0;
        let seen = self.seen_values.get(&seen_key)?;
        if seen.as_deref() == Some(&[1]) {
            return Ok(true);
        }
        let read = self.nodes.read(ChunkType::Value, id, self.damage)?;
        let clean = match read {
            // Which of the two forms it has to have, the entry says, which is not at hand here.
            Ok(record) => match attributes::decode_properties(&record)
                .or_else(|_| attributes::decode(&record))
            {
                Ok(_) => true,
                Err(error) => self.malformed(site, &error, &path_of(site.source, key)),
            },
            Err(blame) => {
                self.suffer(site, &blame, &path_of(site.source, key));
                false
            }
        };
        if seen.is_none() {
            self.walked.chunks += 1;
            self.seen_values.insert(&seen_key, &[u8::from(clean)])?;
        }
        Ok(clean)
    }

    fn suffer(&mut self, site: &Site<'_>, blame: &[DraftId], path: &str) {
        for draft in blame {
            self.damage.suffer(*draft, &site.cell.id, Some(path));
        }
    }

    /// Reports nodes that open and contradict the format or each other; gives false.
    fn malformed(&mut self, site: &mut Site<'_>, error: &FormatError, path: &str) -> bool {
        let draft = site.malformed.entry(site.cell.id);
        let draft = *draft.or_insert_with(|| self.damage.add_malformed(&site.cell.id, error));
        self.damage.suffer(draft, &site.cell.id, Some(path));
        false
    }

    /// Gives what was remembered of a node, which counts once.
    fn seen(&mut self, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        self.context.cancel.check()?;
        let seen = self.seen_nodes.get(&id.0)?;
        if seen.is_none() {
            self.walked.nodes += 1;
        }
        Ok(seen)
    }

    /// Remembers nothing of a node but that it was counted, since something below it is damaged; gives false.
    fn forget(&mut self, id: &ChunkId) -> Result<bool> {
        self.seen_nodes.insert(&id.0, &[])?;
        Ok(false)
    }
}

/// What a node is that does not keep what is said of it.
pub(super) const CONTRADICTION: FormatError = FormatError::Malformed {
    what: "tree",
    at: 0,
    why: "a node is not what is said of it above",
};

/// Gives what tells apart what is said of a node of a list.
fn mark_of_list(claim: &ListChild, is_root: bool) -> [u8; 17] {
    let mut mark = [0; 17];
    let parts = [claim.bytes.to_le_bytes(), claim.extents.to_le_bytes()];
    let bytes = parts.into_iter().flatten().chain([u8::from(is_root)]);
    for (to, from) in mark.iter_mut().zip(bytes) {
        *to = from;
    }
    mark
}

impl Claim<'_> {
    /// Gives what tells it apart from what else may be said of the node.
    fn mark(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[self.level, self.rank, u8::from(self.is_root)]);
        for number in [self.entries, self.bytes] {
            hasher.update(&number.to_le_bytes());
        }
        for (key, ordinal) in [Some(self.lower), self.upper].into_iter().flatten() {
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(key).update(&ordinal.to_le_bytes());
        }
        hasher.finalize().into()
    }

    /// Gives it as a node above says it.
    fn child(&self) -> Child {
        Child {
            separator_key: self.lower.0.to_vec(),
            separator_ordinal: self.lower.1,
            rank: self.rank,
            id: self.id,
            entries: self.entries,
            bytes: self.bytes,
        }
    }
}

fn separator(child: &Child) -> (&[u8], u64) {
    (&child.separator_key, child.separator_ordinal)
}

/// Gives an entry's path as it was backed up, without a closing slash.
pub(super) fn path_of(source: &Source, key: &[u8]) -> String {
    let root = source.path.strip_suffix(b"/").unwrap_or(&source.path);
    let key = key.strip_suffix(b"/").unwrap_or(key);
    let path = if key.is_empty() {
        source.path.clone()
    } else {
        [root, b"/", key].concat()
    };
    String::from_utf8_lossy(&path).into_owned()
}

/// Says which paths are lost with a node that held their names.
fn lost_range(source: &Source, claim: &Claim<'_>) -> String {
    let whole = claim.lower.0.is_empty() && claim.upper.is_none();
    if whole {
        return path_of(source, b"");
    }
    let from = path_of(source, claim.lower.0);
    let count = claim.entries;
    match claim.upper {
        Some((upper, _)) => {
            let to = path_of(source, upper);
            format!("{count} entries from {from} up to before {to}")
        }
        None => {
            let end = path_of(source, b"");
            format!("{count} entries from {from} to the end of {end}")
        }
    }
}
