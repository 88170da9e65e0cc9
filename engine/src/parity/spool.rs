//! Groups of packs while they are written: each pack goes to a scratch file, and once a group is full its parity
//! object is made of it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use larder_format::ids::ObjectId;
use larder_format::object::Kind;
use larder_format::object::object_id;
use larder_format::parity::{Draft, Group, Member, PIECE_BYTES, Sum, sum};

use super::code::{self, Spooled};
use crate::error::Result;
use crate::scratch::file::ScratchFile;

/// Bytes of packs at which a group is full, however many packs it could have: so much of the local disk it takes.
pub(super) const GROUP_BYTES: u64 = 1 << 30;

/// The groups that are open, one of data packs and one of tree packs.
pub(crate) struct Spool {
    percent: u8,
    scratch: PathBuf,
    data: Option<Open>,
    tree: Option<Open>,
}

/// A group that is being filled.
pub(crate) struct Open {
    percent: u8,
    file: ScratchFile,
    members: Vec<Taken>,
    bytes: u64,
    pieces: usize,
    is_full: bool,
}

struct Taken {
    member: Member,
    first: usize,
    sums: Vec<Sum>,
}

impl Spool {
    /// Makes an empty spool; what is in it lies below `scratch`.
    pub(crate) fn new(percent: u8, scratch: &Path) -> Self {
        Self {
            percent,
            scratch: scratch.to_owned(),
            data: None,
            tree: None,
        }
    }

    /// Takes a pack; gives its group if that is full now.
    pub(crate) fn add(&mut self, kind: Kind, id: ObjectId, bytes: &[u8]) -> Result<Option<Open>> {
        let place = match kind {
            Kind::TreePack => &mut self.tree,
            _ => &mut self.data,
        };
        let mut open = match place.take() {
            Some(open) => open,
            None => Open::new(self.percent, &self.scratch)?,
        };
        open.add(id, bytes)?;
        if open.is_full {
            return Ok(Some(open));
        }
        *place = Some(open);
        Ok(None)
    }

    /// Gives the groups that are not full.
    pub(crate) fn rest(&mut self) -> Vec<Open> {
        [self.data.take(), self.tree.take()]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Open {
    fn new(percent: u8, scratch: &Path) -> Result<Self> {
        Ok(Self {
            percent,
            file: ScratchFile::new(scratch)?,
            members: Vec::new(),
            bytes: 0,
            pieces: 0,
            is_full: false,
        })
    }

    fn add(&mut self, id: ObjectId, bytes: &[u8]) -> Result<()> {
        // The same pack twice is one pack.
        if self.members.iter().any(|taken| taken.member.id == id) {
            return Ok(());
        }
        let first = self.pieces;
        self.file.write_at((first * PIECE_BYTES) as u64, bytes)?;
        let member = Member {
            id,
            length: bytes.len() as u64,
        };
        self.pieces += member.pieces();
        self.bytes += member.length;
        self.members.push(Taken {
            member,
            first,
            sums: bytes.chunks(PIECE_BYTES).map(sum).collect(),
        });
        let packs = 100_usize.div_ceil(usize::from(self.percent.max(1)));
        self.is_full = self.members.len() >= packs || self.bytes >= GROUP_BYTES;
        Ok(())
    }

    /// Computes the parity object of the group; nothing if one object cannot serve it.
    pub(crate) fn finish(mut self) -> Result<Option<(ObjectId, Bytes)>> {
        self.members.sort_by_key(|taken| taken.member.id);
        let members = self.members.iter().map(|taken| taken.member).collect();
        let Some(group) = Group::plan(members, self.percent, self.is_full) else {
            return Ok(None);
        };
        let first = self.members.iter().map(|taken| taken.first).collect();
        let sums = self.members.into_iter().flat_map(|taken| taken.sums);
        let mut draft = Draft::new(group, &sums.collect::<Vec<_>>())?;
        code::encode(&mut draft, &Spooled::new(self.file, first))?;
        let object = draft.finish();
        Ok(Some((object_id(&object), Bytes::from(object))))
    }
}
