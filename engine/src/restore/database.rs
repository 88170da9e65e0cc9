//! Restore into a server of PostgreSQL: what pg_dump wrote is given to pg_restore as it is read.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use larder_format::cell::{Cell, Source};
use larder_format::entry::Entry;
use larder_format::tree::read::{lookup, scan_prefix};

use crate::browse::Contents;
use crate::cancel::Cancel;
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::process::{Input, Running};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::session::Reading;
use crate::snapshots::{SnapshotInfo, narrowed};
use crate::source::postgres::dump::{GLOBALS, TOC, object_number};
use crate::source::postgres::form::{Block, DumpReader, Form, Layout, Pieces};
use crate::source::postgres::{MAINTENANCE, Server, escaped, unescaped};
use crate::view;

use super::RestoreReport;
use super::properties::{Properties, create_statement};

/// Memory of the names of files before they go to disk.
const FILES_BYTES: usize = 4 << 20;

/// What a restore into a database does beside the rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct DatabaseRestoreOptions {
    /// Leaves owners and permissions out, so that the roles need not be there.
    pub no_owner: bool,
}

/// Restores a database of a snapshot, or all of a server, into a server of PostgreSQL.
///
/// `path` is the database as it was backed up; it may be left away if the snapshot has one source of the
/// kind. Into a target that names a database, one database is restored: it is made if it is not there, and
/// all or nothing of it is written. Into one that names none, all are, under the names that they had,
/// after the roles and tablespaces of the cluster. Nothing is dropped.
///
/// # Errors
/// `NotFound` for what the snapshot does not have; `Request` with what the server says; what the storage
/// answers.
pub fn restore_into_database(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    target: &Server,
    options: DatabaseRestoreOptions,
    (progress, cancel): (&dyn Progress, &Cancel),
) -> Result<RestoreReport> {
    let clock = Instant::now();
    progress.phase("planning", None, None);
    let view = view::read(repository, true, None)?;
    let id = &snapshot.id;
    let cell = view
        .cells
        .get(&snapshot.session)
        .ok_or_else(|| EngineError::NotFound(format!("snapshot {id} is gone or cannot be read")))?;
    if target.is_base {
        return Err(EngineError::Request(
            "a base backup is restored into a folder, which then is a server's data folder"
                .to_owned(),
        ));
    }
    if snapshot.partial {
        return Err(EngineError::Request(format!(
            "snapshot {id} is the checkpoint of a backup that did not come to its end; a database in it may lack tables"
        )));
    }
    let _reading = Reading::start(repository, cell.id);
    let cell = narrowed(cell, snapshot);
    let (source, prefix) = locate(&cell, path)?;
    let mut restore = Restore {
        repository,
        nodes: ChunkReader::new(repository)?,
        contents: Contents::new(repository)?,
        source,
        target,
        options,
        progress,
        cancel,
        report: RestoreReport::default(),
    };
    progress.phase("restoring", Some(source.entries), Some(source.bytes));
    let is_one = restore.entry(&[&*prefix, TOC].concat())?.is_some();
    match (&target.database, is_one) {
        (Some(database), true) => restore.one(&prefix, database, false)?,
        (None, true) => {
            return Err(EngineError::Request(
                "one database is to be restored, and the target names none; write e.g. postgres://user@host/newdb"
                    .to_owned(),
            ));
        }
        (Some(_), false) if prefix.is_empty() => {
            return Err(EngineError::Request(format!(
                "the snapshot has all databases of {0}; name one of them, e.g. SNAPSHOT:{0}/shop, or a target without a database for all",
                String::from_utf8_lossy(&source.path)
            )));
        }
        (None, false) if prefix.is_empty() => restore.all()?,
        _ => return Err(absent(path.unwrap_or_default())),
    }
    let mut report = restore.report;
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// Finds the source that a path means, and what the keys of its database begin with.
fn locate<'a>(cell: &'a Cell, path: Option<&[u8]>) -> Result<(&'a Source, Vec<u8>)> {
    let is_database = |source: &&Source| source.path.starts_with(b"postgres://");
    let sources: Vec<&Source> = cell.sources.iter().filter(is_database).collect();
    let Some(path) = path else {
        return match sources.as_slice() {
            [one] => Ok((*one, Vec::new())),
            [] => Err(EngineError::NotFound(
                "the snapshot has no database; `larder snapshots` shows what it has".to_owned(),
            )),
            _ => Err(EngineError::Request(
                "the snapshot has databases of several sources; name one, e.g. SNAPSHOT:postgres://user@host/shop"
                    .to_owned(),
            )),
        };
    };
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let found = sources.into_iter().find_map(|source| {
        let rest = path.strip_prefix(source.path.as_slice())?;
        match rest {
            [] => Some((source, Vec::new())),
            [b'/', name @ ..] => Some((source, [name, b"/"].concat())),
            _ => None,
        }
    });
    found.ok_or_else(|| absent(path))
}

fn absent(path: &[u8]) -> EngineError {
    EngineError::NotFound(format!(
        "there is no database {} in the snapshot; `larder snapshots` and `larder ls` show what it has",
        String::from_utf8_lossy(path)
    ))
}

struct Restore<'a> {
    repository: &'a Arc<Repository>,
    nodes: ChunkReader,
    contents: Contents,
    source: &'a Source,
    target: &'a Server,
    options: DatabaseRestoreOptions,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    report: RestoreReport,
}

impl Restore<'_> {
    /// Restores the cluster's roles and tablespaces, and then each database under its name.
    fn all(&mut self) -> Result<()> {
        let databases = self.databases()?;
        if let Some(globals) = self.entry(GLOBALS)? {
            // Some roles are there already, at least the one that this is done by.
            let said = self.psql(&[], |restore, input| {
                let mut statements = Statements {
                    out: input,
                    line: Vec::new(),
                };
                restore.write(&globals, &mut statements)?;
                statements.pass().map_err(not_taken)
            })?;
            if !said.is_empty() {
                self.warn(format!("the roles and tablespaces were restored as far as they were not there; psql said:\n{said}"));
            }
        }
        for database in databases {
            self.one(
                format!("{}/", escaped(&database)).as_bytes(),
                &database,
                true,
            )?;
        }
        Ok(())
    }

    /// Gives the names of the databases that the source has.
    fn databases(&mut self) -> Result<Vec<String>> {
        let root = super::roots::tree_of(self.source);
        let mut databases = Vec::new();
        for entry in scan_prefix(&mut self.nodes, &root, b"")? {
            let key = entry?.key;
            let name = key.strip_suffix(TOC).and_then(|key| key.strip_suffix(b"/"));
            let name = name.and_then(|name| std::str::from_utf8(name).ok());
            let name = name.filter(|name| !name.contains('/'));
            databases.extend(name.and_then(unescaped));
        }
        match databases.is_empty() {
            true => Err(absent(&self.source.path)),
            false => Ok(databases),
        }
    }

    /// Restores one database.
    fn one(&mut self, prefix: &[u8], database: &str, is_one_of_all: bool) -> Result<()> {
        let toc = self.toc(prefix)?;
        let properties = self.stream(&toc, |input| Properties::read(input))?;
        let is_new = self.make(&properties, database)?;
        let mut arguments = vec!["--format=custom", "--single-transaction", "--exit-on-error"];
        if self.options.no_owner {
            arguments.extend(["--no-owner", "--no-privileges"]);
        }
        let (target, cancel) = (self.target, self.cancel);
        let mut running = target.start_input("pg_restore", database, &arguments, cancel)?;
        let mut input = running.input()?;
        let written = self.stream_all(prefix, &toc, &mut input);
        self.end("pg_restore", running, input, written)?;
        // They might keep the rows out, as a database that is read-only would.
        if (is_new || is_one_of_all) && properties.name == database {
            let text = properties.statements(self.options.no_owner);
            // What stands in an argument that begins so goes to the server as it is: psql's own commands mean nothing in it.
            let text = format!("--command=\n{text}");
            let arguments = [
                "--single-transaction",
                "--set=ON_ERROR_STOP=1",
                text.as_str(),
            ];
            self.psql(&arguments, |_, _| Ok(()))?;
        }
        Ok(())
    }

    /// Gives the entry of the table of contents of a database.
    fn toc(&mut self, prefix: &[u8]) -> Result<Entry> {
        let key = [prefix, TOC].concat();
        let entry = self.entry(&key)?;
        entry.ok_or_else(|| self.lacks(&key))
    }

    /// Makes the database as it was made, if it is not there; tells whether it was not.
    fn make(&mut self, properties: &Properties, database: &str) -> Result<bool> {
        const DATABASES: &str = "select datname from pg_database";
        let (target, cancel) = (self.target, self.cancel);
        let there = target.ask(MAINTENANCE, DATABASES, cancel)?;
        let is_new = !there.iter().any(|one| one == database);
        if is_new {
            let statement = create_statement(&properties.statement, database);
            target.ask(MAINTENANCE, &statement, cancel)?;
        }
        Ok(is_new)
    }

    /// Writes a database as a dump that is one stream.
    fn stream_all(&mut self, prefix: &[u8], toc: &Entry, out: &mut Input) -> Result<()> {
        let mut files = ScratchMap::new(self.repository.cache_dir(), FILES_BYTES);
        let layout = self.stream(toc, |input| {
            let mut reader = DumpReader::new(input, Form::Directory);
            reader.read_head()?;
            out.write_all(&reader.head(Form::Custom))?;
            let mut number = 0_u64;
            while let Some(item) = reader.next_item()? {
                out.write_all(&item.encode(reader.layout(), Form::Custom, b""))?;
                if item.has_data {
                    let head = item.id.to_be_bytes();
                    let kind = [u8::from(item.has_large_objects())];
                    let value = [&head[..], &kind, &item.file].concat();
                    let noted = files.insert(&number.to_be_bytes(), &value);
                    noted.map_err(io::Error::other)?;
                    number += 1;
                }
            }
            Ok(reader.layout())
        })?;
        self.done(toc);
        for item in files.iter_from(&[]) {
            let (_, value) = item?;
            let Some((id, [kind, file @ ..])) = value.split_first_chunk() else {
                continue;
            };
            let id = i64::from_be_bytes(*id);
            let key = [prefix, file].concat();
            let entry = self.entry(&key)?;
            let entry = entry.ok_or_else(|| self.lacks(&key))?;
            match kind {
                0 => {
                    let begin = layout.block(Block::Rows(id));
                    out.write_all(&begin).map_err(not_taken)?;
                    self.pieces(&entry, layout, out)?;
                }
                _ => {
                    let begin = layout.block(Block::LargeObjects(id));
                    out.write_all(&begin).map_err(not_taken)?;
                    self.large_objects(prefix, &entry, layout, out)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the large objects of a list.
    fn large_objects(
        &mut self,
        prefix: &[u8],
        list: &Entry,
        layout: Layout,
        out: &mut Input,
    ) -> Result<()> {
        let mut objects = ScratchMap::new(self.repository.cache_dir(), FILES_BYTES);
        self.stream(list, |input| {
            for line in io::BufRead::split(io::BufReader::new(input), b'\n') {
                let line = line?;
                let (number, name) = object_number(&line)?;
                let noted = objects.insert(&number.to_be_bytes(), name);
                noted.map_err(io::Error::other)?;
            }
            Ok(())
        })?;
        self.done(list);
        for item in objects.iter_from(&[]) {
            let (number, name) = item?;
            let number = <[u8; 4]>::try_from(&*number).map(u32::from_be_bytes);
            let number = number.unwrap_or_default();
            let key = [prefix, &name].concat();
            let entry = self.entry(&key)?;
            let entry = entry.ok_or_else(|| self.lacks(&key))?;
            out.write_all(&layout.number(number)).map_err(not_taken)?;
            self.pieces(&entry, layout, out)?;
        }
        out.write_all(&layout.number(0)).map_err(not_taken)
    }

    /// Writes the bytes of an entry in pieces, and their end.
    fn pieces(&mut self, entry: &Entry, layout: Layout, out: &mut Input) -> Result<()> {
        let path = self.path_of(&entry.key);
        self.progress.current(path.as_bytes());
        let mut pieces = Pieces { out, layout };
        let written = self.contents.content(entry, path.as_bytes(), &mut pieces);
        self.cancel.check()?;
        written?;
        out.write_all(&layout.number(0)).map_err(not_taken)?;
        self.done(entry);
        Ok(())
    }

    /// Writes the bytes of an entry.
    fn write(&mut self, entry: &Entry, out: &mut dyn Write) -> Result<()> {
        let path = self.path_of(&entry.key);
        self.progress.current(path.as_bytes());
        let written = self.contents.content(entry, path.as_bytes(), out);
        self.cancel.check()?;
        written?;
        self.done(entry);
        Ok(())
    }

    /// Lets psql run on the whole cluster what is written to it; gives what it said.
    fn psql(
        &mut self,
        more: &[&str],
        write: impl FnOnce(&mut Self, &mut Input) -> Result<()>,
    ) -> Result<String> {
        const QUIET: [&str; 3] = ["--no-psqlrc", "--quiet", "--output=/dev/null"];
        let arguments = [&QUIET[..], more].concat();
        let (target, cancel) = (self.target, self.cancel);
        let mut running = target.start_input("psql", MAINTENANCE, &arguments, cancel)?;
        let mut input = running.input()?;
        let written = write(self, &mut input);
        ended(running, input, written)
    }

    /// Waits for the end of what was written to a program.
    fn end(
        &mut self,
        program: &str,
        running: Running,
        input: Input,
        written: Result<()>,
    ) -> Result<()> {
        let said = ended(running, input, written).map_err(advised)?;
        if !said.is_empty() {
            self.warn(format!("{program} said:\n{said}"));
        }
        Ok(())
    }

    /// Reads the bytes of an entry as they come, with another thread that fetches them.
    fn stream<T>(
        &mut self,
        entry: &Entry,
        read: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> Result<T> {
        let path = self.path_of(&entry.key);
        let failed =
            |error: io::Error| EngineError::Internal(format!("cannot make a pipe: {error}"));
        let (mut reader, mut writer) = io::pipe().map_err(failed)?;
        let mut contents = Contents::new(self.repository)?;
        let (read, fetched) = thread::scope(|scope| {
            let name = path.as_bytes();
            let fetching = scope.spawn(move || contents.content(entry, name, &mut writer));
            let read = read(&mut reader);
            // Or whoever fetches would wait for room.
            drop(reader);
            (read, fetching.join())
        });
        self.cancel.check()?;
        match (read, fetched) {
            (Ok(read), Ok(Ok(()))) => Ok(read),
            // Nobody reads what comes behind an error.
            (Err(error), Ok(Ok(()) | Err(EngineError::File { .. }))) => Err(match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => EngineError::Damaged {
                    object: path,
                    why: error.to_string(),
                },
                _ => not_taken(error),
            }),
            (_, Ok(Err(error))) => Err(error),
            (_, Err(_)) => Err(EngineError::Internal("a thread failed".to_owned())),
        }
    }

    fn entry(&mut self, key: &[u8]) -> Result<Option<Entry>> {
        lookup(&mut self.nodes, &super::roots::tree_of(self.source), key, 0)
    }

    /// Counts an entry that was written.
    fn done(&mut self, entry: &Entry) {
        self.report.files += 1;
        self.report.bytes += entry.size;
        self.progress.advance(1, entry.size);
    }

    fn lacks(&self, key: &[u8]) -> EngineError {
        EngineError::Damaged {
            object: self.path_of(key),
            why: "the snapshot names it and does not have it".to_owned(),
        }
    }

    fn warn(&mut self, text: String) {
        self.progress.warning(&text);
        self.report.warnings.push(text);
    }

    fn path_of(&self, key: &[u8]) -> String {
        let source = String::from_utf8_lossy(&self.source.path);
        format!("{source}/{}", String::from_utf8_lossy(key))
    }
}

/// Waits for the end of a program that something was written to; gives the last of what it said.
fn ended(running: Running, input: Input, written: Result<()>) -> Result<String> {
    match written {
        Ok(()) => {
            drop(input);
            running.finish()
        }
        // It says better why it does not read any more.
        Err(error @ EngineError::File { .. }) => {
            drop(input);
            running.finish().and(Err(error))
        }
        // Ended before its input is, or it could take what it has for all.
        Err(error) => {
            drop(running);
            drop(input);
            Err(error)
        }
    }
}

/// Statements on their way into psql. Its own commands (`\! rm`) would be run here, as whoever restores, and a snapshot may be
/// anybody's: so no line with a backslash gets there.
struct Statements<'a> {
    out: &'a mut dyn Write,
    line: Vec<u8>,
}

/// Bytes of the longest line that roles and tablespaces may have.
const LINE_BYTES_MAX: usize = 1 << 20;

impl Statements<'_> {
    /// Gives a whole line on.
    fn pass(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        // pg_dumpall itself writes these two around its statements.
        let is_own = |start: &[u8]| {
            let key = line.strip_prefix(start);
            key.is_some_and(|key| key.trim_ascii().iter().all(u8::is_ascii_alphanumeric))
        };
        if is_own(b"\\restrict ") || is_own(b"\\unrestrict ") {
            return Ok(());
        }
        if line.contains(&b'\\') {
            let why = "the roles and tablespaces have a line with a backslash, which psql could run as a command of this machine; \
                       restore into a folder and look at globals.sql, or restore one database by name";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.out.write_all(&line)
    }
}

impl Write for Statements<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                let why = "the roles and tablespaces have a line that is longer than any is";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.pass()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Gives a failure to write to a program.
fn not_taken(source: io::Error) -> EngineError {
    EngineError::File {
        operation: "write to",
        path: "the program that restores".into(),
        source,
    }
}

/// Adds what to do about what pg_restore says.
fn advised(error: EngineError) -> EngineError {
    const ADVICE: [(&str, &str); 4] = [
        (
            "already exists",
            "nothing of it was written; restore into a database that is not there yet, or is empty",
        ),
        (
            "role \"",
            "nothing of it was written; make the roles first, or leave owners and permissions out by --no-owner",
        ),
        (
            "max_locks_per_transaction",
            "nothing of it was written; raise this setting of the server, or restore into a folder and let pg_restore take that",
        ),
        (
            "unsupported version",
            "nothing of it was written; pg_restore must not be older than the pg_dump that wrote the dump",
        ),
    ];
    let EngineError::Request(text) = error else {
        return error;
    };
    let found = ADVICE.iter().find(|(sign, _)| text.contains(sign));
    EngineError::Request(match found {
        Some((_, advice)) => format!("{text}\n{advice}"),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn passed(text: &str, piece: usize) -> io::Result<String> {
        let mut out = Vec::new();
        let mut statements = Statements {
            out: &mut out,
            line: Vec::new(),
        };
        for piece in text.as_bytes().chunks(piece) {
            statements.write_all(piece)?;
        }
        statements.pass()?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn no_line_of_roles_is_a_command_of_psql() {
        let sound = "CREATE ROLE \"a b\";\nALTER ROLE x;";
        for piece in [1, 7, 1000] {
            assert_eq!(passed(sound, piece).unwrap(), sound);
            let own = format!("\\restrict aB9\n{sound}\n\\unrestrict aB9\n");
            assert_eq!(passed(&own, piece).unwrap(), format!("{sound}\n"));
            for harm in [
                "\\! id",
                "CREATE ROLE a; \\! id\n",
                "\\restrict x \\! id\n",
                "\\restrict x;id\n",
                "SELECT 1 \\g |id\n",
                "  \\i /etc/passwd",
            ] {
                let text = format!("{sound}\n{harm}");
                assert!(passed(&text, piece).is_err(), "{harm}");
            }
        }
        assert!(passed(&"x".repeat(LINE_BYTES_MAX + 1), 4096).is_err());
    }
}
