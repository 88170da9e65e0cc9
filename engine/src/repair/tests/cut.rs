//! Snapshots of whose trees nodes are lost, replaced by what is left of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use crate::snapshots::{Filter, SnapshotInfo, list};

fn restored(
    storage: &Arc<dyn Storage>,
    snapshot: &SnapshotInfo,
) -> (RestoreReport, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        target: folder.path().to_owned(),
        overwrite: Overwrite::Always,
        delete: true,
        include: Vec::new(),
        exclude: Vec::new(),
        sparse: false,
        dry_run: false,
        verify: true,
        no_owner: true,
        numeric_owner: true,
        map_uid: Vec::new(),
        map_gid: Vec::new(),
        in_place: false,
        devices: false,
        lost_as_zeros: false,
    };
    let cancel = Cancel::default();
    let repository = open(storage);
    let report = restore(&repository, snapshot, None, &options, &Silent, &cancel).unwrap();
    (report, folder)
}

fn snapshots(storage: &Arc<dyn Storage>) -> Vec<SnapshotInfo> {
    list(&open(storage), &Filter::default(), false).unwrap()
}

/// Two snapshots of many files. The packs with the nodes that the second shares with the first are gone.
fn torn() -> World {
    let mut world = World::new();
    for folder in 0..4_u32 {
        fs::create_dir(world.source.path().join(format!("d{folder}"))).unwrap();
        for number in 0..60 {
            let name = format!("d{folder}/f{number:02}");
            world.write(&name, &noise(folder * 100 + number, 200));
        }
    }
    for (name, length) in [("lonf", 100), ("long", 400_000), ("longa", 100)] {
        world.write(name, &noise(7, length));
    }
    world.back_up();
    let mut trees = Vec::new();
    let repository = world.open();
    crate::view::read(&repository, false, None).unwrap();
    let packs = repository.index().packs(&mut |pack| {
        trees.extend((pack.kind == crate::index::PackKind::Tree).then_some(pack.id));
        std::ops::ControlFlow::Continue(())
    });
    packs.unwrap();
    // The leaf with the long file is another one, too, for its neighbours change; its list is not.
    for name in ["d2/f30", "lonf", "longa"] {
        world.write(name, &noise(8, 210));
    }
    world.back_up();
    for id in trees {
        world.storage.delete(&names::pack(&id)).unwrap();
    }
    world
}

#[test]
fn what_is_left_of_snapshots_takes_their_places() {
    let mut world = torn();
    let storage = Arc::clone(&world.storage);
    let before = snapshots(&storage);
    assert!(run(&storage, &prune_options()).is_err());
    let report = repair(&storage, None, true);
    assert_eq!((report.torn, report.cut), (2, 0), "{report:?}");
    assert_eq!(snapshots(&storage).len(), 2);
    let cutting = |apply| RepairOptions {
        cuts_lost: true,
        ..options(apply)
    };
    let dry = try_repair(&storage, None, &cutting(false)).unwrap();
    assert_eq!((dry.torn, dry.cut), (2, 0), "{dry:?}");
    let report = try_repair(&storage, None, &cutting(true)).unwrap();
    assert_eq!((report.torn, report.cut), (0, 2), "{report:?}");
    assert!(report.has_loss());

    let after = snapshots(&storage);
    assert_eq!(after.len(), 2);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((old.time, &old.host), (new.time, &new.host));
        assert_ne!(old.id, new.id);
    }
    let look = |snapshot: &SnapshotInfo| {
        let (report, folder) = restored(&storage, snapshot);
        let source = world.source.path().strip_prefix("/").unwrap();
        let root = folder.path().join(source);
        assert_eq!(fs::read(root.join("d2/f30")).unwrap(), noise(8, 210));
        assert_eq!(fs::read(root.join("longa")).unwrap(), noise(8, 210));
        assert!(!root.join("long").exists(), "its list is lost");
        let has = |what: &str| report.issues.iter().any(|one| one.error.contains(what));
        assert!(has("a repair found nowhere"), "{report:?}");
        assert!(report.lost > 60, "{report:?}");
        let stand_in = fs::metadata(root.join("d2")).unwrap().permissions();
        (report.lost, stand_in.mode() & 0o777)
    };
    let (lost, _) = look(&after[1]);
    let (first, _folder) = restored(&storage, &after[0]);
    assert!(first.lost > 240 && first.files == 0, "{first:?}");

    // Nothing holds a prune up any more, and it takes nothing of what is left.
    run(&storage, &prune_options()).unwrap();
    assert!(losses(&storage).is_empty());
    assert_eq!(look(&after[1]).0, lost);
    let again = try_repair(&storage, None, &cutting(true)).unwrap();
    assert_eq!((again.torn, again.cut), (0, 0), "{again:?}");
    assert_eq!(snapshots(&storage).len(), 2);

    // The next backup has everything again.
    world.back_up();
    let whole = snapshots(&storage);
    let (report, _folder) = restored(&storage, whole.last().unwrap());
    assert_eq!((report.lost, report.failed), (0, 0), "{report:?}");
    assert_eq!(report.files, 243);
}

#[test]
fn a_pinned_snapshot_is_not_replaced() {
    let world = torn();
    let storage = Arc::clone(&world.storage);
    let pinned = snapshots(&storage)[1].session;
    world
        .amend_on(&storage, &pinned, &crate::amend::Wish::Pin)
        .unwrap();
    let options = RepairOptions {
        cuts_lost: true,
        ..options(true)
    };
    let report = try_repair(&storage, None, &options).unwrap();
    assert_eq!((report.torn, report.cut), (1, 1), "{report:?}");
    assert!(snapshots(&storage).iter().any(|one| one.session == pinned));
}
