//! What a check costs, told before it is made: from one listing and the index, without reading a pack.

use std::ops::ControlFlow;
use std::sync::Arc;

use larder_format::names::{self, Name};
use serde::Serialize;

use super::ReadData;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::index::PackKind;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::view::{self, View};

/// Objects that one request lists, as with the storages that have pages.
const PAGE_OBJECTS: u64 = 1000;
/// Listings that a check makes besides that of the packs: cells and what collectors wrote, each more
/// than once, segments, and configs, key slots and twins.
const SMALL_LISTINGS: u64 = 9;
/// Chunks that are looked at to know how long blocks are.
const SAMPLE_CHUNKS: u64 = 10_000;

/// What one level of a check asks of the storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Requests that list.
    pub list_requests: u64,
    /// Requests that read.
    pub read_requests: u64,
    /// Bytes that are read.
    pub bytes: u64,
    /// Those of them that leave a storage elsewhere, which providers charge for.
    pub egress_bytes: u64,
    /// Whether the last three are an estimate; exact otherwise, if nothing is damaged or written meanwhile.
    pub is_estimate: bool,
}

/// What each level would cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// Listing against index.
    pub quick: Cost,
    /// Every snapshot down to the places of its chunks.
    pub structure: Cost,
    /// The same, and the packs that are chosen.
    pub data: Cost,
    /// A sample of paths.
    pub drill: Cost,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    objects: u64,
    /// Cells, amendments and what collectors wrote that counts.
    view: Bulk,
    /// Configs, key slots and their twins.
    openers: Bulk,
    /// All other records, and segments.
    rest: Bulk,
    packs: Bulk,
    tree_packs: Bulk,
    tree_block: u64,
    data_block: u64,
    /// Levels of the highest tree.
    levels: u64,
    mean_entry: u64,
}

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Bulk {
    count: u64,
    bytes: u64,
}

impl Bulk {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// Tells what checking would cost: all data or a share of it, and a drill of so many paths.
///
/// It lists everything once, and brings the local index up to date.
///
/// # Errors
/// `Request` for an impossible share of data; what the storage answers.
pub fn costs(
    repository: &Arc<Repository>,
    read_data: ReadData,
    sample: u64,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Costs> {
    read_data.check()?;
    progress.phase("counting", None, None);
    let counted = count(repository, cancel)?;
    let is_remote = is_remote(repository.location());
    Ok(of(&counted, read_data, sample, is_remote))
}

/// Tells whether what is read from a location comes from another machine.
fn is_remote(location: &str) -> bool {
    location.contains("://") && !location.starts_with("file://")
}

fn count(repository: &Repository, cancel: &Cancel) -> Result<Counted> {
    let view = view::read(repository, true, None)?;
    repository.index().drop_pending()?;
    let mut counted = Counted::default();
    let newest = view.collection.numbers();
    repository.storage().list("", &mut |object| {
        counted.objects += 1;
        let size = object.size_bytes;
        match names::parse(&object.name) {
            Some(Name::Cell(_) | Name::Amendment(..)) => counted.view.add(size),
            Some(Name::State(number)) if number == newest.state => counted.view.add(size),
            Some(Name::Round(number)) if Some(number) == newest.round => counted.view.add(size),
            Some(Name::Round(_) | Name::State(_) | Name::Manifest(_)) | None => {}
            Some(Name::Config(_) | Name::Slot(_) | Name::ConfigTwin(_) | Name::SlotTwin(_)) => {
                counted.openers.add(size);
            }
            Some(Name::Pack(_) | Name::Parity(_)) => counted.packs.add(size),
            Some(_) => counted.rest.add(size),
        }
        Ok(())
    })?;
    cancel.check()?;
    repository.index().packs(&mut |pack| {
        if pack.kind == PackKind::Tree {
            counted.tree_packs.add(pack.size);
        }
        ControlFlow::Continue(())
    })?;
    measure_blocks(repository, &mut counted)?;
    measure_trees(&view, &mut counted);
    Ok(counted)
}

/// Measures blocks by those of the first chunks, which are random ones: their prefixes are hashes.
fn measure_blocks(repository: &Repository, counted: &mut Counted) -> Result<()> {
    let (mut trees, mut data) = (Bulk::default(), Bulk::default());
    let mut chunks = 0;
    repository.index().for_each_chunk(&mut |_, places| {
        for place in places {
            match place.pack_kind {
                PackKind::Tree => trees.add(place.block_length.into()),
                PackKind::Data => data.add(place.block_length.into()),
            }
        }
        chunks += 1;
        if chunks < SAMPLE_CHUNKS {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    counted.tree_block = trees.bytes.checked_div(trees.count).unwrap_or(0);
    counted.data_block = data.bytes.checked_div(data.count).unwrap_or(0);
    Ok(())
}

fn measure_trees(view: &View, counted: &mut Counted) {
    let sources = view.snapshots().flat_map(|cell| &cell.sources);
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    for source in sources {
        entries = entries.saturating_add(source.entries);
        bytes = bytes.saturating_add(source.bytes);
        counted.levels = counted.levels.max(u64::from(source.level) + 1);
    }
    counted.mean_entry = bytes.checked_div(entries).unwrap_or(0);
}

/// Computes the costs of what was counted; pure.
fn of(counted: &Counted, read_data: ReadData, sample: u64, is_remote: bool) -> Costs {
    let pages = |objects: u64| objects.div_ceil(PAGE_OBJECTS).max(1) + SMALL_LISTINGS;
    let cost = |read: Bulk, is_estimate| Cost {
        list_requests: pages(counted.objects),
        read_requests: read.count,
        bytes: read.bytes,
        egress_bytes: if is_remote { read.bytes } else { 0 },
        is_estimate,
    };
    let nodes = Bulk {
        count: blocks(counted.tree_packs.bytes, counted.tree_block),
        bytes: counted.tree_packs.bytes,
    };
    let quick = counted.view.plus(counted.openers);
    let structure = quick.plus(counted.rest).plus(nodes);
    let chosen = share(counted.packs, read_data);
    let content = counted.mean_entry.max(counted.data_block);
    let path = Bulk {
        count: counted.levels + blocks(content, counted.data_block),
        bytes: (counted.levels * counted.tree_block).saturating_add(content),
    };
    let drill = Bulk {
        count: path.count.saturating_mul(sample),
        bytes: path.bytes.saturating_mul(sample),
    };
    Costs {
        quick: cost(quick, false),
        structure: cost(structure, true),
        data: cost(structure.plus(chosen), true),
        drill: cost(counted.view.plus(drill), true),
    }
}

/// Gives how many requests read so many bytes of blocks.
fn blocks(bytes: u64, block: u64) -> u64 {
    if block == 0 { 0 } else { bytes.div_ceil(block) }
}

/// Gives the part of the packs that is chosen.
fn share(packs: Bulk, read_data: ReadData) -> Bulk {
    let part = |fraction: f64| Bulk {
        count: (packs.count as f64 * fraction).ceil() as u64,
        bytes: (packs.bytes as f64 * fraction).ceil() as u64,
    };
    match read_data {
        ReadData::No => Bulk::default(),
        ReadData::All => packs,
        ReadData::Percent(percent) => part(percent / 100.0),
        ReadData::Part(_, parts) => part(1.0 / parts as f64),
        ReadData::Due(due) => match due.max_bytes {
            Some(max) if max < packs.bytes => part(max as f64 / packs.bytes as f64),
            _ => packs,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_level_costs_what_it_reads() {
        let counted = Counted {
            objects: 2500,
            view: Bulk {
                count: 10,
                bytes: 1000,
            },
            openers: Bulk {
                count: 3,
                bytes: 300,
            },
            rest: Bulk {
                count: 2,
                bytes: 200,
            },
            packs: Bulk {
                count: 200,
                bytes: 80_000,
            },
            tree_packs: Bulk {
                count: 20,
                bytes: 8000,
            },
            tree_block: 100,
            data_block: 400,
            levels: 3,
            mean_entry: 1000,
        };
        let costs = of(&counted, ReadData::Percent(25.0), 7, true);
        let told = |cost: Cost| (cost.list_requests, cost.read_requests, cost.bytes);
        assert_eq!(told(costs.quick), (12, 13, 1300));
        assert_eq!(told(costs.structure), (12, 10 + 5 + 80, 9500));
        assert_eq!(told(costs.data), (12, 95 + 50, 9500 + 20_000));
        assert_eq!(told(costs.drill), (12, 10 + 7 * (3 + 3), 1000 + 7 * 1300));
        assert_eq!(costs.data.egress_bytes, costs.data.bytes);
        assert!(!costs.quick.is_estimate && costs.structure.is_estimate);
        let local = of(&counted, ReadData::All, 0, false);
        assert_eq!((local.data.bytes, local.data.egress_bytes), (89_500, 0));
        let part = of(&counted, ReadData::Part(1, 3), 0, false);
        assert_eq!(part.data.read_requests, 95 + 67);
        let empty = of(&Counted::default(), ReadData::All, 100, true);
        assert_eq!((empty.data.bytes, empty.drill.read_requests), (0, 0));
    }

    #[test]
    fn what_comes_from_elsewhere_is_egress() {
        assert!(is_remote("s3://bucket/prefix") && is_remote("sftp://me@host/path"));
        assert!(!is_remote("/srv/backup") && !is_remote("file:///srv/backup"));
    }
}
