//! Objects as files below a folder on the server; the session stands in that folder.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use suppaftp::Status;

use super::listing::{self, Entry, Kind};
use super::session::{DENIED, FULL, Failure, MISSING, Session};
use super::transfer::{After, read_lines, retrieve, store, truncated};
use crate::error::{ErrorKind, Reason};
use crate::{ObjectInfo, is_valid_segment};

/// How the names of temporary files begin; 32 hexadecimal digits follow.
const TEMPORARY: &str = ".larder-";
/// How the folder of an object ends that was created exclusively; `-` is in no object's name.
const CREATED: &str = "-object";
/// The file in such a folder.
const CONTENT: &str = "content";
/// Folders below the root that a listing descends into; a repository has two.
const DEPTH_MAX: usize = 16;
/// What is known of the server.
pub(super) struct Files {
    has_mlsd: AtomicBool,
    /// Whether a rename takes the place of what is there.
    replaces: AtomicBool,
}

/// What a folder holds.
#[derive(Default)]
pub(super) struct Found {
    pub objects: Vec<ObjectInfo>,
    /// Names of folders below it.
    pub folders: Vec<String>,
    /// Names of temporary files.
    pub remains: Vec<String>,
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            has_mlsd: AtomicBool::new(true),
            replaces: AtomicBool::new(true),
        }
    }

    pub(super) fn replaces_at_once(&self) -> bool {
        self.replaces.load(Ordering::Relaxed)
    }

    pub(super) fn get(
        &self,
        session: &mut Session,
        name: &str,
        max_bytes: u64,
    ) -> Result<(Bytes, After), Failure> {
        match retrieve(session, name, 0, max_bytes, true) {
            Err(failure) if failure.is_refusal() => {
                match retrieve(session, &created(name), 0, max_bytes, true) {
                    Err(again) if again.is_refusal() => Err(tell_missing(session, name, failure)?),
                    outcome => outcome,
                }
            }
            outcome => outcome,
        }
    }

    pub(super) fn get_range(
        &self,
        session: &mut Session,
        name: &str,
        offset: u64,
        length_bytes: u64,
    ) -> Result<(Bytes, After), Failure> {
        let (path, size_bytes) = find(session, name)?;
        let end = offset.checked_add(length_bytes);
        if end.is_none_or(|end| end > size_bytes) {
            return Err(truncated(size_bytes));
        }
        if length_bytes == 0 {
            return Ok((Bytes::new(), After::Reusable));
        }
        let (bytes, after) = retrieve(session, &path, offset, length_bytes, false)?;
        if (bytes.len() as u64) < length_bytes {
            return Err(truncated(offset.saturating_add(bytes.len() as u64)));
        }
        Ok((bytes, after))
    }

    pub(super) fn size(&self, session: &mut Session, name: &str) -> Result<u64, Failure> {
        find(session, name).map(|(_, size_bytes)| size_bytes)
    }

    pub(super) fn put(
        &self,
        session: &mut Session,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let temporary = self.write_temporary(session, name, bytes)?;
        let outcome = self.replace(session, &temporary, name);
        if outcome.is_err() && !matches!(outcome, Err(Failure::Lost(_))) {
            let _ = session.ftp.rm(&temporary);
        }
        outcome?;
        // Readers take the file before the folder: what was created is of no account any more.
        match session.ftp.size(created(name)).map_err(Failure::from) {
            Ok(_) => remove_folder(session, &folder_of(name)),
            Err(failure) if failure.is_refusal() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Creates an object as a folder with its content in it, which gets its name by a rename: that
    /// takes the place of a file, but never of a folder that is not empty.
    pub(super) fn create(
        &self,
        session: &mut Session,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        match find(session, name) {
            Ok(_) => return Err(already_exists()),
            Err(Failure::Known(ErrorKind::NotFound, _, _)) => {}
            Err(failure) => return Err(failure),
        }
        let staged = self.stage(session, name, bytes)?;
        let place = folder_of(name);
        let mut outcome = session.ftp.rename(&staged, &place).map_err(Failure::from);
        if matches!(&outcome, Err(failure) if failure.is_refusal())
            && session.ftp.size(created(name)).is_err()
        {
            // Somebody died while he deleted it; only an empty folder lets itself be removed.
            let _ = session.ftp.rmdir(&place);
            outcome = session.ftp.rename(&staged, &place).map_err(Failure::from);
        }
        // A server may take "move into the folder that is there" for what was meant.
        let is_mine = match outcome {
            Ok(()) => is_same(session, &created(name), bytes)?,
            Err(failure) if failure.is_refusal() => false,
            Err(failure) => return Err(failure),
        };
        if is_mine {
            return Ok(());
        }
        remove_folder(session, &staged)?;
        match session.ftp.size(created(name)).map_err(Failure::from) {
            Ok(_) => Err(already_exists()),
            Err(failure) => Err(explain_write(failure)),
        }
    }

    /// Writes a folder with the content in it beside its place.
    fn stage(&self, session: &mut Session, name: &str, bytes: &[u8]) -> Result<String, Failure> {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let staged = join(folder, &temporary_name()?);
        let made = session.ftp.mkdir(&staged).map_err(Failure::from);
        if let Err(failure) = made {
            if !failure.is_refusal() || folder.is_empty() {
                return Err(explain_write(failure));
            }
            make_folders(session, &staged)?;
            let made = session.ftp.mkdir(&staged).map_err(Failure::from);
            made.map_err(explain_write)?;
        }
        let outcome = store(session, &format!("{staged}/{CONTENT}"), bytes);
        if outcome.is_err() && !matches!(outcome, Err(Failure::Lost(_))) {
            remove_folder(session, &staged)?;
        }
        outcome.map_err(explain_write)?;
        Ok(staged)
    }

    fn replace(&self, session: &mut Session, from: &str, to: &str) -> Result<(), Failure> {
        let outcome = session.ftp.rename(from, to).map_err(Failure::from);
        match outcome {
            Err(failure) if failure.is_refusal() && session.ftp.size(to).is_ok() => {
                self.replaces.store(false, Ordering::Relaxed);
                // The old object is moved aside and back again if the new one is refused all the same.
                let folder = to.rsplit_once('/').map_or("", |(folder, _)| folder);
                let aside = join(folder, &temporary_name()?);
                session
                    .ftp
                    .rename(to, aside.as_str())
                    .map_err(Failure::from)
                    .map_err(explain_write)?;
                let outcome = session.ftp.rename(from, to).map_err(Failure::from);
                if outcome.is_ok() {
                    let _ = session.ftp.rm(aside);
                } else {
                    let _ = session.ftp.rename(aside.as_str(), to);
                }
                outcome.map_err(explain_write)
            }
            outcome => outcome.map_err(explain_write),
        }
    }

    fn write_temporary(
        &self,
        session: &mut Session,
        name: &str,
        bytes: &[u8],
    ) -> Result<String, Failure> {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let temporary = join(folder, &temporary_name()?);
        let mut outcome = store(session, &temporary, bytes);
        if let Err(failure) = &outcome
            && failure.is_refusal()
            && !failure.says(FULL)
            && !folder.is_empty()
        {
            // What a missing folder is called differs by server.
            make_folders(session, &temporary)?;
            outcome = store(session, &temporary, bytes);
        }
        let Err(failure) = outcome else {
            return Ok(temporary);
        };
        if !matches!(failure, Failure::Lost(_)) {
            let _ = session.ftp.rm(&temporary);
        }
        Err(explain_write(failure))
    }

    pub(super) fn delete(&self, session: &mut Session, name: &str) -> Result<(), Failure> {
        match session.ftp.rm(name).map_err(Failure::from) {
            Err(failure) if failure.is_refusal() => {
                let content = session.ftp.rm(created(name)).map_err(Failure::from);
                match content {
                    Ok(()) => remove_folder(session, &folder_of(name)),
                    Err(again) if again.is_refusal() => {
                        match tell_missing(session, name, failure)? {
                            Failure::Known(ErrorKind::NotFound, _, _) => Ok(()),
                            failure => Err(failure),
                        }
                    }
                    Err(failure) => Err(failure),
                }
            }
            outcome => outcome,
        }
    }

    /// Removes what a writer that died has left.
    pub(super) fn remove_remains(&self, session: &mut Session, name: &str) -> Result<(), Failure> {
        match session.ftp.rm(name).map_err(Failure::from) {
            Err(failure) if failure.is_refusal() => remove_folder(session, name),
            outcome => outcome,
        }
    }

    /// Reads one folder; one that is not there is empty, unless the root has gone with it.
    pub(super) fn list(&self, session: &mut Session, folder: &str) -> Result<Found, Failure> {
        session.check_root()?;
        if !folder.is_empty() && !enter(session, folder)? {
            return Ok(Found::default());
        }
        let entries = self.entries(session);
        // Names are relative to the root again, whatever came of it.
        session.check_root()?;
        let entries = entries?;
        if entries.is_empty() && self.shows_itself(session)? {
            // vsftpd lists nothing of a folder that it may not read, and calls that a success.
            return Err(Failure::Known(
                ErrorKind::Denied,
                Reason::NotPermitted,
                "the server does not list the folder".to_owned(),
            ));
        }
        let mut found = Found::default();
        for entry in entries {
            let is_remains = is_temporary(&entry.name);
            if is_remains {
                found.remains.push(join(folder, &entry.name));
            } else if let Some(name) = entry.name.strip_suffix(CREATED)
                && is_valid_segment(name)
            {
                let name = join(folder, name);
                match session.ftp.size(created(&name)).map_err(Failure::from) {
                    Ok(size) => found.objects.push(ObjectInfo {
                        name,
                        size_bytes: size as u64,
                    }),
                    // It has been deleted a moment ago.
                    Err(failure) if failure.is_refusal() => {}
                    Err(failure) => return Err(failure),
                }
            } else if is_valid_segment(&entry.name) {
                take(session, &mut found, folder, entry)?;
            }
        }
        // While a folder changes, a system may give an entry twice.
        found.objects.sort();
        found.objects.dedup_by(|one, other| one.name == other.name);
        found.folders.sort();
        found.folders.dedup();
        Ok(found)
    }

    /// Reads the folder that the session stands in.
    fn entries(&self, session: &mut Session) -> Result<Vec<Entry>, Failure> {
        if self.has_mlsd.load(Ordering::Relaxed) {
            match read_lines(session, "MLSD", listing::facts) {
                Err(failure) if failure.is_refusal() => {
                    self.has_mlsd.store(false, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        // With hidden files, and the folder itself where the server shows it.
        match read_lines(session, "LIST -a", listing::line) {
            Err(failure) if failure.is_refusal() => {}
            // Some may take the option for the name of a folder that is not there.
            Ok(entries) if entries.is_empty() => {}
            outcome => return outcome,
        }
        read_lines(session, "LIST", listing::line)
    }

    /// Tells whether the server's listings have an entry of the folder itself, so that none is empty.
    fn shows_itself(&self, session: &mut Session) -> Result<bool, Failure> {
        let root = self.entries(session)?;
        Ok(root.iter().any(|entry| entry.name == "."))
    }

    /// Tells what time it is on the server, in seconds since 1970, by writing a file.
    pub(super) fn server_time(&self, session: &mut Session) -> Result<i64, Failure> {
        let name = temporary_name()?;
        store(session, &name, b"")?;
        let time = modified(session, &name);
        session.ftp.rm(&name)?;
        time
    }
}

/// Tells when a file was written last, in seconds since 1970.
fn modified(session: &mut Session, name: &str) -> Result<i64, Failure> {
    Ok(session.ftp.mdtm(name)?.and_utc().timestamp())
}

/// Tells whether remains were written last before a moment; `otherwise` where the server cannot say.
pub(super) fn is_older(
    session: &mut Session,
    remains: &str,
    before: i64,
    otherwise: bool,
) -> Result<bool, Failure> {
    for path in [remains.to_owned(), format!("{remains}/{CONTENT}")] {
        match modified(session, &path) {
            Ok(modified) => return Ok(modified <= before),
            Err(failure) if failure.is_refusal() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(otherwise)
}

/// Gives the folder of an object that was created.
fn folder_of(name: &str) -> String {
    format!("{name}{CREATED}")
}

/// Gives the file of an object that was created.
fn created(name: &str) -> String {
    format!("{name}{CREATED}/{CONTENT}")
}

/// Finds the file that an object is in, and its size.
fn find(session: &mut Session, name: &str) -> Result<(String, u64), Failure> {
    let failure = match session.ftp.size(name).map_err(Failure::from) {
        Ok(size_bytes) => return Ok((name.to_owned(), size_bytes as u64)),
        Err(failure) if failure.is_refusal() => failure,
        Err(failure) => return Err(failure),
    };
    let path = created(name);
    match session.ftp.size(&path).map_err(Failure::from) {
        Ok(size_bytes) => Ok((path, size_bytes as u64)),
        Err(again) if again.is_refusal() => Err(tell_missing(session, name, failure)?),
        Err(failure) => Err(failure),
    }
}

fn is_same(session: &mut Session, path: &str, bytes: &[u8]) -> Result<bool, Failure> {
    match retrieve(session, path, 0, bytes.len() as u64, true) {
        Ok((found, _)) => Ok(found == bytes),
        Err(Failure::Known(ErrorKind::Oversized, ..)) => Ok(false),
        Err(failure) if failure.is_refusal() => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Removes a folder of one object, and the file in it; either may be gone.
fn remove_folder(session: &mut Session, folder: &str) -> Result<(), Failure> {
    let removed = session.ftp.rm(format!("{folder}/{CONTENT}"));
    if let Err(lost @ Failure::Lost(_)) = removed.map_err(Failure::from) {
        return Err(lost);
    }
    match session.ftp.rmdir(folder).map_err(Failure::from) {
        Err(failure) if failure.is_refusal() => Ok(()),
        outcome => outcome,
    }
}

/// Makes the folders that a path lies in; the root has to be there.
fn make_folders(session: &mut Session, path: &str) -> Result<(), Failure> {
    session.check_root()?;
    for (end, _) in path.match_indices('/') {
        let made = session.ftp.mkdir(path.get(..end).unwrap_or_default());
        // Those that are there already are refused.
        if let Err(lost @ Failure::Lost(_)) = made.map_err(Failure::from) {
            return Err(lost);
        }
    }
    Ok(())
}

fn already_exists() -> Failure {
    Failure::Known(
        ErrorKind::AlreadyExists,
        Reason::Other,
        "it exists already".to_owned(),
    )
}

fn take(
    session: &mut Session,
    found: &mut Found,
    folder: &str,
    entry: Entry,
) -> Result<(), Failure> {
    let name = join(folder, &entry.name);
    let is_deep = name.split('/').count() > DEPTH_MAX;
    match (entry.kind, entry.size_bytes) {
        (Kind::Nothing, _) => {}
        (Kind::Folder, _) if is_deep => {}
        (Kind::Folder, _) => found.folders.push(name),
        (Kind::File, Some(size_bytes)) => found.objects.push(ObjectInfo { name, size_bytes }),
        (Kind::File | Kind::Unclear, _) => match session.ftp.size(&name).map_err(Failure::from) {
            Ok(size) => found.objects.push(ObjectInfo {
                name,
                size_bytes: size as u64,
            }),
            Err(failure) if !failure.is_refusal() => return Err(failure),
            Err(_) if is_deep => {}
            Err(_) => {
                if enter(session, &name)? {
                    found.folders.push(name);
                }
                session.check_root()?;
            }
        },
    }
    Ok(())
}

/// Goes to a folder below the root; `false` if there is none.
fn enter(session: &mut Session, folder: &str) -> Result<bool, Failure> {
    let outcome = try_to_enter(session, folder);
    if !matches!(outcome, Ok(true) | Err(Failure::Lost(_))) {
        session.check_root()?;
    }
    outcome
}

fn try_to_enter(session: &mut Session, folder: &str) -> Result<bool, Failure> {
    match session.ftp.cwd(folder).map_err(Failure::from) {
        Ok(()) => Ok(true),
        Err(failure) if !failure.is_refusal() => Err(failure),
        Err(failure) if failure.says(MISSING) => Ok(false),
        // pyftpdlib says of a file that it is no folder, vsftpd says of everything that it failed.
        Err(failure) if failure.says(DENIED) => Err(denied(&failure)),
        Err(failure) => {
            let (above, last) = folder.rsplit_once('/').unwrap_or(("", folder));
            if !above.is_empty() && !enter(session, above)? {
                return Ok(false);
            }
            let entries = read_lines(session, "LIST", listing::line)?;
            let is_folder = |entry: &Entry| entry.name == last && entry.kind == Kind::Folder;
            match entries.iter().any(is_folder) {
                true => Err(denied(&failure)),
                false => Ok(false),
            }
        }
    }
}

/// Tells a missing object from one that may not be read, which many servers call the same.
fn tell_missing(session: &mut Session, name: &str, failure: Failure) -> Result<Failure, Failure> {
    session.check_root()?;
    if failure.says(DENIED) {
        return Ok(denied(&failure));
    }
    let is_there = match failure.says(MISSING) {
        true => false,
        false => match session.ftp.size(name).map_err(Failure::from) {
            Ok(_) => true,
            Err(lost @ Failure::Lost(_)) => return Err(lost),
            Err(_) => {
                let lines = read_lines(session, &format!("LIST {name}"), listing::line);
                match lines {
                    Err(lost @ Failure::Lost(_)) => return Err(lost),
                    // Of a folder, the listing is what is in it.
                    lines => lines.is_ok_and(|lines| {
                        let last = name.rsplit('/').next().unwrap_or(name);
                        let is_it = |entry: &Entry| {
                            entry.kind == Kind::File && (entry.name == last || entry.name == name)
                        };
                        lines.len() == 1 && lines.iter().any(is_it)
                    }),
                }
            }
        },
    };
    Ok(match is_there {
        true => denied(&failure),
        false => Failure::Known(
            ErrorKind::NotFound,
            Reason::Other,
            "there is no such object".to_owned(),
        ),
    })
}

fn denied(failure: &Failure) -> Failure {
    let said = match failure {
        Failure::Answer(_, said) => said.as_str(),
        _ => "",
    };
    Failure::Known(
        ErrorKind::Denied,
        Reason::NotPermitted,
        format!("the server denies it: {said}"),
    )
}

/// Says more exactly why a write failed.
fn explain_write(failure: Failure) -> Failure {
    let Failure::Answer(status, said) = &failure else {
        return failure;
    };
    let known = |kind, reason| Failure::Known(kind, reason, format!("the server answers: {said}"));
    let is_full = matches!(
        status,
        Status::RequestedActionNotTaken | Status::ExceededStorage
    );
    // vsftpd says this when its disk is full.
    if is_full || failure.says(FULL) || failure.says(&["writing to local file"]) {
        return known(ErrorKind::Full, Reason::Other);
    }
    if failure.says(&["read-only", "read only"]) {
        return known(ErrorKind::ReadOnly, Reason::Other);
    }
    if failure.is_refusal() {
        return known(ErrorKind::Denied, Reason::NotPermitted);
    }
    failure
}

impl Session {
    /// Goes back to the root, which has to be there: one that vanished is no empty repository.
    fn check_root(&mut self) -> Result<(), Failure> {
        match self.enter_root(false) {
            Err(Failure::Known(ErrorKind::NotFound, _, _)) => Err(Failure::Known(
                ErrorKind::Permanent,
                Reason::Other,
                format!(
                    "the folder {} vanished or its disk was unmounted; bring it back and run again",
                    self.root
                ),
            )),
            outcome => outcome,
        }
    }
}

fn join(folder: &str, segment: &str) -> String {
    match folder {
        "" => segment.to_owned(),
        folder => format!("{folder}/{segment}"),
    }
}

fn temporary_name() -> Result<String, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::Known(ErrorKind::Permanent, Reason::Other, error.to_string()))?;
    Ok(format!("{TEMPORARY}{:032x}", u128::from_le_bytes(random)))
}

fn is_temporary(segment: &str) -> bool {
    segment.strip_prefix(TEMPORARY).is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}
