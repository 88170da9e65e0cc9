//! Every awkward file that a Linux system knows, backed up, edited and restored; compared by tools
//! that share nothing with the engine.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::program::{World, assert_same, noise, tool};

/// Edits between one snapshot and the next.
const EDITS: &str = "60";

/// Removes an awkward tree, which plain removal cannot, when the test ends.
pub struct Removed<'a>(pub &'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        tool("awkward.py", &["--remove".as_ref(), self.0.as_os_str()]);
    }
}

/// Makes a small awkward tree.
pub fn make(tree: &Path, seed: &str) {
    let arguments: [&OsStr; 4] = [
        tree.as_os_str(),
        "--small".as_ref(),
        "--seed".as_ref(),
        seed.as_ref(),
    ];
    print!("{}", tool("awkward.py", &arguments).expect(0).stdout);
}

fn back_up_and_compare(seed: &str) {
    let world = World::new();
    let source = world.source();
    std::fs::remove_dir(&source).unwrap();
    let targets = ["first", "second", "first-again"].map(|name| world.path(name));
    let _cleanup = [&source, &targets[0], &targets[1], &targets[2]].map(|path| Removed(path));
    make(&source, seed);
    world.backup(&[]);
    assert_same(&source, &world.restore("latest", "first"));
    let edits: [&OsStr; 5] = [
        source.as_os_str(),
        "--seed".as_ref(),
        seed.as_ref(),
        "--count".as_ref(),
        EDITS.as_ref(),
    ];
    tool("edits.py", &edits).expect(0);
    let second = world.backup(&[]);
    assert!(
        second["statistics"]["unchanged"].as_u64() > Some(0),
        "{second}"
    );
    assert_same(&source, &world.restore("latest", "second"));
    // The older snapshot is as it was: its first restore was compared with the source.
    assert_same(&targets[0], &world.restore("latest~1", "first-again"));
    // The newer one over the older one: every kind of change, onto every kind of file.
    let target = targets[0].to_str().unwrap();
    let spec = format!("latest:{}", source.display());
    world.ok(["restore", &spec, "--target", target, "--delete"]);
    assert_same(&source, &targets[0]);
    world.ok(["check", "--read-data"]);
}

#[test]
fn an_awkward_tree_comes_back_whole() {
    back_up_and_compare("1");
}

#[test]
fn another_awkward_tree_comes_back_whole() {
    back_up_and_compare("2");
}

#[test]
fn a_third_awkward_tree_comes_back_whole() {
    back_up_and_compare("3");
}

/// A loop device, taken away again when the test ends.
struct Loop(String);

impl Loop {
    /// Shows a file as a block device; none where that is not to be had.
    fn of(file: &Path) -> Option<Self> {
        let mut made = Command::new("losetup");
        let made = made.args(["-f", "--show"]).arg(file).output().ok()?;
        let device = String::from_utf8(made.stdout).ok()?.trim().to_owned();
        made.status.success().then_some(Self(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_block_device_is_read_as_a_file_when_asked() {
    let world = World::new();
    let bytes = noise(3, 3 << 20);
    let image = world.path("image");
    std::fs::write(&image, &bytes).unwrap();
    let Some(device) = Loop::of(&image) else {
        println!("not run: losetup makes no loop device here");
        return;
    };
    world.write("file", "content");
    let beside = world.source().join("device");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&device.0)
        .arg(&beside)
        .status();
    assert!(copied.unwrap().success());
    world.ok([
        "backup",
        world.source().to_str().unwrap(),
        &device.0,
        "--read-special",
    ]);
    let restored = world.path("restored");
    world.ok(["restore", "latest", "--target", restored.to_str().unwrap()]);
    for path in [beside.as_path(), Path::new(&device.0)] {
        let path = restored.join(path.strip_prefix("/").unwrap());
        assert!(std::fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
    // Without it, it is a device.
    world.ok(["backup", world.source().to_str().unwrap()]);
    let listed = world.json(["ls", "latest", "--recursive"]);
    let found = listed.as_array().unwrap().iter();
    let mut found = found.filter(|one| one["path"] == beside.to_str().unwrap());
    assert_eq!(found.next().unwrap()["type"], "block-device", "{listed}");
}
