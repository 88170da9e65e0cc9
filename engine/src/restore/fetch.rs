//! Fetching what is planned: ranges of packs, several at a time, each pack at most once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use larder_format::block::chunk_of;
use larder_format::compression::Decompressor;
use larder_format::ids::ChunkType;
use larder_format::names;

use crate::budget::{Budget, Held};
use crate::chunks::{fetch_range, open_any};
use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::sync::lock;
use crate::thaw::Need;

use super::files::{Hand, Workshop};
use super::plan::{Item, Items, Planned};
use super::tally::is_damage;

/// Sealed bytes between storage and files.
const BUDGET_BYTES: usize = 64 << 20;
/// Bytes that are fetched at once, and needless bytes that cost less than another request.
const RANGE_BYTES: u64 = 8 << 20;
const GAP_BYTES: u64 = 256 << 10;
/// Chunks of one range. More come up only where a block is needed more than this many times;
/// it is then fetched again.
const RANGE_ITEMS: usize = 1 << 16;
/// Ranges that are fetched at a time, at least; a storage far away takes more.
const FETCHERS_MIN: usize = 6;
/// The most that memory has room for.
const FETCHERS_MAX: usize = 16;

/// A part of a pack, and what is needed of it.
struct Range {
    pack: u32,
    name: String,
    offset: u64,
    end: u64,
    items: usize,
    blocks: Vec<BlockItems>,
}

/// A block, and the chunks that are needed of it.
struct BlockItems {
    offset: u64,
    length: u32,
    items: Vec<Item>,
}

/// A block that was fetched, or why it was not.
struct Fetched {
    name: Arc<str>,
    items: Vec<Item>,
    sealed: std::result::Result<Bytes, String>,
    _held: Arc<Held>,
}

/// Fetches everything that is planned and hands it to the workshop.
pub(super) fn fetch_all(workshop: &Workshop<'_>, items: &Items) -> Result<()> {
    let context = workshop.context;
    let round = Round {
        workshop,
        budget: Budget::new(BUDGET_BYTES),
        stopped: AtomicBool::new(false),
        failure: Mutex::default(),
    };
    if context.repository.is_in_order() {
        let (to_fetchers, ranges) = unbounded();
        let (to_openers, fetched) = unbounded();
        round.run(|| round.feed(items, &to_fetchers));
        drop(to_fetchers);
        round.run(|| round.fetch(&ranges, &to_openers));
        drop(to_openers);
        round.run(|| round.open(&fetched));
        return round.end();
    }
    let openers = context.repository.workers().current_num_threads().max(1);
    let (to_fetchers, ranges) = bounded::<Range>(2);
    let (to_openers, fetched) = bounded::<Fetched>(2 * openers);
    let fetchers = context
        .repository
        .calls_at_once()
        .clamp(FETCHERS_MIN, FETCHERS_MAX);
    thread::scope(|scope| {
        for _ in 0..fetchers {
            let (ranges, to_openers, round) = (ranges.clone(), to_openers.clone(), &round);
            scope.spawn(move || round.run(|| round.fetch(&ranges, &to_openers)));
        }
        for _ in 0..openers {
            let (fetched, round) = (fetched.clone(), &round);
            scope.spawn(move || round.run(|| round.open(&fetched)));
        }
        // Theirs are the only ones left, so that everybody ends once somebody has.
        drop((ranges, to_openers, fetched));
        round.run(|| round.feed(items, &to_fetchers));
        drop(to_fetchers);
    });
    round.end()
}

/// Gives what would be fetched of each pack, in the order of the plan.
pub(super) fn needs(items: &Items) -> Result<Vec<Need>> {
    let mut needs: Vec<Need> = Vec::new();
    let mut add = |range: &Range| -> Result<()> {
        let pack = items.pack(range.pack)?;
        let bytes = range.end.saturating_sub(range.offset);
        match needs.last_mut() {
            Some(last) if last.pack == pack => {
                last.ranges += 1;
                last.bytes = last.bytes.saturating_add(bytes);
            }
            _ => needs.push(Need {
                pack,
                ranges: 1,
                bytes,
            }),
        }
        Ok(())
    };
    let mut open: Option<Range> = None;
    for planned in items.iter() {
        let planned = planned?;
        if let Some(range) = open.as_mut()
            && range.take(&planned)
        {
            continue;
        }
        if let Some(range) = open.replace(Range::new(String::new(), &planned)) {
            add(&range)?;
        }
    }
    if let Some(range) = &open {
        add(range)?;
    }
    Ok(needs)
}

struct Round<'a> {
    workshop: &'a Workshop<'a>,
    budget: Arc<Budget>,
    stopped: AtomicBool,
    failure: Mutex<Option<EngineError>>,
}

impl Round<'_> {
    /// Runs a thread's work; its failure ends that of the others.
    fn run(&self, work: impl FnOnce() -> Result<()>) {
        if let Err(error) = work() {
            self.stopped.store(true, Ordering::Release);
            self.budget.stop();
            lock(&self.failure).get_or_insert(error);
        }
    }

    fn end(&self) -> Result<()> {
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Groups what is planned into ranges.
    fn feed(&self, items: &Items, to_fetchers: &Sender<Range>) -> Result<()> {
        let mut open: Option<Range> = None;
        for planned in items.iter() {
            self.workshop.context.cancel.check()?;
            if self.is_stopped() {
                return Ok(());
            }
            let planned = planned?;
            if let Some(range) = open.as_mut()
                && range.take(&planned)
            {
                continue;
            }
            let name = names::pack(&items.pack(planned.pack)?);
            if let Some(range) = open.replace(Range::new(name, &planned))
                && to_fetchers.send(range).is_err()
            {
                return Ok(());
            }
        }
        if let Some(range) = open {
            // Whoever does not take it has failed, and said so.
            let _ = to_fetchers.send(range);
        }
        Ok(())
    }

    fn fetch(&self, ranges: &Receiver<Range>, to_openers: &Sender<Fetched>) -> Result<()> {
        let repository = self.workshop.context.repository;
        for range in ranges {
            if self.is_stopped() {
                return Ok(());
            }
            let length = range.end - range.offset;
            let bytes = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(held) = self.budget.hold(0, bytes) else {
                return Ok(());
            };
            let held = Arc::new(held);
            let whole = self.range(repository, &range.name, range.offset, length);
            let name: Arc<str> = range.name.as_str().into();
            let is_one_block = range.blocks.len() == 1;
            for block in range.blocks {
                let (offset, length) = (block.offset, u64::from(block.length));
                let sealed = match &whole {
                    Ok(bytes) => Ok(part(bytes, offset - range.offset, length)),
                    Err(error) if !is_damage(error) => return whole.map(|_| ()),
                    Err(error) if is_one_block => Err(error.to_string()),
                    // A pack that lost its end may still have what lies before it.
                    Err(_) => match self.range(repository, &name, offset, length) {
                        Ok(bytes) => Ok(bytes),
                        Err(error) if is_damage(&error) => Err(error.to_string()),
                        Err(error) => return Err(error),
                    },
                };
                let fetched = Fetched {
                    name: Arc::clone(&name),
                    items: block.items,
                    sealed,
                    _held: Arc::clone(&held),
                };
                if to_openers.send(fetched).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn range(
        &self,
        repository: &Repository,
        name: &str,
        offset: u64,
        length: u64,
    ) -> Result<Bytes> {
        let bytes = fetch_range(repository, name, offset, length)?;
        let tally = &self.workshop.context.tally;
        tally.count(|report| report.bytes_fetched += bytes.len() as u64);
        Ok(bytes)
    }

    fn open(&self, fetched: &Receiver<Fetched>) -> Result<()> {
        let context = self.workshop.context;
        let mut hand = Hand::new(context.repository)?;
        let mut decompressor = Decompressor::new()?;
        for block in fetched {
            context.cancel.check()?;
            if self.is_stopped() {
                return Ok(());
            }
            self.open_one(&block, &mut decompressor, &mut hand)?;
        }
        Ok(())
    }

    fn open_one(
        &self,
        block: &Fetched,
        decompressor: &mut Decompressor,
        hand: &mut Hand,
    ) -> Result<()> {
        let repository = self.workshop.context.repository;
        let damaged =
            |why: &dyn std::fmt::Display| EngineError::damaged(&block.name, why).to_string();
        let opened = match &block.sealed {
            Ok(sealed) => open_any(repository, ChunkType::Data, sealed, decompressor)
                .map_err(|error| damaged(&error)),
            Err(why) => Err(why.clone()),
        };
        for item in &block.items {
            let wanted = &item.wanted;
            let chunk = match &opened {
                Ok(plaintext) => chunk_of(
                    repository.keyring(),
                    ChunkType::Data,
                    plaintext,
                    item.offset,
                    wanted.length,
                    &wanted.id,
                )
                .map_err(|error| damaged(&error)),
                Err(why) => Err(why.clone()),
            };
            match chunk {
                Ok(bytes) => self.workshop.take(item, bytes, hand)?,
                Err(why) => self.workshop.elsewhere(wanted, &why, hand)?,
            }
        }
        Ok(())
    }
}

impl Range {
    fn new(name: String, planned: &Planned) -> Self {
        let mut range = Self {
            pack: planned.pack,
            name,
            offset: planned.block_offset,
            end: planned.block_offset,
            items: 0,
            blocks: Vec::new(),
        };
        range.push(planned);
        range
    }

    /// Takes a further chunk, if it is near enough.
    fn take(&mut self, planned: &Planned) -> bool {
        let end = planned
            .block_offset
            .saturating_add(planned.block_length.into());
        let is_last_block = self.blocks.last().is_some_and(|last| {
            (last.offset, last.length) == (planned.block_offset, planned.block_length)
        });
        let is_near = planned.block_offset >= self.end
            && planned.block_offset - self.end <= GAP_BYTES
            && end - self.offset <= RANGE_BYTES;
        if planned.pack != self.pack || self.items >= RANGE_ITEMS || !(is_last_block || is_near) {
            return false;
        }
        self.push(planned);
        true
    }

    fn push(&mut self, planned: &Planned) {
        self.items += 1;
        let (offset, length) = (planned.block_offset, planned.block_length);
        match self.blocks.last_mut() {
            Some(last) if (last.offset, last.length) == (offset, length) => {
                last.items.push(planned.item);
            }
            _ => {
                self.end = offset.saturating_add(length.into());
                self.blocks.push(BlockItems {
                    offset,
                    length,
                    items: vec![planned.item],
                });
            }
        }
    }
}

/// Takes a part out of a range that was read whole.
fn part(bytes: &Bytes, offset: u64, length: u64) -> Bytes {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let end = start.saturating_add(length).min(bytes.len());
    bytes.slice(start..end)
}
