//! Every awkward file that a Linux system knows, backed up, edited and restored; compared by tools
//! that share nothing with the engine.

use std::ffi::OsStr;
use std::path::Path;

use crate::program::{World, assert_same, tool};

/// Edits between one snapshot and the next.
const EDITS: &str = "60";

/// Removes an awkward tree, which plain removal cannot, when the test ends.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        tool("awkward.py", &["--remove".as_ref(), self.0.as_os_str()]);
    }
}

fn make(tree: &Path, seed: &str) {
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
