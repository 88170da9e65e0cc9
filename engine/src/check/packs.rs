//! Segments, and the packs that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use larder_format::ids::ObjectId;
use larder_format::ledger::Verification;
use larder_format::limits::SEGMENT_BYTES;
use larder_format::names;
use larder_format::object::Kind;
use larder_format::segment::{Segment, SegmentPack};

use super::context::{Context, Outcome, Problem, attempt};
use super::due::{Candidate, choose};
use super::findings::Damage;
use super::listing::Listing;
use super::opened::Opened;
use super::verify::{Job, Named, Verifier};
use super::{CheckOptions, Due, ReadData, Severity};
use crate::clock;
use crate::error::{EngineError, Result};
use crate::index::PackRecord;
use crate::ledger::{self, Book, Verified};
use crate::salvage::read_directory;
use crate::view::{View, WRONG_OWNER};

/// What was seen of the packs.
pub(super) struct Packs {
    pub packs: u64,
    pub packs_read: u64,
    /// Packs that lie in cold storage and were not read, and their bytes.
    pub cold: (u64, u64),
    /// What those that were read hold.
    pub opened: Opened,
    pub verified: Verified,
    /// Why the ledger could not be written.
    pub not_recorded: Option<String>,
}

/// Checks all segments that count and the packs that they name, and feeds the index.
pub(super) fn check(
    context: &Context<'_>,
    listing: &mut Listing,
    view: &View,
    options: &CheckOptions,
    damage: &mut Damage,
) -> Result<Packs> {
    let begun = Instant::now();
    let read_data = options.read_data;
    let all = matches!(
        read_data,
        ReadData::All | ReadData::Percent(_) | ReadData::Part(..)
    );
    let bytes = all.then_some(listing.pack_bytes);
    let progress = context.progress;
    progress.phase("checking packs", Some(listing.pack_count), bytes);
    let mut book = match listing.has_ledger {
        true => ledger::read(context.repository)?,
        false => Book::default(),
    };
    note_ledgers(&book, damage);
    let verifier = Verifier::new(context, damage);
    let mut feeder = Feeder {
        context,
        listing,
        view,
        read_data,
        suspects: view.collection.suspects().copied().collect(),
        verifier: &verifier,
        queue: None,
        packs: 0,
        candidates: Vec::new(),
        book: &book,
        is_incomplete: !view.unusable.is_empty() || view.lacks_collection,
    };
    let mut fed = feeder.with_verifiers(Feeder::feed);
    if let ReadData::Due(due) = &read_data {
        fed = fed.and_then(|()| feeder.with_verifiers(|feeder| feeder.send_due(due, begun)));
        let again = verifier.take_again();
        if fed.is_ok() && !again.is_empty() {
            fed = feeder.with_verifiers(|feeder| feeder.judge_again(again));
        }
    }
    let packs = feeder.packs;
    let cold = verifier.cold();
    let (read, found) = verifier.finish();
    let mut not_recorded = None;
    if options.records_suspects && !(found.sound.is_empty() && found.damaged.is_empty()) {
        // What was verified before a failure counts, too.
        let listed = &mut listing.packs();
        match ledger::record(context.repository, Verification::Opened, &found, listed) {
            Ok(recorded) => book = recorded,
            Err(error) => not_recorded = Some(error.to_string()),
        }
    }
    let (packs_read, held) = read?;
    fed?;
    Ok(Packs {
        packs,
        packs_read,
        cold,
        opened: Opened::new(&found, held)?,
        verified: ledger::coverage(context.repository, view, &book)?,
        not_recorded,
    })
}

/// Reports ledgers that cannot be read.
fn note_ledgers(book: &Book, damage: &mut Damage) {
    for (id, why) in &book.damaged {
        let problem = format!(
            "{why}; nothing depends on it: what it says was verified is verified again, and the next check that reads data replaces it"
        );
        damage.add(Severity::Harmless, names::ledger(id), problem);
    }
}

struct Feeder<'a, 'b, 'c> {
    context: &'a Context<'b>,
    listing: &'a mut Listing,
    view: &'a View,
    read_data: ReadData,
    /// Packs in which somebody found damage: what is lost with them is told as long as it is needed.
    suspects: BTreeSet<ObjectId>,
    verifier: &'a Verifier<'c, 'b>,
    /// Where packs are sent that are to be read; where there are no verifiers, they are read at once.
    queue: Option<Sender<Job>>,
    packs: u64,
    /// Packs that may be due.
    candidates: Vec<Candidate>,
    book: &'a Book,
    /// Whether something that names segments or packs cannot be read.
    is_incomplete: bool,
}

impl Feeder<'_, '_, '_> {
    /// Does something while verifiers take what is sent; then all of that is verified.
    fn with_verifiers(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.context.repository.is_in_order() {
            return act(self);
        }
        // One thread more than there are workers, so that one pack is read while others are opened.
        let threads = self.context.repository.workers().current_num_threads() + 1;
        let verifier = self.verifier;
        thread::scope(|scope| {
            let (sender, queue) = bounded(1);
            for _ in 0..threads {
                let queue = queue.clone();
                scope.spawn(move || verifier.run(&queue));
            }
            drop(queue);
            self.queue = Some(sender);
            let acted = act(self);
            self.queue = None;
            acted
        })
    }

    /// Sends the packs that were verified longest ago, as many as the budget allows.
    fn send_due(&mut self, due: &Due, begun: Instant) -> Result<()> {
        let candidates = std::mem::take(&mut self.candidates);
        let chosen = choose(candidates, due, clock::now_s());
        let bytes = chosen.iter().map(|one| one.size);
        let bytes = bytes.fold(0, u64::saturating_add);
        let progress = self.context.progress;
        progress.phase("reading packs", Some(chosen.len() as u64), Some(bytes));
        for (number, one) in chosen.into_iter().enumerate() {
            if number > 0 && due.max_duration.is_some_and(|max| begun.elapsed() >= max) {
                break;
            }
            self.send(Job {
                id: one.id,
                kind: one.kind,
                size: one.size,
                named: None,
                is_judged_again: true,
            })?;
        }
        Ok(())
    }

    /// Sends packs with what segments say of them, and those of which none says anything as they are.
    fn judge_again(&mut self, mut packs: BTreeMap<ObjectId, Job>) -> Result<()> {
        for id in self.view.owners().keys() {
            let Ok(segment) = self.read_segment(id)? else {
                continue;
            };
            for pack in segment.packs {
                if let Some(job) = packs.remove(&pack.id) {
                    self.send(Job {
                        named: Some(Named {
                            length: pack.length,
                            directory: pack.directory,
                        }),
                        ..job
                    })?;
                }
            }
        }
        packs.into_values().try_for_each(|job| self.send(job))
    }

    fn feed(&mut self) -> Result<()> {
        for pack in &self.view.collection.state.deleted {
            self.verifier.with_damage(|damage| damage.leave_out(pack));
        }
        let named = self.view.owners();
        let mut counting = Vec::new();
        for (id, claims) in &named {
            let read = self.read_segment(id)?;
            let read = read.and_then(|segment| {
                let is_owned = claims.iter().any(|claim| claim.admits(&segment.owner));
                let problem = || Problem::Damaged(WRONG_OWNER.to_owned());
                is_owned.then_some(segment).ok_or_else(problem)
            });
            match read {
                Ok(segment) => {
                    let records: Vec<_> =
                        segment.packs.iter().map(PackRecord::of_segment).collect();
                    self.context.repository.index().add_segment(id, &records)?;
                    counting.push(*id);
                    for pack in segment.packs {
                        self.take(pack)?;
                    }
                }
                Err(problem) => {
                    self.is_incomplete = true;
                    let problem = format!(
                        "{problem}; until the index is rebuilt from them, the packs' own directories serve instead"
                    );
                    let name = names::segment(id);
                    self.verifier
                        .with_damage(|damage| damage.add_suspect(name, problem));
                }
            }
        }
        let repository = self.context.repository;
        repository.set_unusable(self.view.collection.unusable_packs())?;
        let index = repository.index();
        index.set_counting(&counting)?;
        let unnamed: Vec<_> = self.listing.segments.iter().copied().collect();
        let unnamed = unnamed.into_iter().filter(|id| !named.contains_key(id));
        if self.is_incomplete {
            self.salvage(&unnamed.collect::<Vec<_>>())
        } else {
            self.note_orphans(unnamed)
        }
    }

    fn read_segment(&self, id: &ObjectId) -> Result<Outcome<Segment>> {
        self.context.cancel.check()?;
        let name = names::segment(id);
        let keyring = self.context.repository.keyring();
        attempt(|| {
            let object = self.context.get(&name, SEGMENT_BYTES)?;
            Ok(Segment::open(keyring, id, &object)?)
        })
    }

    /// Compares a pack with the listing, and has it read if it is chosen or looks wrong.
    fn take(&mut self, pack: SegmentPack) -> Result<()> {
        let (listed, taken) = self.listing.name_pack(&pack.id)?;
        let deleted = &self.view.collection.state.deleted;
        if taken || deleted.contains(&pack.id) {
            return Ok(());
        }
        self.packs += 1;
        let size = match listed {
            Some(size) => Ok(size),
            // It may have been uploaded after the listing.
            None => self.context.size(&names::pack(&pack.id))?,
        };
        match size {
            Ok(size)
                if size != pack.length
                    || self.suspects.contains(&pack.id)
                    || self.read_data.chooses(&pack.id)? =>
            {
                let named = Named {
                    length: pack.length,
                    directory: pack.directory,
                };
                self.send(Job {
                    id: pack.id,
                    kind: pack.kind,
                    size,
                    named: Some(named),
                    is_judged_again: false,
                })
            }
            Ok(size) => {
                self.may_be_due(pack.id, pack.kind, size);
                self.context.progress.advance(1, 0);
                Ok(())
            }
            Err(Problem::Missing) => self
                .verifier
                .with_damage(|damage| damage.add_missing_pack(&pack.id)),
            Err(Problem::Damaged(why)) => self
                .verifier
                .with_damage(|damage| damage.add_unreadable_pack(&pack.id, why)),
        }
    }

    fn may_be_due(&mut self, id: ObjectId, kind: Kind, size: u64) {
        if matches!(self.read_data, ReadData::Due(_)) {
            self.candidates.push(Candidate {
                id,
                kind,
                size,
                verified: self.book.of(&id).map(|(time, _)| time),
            });
        }
    }

    fn send(&self, job: Job) -> Result<()> {
        let sent = match &self.queue {
            Some(queue) => queue.send(job).is_ok(),
            None => {
                self.verifier.take(&job);
                true
            }
        };
        if self.verifier.has_stopped() || !sent {
            // The verifier tells why.
            return Err(EngineError::Interrupted);
        }
        Ok(())
    }

    /// Finds what the packs hold that nothing readable names: by segments that no readable
    /// snapshot names, then by the packs' own directories.
    fn salvage(&mut self, segments: &[ObjectId]) -> Result<()> {
        let index = self.context.repository.index();
        for id in segments {
            match self.read_segment(id)? {
                Ok(segment) => {
                    for pack in segment.packs {
                        index.add_pending_pack(&PackRecord::of_segment(&pack))?;
                        self.take(pack)?;
                    }
                }
                Err(problem) => {
                    let (name, problem) = (names::segment(id), problem.to_string());
                    self.verifier
                        .with_damage(|damage| damage.add_suspect(name, problem));
                }
            }
        }
        let mut packs = Vec::new();
        self.listing.unnamed_packs(&mut |id, size| {
            packs.push((id, size));
            Ok(())
        })?;
        for (id, size) in packs {
            self.context.cancel.check()?;
            let read = match attempt(|| read_directory(self.context.repository, &id, size)) {
                Err(error) if error.is_cold() => {
                    self.verifier.note_cold(size);
                    continue;
                }
                read => read?,
            };
            match read {
                Ok(record) => {
                    index.add_pending_pack(&record)?;
                    self.packs += 1;
                    self.may_be_due(id, record.kind.kind(), size);
                    if self.read_data.chooses(&id)? {
                        self.send(Job {
                            id,
                            kind: record.kind.kind(),
                            size,
                            named: None,
                            is_judged_again: false,
                        })?;
                    }
                }
                Err(problem) => {
                    let problem = format!(
                        "{problem}; what it holds is not known, since no segment that can be read names it either"
                    );
                    let name = names::pack(&id);
                    self.verifier
                        .with_damage(|damage| damage.add_suspect(name, problem));
                }
            }
        }
        Ok(())
    }

    /// Notes what nothing names.
    fn note_orphans(&self, segments: impl Iterator<Item = ObjectId>) -> Result<()> {
        for id in segments {
            self.verifier.with_damage(|damage| {
                damage.add(
                    Severity::Note,
                    names::segment(&id),
                    "no snapshot names it: it is of a backup that is running, or was interrupted",
                );
            });
        }
        let (mut count, mut bytes) = (0_u64, 0_u64);
        self.listing.unnamed_packs(&mut |_, size| {
            count += 1;
            bytes = bytes.saturating_add(size);
            Ok(())
        })?;
        self.verifier
            .with_damage(|damage| damage.note_orphan_packs(count, bytes));
        Ok(())
    }
}
