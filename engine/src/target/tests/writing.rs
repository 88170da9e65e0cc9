//! Files while they are written: threads, handles, holes, what was there before.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::target::options::Overwrite;
use crate::target::plan::Action;

#[test]
fn four_threads_write_many_files_through_one_handle() {
    let place = place(few_handles);
    place.target.create_directory(b"d/").unwrap();
    let size = 64 * 64;
    let content = |number: usize| {
        (0..size)
            .map(|at| (at * 7 + number) as u8)
            .collect::<Vec<_>>()
    };
    let files: Vec<_> = (0..24)
        .map(|number| place.start(&format!("d/{number}"), size, WriteMode::Fresh))
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (files, content) = (&files, &content);
            scope.spawn(move || {
                for piece in (0..64).rev().filter(|piece| piece % 4 == thread) {
                    for (number, file) in files.iter().enumerate() {
                        let bytes = &content(number)[piece * 64..][..64];
                        file.write_at(bytes, piece as u64 * 64).unwrap();
                    }
                }
            });
        }
    });
    for (number, file) in files.iter().enumerate() {
        file.finish(&entry(EntryType::File, "", 0o644), &[])
            .unwrap();
        assert_eq!(place.read(&format!("d/{number}")), content(number));
    }
    assert_eq!(names(&place.root.join("d")).len(), 24);
    drop(files);
    assert_eq!(names(&place.root.join("d")).len(), 24);
}

#[test]
fn an_abandoned_file_leaves_what_was_there() {
    let place = place(|_| {});
    place.put("f", b"before");
    let file = place.start("f", 6, WriteMode::Patch);
    file.write_at(b"after!", 0).unwrap();
    let temporary: Vec<_> = place
        .names()
        .into_iter()
        .filter(|name| name != "f")
        .collect();
    assert_eq!(temporary.len(), 1);
    let found = std::fs::metadata(place.root.join(&temporary[0])).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o600);
    assert_eq!(place.read("f"), b"before");
    file.abandon();
    assert_eq!(place.names(), ["f"]);
    assert!(file.write_at(b"x", 0).is_err());
    assert!(
        file.finish(&entry(EntryType::File, "f", 0o644), &[])
            .is_err()
    );
    drop(place.start("g", 1, WriteMode::Fresh));
    assert_eq!(place.names(), ["f"]);
    assert_eq!(place.read("f"), b"before");
}

#[test]
fn bytes_past_the_size_are_refused() {
    let place = place(|_| {});
    let file = place.start("f", 4, WriteMode::Fresh);
    file.write_at(b"abcd", 0).unwrap();
    for (bytes, offset) in [(&b"abcde"[..], 0), (b"x", 4), (b"x", u64::MAX)] {
        assert!(file.write_at(bytes, offset).is_err());
    }
    assert!(file.write_hole(3, 2).is_err());
    file.finish(&entry(EntryType::File, "f", 0o644), &[])
        .unwrap();
    assert!(file.write_at(b"x", 0).is_err());
    assert_eq!(place.read("f"), b"abcd");
}

#[test]
fn what_is_replaced_under_its_temporary_name_is_not_written_to() {
    let place = place(few_handles);
    let file = place.start("f", 1, WriteMode::Fresh);
    let _other = place.start("g", 1, WriteMode::Fresh);
    let temporary = place.names().into_iter().min().unwrap();
    std::fs::remove_file(place.root.join(&temporary)).unwrap();
    std::fs::hard_link(place.outside.join("secret"), place.root.join(&temporary)).unwrap();
    let before = observe(&place.outside);
    assert!(file.write_at(b"x", 0).is_err());
    assert_eq!(observe(&place.outside), before);
}

#[test]
fn holes_take_no_room_and_read_as_zeros() {
    const MIB: usize = 1 << 20;
    for sparse in [true, false] {
        let place = place(|options| options.sparse = sparse);
        let mut content = vec![0; 4 * MIB];
        content[MIB] = 1;
        content[3 * MIB - 1] = 2;
        let file = place.start("f", content.len(), WriteMode::Fresh);
        // Pieces that start within a block of the file.
        for (number, piece) in content.chunks(300_001).enumerate() {
            file.write_at(piece, number as u64 * 300_001).unwrap();
        }
        file.finish(&entry(EntryType::File, "f", 0o644), &[])
            .unwrap();
        assert!(place.read("f") == content);
        let allocated = std::fs::metadata(place.root.join("f")).unwrap().blocks() * 512;
        assert_eq!(allocated < MIB as u64, sparse, "{allocated}");
        let file = place.start("hole", content.len(), WriteMode::Fresh);
        file.write_hole(0, content.len() as u64).unwrap();
        file.finish(&entry(EntryType::File, "hole", 0o644), &[])
            .unwrap();
        let found = std::fs::metadata(place.root.join("hole")).unwrap();
        assert_eq!((found.len(), found.blocks()), (content.len() as u64, 0));
    }
}

#[test]
fn patching_keeps_what_is_equal_and_the_old_file_until_the_end() {
    for (mode, sparse) in [
        (WriteMode::Patch, false),
        (WriteMode::Patch, true),
        (WriteMode::InPlace, true),
    ] {
        for (old_length, new_length) in [(100_000, 100_000), (100_000, 50_000), (50_000, 100_000)] {
            let place = place(|options| options.sparse = sparse);
            let old = vec![7_u8; old_length];
            let id = place.put("f", &old);
            let file = place.start("f", new_length, mode);
            let kept = old_length.min(new_length);
            assert_eq!(file.kept_bytes().min(new_length as u64), kept as u64);
            let mut read = vec![0; 40_000];
            assert_eq!(file.read_existing_at(&mut read, 10_000).unwrap(), 40_000);
            assert_eq!(read, &old[10_000..50_000]);
            let mut expected = vec![0; new_length];
            expected[..kept].fill(7);
            for range in [
                (0..9_000),
                (20_000..29_000),
                (new_length - 10_000..new_length),
            ] {
                expected[range.clone()].fill(0);
                file.write_at(&expected[range.clone()], range.start as u64)
                    .unwrap();
            }
            expected[30_000..38_192].fill(0);
            file.write_hole(30_000, 8_192).unwrap();
            if mode == WriteMode::Patch {
                assert_eq!(place.read("f"), old);
            }
            file.finish(&entry(EntryType::File, "f", 0o640), &[])
                .unwrap();
            assert!(place.read("f") == expected);
            let found = std::fs::metadata(place.root.join("f")).unwrap();
            assert_eq!(found.ino() == id.inode, mode == WriteMode::InPlace);
            assert_eq!(found.mode() & 0o7777, 0o640);
            assert_eq!(place.names(), ["f"]);
        }
    }
}

#[test]
fn an_existing_file_is_read_and_gets_metadata_alone() {
    let place = place(|_| {});
    let id = place.put("f", b"content");
    assert!(place.target.open_existing(b"none").unwrap().is_none());
    assert!(place.target.open_existing(b"none/f").unwrap().is_none());
    assert!(place.target.open_existing(b"f/g").unwrap().is_none());
    let file = place.target.open_existing(b"f").unwrap().unwrap();
    let mut buffer = [0; 10];
    assert_eq!(file.read_at(&mut buffer, 3).unwrap(), 4);
    assert_eq!(&buffer[..4], b"tent");
    assert_eq!((file.metadata.size, file.metadata.id), (7, id));
    let entry = entry(EntryType::File, "f", 0o400);
    place
        .target
        .apply_metadata(b"f", &entry, &[(b"user.a".to_vec(), b"1".to_vec())])
        .unwrap();
    let found = std::fs::metadata(place.root.join("f")).unwrap();
    assert_eq!((found.ino(), found.mode() & 0o7777), (id.inode, 0o400));
    let planned = Entry { size: 7, ..entry };
    let existing = place.target.existing(b"f").unwrap();
    assert_eq!(
        place.target.plan(&planned, existing.as_ref()),
        Action::Update
    );
}

#[test]
fn overwrite_policies_hold_at_the_moment_of_renaming() {
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::Never] {
        let place = place(|options| options.overwrite = overwrite);
        let file = place.start("f", 3, WriteMode::Fresh);
        file.write_at(b"new", 0).unwrap();
        std::fs::write(place.root.join("f"), "old").unwrap();
        std::fs::write(place.root.join("l"), "old").unwrap();
        let result = file.finish(&entry(EntryType::File, "f", 0o644), &[]);
        let link = Entry {
            link_target: b"f".to_vec(),
            ..entry(EntryType::Symlink, "l", 0o777)
        };
        let linked = place.target.create_symlink(b"l", &link, &[]);
        if overwrite == Overwrite::Never {
            assert_eq!(
                result.unwrap_err().cause.kind(),
                std::io::ErrorKind::AlreadyExists
            );
            assert_eq!(
                linked.unwrap_err().cause.kind(),
                std::io::ErrorKind::AlreadyExists
            );
            assert_eq!(
                (place.read("f"), place.read("l")),
                (b"old".to_vec(), b"old".to_vec())
            );
            let patched = place.start("f", 3, WriteMode::InPlace);
            patched.write_at(b"bad", 0).unwrap();
            drop(patched);
            assert_eq!(place.read("f"), b"old");
        } else {
            assert!(result.is_ok() && linked.is_ok());
            assert_eq!(
                (place.read("f"), place.read("l")),
                (b"new".to_vec(), b"new".to_vec())
            );
        }
        assert_eq!(place.names(), ["f", "l"]);
    }
}

#[test]
fn a_dry_run_needs_a_root_but_makes_none() {
    let place = place(|_| {});
    let missing = place.root.join("missing");
    assert!(Target::open_existing_root(&missing, place.target.options().clone()).is_err());
    assert!(!missing.exists());
    let made = Target::open(&place.root.join("a/b/c"), place.target.options().clone()).unwrap();
    assert!(made.existing(b"").unwrap().is_some());
    let file = place.root.join("file");
    std::fs::write(&file, "").unwrap();
    assert!(Target::open(&file, place.target.options().clone()).is_err());
}
