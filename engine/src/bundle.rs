//! Bundles: snapshots in one stream, under a password of their own (SPEC.md §19).
//!
//! A bundle is a repository whose objects stand one behind another. So making one is copying snapshots
//! into a storage that writes what it is given to the stream (`sink`), and taking its snapshots over is
//! copying out of a storage that finds them again in a file (`file`). What comes through a pipe is put
//! aside first (`incoming`), so that its end was seen before anything is changed.

mod file;
mod incoming;
mod sink;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]
mod tests;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use larder_format::bundle::{BUNDLE, BundleRecord, Frames, Head, RECORD_NAME, Span};
use larder_format::config::Config;
use larder_format::ids::{ReplicaId, RepositoryId};
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring};
use larder_format::limits::SMALL_RECORD_BYTES;
use larder_format::names::{self, Name};
use zeroize::Zeroizing;

use crate::cancel::Cancel;
use crate::clock;
use crate::error::{EngineError, Result};
use crate::openers;
use crate::progress::Progress;
use crate::random;
use crate::repository::{Cache, KdfCost, OpenOptions, Repository, Secret, make_slot};
use crate::rewrite::{self, Chosen, CopyOptions, EachCopy, copy_all};
use crate::scratch::{ScratchError, TemporaryFolder};
use crate::session::Author;
use crate::snapshots::{Filter, Which};
use crate::storage::error::{ErrorKind, Result as StorageResult};
use crate::storage::{ObjectInfo, Storage};
use sink::Sink;

pub(crate) use file::BundleFile;
pub use incoming::{BundleKeys, Incoming};

/// How snapshots are exported.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Who does it.
    pub author: Author,
    /// Label of the bundle's key slot.
    pub label: String,
    /// Cost of its passphrase.
    pub kdf: KdfCost,
}

/// What was exported.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct ExportReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// The bundle's id, in hex: that of the repository that it is; empty in a dry run.
    pub bundle: String,
    /// Snapshots in it.
    pub snapshots: u64,
    /// Their entries.
    pub entries: u64,
    /// Bytes of all their files.
    pub bytes: u64,
    /// Objects in it.
    pub objects: u64,
    /// Bytes of the bundle as a whole.
    pub bytes_written: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Tells what a bundle of the named snapshots, or of all that the filter takes if none is named, would hold.
///
/// # Errors
/// `NotFound` if no snapshot is meant, or one is not there; `Request` for names that mean several.
pub fn plan_export(source: &Repository, names: &[Which], filter: &Filter) -> Result<ExportReport> {
    let chosen = choose(source, names, filter)?;
    Ok(ExportReport {
        dry_run: true,
        snapshots: chosen.snapshots.len() as u64,
        entries: chosen.entries,
        bytes: chosen.bytes,
        ..ExportReport::default()
    })
}

/// Writes a bundle of the named snapshots, or of all that the filter takes if none is named.
///
/// It is written once from its beginning to its end, with keys made for it that `secret` opens, and in
/// bounded memory. A bundle that was not written to its end is refused by whoever reads it, so the first
/// snapshot that cannot be read ends it all. Gives `out` back, flushed.
///
/// # Errors
/// `NotFound` if no snapshot is meant, or one is not there; `Request` for names that mean several;
/// `Damaged`, `Interrupted`, or what the storages or `out` answer.
pub fn export<W: Write + Send + 'static>(
    source: &Arc<Repository>,
    (names, filter): (&[Which], &Filter),
    (out, secret): (W, &Secret),
    options: &ExportOptions,
    each: EachCopy<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(W, ExportReport)> {
    let clock = Instant::now();
    let chosen = choose(source, names, filter)?;
    let folder = temporary_folder(source)?;
    let sink = Arc::new(Sink::start(out)?);
    let target = begin(&sink, source, secret, options, folder.path())?;
    let mut report = ExportReport {
        bundle: target.config().repository.to_hex(),
        ..ExportReport::default()
    };
    let each = &mut |one: &rewrite::CopyReport| {
        report.snapshots += u64::from(!one.existed);
        report.entries += one.entries;
        report.bytes += one.bytes;
        each(one)
    };
    let both = (source, &target);
    rewrite::copy_alone(both, &chosen, &options.author, each, progress, cancel)?;
    let (out, record) = sink.finish(target.keyring())?;
    report.objects = record.objects;
    report.bytes_written = sink.position();
    report.seconds = clock.elapsed().as_secs_f64();
    Ok((out, report))
}

/// Copies all snapshots of a bundle into a repository.
///
/// All of the bundle is read and verified first, up to its end: until then nothing in the repository is
/// changed. Snapshots that are there already are passed over. Gives the ids of those that could not be
/// copied, each of which was warned of.
///
/// # Errors
/// `Bundle` for one that is cut off, altered or malformed; `File` if there is no room to put aside what
/// came through a pipe; and as [`copy_all`].
pub fn import(
    incoming: Incoming,
    keys: BundleKeys,
    target: &Arc<Repository>,
    options: &CopyOptions,
    each: EachCopy<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<String>> {
    if !options.dry_run {
        target.check_write()?;
    }
    let bundle: Arc<dyn Storage> = Arc::new(incoming.receive(progress, cancel)?);
    verify(bundle.as_ref(), &keys.0.unlocked.keyring)?;
    let folder = temporary_folder(target)?;
    let open = open_options(target, folder.path());
    let source = Repository::open_with(bundle, None, keys.0, &open)?;
    let all = (&[][..], &Filter::default());
    copy_all(&source, target, all, options, each, progress, cancel)
}

/// Verifies that a bundle holds what its record says: all of it, in this order, and nothing else.
///
/// # Errors
/// `Bundle` if it does not, or what the storage answers.
pub(crate) fn verify(storage: &dyn Storage, keyring: &Keyring) -> Result<()> {
    let refuse = |why: String| EngineError::Bundle {
        bundle: storage.describe(),
        why,
    };
    let mut frames = Frames::new();
    let mut problem = None;
    storage.list("", &mut |object| {
        let head = Head {
            name: names::parse(&object.name),
            length: object.size_bytes,
        };
        if let Err(error) = frames.push(&head) {
            problem.get_or_insert(error);
        }
        Ok(())
    })?;
    if let Some(error) = problem {
        return Err(refuse(error.to_string()));
    }
    let object = match storage.get(RECORD_NAME, SMALL_RECORD_BYTES as u64) {
        Err(error) if error.kind == ErrorKind::NotFound => {
            return Err(refuse("its end is missing".to_owned()));
        }
        object => object?,
    };
    let record = BundleRecord::open(keyring, &object).map_err(|error| refuse(error.to_string()))?;
    if record != frames.record() {
        return Err(refuse(
            "it does not hold what its record at the end says: something was left out, put in, moved or cut short"
                .to_owned(),
        ));
    }
    Ok(())
}

fn choose(source: &Repository, names: &[Which], filter: &Filter) -> Result<Chosen> {
    let chosen = rewrite::choose(source, names, filter)?;
    if chosen.snapshots.is_empty() {
        return Err(EngineError::NotFound(
            "there is no snapshot to export; `larder snapshots` lists them".to_owned(),
        ));
    }
    Ok(chosen)
}

/// Makes the repository that a bundle is: its keys, config and slot.
fn begin<W: Write + Send + 'static>(
    sink: &Arc<Sink<W>>,
    source: &Repository,
    secret: &Secret,
    options: &ExportOptions,
    folder: &Path,
) -> Result<Arc<Repository>> {
    let repository = RepositoryId(random::bytes()?);
    let keys: Zeroizing<[u8; KEYRING_RANDOM_BYTES]> = Zeroizing::new(random::bytes()?);
    let keyring = Keyring::generate(repository, &keys);
    let (slot, slot_object) = make_slot(&keyring, secret, false, &options.label, options.kdf)?;
    let config = Config {
        number: 1,
        repository,
        replica: ReplicaId(random::bytes()?),
        created: clock::now_s(),
        chunker: source.config().chunker,
        read_features: vec![BUNDLE.to_owned()],
        write_features: Vec::new(),
        collect_features: Vec::new(),
        slots: vec![slot],
    };
    let config_object = Bytes::from(config.seal(&keyring, random::bytes()?)?);
    sink.create(&names::config(1), config_object)?;
    sink.create(&names::slot(&slot), slot_object)?;
    // Whoever gets the bundle opens it in the same way.
    let opened = openers::unlock(sink.as_ref(), secret)?;
    let storage: Arc<dyn Storage> = Arc::<Sink<W>>::clone(sink);
    Repository::open_with(storage, None, opened, &open_options(source, folder))
}

/// Makes a folder for the index of a bundle, which goes when it was copied.
fn temporary_folder(beside: &Repository) -> Result<TemporaryFolder> {
    let parent = beside.cache_dir();
    TemporaryFolder::new(parent, "bundle").map_err(|error| {
        EngineError::Scratch(ScratchError {
            action: "make",
            folder: parent.display().to_string(),
            cause: error.to_string(),
        })
    })
}

fn open_options(beside: &Repository, folder: &Path) -> OpenOptions {
    OpenOptions {
        cache_dir: Some(folder.to_owned()),
        state_dir: None,
        threads: beside.workers().current_num_threads(),
        cache: Cache::Disk,
        in_order: beside.is_in_order(),
    }
}

/// Finds the objects below a folder, in the order of the stream.
fn below(frames: &Frames, folder: &str) -> Vec<(Name, Span)> {
    let folder = folder.strip_suffix('/').unwrap_or(folder);
    let found = frames.iter().filter(|(name, _)| is_below(name, folder));
    let mut found: Vec<_> = found.collect();
    found.sort_unstable_by_key(|(_, span)| span.offset);
    found
}

/// Lists objects.
fn list(
    objects: Vec<(Name, Span)>,
    visit: &mut dyn FnMut(ObjectInfo) -> StorageResult<()>,
) -> StorageResult<()> {
    for (name, span) in objects {
        visit(ObjectInfo {
            name: name.to_string(),
            size_bytes: span.length,
        })?;
    }
    Ok(())
}

/// Tells whether an object lies below a folder; most are packs, whose names are not made for it.
fn is_below(name: &Name, folder: &str) -> bool {
    let first = match name {
        Name::Config(_) => names::CONFIGS,
        Name::Slot(_) => names::SLOTS,
        Name::Pack(_) => names::PACKS,
        Name::Segment(_) => names::SEGMENTS,
        Name::Session(_) | Name::SessionEnd(_) => names::SESSIONS,
        Name::Cell(_) => names::CELLS,
        _ => return false,
    };
    if folder.is_empty() || first.strip_suffix('/') == Some(folder) {
        return true;
    }
    let is_within = |text: &str| {
        text.strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    folder.starts_with(first) && is_within(&name.to_string())
}
