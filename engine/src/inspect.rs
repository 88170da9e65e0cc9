//! Objects of the repository as JSON, for debugging; never a secret.

use larder_format::cell::{Cell, CellKind};
use larder_format::ids::{ChunkType, ObjectId};
use larder_format::names::{self, Name};
use serde_json::{Value, json};

use crate::error::{EngineError, Result};
use crate::index::PackKind;
use crate::repository::Repository;
use crate::salvage::read_directory;
use crate::snapshots::SnapshotInfo;
use crate::view::{self, View};

/// Gives the newest config that was read or written.
#[must_use]
pub fn config_json(repository: &Repository) -> Value {
    let config = repository.config();
    let slots = config.slots.iter().map(|slot| slot.to_hex());
    json!({
        "object": names::config(config.number),
        "number": config.number,
        "repository": config.repository.to_hex(),
        "replica": config.replica.to_hex(),
        "created": time(i128::from(config.created) * 1_000_000_000),
        "chunker": {
            "name": config.chunker.name,
            "min_bytes": config.chunker.min_bytes,
            "mean_bytes": config.chunker.mean_bytes,
            "max_bytes": config.chunker.max_bytes,
        },
        "read_features": config.read_features,
        "write_features": config.write_features,
        "collect_features": config.collect_features,
        "slots": slots.collect::<Vec<_>>(),
    })
}

/// Gives everything that a snapshot's cell holds, with its amendments.
///
/// # Errors
/// `NotFound` if the snapshot is not there any more, or what the storage answers.
pub fn snapshot_json(repository: &Repository, snapshot: &SnapshotInfo) -> Result<Value> {
    let view = view::read_cells(repository, None)?;
    let cell = view.cells.get(&snapshot.session).ok_or_else(|| {
        EngineError::NotFound(format!(
            "the snapshot {} is not there any more",
            snapshot.id
        ))
    })?;
    Ok(cell_json(&view, cell))
}

/// Gives what a pack says it holds; `id` may be a unique prefix of the pack's id.
///
/// # Errors
/// `NotFound`; `Request` for an ambiguous prefix; `Damaged`, or what the storage answers.
pub fn pack_json(repository: &Repository, id: &str) -> Result<Value> {
    let (id, size) = find_pack(repository, &id.to_ascii_lowercase())?;
    let pack = read_directory(repository, &id, size)?;
    let blocks: Vec<Value> = pack
        .blocks
        .iter()
        .map(|block| {
            let chunks = block.chunks.iter();
            let chunks = chunks
                .map(|(prefix, length)| json!({ "id_prefix": prefix.to_hex(), "bytes": length }));
            json!({
                "offset": block.offset,
                "bytes": block.length,
                "type": ChunkType::from_number(block.chunk_type).map_or("unknown", type_word),
                "chunks": chunks.collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(json!({
        "object": names::pack(&id),
        "id": id.to_hex(),
        "kind": match pack.kind {
            PackKind::Data => "data",
            PackKind::Tree => "tree",
        },
        "bytes": size,
        "blocks": blocks,
    }))
}

fn cell_json(view: &View, cell: &Cell) -> Value {
    let sources = cell.sources.iter().map(|source| {
        json!({
            "path": String::from_utf8_lossy(&source.path),
            "root": source.root.to_hex(),
            "level": source.level,
            "entries": source.entries,
            "bytes": source.bytes,
        })
    });
    let amendments = view.amendments.get(&cell.id).into_iter().flatten();
    let amendments = amendments.map(|one| names::amendment(&cell.id, one.number));
    let segments = cell.segments.iter().map(names::segment);
    let counted = &cell.statistics;
    json!({
        "object": names::cell(&cell.id),
        "id": cell.id.snapshot_name(),
        "kind": match cell.kind {
            CellKind::Complete => "complete",
            CellKind::Partial => "partial",
            CellKind::Shard => "shard",
            CellKind::Revoked => "revoked",
        },
        "predecessor": cell.predecessor.map(|id| id.snapshot_name()),
        "parent": cell.parent.map(|id| id.snapshot_name()),
        "started": time(cell.started.into()),
        "ended": time(cell.ended.into()),
        "host": cell.host,
        "user": cell.user,
        "tags": view.tags(cell),
        "sources": sources.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(),
        "statistics": {
            "files": counted.files,
            "directories": counted.directories,
            "others": counted.others,
            "new": counted.new,
            "changed": counted.changed,
            "unchanged": counted.unchanged,
            "unreadable": counted.unreadable,
            "changed_while_read": counted.changed_while_read,
            "read_bytes": counted.read_bytes,
            "new_chunk_bytes": counted.new_chunk_bytes,
            "stored_bytes": counted.stored_bytes,
            "new_chunks": counted.new_chunks,
        },
        "options": cell.options,
        "program": cell.program,
        "config": cell.config,
        "seen_cells": cell.seen_cells.iter().map(|id| id.snapshot_name()).collect::<Vec<_>>(),
        "seen_round": cell.seen_round,
        "amendments": amendments.collect::<Vec<_>>(),
    })
}

fn find_pack(repository: &Repository, prefix: &str) -> Result<(ObjectId, u64)> {
    let is_hex = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some(folder) = prefix.get(..2).filter(|_| is_hex) else {
        return Err(EngineError::Request(format!(
            "'{prefix}' is no pack's id; give its hex digits, at least two"
        )));
    };
    let mut found = Vec::new();
    repository
        .storage()
        .list(&format!("packs/{folder}"), &mut |object| {
            if let Some(Name::Pack(id)) = names::parse(&object.name)
                && id.to_hex().starts_with(prefix)
            {
                found.push((id, object.size_bytes));
            }
            Ok(())
        })?;
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(EngineError::NotFound(format!("there is no pack {prefix}"))),
        several => Err(EngineError::Request(format!(
            "{prefix} is ambiguous: {} packs begin with it; give more digits",
            several.len()
        ))),
    }
}

fn type_word(chunk_type: ChunkType) -> &'static str {
    match chunk_type {
        ChunkType::Data => "data",
        ChunkType::TreeLeaf => "tree leaf",
        ChunkType::TreeInterior => "tree interior",
        ChunkType::ListLeaf => "list leaf",
        ChunkType::ListInterior => "list interior",
        ChunkType::Value => "value",
    }
}

fn time(nanoseconds: i128) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(nanoseconds).ok()?;
    Some(time.to_string())
}
