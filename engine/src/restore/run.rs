//! The order of a restore, from reading the repository to the report.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::cancel::Cancel;
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::session::Reading;
use crate::snapshots::{SnapshotInfo, is_url, narrowed};
use crate::source::paths::real_path;
use crate::target::options::{Handles, Options, Owners};
use crate::target::{Target, options};
use crate::thaw::Need;
use crate::view;

use super::files::Context;
use super::planner::Planner;
use super::scan::Scan;
use super::select::Choice;
use super::{Overwrite, RestoreOptions, RestoreReport, roots};

/// Bytes of the trees from which on a restore registers a session of its own.
const LONG_BYTES: u64 = if cfg!(test) {
    1 << 20
} else if cfg!(feature = "testing") {
    4 << 10
} else {
    256 << 20
};

/// Restores what was asked for, or says in `needs` what that would read of packs; see [`super::restore`].
pub(super) fn run(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    options: &RestoreOptions,
    needs: Option<&mut Vec<Need>>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RestoreReport> {
    let clock = Instant::now();
    if is_url(options.target.as_os_str().as_bytes()) {
        // It would be taken for a folder of that name, from the current one down.
        return Err(EngineError::Request(format!(
            "the target {} is a URL and no folder",
            options.target.display()
        )));
    }
    refuse_repository(repository, options)?;
    progress.phase("planning", None, None);
    let view = view::read(repository, true, None)?;
    let cell = view.cells.get(&snapshot.session).ok_or_else(|| {
        let id = &snapshot.id;
        EngineError::NotFound(format!("snapshot {id} is gone or cannot be read"))
    })?;
    let mut reader = ChunkReader::new(repository)?;
    let roots = roots::find(&narrowed(cell, snapshot), path, &mut reader)?;
    let bytes = roots.iter().map(|root| root.tree.bytes);
    let is_long = bytes.fold(0, u64::saturating_add) >= LONG_BYTES;
    // A prune waits for it, or lets it know by ending it: then moved packs are looked for.
    let _reading = match is_long && !options.dry_run {
        true => Reading::start(repository, cell.id),
        false => None,
    };
    let choice = |root: &roots::Root| {
        let (include, exclude) = (&options.include, &options.exclude);
        Choice::compile(include, exclude, &root.path).map(|choice| (choice, root.place.clone()))
    };
    let choices: Vec<_> = roots.iter().map(choice).collect::<Result<_>>()?;
    let (target, _stand_in) = open_target(options)?;
    let context = Context::new(repository, options, target, progress, cancel);
    for unusable in &view.unusable {
        let (object, why) = (&unusable.object, &unusable.why);
        let text = format!("{object} cannot be used: {why}; run `larder check`");
        context.tally.warning(text);
    }
    let mut planner = Planner::new(&context, &choices)?;
    for ((number, root), (choice, _)) in (0..).zip(&roots).zip(&choices) {
        if !planner.parents(&root.place)? {
            continue;
        }
        if is_url(&root.path) && !root.single {
            // Of a bucket that has nothing, too, the rest is removed.
            planner.implied_folders(&root.place, number)?;
        }
        Scan::new(&mut planner, root, number, choice).run(&mut reader)?;
    }
    match needs {
        Some(needs) => *needs = planner.needs()?,
        None => planner.carry_out()?,
    }
    for warning in context.target.warnings() {
        context.tally.warning(warning.to_string());
    }
    context.tally.tell_cold();
    let mut report = context.tally.take();
    if !options.include.is_empty() && report.is_empty() {
        let text = "nothing in the snapshot matches what was to be included";
        progress.warning(text);
        report.warnings.push(text.to_owned());
    }
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// Refuses to write into the repository's folder, or to remove it as something superfluous.
fn refuse_repository(repository: &Repository, options: &RestoreOptions) -> Result<()> {
    let location = repository.location();
    let path = location.strip_prefix("file://").unwrap_or(location);
    let Some(own) = real_path(Path::new(path)) else {
        return Ok(());
    };
    let target = resolved(&options.target);
    let shown = options.target.display();
    if target.starts_with(&own) {
        return Err(EngineError::Request(format!(
            "the target {shown} lies inside the repository {}; choose another target",
            own.display()
        )));
    }
    if options.delete && own.starts_with(&target) {
        return Err(EngineError::Request(format!(
            "the repository {} lies inside the target {shown}, and deleting what the snapshot does not have could remove it; choose another target",
            own.display()
        )));
    }
    Ok(())
}

/// Resolves a path as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in absolute.ancestors() {
        if let (Some(real), Ok(rest)) = (real_path(above), absolute.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    absolute
}

fn open_target(options: &RestoreOptions) -> Result<(Arc<Target>, Option<tempfile::TempDir>)> {
    let user = Options::for_this_user();
    let target_options = Options {
        overwrite: match options.overwrite {
            Overwrite::Always => options::Overwrite::Always,
            Overwrite::IfChanged => options::Overwrite::IfChanged,
            Overwrite::Never => options::Overwrite::Never,
        },
        delete: options.delete,
        sparse: options.sparse,
        owners: match (options.no_owner, options.numeric_owner) {
            (true, _) => Owners::None,
            (false, true) => Owners::Numeric,
            (false, false) => Owners::NameThenNumber,
        },
        uid_map: options.map_uid.iter().copied().collect(),
        gid_map: options.map_gid.iter().copied().collect(),
        devices: user.devices || options.devices,
        setuid: user.setuid || options.devices,
        handles: Handles::for_this_process(),
    };
    let failed = |operation: &'static str, source| EngineError::File {
        operation,
        path: options.target.clone(),
        source,
    };
    if !options.dry_run {
        let target = Target::open(&options.target, target_options)
            .map_err(|error| failed("open the target", error))?;
        return Ok((target, None));
    }
    match Target::open_existing_root(&options.target, target_options.clone()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A dry run has to look somewhere: an empty folder is like one that is to be made.
            let stand_in = tempfile::tempdir().map_err(|error| failed("stand in for", error))?;
            let target = Target::open_existing_root(stand_in.path(), target_options)
                .map_err(|error| failed("stand in for", error))?;
            Ok((target, Some(stand_in)))
        }
        opened => Ok((
            opened.map_err(|error| failed("open the target", error))?,
            None,
        )),
    }
}
