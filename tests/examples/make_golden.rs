//! Does the steps of making a golden repository that only the program itself can do.
//!
//! `tests/tools/make_golden.py` makes the sources, calls this between its steps, and writes down
//! what the sources held. Passphrases cost next to nothing and chunks are tiny here, so that a
//! small repository holds every form that the format has.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_engine::backup::{BackupOptions, CheckpointRhythm, Compression, Selection, backup};
use larder_engine::cancel::Cancel;
use larder_engine::chunker::ChunkSizes;
use larder_engine::error::EngineError;
use larder_engine::progress::{Progress, Silent};
use larder_engine::repository::{
    Cache, ChunkerKind, InitOptions, KdfCost, OpenOptions, Repository, Secret,
};
use larder_engine::snapshots::{self, Filter};
use larder_engine::{keys, random};
use larder_format::ids::SessionId;
use larder_format::record::{Record, seal_record};
use larder_format::session::{Amendment, Change};

const USAGE: &str = "make_golden REPOSITORY PASSPHRASE (init KEY RECOVERY-KEY | backup SOURCE... \
                     | interrupt SOURCE | amend)";
/// The least that Argon2id takes.
const KDF: KdfCost = KdfCost {
    memory_kib: 8,
    passes: 1,
    lanes: 1,
};
/// Entries of a source after which its backup is interrupted.
const INTERRUPT_AFTER: u64 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [location, passphrase, step, rest @ ..] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let location = location.to_str().ok_or(USAGE)?;
    let passphrase = passphrase.to_str().ok_or(USAGE)?;
    let secret = Secret::Passphrase(passphrase.as_bytes().to_vec().into());
    match (step.to_str(), rest) {
        (Some("init"), [key, recovery]) => init(location, &secret, key, recovery),
        (Some("backup"), [_, ..]) => {
            let repository = open(location, &secret)?;
            let options = options(rest.iter().map(PathBuf::from).collect());
            backup(&repository, &options, &Silent, &Cancel::default())?;
            Ok(())
        }
        (Some("interrupt"), [source]) => {
            let repository = open(location, &secret)?;
            interrupt(&repository, source)
        }
        (Some("amend"), []) => {
            let repository = open(location, &secret)?;
            amend(&repository, location)
        }
        _ => Err(USAGE.into()),
    }
}

fn init(
    location: &str,
    secret: &Secret,
    key: &OsStr,
    recovery: &OsStr,
) -> Result<(), Box<dyn Error>> {
    let options = InitOptions {
        label: "golden passphrase".to_owned(),
        kdf: KDF,
        reserve_bytes: 512,
        chunker: ChunkerKind::FastCdc,
        chunks: ChunkSizes {
            minimum: 64,
            mean: 256,
            maximum: 1024,
        },
        racy_creates: false,
        parity: None,
    };
    Repository::init(location, secret, &options)?;
    let repository = open(location, secret)?;
    let key = Secret::from_key_file(key.to_str().ok_or(USAGE)?)?;
    keys::add(&repository, &key, false, "golden key file", KDF)?;
    let recovery = Secret::from_recovery_key(recovery.to_str().ok_or(USAGE)?)?;
    keys::add(&repository, &recovery, true, "golden recovery key", KDF)?;
    Ok(())
}

fn open(location: &str, secret: &Secret) -> Result<Arc<Repository>, EngineError> {
    let options = OpenOptions {
        cache: Cache::Memory,
        ..OpenOptions::default()
    };
    Repository::open(location, secret, &options)
}

fn options(sources: Vec<PathBuf>) -> BackupOptions {
    BackupOptions {
        sources,
        buckets: Default::default(),
        streams: Default::default(),
        selection: Selection::default(),
        host: "golden-host".to_owned(),
        user: "golden-user".to_owned(),
        tags: vec!["golden".to_owned()],
        time: None,
        parent: None,
        force: false,
        ignore_ctime: false,
        ignore_inode: false,
        with_atime: false,
        read_special: false,
        skip_if_unchanged: false,
        dry_run: false,
        compression: Compression::Auto,
        solid: true,
        verify_blocks: true,
        checkpoints: CheckpointRhythm::every_seconds(3600),
        hooks: Default::default(),
        shard: None,
    }
}

/// Asks for the stop of a backup after so many entries.
struct StopAfter {
    entries: AtomicU64,
    cancel: Cancel,
}

impl Progress for StopAfter {
    fn advance(&self, items: u64, _: u64) {
        if self.entries.fetch_add(items, Ordering::Relaxed) + items >= INTERRUPT_AFTER {
            self.cancel.request();
        }
    }
}

/// Backs a source up until a checkpoint is all that comes of it.
fn interrupt(repository: &Arc<Repository>, source: &OsStr) -> Result<(), Box<dyn Error>> {
    let cancel = Cancel::default();
    let progress = StopAfter {
        entries: AtomicU64::new(0),
        cancel: cancel.clone(),
    };
    let options = options(vec![Path::new(source).to_owned()]);
    match backup(repository, &options, &progress, &cancel) {
        Err(EngineError::Interrupted) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err("the backup ended before it was interrupted".into()),
    }
}

/// Gives the oldest snapshot other tags, pins it, and forgets the newest one.
fn amend(repository: &Repository, location: &str) -> Result<(), Box<dyn Error>> {
    let list = snapshots::list(repository, &Filter::default(), false)?;
    let (Some(oldest), Some(newest)) = (list.first(), list.last()) else {
        return Err("there is nothing to amend".into());
    };
    let tags = vec!["amended".to_owned(), "golden".to_owned()];
    let changes = [
        (oldest.session, 1, Change::SetTags(tags)),
        (oldest.session, 2, Change::Pin),
        (newest.session, 1, Change::Forget),
    ];
    for (cell, number, change) in changes {
        put_amendment(repository, location, cell, number, change)?;
    }
    Ok(())
}

fn put_amendment(
    repository: &Repository,
    location: &str,
    cell: SessionId,
    number: u64,
    change: Change,
) -> Result<(), Box<dyn Error>> {
    let amendment = Amendment {
        cell,
        number,
        change,
        time: 1_700_000_000_000_000_000,
        host: "golden-host".to_owned(),
        user: "golden-user".to_owned(),
    };
    let (uid, random) = (random::bytes()?, random::bytes()?);
    let object = seal_record(repository.keyring(), &amendment, uid, &random)?;
    let path = Path::new(location).join(amendment.name().to_string());
    fs::write(path, object)?;
    Ok(())
}
