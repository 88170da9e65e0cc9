//! Segments, and the packs that they name.

use std::thread;

use crossbeam_channel::{Sender, bounded};
use larder_format::ids::ObjectId;
use larder_format::limits::SEGMENT_BYTES;
use larder_format::names;
use larder_format::segment::{Segment, SegmentPack};

use super::context::{Context, Outcome, Problem, attempt};
use super::findings::Damage;
use super::listing::Listing;
use super::verify::{Job, Named, Verifier};
use super::{ReadData, Severity};
use crate::error::{EngineError, Result};
use crate::index::PackRecord;
use crate::salvage::read_directory;
use crate::view::{View, WRONG_OWNER};

/// What was seen of the packs.
pub(super) struct Packs {
    pub packs: u64,
    pub packs_read: u64,
}

/// Checks all segments that count and the packs that they name, and feeds the index.
pub(super) fn check(
    context: &Context<'_>,
    listing: &mut Listing,
    view: &View,
    read_data: ReadData,
    damage: &mut Damage,
) -> Result<Packs> {
    let bytes = (read_data != ReadData::No).then_some(listing.pack_bytes);
    let progress = context.progress;
    progress.phase("checking packs", Some(listing.pack_count), bytes);
    let verifier = Verifier::new(context, damage);
    // One thread more than there are workers, so that one pack is read while others are opened.
    let threads = context.repository.workers().current_num_threads() + 1;
    let fed = thread::scope(|scope| {
        let (sender, queue) = bounded(1);
        for _ in 0..threads {
            let (verifier, queue) = (&verifier, queue.clone());
            scope.spawn(move || verifier.run(&queue));
        }
        let mut feeder = Feeder {
            context,
            listing,
            view,
            read_data,
            verifier: &verifier,
            queue: sender,
            packs: 0,
            is_incomplete: !view.unusable.is_empty() || view.lacks_collection,
        };
        feeder.feed().map(|()| feeder.packs)
    });
    let read = verifier.finish()?;
    Ok(Packs {
        packs: fed?,
        packs_read: read,
    })
}

struct Feeder<'a, 'b, 'c> {
    context: &'a Context<'b>,
    listing: &'a mut Listing,
    view: &'a View,
    read_data: ReadData,
    verifier: &'a Verifier<'c, 'b>,
    queue: Sender<Job>,
    packs: u64,
    /// Whether something that names segments or packs cannot be read.
    is_incomplete: bool,
}

impl Feeder<'_, '_, '_> {
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
            Ok(size) if size != pack.length || self.read_data.chooses(&pack.id)? => {
                let named = Named {
                    length: pack.length,
                    directory: pack.directory,
                };
                self.send(Job {
                    id: pack.id,
                    kind: pack.kind,
                    size,
                    named: Some(named),
                })
            }
            Ok(_) => {
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

    fn send(&self, job: Job) -> Result<()> {
        if self.verifier.has_stopped() || self.queue.send(job).is_err() {
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
            match attempt(|| read_directory(self.context.repository, &id, size))? {
                Ok(record) => {
                    index.add_pending_pack(&record)?;
                    self.packs += 1;
                    if self.read_data.chooses(&id)? {
                        self.send(Job {
                            id,
                            kind: record.kind.kind(),
                            size,
                            named: None,
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
