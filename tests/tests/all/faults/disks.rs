//! The same for real: file systems that are full or read-only, where this user may mount them.

use std::fs;

use crate::bad_input::Mounted;
use crate::program::{World, assert_same, noise};
use crate::repair::largest_pack;

#[test]
fn a_restore_onto_a_full_disk_and_a_read_only_one_says_so() {
    let world = World::new();
    world.write("a small one", noise(1, 1000));
    world.write("large", noise(2, 6_000_000));
    world.backup(&[]);
    let target = world.path("disk");
    let Some(disk) = Mounted::new(&target, "size=4m") else {
        return;
    };
    let restore = || world.run(["restore", "latest", "--target", target.to_str().unwrap()]);
    let source = world.source();
    let restored = target.join(source.strip_prefix("/").unwrap());
    // Files are written beside each other: whichever of them met the full disk first is named.
    let within = restored.strip_prefix(&target).unwrap().to_str().unwrap();
    let run = restore().expect(1).says("cannot write to").says(within);
    run.says("No space left");
    // Whatever stands there has the bytes that it should have.
    for item in fs::read_dir(&restored).into_iter().flatten() {
        let path = item.unwrap().path();
        let original = source.join(path.file_name().unwrap());
        assert_eq!(fs::read(&path).unwrap(), fs::read(original).unwrap());
    }
    disk.remount("remount,ro,size=16m");
    let run = restore();
    assert_ne!(run.code, 0);
    let _ = run.says("Read-only file system");
    disk.remount("remount,rw,size=16m");
    restore().expect(0);
    assert_same(&source, &restored);
}

#[test]
fn a_repair_on_a_full_disk_and_a_read_only_one_loses_nothing() {
    let world = World::bare();
    let Some(disk) = Mounted::new(&world.path("repo"), "size=16m") else {
        return;
    };
    world.ok(["init"]);
    world.write("file", noise(1, 3_000_000));
    world.backup(&[]);
    world.ok(["sync", "--to", world.path("mirror").to_str().unwrap()]);
    let largest = largest_pack(&world);
    let right = fs::read(&largest).unwrap();
    let mut damaged = right.clone();
    damaged[1000] ^= 1;
    fs::write(&largest, &damaged).unwrap();
    let mirror = world.path("mirror");
    let repair = || {
        world.run([
            "repair",
            "--apply",
            "--read-data",
            "--from",
            mirror.to_str().unwrap(),
        ])
    };
    disk.remount("remount,ro");
    let run = repair();
    assert_ne!(run.code, 0);
    let _ = run.says("writable");
    assert_eq!(fs::read(&largest).unwrap(), damaged);
    disk.remount("remount,rw");
    // Room for nothing: what would be replaced cannot be put aside first, so it is not replaced.
    let filler = world.path("repo/filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
    drop(file);
    let run = repair();
    assert_ne!(run.code, 0, "{run:?}");
    assert_eq!(fs::read(&largest).unwrap(), damaged);
    fs::remove_file(&filler).unwrap();
    repair().expect(0);
    assert_eq!(fs::read(&largest).unwrap(), right);
    let restored = world.restore("latest", "restored");
    assert_same(&world.source(), &restored);
}
