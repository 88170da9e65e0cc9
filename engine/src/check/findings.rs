//! What was found so far, and who suffers from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use larder_format::error::FormatError;
use larder_format::ids::{ChunkPrefix, ObjectId, SessionId};
use larder_format::names;

use super::{Finding, Severity};
use crate::error::Result;
use crate::index::Place;
use crate::scratch::ScratchMap;

/// Paths that a finding names at most.
pub(super) const PATHS_MAX: usize = 1000;
/// Memory of the places that are lost, before they go to disk.
const LOST_BYTES: usize = 16 << 20;

/// A finding that may still grow.
pub(super) struct Draft {
    severity: Severity,
    object: String,
    problem: String,
    snapshots: BTreeSet<SessionId>,
    paths: BTreeSet<String>,
}

/// Names a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DraftId(usize);

/// Everything that was found, and which places no longer hold their chunks.
pub(super) struct Damage {
    drafts: Vec<Draft>,
    packs: BTreeMap<ObjectId, DraftId>,
    /// Packs of which nothing can be read.
    gone: BTreeSet<ObjectId>,
    /// Chunk prefix and pack of the places in damaged packs that hold nothing any more.
    lost: ScratchMap,
    /// What may be why a chunk is in no pack that is known.
    suspects: Vec<DraftId>,
    /// Objects that are mended from their twins, or as twins.
    mendable: BTreeSet<String>,
}

impl Damage {
    pub(super) fn new(scratch: &Path) -> Self {
        Self {
            drafts: Vec::new(),
            packs: BTreeMap::new(),
            gone: BTreeSet::new(),
            lost: ScratchMap::new(scratch, LOST_BYTES),
            suspects: Vec::new(),
            mendable: BTreeSet::new(),
        }
    }

    /// Adds a finding.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        object: impl Into<String>,
        problem: impl Into<String>,
    ) -> DraftId {
        self.drafts.push(Draft {
            severity,
            object: object.into(),
            problem: problem.into(),
            snapshots: BTreeSet::new(),
            paths: BTreeSet::new(),
        });
        DraftId(self.drafts.len() - 1)
    }

    /// Adds an object that is mended from its twin, or as one.
    pub(super) fn add_mendable(&mut self, object: String, problem: String) {
        self.mendable.insert(object.clone());
        self.add(Severity::Harmless, object, problem);
    }

    /// Gives the objects that are mended so.
    pub(super) fn mendable(&self) -> BTreeSet<String> {
        self.mendable.clone()
    }

    /// Adds an object that may be why chunks are in no pack that is known.
    pub(super) fn add_suspect(&mut self, object: impl Into<String>, problem: impl Into<String>) {
        let draft = self.add(Severity::Harmless, object, problem);
        self.suspects.push(draft);
    }

    /// Adds nodes of a snapshot that open and contradict the format or each other.
    pub(super) fn add_malformed(&mut self, cell: &SessionId, error: &FormatError) -> DraftId {
        let problem = format!(
            "its tree was written wrongly or by somebody hostile: {error}; back the source up again"
        );
        self.add(Severity::Loss, names::cell(cell), problem)
    }

    /// Adds a damaged pack, and the chunks that it no longer holds.
    pub(super) fn add_pack(
        &mut self,
        pack: &ObjectId,
        problem: String,
        lost: &[ChunkPrefix],
    ) -> Result<DraftId> {
        for prefix in lost {
            self.lost.insert(&lost_key(prefix, pack), &[])?;
        }
        if let Some(draft) = self.packs.get(pack) {
            return Ok(*draft);
        }
        let draft = self.add(Severity::Harmless, names::pack(pack), problem);
        self.packs.insert(*pack, draft);
        Ok(draft)
    }

    /// Adds a pack that is not there.
    pub(super) fn add_missing_pack(&mut self, pack: &ObjectId) -> Result<()> {
        let problem = "it is missing, although the index names it; put it back from a copy of the storage if there is one";
        self.add_unreadable_pack(pack, problem.to_owned())
    }

    /// Adds a pack of which nothing can be read.
    pub(super) fn add_unreadable_pack(&mut self, pack: &ObjectId, problem: String) -> Result<()> {
        self.gone.insert(*pack);
        self.add_pack(pack, problem, &[]).map(|_| ())
    }

    /// Leaves a pack out that a collector deleted: neither its absence nor its damage is a
    /// finding, unless something needs it.
    pub(super) fn leave_out(&mut self, pack: &ObjectId) {
        self.gone.insert(*pack);
    }

    /// Tells whether nothing of a pack can be read.
    pub(super) fn is_gone(&self, pack: &ObjectId) -> bool {
        self.gone.contains(pack)
    }

    /// Tells whether a place still holds its chunk, as far as is known.
    pub(super) fn holds(&self, prefix: &ChunkPrefix, place: &Place) -> Result<bool> {
        if self.is_gone(&place.pack) {
            return Ok(false);
        }
        if !self.packs.contains_key(&place.pack) {
            return Ok(true);
        }
        Ok(self.lost.get(&lost_key(prefix, &place.pack))?.is_none())
    }

    /// Notes packs that nothing names.
    pub(super) fn note_orphan_packs(&mut self, count: u64, bytes: u64) {
        if count > 0 {
            let problem = format!(
                "{count} packs with {bytes} bytes are not named by any snapshot's segments: they are of a backup that is running, or was interrupted"
            );
            self.add(Severity::Note, names::PACKS, problem);
        }
    }

    /// Gives the findings that are to blame for a chunk that none of its places holds.
    pub(super) fn blame(&mut self, places: &[Place], what: &str) -> Vec<DraftId> {
        for place in places {
            if self.gone.contains(&place.pack) && !self.packs.contains_key(&place.pack) {
                let problem = "a prune deleted it, although a snapshot needs what was in it";
                let draft = self.add(Severity::Loss, names::pack(&place.pack), problem);
                self.packs.insert(place.pack, draft);
            }
        }
        let packs: BTreeSet<DraftId> = places
            .iter()
            .filter_map(|place| self.packs.get(&place.pack).copied())
            .collect();
        if !packs.is_empty() {
            return packs.into_iter().collect();
        }
        if self.suspects.is_empty() {
            let problem = format!(
                "{what} and perhaps others are in no pack that the index names: what it has under half of such an id has another length, or is another chunk"
            );
            let draft = self.add(Severity::Loss, names::SEGMENTS, problem);
            self.suspects.push(draft);
        }
        self.suspects.clone()
    }

    /// Notes that a snapshot, or one path in it, cannot be restored because of a finding.
    pub(super) fn suffer(&mut self, draft: DraftId, snapshot: &SessionId, path: Option<&str>) {
        let Some(draft) = self.drafts.get_mut(draft.0) else {
            return;
        };
        draft.severity = Severity::Loss;
        draft.snapshots.insert(*snapshot);
        if let Some(path) = path
            && draft.paths.len() < PATHS_MAX
            && !draft.paths.contains(path)
        {
            draft.paths.insert(path.to_owned());
        }
    }

    /// Names a snapshot in a finding, whatever its severity.
    pub(super) fn concerns(&mut self, draft: DraftId, snapshot: &SessionId) {
        if let Some(draft) = self.drafts.get_mut(draft.0) {
            draft.snapshots.insert(*snapshot);
        }
    }

    /// Gives the packs that are missing or damaged.
    pub(super) fn packs(&self) -> BTreeSet<ObjectId> {
        self.packs.keys().copied().collect()
    }

    /// Says of packs that are known to be suspect what that means; those of which nothing can be
    /// read and nothing is missed need no mending.
    fn settle(&mut self, known: &BTreeSet<ObjectId>) {
        for (pack, draft) in &self.packs {
            let Some(draft) = self.drafts.get_mut(draft.0) else {
                continue;
            };
            if !known.contains(pack) || draft.severity == Severity::Loss {
                continue;
            }
            if self.gone.contains(pack) {
                draft.severity = Severity::Note;
            }
            draft.problem.push_str(
                "; it is known as suspect: no backup builds on it, and a prune deletes it once nothing needs it",
            );
        }
    }

    /// Gives the findings, worst first; `known` are the packs that were recorded as suspect.
    pub(super) fn into_findings(mut self, known: &BTreeSet<ObjectId>) -> Vec<Finding> {
        self.settle(known);
        let mut findings: Vec<Finding> = self
            .drafts
            .into_iter()
            .map(|draft| Finding {
                severity: draft.severity,
                object: draft.object,
                problem: draft.problem,
                snapshots: draft
                    .snapshots
                    .iter()
                    .map(SessionId::snapshot_name)
                    .collect(),
                paths: draft.paths.into_iter().collect(),
            })
            .collect();
        findings.sort_by(|a, b| {
            let by_severity = b.severity.cmp(&a.severity);
            by_severity.then_with(|| a.object.cmp(&b.object))
        });
        findings
    }
}

fn lost_key(prefix: &ChunkPrefix, pack: &ObjectId) -> Vec<u8> {
    [prefix.0.as_slice(), &pack.0].concat()
}
