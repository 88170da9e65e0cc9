//! What the program answers with `--json`, as the OpenAPI document of the service describes it.
//!
//! What is a type of the program or of its jobs describes itself. The engine describes nothing: what of it is printed stands
//! here once more, and the tests of the service hold it against what is really printed.

use jiff::Timestamp;
use larder_jobs::history::Run;
use larder_server::{Document, of};
use schemars::JsonSchema;

use crate::commands::change::Done;
use crate::commands::diff::{Change, Summary};
use crate::commands::find::Found;
use crate::commands::history::VersionJson;
use crate::commands::job::show::{Listed, Shown as ShownJob};
use crate::commands::location::Shown as ShownLocation;
use crate::item::ItemJson;
use crate::progress::Status;

/// Each document that the service hands on, by the name under which its routes know it.
pub const ALL: &[Document] = &[
    ("Change", of::<Done<'static>>),
    ("Difference", of::<Change>),
    ("Differences", of::<Summary>),
    ("Found", of::<Found<'static>>),
    ("Item", of::<ItemJson>),
    ("Job", of::<Listed<'static>>),
    ("Location", of::<ShownLocation<'static>>),
    ("PastRun", of::<Run>),
    ("Repository", of::<Repository>),
    ("ShownJob", of::<ShownJob<'static>>),
    ("Snapshot", of::<Snapshot>),
    ("Standing", of::<Standing>),
    ("Stats", of::<Stats>),
    ("Status", of::<Status<'static>>),
    ("Version", of::<VersionJson<'static>>),
];

/// A finished backup.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Snapshot {
    /// 32 hex digits.
    id: String,
    /// When it was started.
    time: Timestamp,
    /// When it was finished.
    end: Timestamp,
    /// Whether it is a checkpoint of an unfinished backup, or a shard.
    partial: bool,
    /// The shard that it is, if it is one.
    shard: Option<Shard>,
    /// Whether it is kept from being forgotten.
    pinned: bool,
    host: String,
    user: String,
    tags: Vec<String>,
    /// Sources as they were given.
    sources: Vec<String>,
    /// Of several sources, when each was read, in their turn; else empty.
    read: Vec<SourceTimes>,
    /// The id of the snapshot that it was compared with.
    parent: Option<String>,
    /// The program that made it.
    program: String,
    statistics: Statistics,
}

/// A part of a bucket that several processes back up together.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Shard {
    /// The name of the run.
    run: String,
    /// From 1.
    number: u64,
    /// How many shards the run has.
    count: u64,
    /// Whether all of it was backed up.
    finished: bool,
}

/// When a source was read.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct SourceTimes {
    source: String,
    started: Timestamp,
    ended: Timestamp,
}

/// What a backup counted.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Statistics {
    files: u64,
    directories: u64,
    others: u64,
    /// Entries that the parent did not have.
    new: u64,
    changed: u64,
    unchanged: u64,
    unreadable: u64,
    changed_while_read: u64,
    /// Of all files.
    bytes: u64,
    /// From the source.
    bytes_read: u64,
    /// In new chunks, before compression.
    bytes_added: u64,
    /// Written to the storage.
    bytes_stored: u64,
    chunks_added: u64,
}

/// How the backups of the same sources of one host stand.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Standing {
    host: String,
    sources: Vec<String>,
    /// The newest complete snapshot of them.
    snapshot: String,
    /// When that was started.
    time: Timestamp,
    age_seconds: u64,
    /// Whether it is older than it may be.
    is_stale: bool,
    /// How many there are.
    snapshots: u64,
    figures: Figures,
    /// Figures that are far from what was usual before.
    unusual: Vec<Unusual>,
    verified: Verified,
}

/// What a snapshot counted.
#[derive(JsonSchema)]
#[schemars(rename = "StandingFigures")]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Figures {
    bytes: u64,
    files: u64,
    seconds: u64,
}

/// Something that is far from what was usual.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Unusual {
    /// `bytes`, `files` or `seconds`.
    figure: String,
    is: u64,
    /// The median of the snapshots before.
    usually: u64,
}

/// What share of a repository's packs was verified, in bytes.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Verified {
    /// Of all packs that count.
    bytes: u64,
    days_7: u64,
    days_30: u64,
    days_90: u64,
    never: u64,
    /// When the pack was verified that was verified longest ago.
    oldest: Option<Timestamp>,
}

/// What a repository holds.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Stats {
    snapshots: u64,
    entries: u64,
    /// What restoring each snapshot would write.
    restore_bytes: u64,
    /// The chunker's name in the config.
    chunker: String,
    chunks: u64,
    /// Before compression.
    chunk_bytes: u64,
    packs: u64,
    pack_bytes: u64,
    objects: u64,
    stored_bytes: u64,
    /// What was found by walking the snapshots, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<StatsHistory>,
}

/// What each snapshot needs, brought, and would free.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct StatsHistory {
    /// Bytes of packs that some snapshot needs.
    needed_stored_bytes: u64,
    /// The oldest first.
    snapshots: Vec<SnapshotStats>,
}

/// What one snapshot needs, brought, and would free; stored bytes are shares of packs.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct SnapshotStats {
    id: String,
    time: Timestamp,
    host: String,
    restore_bytes: u64,
    /// Of chunks that no other snapshot needs, before compression.
    unique_bytes: u64,
    /// What forgetting it alone, and pruning, would free.
    unique_stored_bytes: u64,
    /// Of chunks that no older snapshot needs, before compression.
    added_bytes: u64,
    added_stored_bytes: u64,
}

/// A repository that was made.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes what the engine prints")]
struct Repository {
    /// Its id, in hex.
    repository: String,
    /// The location, without secrets.
    location: String,
    /// Whether the storage decides which of two writers was first.
    creates_exclusively: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use serde_json::Value;

    use super::*;

    /// Gives all that a document has below a key, at any depth.
    fn below<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get(key));
                fields.values().for_each(|value| below(value, key, found));
            }
            Value::Array(list) => list.iter().for_each(|value| below(value, key, found)),
            _ => {}
        }
    }

    #[test]
    fn whatever_a_route_answers_has_a_schema() {
        let document = larder_server::document("1", ALL);
        let mut references = Vec::new();
        below(&document, "$ref", &mut references);
        assert!(references.len() > 100);
        for reference in references {
            let path = reference.as_str().unwrap().trim_start_matches('#');
            assert!(document.pointer(path).is_some(), "{reference}");
        }
        // What the service does not find here fits nothing.
        let mut schemas = Vec::new();
        for key in ["schema", "items", "allOf", "anyOf", "oneOf"] {
            below(&document, key, &mut schemas);
        }
        for schema in schemas {
            let all = schema
                .as_array()
                .map_or(std::slice::from_ref(schema), Vec::as_slice);
            assert!(!all.contains(&Value::Bool(false)), "{schema}");
        }
        // Each of them is answered by some route.
        let names = document["components"]["schemas"].as_object().unwrap();
        for (name, _) in ALL {
            assert!(names.contains_key(*name), "nothing answers {name}");
        }
    }

    #[test]
    fn a_schema_has_what_its_type_sends() {
        let document = larder_server::document("1", ALL);
        let schemas = &document["components"]["schemas"];
        let needed = |name: &str, field: &str| {
            let required = schemas[name]["required"].as_array().unwrap();
            required.iter().any(|one| one == field)
        };
        assert!(
            needed("Job", "name") && needed("Job", "last_success") && !needed("Job", "mistake")
        );
        assert!(needed("Item", "mtime") && !needed("Item", "link_target"));
        assert_eq!(
            schemas["Snapshot"]["properties"]["time"]["format"],
            "date-time"
        );
        assert!(schemas["Snapshot"]["properties"]["session"].is_null());
    }
}
