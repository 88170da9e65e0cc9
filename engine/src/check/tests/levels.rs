//! The quick level and the restore drill, each against what is known otherwise; and what was said of
//! their costs against what they ask of a storage.

use std::fs::FileTimes;
use std::time::{Duration, SystemTime};

use super::*;
use crate::storage::counting::Counting;
use crate::storage::error::Operation;

impl Fixture {
    fn quick(&self) -> CheckReport {
        quick(&self.open().unwrap(), false, &Silent, &Cancel::default()).unwrap()
    }

    /// One snapshot of one source, so that the seed alone decides what is drawn.
    fn with_one_snapshot() -> Self {
        let fixture = Self::new();
        let source = fixture.source("s");
        for number in 0..15 {
            let bytes = pseudorandom(number, 300 + usize::from(number) * 400);
            fs::write(source.join(format!("f{number:02}")), bytes).unwrap();
        }
        fs::write(source.join("long"), pseudorandom(99, 90_000)).unwrap();
        let mut holes = fs::File::create(source.join("holes")).unwrap();
        holes.set_len(1 << 20).unwrap();
        std::io::Write::write_all(&mut holes, b"data").unwrap();
        drop(holes);
        fixture.back_up(&fixture.open().unwrap(), &source);
        fixture
    }

    fn drill(&self, against: Option<&Path>) -> CheckReport {
        self.drill_on(&self.open().unwrap(), against)
    }

    fn drill_on(&self, repository: &Arc<Repository>, against: Option<&Path>) -> CheckReport {
        let options = DrillOptions {
            sample: 300,
            seed: 7,
            against: against.map(Path::to_owned),
            records_suspects: false,
        };
        drill(repository, &options, &Silent, &Cancel::default()).unwrap()
    }
}

fn losses(report: &CheckReport) -> Vec<&str> {
    let losses = report
        .findings
        .iter()
        .filter(|one| one.severity == Severity::Loss);
    losses.map(|one| one.object.as_str()).collect()
}

#[test]
fn quick_finds_every_pack_that_is_not_as_the_index_says_and_reads_none() {
    let fixture = Fixture::filled();
    let objects = fixture.objects();
    let packs: Vec<_> = objects
        .keys()
        .filter(|name| name.starts_with("packs/"))
        .collect();
    assert!(packs.len() > 3);
    let counting = Arc::new(Counting::new(Arc::clone(&fixture.storage)));
    let repository = fixture.open_on(Arc::clone(&counting) as _).unwrap();
    let sound = quick(&repository, false, &Silent, &Cancel::default()).unwrap();
    assert_eq!(losses(&sound), [""; 0]);
    assert_eq!((sound.packs, sound.snapshots), (packs.len() as u64, 3));
    let counts = counting.take();
    for operation in [Operation::Get, Operation::GetRange, Operation::Size] {
        assert_eq!(counts.of_folder(operation, "packs").operations, 0);
    }
    for name in &packs {
        let bytes = &objects[*name];
        let harms = [
            (Harm::Delete, true),
            (Harm::Change("cut", bytes.slice(..bytes.len() - 1)), true),
            (Harm::Change("empty", Bytes::new()), true),
            (
                Harm::Change("longer", [bytes.as_ref(), b"x"].concat().into()),
                true,
            ),
            // What is altered inside, only reading can tell.
            (Harm::Change("flip", vec![0; bytes.len()].into()), false),
        ];
        for (harm, is_found) in harms {
            inflict(fixture.storage.as_ref(), name, &harm, &objects);
            let found = fixture.quick();
            let expected = if is_found {
                vec![name.as_str()]
            } else {
                vec![]
            };
            assert_eq!(losses(&found), expected, "{harm:?}");
            heal(fixture.storage.as_ref(), name, &harm, &objects);
        }
    }
    // All at once, and one that nothing names.
    for name in &packs {
        fixture.storage.delete(name).unwrap();
    }
    let orphan = names::pack(&ObjectId([0x55; 32]));
    fixture
        .storage
        .put(&orphan, Bytes::from_static(b"orphan"))
        .unwrap();
    let found = fixture.quick();
    let mut found_losses = losses(&found);
    found_losses.sort_unstable();
    assert_eq!(
        found_losses,
        packs.iter().map(|name| name.as_str()).collect::<Vec<_>>()
    );
    let notes = found
        .findings
        .iter()
        .filter(|one| one.severity == Severity::Note);
    assert!(
        notes
            .map(|one| &one.problem)
            .any(|text| text.starts_with("1 packs with 6 bytes"))
    );
}

#[test]
fn quick_finds_records_and_segments_that_are_gone_or_damaged() {
    let fixture = Fixture::filled();
    let objects = fixture.objects();
    let records = |folder: &str| {
        objects
            .keys()
            .find(|name| name.starts_with(folder))
            .unwrap()
    };
    for (name, severity) in [
        (records("index/"), Severity::Harmless),
        (records("snapshots/"), Severity::Loss),
    ] {
        fixture
            .storage
            .put(name, Bytes::from_static(b"not it"))
            .unwrap();
        let found = fixture.quick();
        let it = found
            .findings
            .iter()
            .find(|one| one.object == *name)
            .unwrap();
        assert_eq!(it.severity, severity);
        fixture.storage.put(name, objects[name].clone()).unwrap();
    }
    // The index on disk has it still; only the listing tells.
    let counted = fixture.open().unwrap();
    let segment = records("index/");
    quick(&counted, false, &Silent, &Cancel::default()).unwrap();
    fixture.storage.delete(segment).unwrap();
    let found = quick(&counted, false, &Silent, &Cancel::default()).unwrap();
    assert!(found.findings.iter().any(|one| one.object == *segment));
}

#[test]
fn a_drill_names_exactly_what_a_plain_reader_cannot_read() {
    let fixture = Fixture::with_one_snapshot();
    let sound = fixture.drill(None);
    assert_eq!(losses(&sound), [""; 0]);
    let drilled = sound.drilled.unwrap();
    // Each entry once, however many are asked for: 17 files and their folder.
    assert_eq!((drilled.paths, drilled.failed, drilled.seed), (18, 0, 7));
    assert_eq!(
        fixture.drill(None).drilled,
        Some(drilled),
        "one seed, one sample"
    );
    let objects = fixture.objects();
    let packs = objects.keys().filter(|name| name.starts_with("packs/"));
    let mut has_suffered = false;
    for name in packs {
        let bytes = &objects[name];
        let mut flips: Vec<Harm> = (64..bytes.len().min(20_000))
            .step_by(1501)
            .map(|at| {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 4;
                Harm::Change("flip", flipped.into())
            })
            .collect();
        flips.push(Harm::Delete);
        for harm in flips {
            inflict(fixture.storage.as_ref(), name, &harm, &objects);
            let found = fixture.drill(None);
            let expected = suffering(&fixture.open().unwrap());
            let failed = found.drilled.unwrap().failed;
            assert_eq!(failed > 0, !losses(&found).is_empty());
            if expected.has_lost_nodes {
                assert!(failed > 0);
            } else {
                let paths = found
                    .findings
                    .iter()
                    .flat_map(|one| one.paths.iter().cloned());
                assert_eq!(
                    paths.collect::<BTreeSet<_>>(),
                    expected.paths,
                    "{name} {harm:?}"
                );
                has_suffered |= !expected.paths.is_empty();
            }
            heal(fixture.storage.as_ref(), name, &harm, &objects);
        }
    }
    assert!(has_suffered);
}

#[test]
fn a_read_that_fails_once_is_no_damage_to_a_drill() {
    let fixture = Fixture::with_one_snapshot();
    let faulty = Arc::new(Faulty::new(Arc::clone(&fixture.storage)));
    let repository = fixture.open_on(Arc::clone(&faulty) as _).unwrap();
    let sound = fixture.drill_on(&repository, None);
    for after in [1, 9, 30] {
        faulty.inject(Fault {
            operation: Some(Operation::GetRange),
            ..Fault::error(after, When::Before, ErrorKind::Permanent)
        });
        assert_eq!(fixture.drill_on(&repository, None).drilled, sound.drilled);
    }
}

#[test]
fn a_drill_notices_living_files_that_differ_and_look_the_same() {
    let fixture = Fixture::with_one_snapshot();
    let source = fixture.folder.path().join("s");
    let compared = |report: &CheckReport| report.drilled.unwrap();
    let sound = fixture.drill(Some(&source));
    assert_eq!(losses(&sound), [""; 0]);
    // All files were drawn, but for the folder itself.
    assert_eq!(compared(&sound).compared, 17, "{sound:?}");
    assert_eq!(compared(&sound).differing, 0);
    let one = fixture.drill(Some(&source.join("f03")));
    assert_eq!(compared(&one).compared, 1);
    // Rot: the bytes change, size and time do not.
    for (name, at) in [("f03", 5), ("long", 80_000), ("holes", 900_000)] {
        let path = source.join(name);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        let content = fs::read(&path).unwrap();
        let mut rotten = content.clone();
        rotten[at] ^= 1;
        write_with_time(&path, &rotten, before);
        let found = fixture.drill(Some(&source));
        let lost: Vec<_> = found
            .findings
            .iter()
            .filter(|one| one.severity == Severity::Loss)
            .collect();
        assert_eq!((lost.len(), compared(&found).differing), (1, 1));
        assert!(lost.iter().all(|one| one.paths == [path.to_str().unwrap()]));
        // What was changed as people change files is not compared.
        write_with_time(&path, &rotten, before + Duration::from_secs(1));
        assert_eq!(losses(&fixture.drill(Some(&source))), [""; 0]);
        write_with_time(&path, &content, before);
    }
    let options = DrillOptions {
        sample: 1,
        seed: 1,
        against: Some(PathBuf::from("/nowhere/else")),
        records_suspects: false,
    };
    let refused = drill(
        &fixture.open().unwrap(),
        &options,
        &Silent,
        &Cancel::default(),
    );
    assert!(matches!(refused, Err(EngineError::Request(_))));
}

fn write_with_time(path: &Path, bytes: &[u8], time: SystemTime) {
    fs::write(path, bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn what_a_check_costs_is_what_was_said_before() {
    let fixture = Fixture::filled();
    let counting = Arc::new(Counting::new(Arc::clone(&fixture.storage)));
    let repository = fixture.open_on(Arc::clone(&counting) as _).unwrap();
    let said = costs(&repository, ReadData::All, 10, &Silent, &Cancel::default()).unwrap();
    let asked = |act: &dyn Fn()| {
        let _ = counting.take();
        act();
        let counts = counting.take();
        let reads = [Operation::Get, Operation::GetRange].map(|one| counts.of(one));
        let sum = |value: fn(&crate::storage::counting::Count) -> u64| {
            reads.iter().map(value).sum::<u64>()
        };
        (
            counts.of(Operation::List).operations,
            sum(|one| one.operations),
            sum(|one| one.read_bytes),
        )
    };
    let (lists, reads, bytes) = asked(&|| {
        quick(&repository, false, &Silent, &Cancel::default()).unwrap();
    });
    assert!(lists <= said.quick.list_requests, "{lists} {said:?}");
    assert_eq!((reads, bytes), (said.quick.read_requests, said.quick.bytes));
    let run = |read_data| {
        let options = CheckOptions {
            read_data,
            records_suspects: false,
        };
        asked(&|| drop(check(&repository, &options, &Silent, &Cancel::default()).unwrap()))
    };
    let (structure, data) = (run(ReadData::No), run(ReadData::All));
    assert!(
        structure.0 <= said.structure.list_requests,
        "{structure:?} {said:?}"
    );
    // Blocks are counted by their mean length, and what is read of tree packs has no directories.
    let least = said.structure.read_requests / 2;
    assert!(
        (least..=said.structure.read_requests * 2).contains(&structure.1),
        "{structure:?} {said:?}"
    );
    assert!(
        structure.2 <= said.structure.bytes,
        "{structure:?} {said:?}"
    );
    // Each pack is read by one request, whole.
    let of_packs = (
        said.data.read_requests - said.structure.read_requests,
        said.data.bytes - said.structure.bytes,
    );
    assert_eq!((data.1 - structure.1, data.2 - structure.2), of_packs);
    assert_eq!(said.data.egress_bytes, 0);
}
