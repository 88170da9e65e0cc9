//! Marking, planning and checking at scale, on a repository of tiny chunks that is made for it.
//!
//! `prune_scale make FOLDER ENTRIES SNAPSHOTS` writes one tree of so many files, each with a chunk of
//! its own, and so many snapshots of it. `prune_scale mark FOLDER`, `prune_scale plan FOLDER` and
//! `prune_scale check FOLDER` (its structure) read it and say how long that took and how much memory, each
//! best run as a process of its own.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_engine::cancel::Cancel;
use larder_engine::check::{CheckOptions, ReadData, Severity, check};
use larder_engine::format::block::Compression;
use larder_engine::format::cell::{Cell, CellKind, Source, Statistics};
use larder_engine::format::entry::{Content, Entry, EntryType};
use larder_engine::format::ids::{ChunkId, ChunkType, SessionId};
use larder_engine::format::names;
use larder_engine::format::record::seal_record;
use larder_engine::format::tree::build::{NodeOut, TreeBuilder};
use larder_engine::mark::{NEEDED, mark};
use larder_engine::packer::{Packer, PackerOptions};
use larder_engine::progress::Silent;
use larder_engine::prune::plan::{Limits, MaxUnused};
use larder_engine::prune::{PruneOptions, prune};
use larder_engine::repository::{InitOptions, KdfCost, OpenOptions, Repository, Secret};
use larder_engine::session::Author;
use larder_engine::view;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["make", folder, entries, snapshots] => {
            make(Path::new(folder), entries.parse()?, snapshots.parse()?)
        }
        ["mark", folder] => measure_mark(Path::new(folder)),
        ["plan", folder] => measure_plan(Path::new(folder)),
        ["check", folder] => measure_check(Path::new(folder)),
        _ => Err("prune_scale make FOLDER ENTRIES SNAPSHOTS | mark|plan|check FOLDER".into()),
    }
}

fn secret() -> Secret {
    Secret::Passphrase(b"scale".to_vec().into())
}

fn open(folder: &Path) -> Result<Arc<Repository>> {
    let options = OpenOptions {
        cache_dir: Some(folder.join("cache")),
        ..OpenOptions::default()
    };
    let location = folder.join("repository");
    Ok(Repository::open(
        &location.to_string_lossy(),
        &secret(),
        &options,
    )?)
}

fn make(folder: &Path, entries: u64, snapshots: u64) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let options = InitOptions {
        kdf: KdfCost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        },
        ..InitOptions::default()
    };
    let location = folder.join("repository");
    Repository::init(&location.to_string_lossy(), &secret(), &options)?;
    let repository = open(folder)?;
    let options = PackerOptions {
        compression: Compression::Level(1),
        solid: true,
        verify_blocks: true,
        dry_run: false,
    };
    let session = SessionId::new(0, [1; 16]);
    let mut packer = Packer::start(&repository, session, options)?;
    let mut builder = TreeBuilder::new(repository.keyring().boundary_key());
    let mut bytes = 0;
    for number in 0..=entries {
        let mut entry = Entry {
            kind: EntryType::Directory,
            mode: 0o755,
            ..Entry::default()
        };
        if number > 0 {
            let content = number.to_le_bytes();
            let id = packer.chunk_id(ChunkType::Data, &content);
            packer.put(ChunkType::Data, id, &content, None)?;
            entry.kind = EntryType::File;
            entry.key = format!("file-{number:012}").into_bytes();
            entry.size = content.len() as u64;
            entry.content = Content::Whole(id);
            bytes += entry.size;
        }
        builder.push(entry, &mut |node| put_node(&mut packer, node))?;
    }
    let root = builder.finish(&mut |node| put_node(&mut packer, node))?;
    let mut segments = packer.flush()?;
    segments.sort_unstable();
    for number in 0..snapshots {
        let mut random = [0; 16];
        for (to, from) in random.iter_mut().zip(number.to_be_bytes()) {
            *to = from;
        }
        // The first one owns the segments.
        let id = if number == 0 {
            session
        } else {
            SessionId::new(0, random)
        };
        let cell = Cell {
            kind: CellKind::Complete,
            id,
            predecessor: None,
            parent: None,
            started: i64::try_from(number)? * 1_000_000_000,
            ended: i64::try_from(number)? * 1_000_000_000 + 1,
            host: "scale".to_owned(),
            user: "scale".to_owned(),
            tags: Vec::new(),
            sources: vec![Source {
                path: b"/scale".to_vec(),
                root: root.id,
                level: root.level,
                entries: root.entries,
                bytes,
            }],
            segments: if number == 0 {
                segments.clone()
            } else {
                Vec::new()
            },
            statistics: Statistics::default(),
            options: std::collections::BTreeMap::default(),
            program: "prune_scale".to_owned(),
            config: 1,
            seen_cells: Vec::new(),
            seen_round: 0,
            shard: None,
        };
        let object = seal_record(repository.keyring(), &cell, random, &[7; 32])?;
        repository
            .storage()
            .create(&names::cell(&id), object.into())?;
    }
    println!("made {entries} files in {snapshots} snapshots");
    Ok(())
}

fn put_node(packer: &mut Packer, node: NodeOut) -> larder_engine::error::Result<ChunkId> {
    let id = packer.chunk_id(node.chunk_type, &node.plain);
    packer.put(node.chunk_type, id, &node.plain, None)?;
    Ok(id)
}

fn measure_mark(folder: &Path) -> Result<()> {
    let repository = open(folder)?;
    let begun = Instant::now();
    let view = view::read(&repository, false, None)?;
    tell("reading the index", begun);
    let cells: Vec<&Cell> = view.cells.values().collect();
    let begun = Instant::now();
    let marks = mark::<NEEDED>(&repository, &cells, &Silent, &Cancel::default())?;
    tell("walking the trees", begun);
    let begun = Instant::now();
    let (mut needed, mut all) = (0_u64, 0_u64);
    marks.join(repository.index(), |_, _, records| {
        all += 1;
        needed += u64::from(!records.is_empty());
        Ok(())
    })?;
    tell("joining with the index", begun);
    let mut packs = 0_u64;
    repository.index().packs(&mut |_| {
        packs += 1;
        ControlFlow::Continue(())
    })?;
    println!(
        "{} nodes, {needed} of {all} chunks needed, {packs} packs",
        marks.nodes
    );
    memory()
}

fn measure_plan(folder: &Path) -> Result<()> {
    let repository = open(folder)?;
    let begun = Instant::now();
    let options = PruneOptions {
        limits: Limits {
            max_unused: MaxUnused::Percent(5.0),
            max_repack_bytes: None,
        },
        max_duration: None,
        wait: false,
        patience: Duration::ZERO,
        dry_run: true,
        accept_rollback: false,
        assume_forgotten: Default::default(),
        accept_racy_creates: false,
        thaw: None,
        author: Author {
            host: "scale".to_owned(),
            user: "scale".to_owned(),
        },
    };
    let report = prune(&repository, &options, &Silent, &Cancel::default())?;
    tell("planning", begun);
    println!("{} packs", report.plan.totals.packs);
    memory()
}

fn measure_check(folder: &Path) -> Result<()> {
    let repository = open(folder)?;
    let begun = Instant::now();
    let options = CheckOptions {
        read_data: ReadData::No,
        records_suspects: false,
    };
    let report = check(&repository, &options, &Silent, &Cancel::default())?;
    tell("checking", begun);
    let losses = report.findings.iter();
    let losses = losses.filter(|finding| finding.severity == Severity::Loss);
    match losses.count() {
        0 => memory(),
        losses => Err(format!("{losses} findings in a sound repository").into()),
    }
}

fn tell(what: &str, begun: Instant) {
    println!("{what}: {:.2} s", begun.elapsed().as_secs_f64());
}

/// Tells the most memory that this process had.
fn memory() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("memory at most: {}", line.ok_or("no VmHWM")?.trim());
    Ok(())
}
