//! Power cuts on a local storage: what was not synced is lost, or there, in any combination.
//!
//! The program runs with `power/record.c` loaded before the C library, which writes down what it
//! asks of the file system. Here that is played again up to every point, what is not durable there
//! is dropped by chance, and the repository that is left must hold every snapshot that had been
//! reported by then.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{World, assert_same, date_back, noise, run};

/// Power cuts that are tried, spread over all points.
const CUTS: usize = 120;

/// One thing that was asked of the file system.
#[derive(Debug, Clone)]
enum Event {
    Make(PathBuf),
    MakeFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    Sync(PathBuf, Vec<u8>),
    SyncFolder(PathBuf),
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// A change of a folder that may not be durable.
#[derive(Debug, Clone)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Move(PathBuf, PathBuf, Node),
}

/// A file system: what it shows, and what of it survives a power cut.
#[derive(Default)]
struct Disk {
    shown: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// What each file holds for sure.
    contents: Vec<Vec<u8>>,
    /// By folder.
    pending: BTreeMap<PathBuf, Vec<Change>>,
}

impl Disk {
    fn play(&mut self, event: &Event) {
        match event {
            Event::Make(path) => {
                self.contents.push(Vec::new());
                let node = Node::File(self.contents.len() - 1);
                self.shown.insert(path.clone(), node);
                self.change(path, Change::Add(path.clone(), node));
            }
            Event::MakeFolder(path) => {
                self.shown.insert(path.clone(), Node::Folder);
                self.change(path, Change::Add(path.clone(), Node::Folder));
            }
            Event::Rename(from, to) => {
                let node = self.shown.remove(from).unwrap();
                self.shown.insert(to.clone(), node);
                assert_eq!(from.parent(), to.parent(), "a rename between folders");
                self.change(to, Change::Move(from.clone(), to.clone(), node));
            }
            Event::Link(from, to) => {
                let node = self.shown[from];
                self.shown.insert(to.clone(), node);
                self.change(to, Change::Add(to.clone(), node));
            }
            Event::Remove(path) => {
                self.shown.remove(path);
                self.change(path, Change::Remove(path.clone()));
            }
            Event::Sync(path, content) => {
                if let Some(Node::File(file)) = self.shown.get(path) {
                    self.contents[*file].clone_from(content);
                }
            }
            Event::SyncFolder(folder) => {
                for change in self.pending.remove(folder).unwrap_or_default() {
                    apply(&mut self.durable, &change);
                }
            }
        }
    }

    fn change(&mut self, path: &Path, change: Change) {
        let folder = path.parent().unwrap().to_owned();
        self.pending.entry(folder).or_default().push(change);
    }

    /// Gives what is left after a power cut: of what is not durable, each part by chance.
    fn after_cut(&self, seed: u64) -> BTreeMap<PathBuf, Node> {
        let mut left = self.durable.clone();
        for change in self.pending.values().flatten().zip(noise(seed, 1 << 12)) {
            let survives = match seed % 4 {
                0 => false,
                1 => true,
                _ => change.1 & 1 == 1,
            };
            if survives {
                apply(&mut left, change.0);
            }
        }
        left
    }
}

fn apply(nodes: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    match change {
        Change::Add(path, node) => {
            nodes.insert(path.clone(), *node);
        }
        Change::Remove(path) => {
            nodes.remove(path);
        }
        Change::Move(from, to, node) => {
            nodes.remove(from);
            nodes.insert(to.clone(), *node);
        }
    }
}

/// Writes what is left below another folder; what hangs on a lost folder is lost with it.
fn write_out(disk: &Disk, nodes: &BTreeMap<PathBuf, Node>, root: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for (path, node) in nodes {
        let place = to.join(path.strip_prefix(root).unwrap());
        if !place.parent().unwrap().is_dir() {
            continue;
        }
        match node {
            Node::Folder => fs::create_dir_all(&place).unwrap(),
            Node::File(file) => fs::write(&place, &disk.contents[*file]).unwrap(),
        }
    }
}

fn read_log(log: &Path) -> Vec<Event> {
    let text = fs::read_to_string(log).unwrap();
    let event = |line: &str| {
        let mut parts = line.split('\t');
        let what = parts.next().unwrap();
        let one = PathBuf::from(parts.next().unwrap());
        let two = parts.next().unwrap();
        match what {
            "make" => Event::Make(one),
            "make-folder" => Event::MakeFolder(one),
            "rename" => Event::Rename(one, two.into()),
            "link" => Event::Link(one, two.into()),
            "remove" => Event::Remove(one),
            "sync" => Event::Sync(one, fs::read(two).unwrap()),
            "sync-folder" => Event::SyncFolder(one),
            other => panic!("{other}"),
        }
    };
    text.lines().map(event).collect()
}

/// The recorder, and what it wrote so far.
struct Recorder {
    library: PathBuf,
    log: PathBuf,
}

impl Recorder {
    fn new(world: &World) -> Self {
        let library = world.path("record.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/power/record.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-pthread", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        assert!(built.unwrap().success());
        Self {
            library,
            log: world.path("log"),
        }
    }

    /// Runs the program; gives the number of events so far.
    fn run(&self, world: &World, arguments: &[&str]) -> usize {
        let mut command = world.command();
        command
            .env("LD_PRELOAD", &self.library)
            .env("RECORD_LOG", &self.log)
            .env("RECORD_ROOT", world.path("repo"))
            .args(arguments);
        run(&mut command).expect(0);
        self.events()
    }

    fn events(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().lines().count()
    }
}

/// A snapshot that was reported.
struct Reported {
    id: String,
    /// What it restores to.
    copy: PathBuf,
    /// The number of events after which it had been reported.
    from: usize,
    /// The number of events after which somebody began to forget it.
    until: usize,
}

/// Writes the source of a generation: one file stays, the others are new.
fn write_source(world: &World, generation: u64) {
    for number in 0..4 {
        if number == 3 && generation > 0 {
            continue;
        }
        let name = format!("d{}/f{number}", number % 2);
        world.write(&name, noise(generation * 10 + number, 30_000));
        date_back(&world.source().join(name), 1_100_000_000 + generation);
    }
}

fn ids(world: &World) -> Vec<String> {
    let listed = world.json(["snapshots"]);
    let ids = listed.as_array().unwrap().iter();
    ids.map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Backs up, forgets and prunes under the recorder.
fn live(world: &World, recorder: &Recorder) -> Vec<Reported> {
    let source = world.source();
    let source = source.to_str().unwrap();
    let mut reported: Vec<Reported> = Vec::new();
    recorder.run(world, &["init"]);
    for generation in 0..5 {
        write_source(world, generation);
        let from = recorder.run(world, &["backup", "--ignore-ctime", source]);
        let copy = world.path(&format!("copy{generation}"));
        // A reader may leave records, too.
        let spec = format!("latest:{source}");
        let target = copy.to_str().unwrap();
        recorder.run(world, &["restore", &spec, "--target", target]);
        reported.push(Reported {
            id: ids(world).pop().unwrap(),
            copy,
            from,
            until: usize::MAX,
        });
        if generation < 2 {
            continue;
        }
        let before = recorder.events();
        recorder.run(world, &["forget", "--keep-last", "2"]);
        let left = ids(world);
        for one in reported.iter_mut().filter(|one| !left.contains(&one.id)) {
            one.until = one.until.min(before);
        }
        let zealous = ["prune", "--patience", "0s", "--max-unused", "0"];
        recorder.run(world, &zealous);
    }
    reported
}

#[test]
fn what_was_reported_survives_a_power_cut_at_any_point() {
    let world = World::bare();
    let recorder = Recorder::new(&world);
    let reported = live(&world, &recorder);
    let source = world.source();
    let source = source.to_str().unwrap();
    let events = read_log(&recorder.log);
    let is_deleted = |folder: &str| {
        let folder = world.path("repo").join(folder);
        let is_it =
            |event: &&Event| matches!(event, Event::Remove(path) if path.starts_with(&folder));
        events.iter().filter(is_it).count()
    };
    assert!(is_deleted("packs") > 3 && is_deleted("snapshots") > 0 && is_deleted("gc") > 0);
    assert!(events.len() > 150, "{} events", events.len());
    for cut in 0..CUTS {
        let point = events.len() * (cut + 1) / CUTS;
        let mut disk = Disk::default();
        events[..point].iter().for_each(|event| disk.play(event));
        let left = disk.after_cut(cut as u64);
        let root = world.path("repo");
        let (place, cache) = (world.path("left"), world.path("cache"));
        write_out(&disk, &left, &root, &place);
        let left_command = || {
            let mut command = world.command();
            // Nothing from before the cut is at hand.
            command
                .env("LARDER_REPO", &place)
                .env("XDG_CACHE_HOME", &cache)
                .env("XDG_STATE_HOME", &cache);
            command
        };
        let is_there = |one: &&Reported| one.from <= point && point < one.until;
        for Reported { id, copy, .. } in reported.iter().filter(is_there) {
            let target = world.path("target");
            let mut command = left_command();
            command.args(["restore", &format!("{id}:{source}"), "--target"]);
            run(command.arg(&target)).expect(0);
            assert_same(copy, &target);
            fs::remove_dir_all(&target).unwrap();
            let _ = fs::remove_dir_all(&cache);
        }
        let first = reported.first().map_or(0, |one| one.from);
        if point >= first && cut % 6 == 0 {
            // Nothing that is listed lacks anything, and a prune goes on from here.
            for arguments in [
                ["check", "--read-data", "-q"],
                ["prune", "--patience", "0s"],
                ["check", "--read-data", "-q"],
            ] {
                let outcome = run(left_command().args(arguments));
                let (before, after) = (&events[point - 1], events.get(point));
                assert_eq!(
                    outcome.code, 0,
                    "cut {cut}, between {before:?} and {after:?}: {}{}",
                    outcome.stdout, outcome.stderr
                );
            }
            let _ = fs::remove_dir_all(&cache);
        }
        fs::remove_dir_all(&place).unwrap();
    }
}
