//! What pg_dump and pg_dumpall print, as the parts of a source.
//!
//! ```text
//! globals.sql                      roles and tablespaces (pg_dumpall --globals-only)
//! toc.dat                          everything but the data
//! tables/SCHEMA/TABLE.dat          the rows of a table
//! large-objects/NUMBER.dat         a large object
//! blobs.toc                        the list of them
//! ```
//!
//! This is pg_dump's directory form, which pg_restore reads. pg_dump itself would write a folder, so it is
//! made of the custom form, which comes through a pipe. Of all databases of a server, each has a folder.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use super::form::{Block, DumpReader, Form, Item};
use super::{Globals, MAINTENANCE, Server, escaped};
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::process::Running;
use crate::scratch::ScratchMap;

/// The name of the table of contents.
pub const TOC: &[u8] = b"toc.dat";
/// The name of the cluster's roles and tablespaces.
pub const GLOBALS: &[u8] = b"globals.sql";
/// The folder of large objects.
const LARGE_OBJECTS: &str = "large-objects";
/// Memory of the names of files before they go to disk.
const NAMES_BYTES: usize = 4 << 20;
/// The databases that all of them means: those that pg_dumpall takes.
const DATABASES: &str = "select datname from pg_database where datallowconn and datname <> 'template0' order by datname";

/// A dump of one or more databases that is being read.
pub struct Dump {
    server: Server,
    cancel: Cancel,
    scratch_folder: PathBuf,
    steps: VecDeque<Step>,
    current: Option<Current>,
    /// What the names of the parts of the current database begin with.
    prefix: Vec<u8>,
    /// What the programs said besides.
    said: String,
}

/// What is still to be read.
enum Step {
    Globals(String),
    Database(String),
}

/// What is being read.
enum Current {
    Whole(Running),
    Database(Box<Database>),
}

/// A database that is being read.
struct Database {
    reader: DumpReader<Running>,
    part: Part,
    /// The files of rows and lists, by the number of their items.
    files: ScratchMap,
    /// The names of these files.
    names: ScratchMap,
    /// The large objects of the current block.
    objects: ScratchMap,
    /// Items that have data, less those whose data was read.
    data_left: u64,
    /// Why nothing more can be read.
    broken: Option<io::Error>,
}

/// The part of a database that is being read.
enum Part {
    /// None yet.
    Begin,
    /// None, but a block is next.
    Block,
    /// The table of contents, and its bytes so far.
    Toc(Cursor<Vec<u8>>),
    Rows,
    /// An object of the block with this number.
    LargeObject(i64),
    /// The list of the objects, from the one after this on, and its lines so far.
    List(Option<u32>, Cursor<Vec<u8>>),
}

impl Dump {
    /// Finds out what there is to read; the server is asked for the names of its databases, if all are meant.
    ///
    /// # Errors
    /// `Request`, with what the server or its programs say.
    pub fn open(server: &Server, scratch_folder: &Path, cancel: &Cancel) -> Result<Self> {
        let databases = match &server.database {
            Some(database) => vec![database.clone()],
            None => {
                let asked = server.ask(MAINTENANCE, DATABASES, cancel);
                asked.map_err(advised)?
            }
        };
        let mut steps = VecDeque::new();
        if server.globals != Globals::None {
            let database = server.database.as_deref().unwrap_or(MAINTENANCE);
            steps.push_back(Step::Globals(database.to_owned()));
        }
        steps.extend(databases.into_iter().map(Step::Database));
        Ok(Self {
            server: server.clone(),
            cancel: cancel.clone(),
            scratch_folder: scratch_folder.to_owned(),
            steps,
            current: None,
            prefix: Vec::new(),
            said: String::new(),
        })
    }

    /// Goes to the next part, once the one before it was read to its end, and gives its key; none once all
    /// programs have ended with 0.
    ///
    /// # Errors
    /// `Request`, with what the server or its programs say.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let mut next = Ok(None);
            if let Some(Current::Database(database)) = &mut self.current {
                next = database.next_part();
            }
            if let Ok(Some(name)) = next {
                return Ok(Some([&*self.prefix, &*name].concat()));
            }
            let said = match self.current.take() {
                Some(Current::Whole(running)) => running.finish(),
                Some(Current::Database(database)) => database.finish(next.err()),
                None => Ok(String::new()),
            };
            self.said.push_str(&said.map_err(advised)?);
            let Some(step) = self.steps.pop_front() else {
                return Ok(None);
            };
            if let Step::Globals(database) = step {
                let running = self.start_globals(&database)?;
                self.current = Some(Current::Whole(running));
                return Ok(Some(GLOBALS.to_vec()));
            }
            if let Step::Database(database) = step {
                self.prefix = match self.server.database {
                    Some(_) => Vec::new(),
                    None => format!("{}/", escaped(&database)).into_bytes(),
                };
                let database = self.start_database(&database)?;
                self.current = Some(Current::Database(Box::new(database)));
            }
        }
    }

    fn start_globals(&self, database: &str) -> Result<Running> {
        let mut arguments = vec!["--globals-only"];
        if self.server.globals == Globals::WithoutPasswords {
            arguments.push("--no-role-passwords");
        }
        let (server, cancel) = (&self.server, &self.cancel);
        server.start("pg_dumpall", database, &arguments, cancel)
    }

    fn start_database(&self, database: &str) -> Result<Database> {
        const ARGUMENTS: [&str; 2] = ["--format=custom", "--compress=0"];
        let (server, cancel) = (&self.server, &self.cancel);
        let running = server.start("pg_dump", database, &ARGUMENTS, cancel)?;
        let map = || ScratchMap::new(&self.scratch_folder, NAMES_BYTES);
        Ok(Database {
            reader: DumpReader::new(running, Form::Custom),
            part: Part::Begin,
            files: map(),
            names: map(),
            objects: map(),
            data_left: 0,
            broken: None,
        })
    }

    /// Gives the last of what the programs said besides.
    #[must_use]
    pub fn said(self) -> String {
        self.said
    }
}

impl Read for Dump {
    /// Reads on in the current part; 0 bytes mean that it has ended.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.current {
            None => Ok(0),
            Some(Current::Whole(running)) => running.read(buffer),
            // Why it is broken is told by its end: perhaps its program failed.
            Some(Current::Database(database)) => database.read(buffer).or_else(|error| {
                database.broken = Some(error);
                Ok(0)
            }),
        }
    }
}

impl Database {
    /// Goes to the next part and gives its name; none at the end of the reader.
    fn next_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        match std::mem::replace(&mut self.part, Part::Block) {
            Part::Begin => {
                self.reader.read_head()?;
                self.part = Part::Toc(Cursor::new(self.reader.head(Form::Directory)));
                return Ok(Some(TOC.to_vec()));
            }
            Part::LargeObject(id) => return self.next_object(id).map(Some),
            Part::Toc(_) | Part::Rows | Part::List(..) | Part::Block => {}
        }
        let Some(block) = self.reader.next_block()? else {
            return match self.data_left {
                0 => Ok(None),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        };
        self.data_left = self.data_left.saturating_sub(1);
        match block {
            Block::Rows(id) => {
                self.part = Part::Rows;
                self.file(id).map(Some)
            }
            Block::LargeObjects(id) => {
                self.objects.clear();
                self.next_object(id).map(Some)
            }
        }
    }

    /// Goes to the next large object of a block, or to the list of them.
    fn next_object(&mut self, id: i64) -> io::Result<Vec<u8>> {
        if let Some(number) = self.reader.next_large_object()? {
            let noted = self.objects.insert(&number.to_be_bytes(), b"");
            noted.map_err(io::Error::other)?;
            self.part = Part::LargeObject(id);
            return Ok(object_name(number).into_bytes());
        }
        self.part = Part::List(None, Cursor::default());
        self.file(id)
    }

    /// Gives the file that an item has its data in.
    fn file(&self, id: i64) -> io::Result<Vec<u8>> {
        let file = self
            .files
            .get(&id.to_be_bytes())
            .map_err(io::Error::other)?;
        file.ok_or_else(|| io::Error::other("the dump has data of what its contents do not name"))
    }

    /// Reads the next item, and gives it as the directory form has it.
    fn next_item(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(item) = self.reader.next_item()? else {
            return Ok(None);
        };
        let layout = self.reader.layout();
        let mut file = Vec::new();
        if item.has_data {
            self.data_left += 1;
            file = self.own(file_name(&item, layout.has_several_lists()))?;
            let key = item.id.to_be_bytes();
            self.files.insert(&key, &file).map_err(io::Error::other)?;
        }
        Ok(Some(item.encode(layout, Form::Directory, &file)))
    }

    /// Makes the name of a file its own.
    fn own(&mut self, name: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut own = name.clone();
        let mut number = 2;
        while self.names.get(&own).map_err(io::Error::other)?.is_some() {
            let stem = name.strip_suffix(b".dat").unwrap_or(&name);
            own = [stem, format!("-{number}.dat").as_bytes()].concat();
            number += 1;
        }
        self.names.insert(&own, b"").map_err(io::Error::other)?;
        Ok(own)
    }

    /// Gives the next line of the list of large objects, and the object that it is of.
    fn next_line(&self, last: Option<u32>) -> io::Result<Option<(u32, Vec<u8>)>> {
        let Some(from) = last.map_or(Some(0), |last| last.checked_add(1)) else {
            return Ok(None);
        };
        let item = self.objects.iter_from(&from.to_be_bytes()).next();
        let Some((key, _)) = item.transpose().map_err(io::Error::other)? else {
            return Ok(None);
        };
        let number = <[u8; 4]>::try_from(&*key).map(u32::from_be_bytes);
        let number = number.map_err(io::Error::other)?;
        let line = format!("{number} {}\n", object_name(number));
        Ok(Some((number, line.into_bytes())))
    }

    /// Makes sure that its program ended well; gives the last of what that said.
    fn finish(self, broken: Option<io::Error>) -> Result<String> {
        self.reader.into_input().finish_read(broken)
    }
}

impl Read for Database {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let more = match &mut self.part {
                Part::Begin | Part::Block => return Ok(0),
                Part::Rows | Part::LargeObject(_) => return self.reader.read(buffer),
                Part::Toc(bytes) | Part::List(_, bytes) => {
                    let count = bytes.read(buffer)?;
                    if count > 0 || buffer.is_empty() {
                        return Ok(count);
                    }
                    match &self.part {
                        Part::List(last, _) => self
                            .next_line(*last)?
                            .map(|(number, line)| Part::List(Some(number), Cursor::new(line))),
                        _ => self.next_item()?.map(|item| Part::Toc(Cursor::new(item))),
                    }
                }
            };
            match more {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
    }
}

/// Gives the name of the file of a large object.
#[must_use]
pub fn object_name(number: u32) -> String {
    format!("{LARGE_OBJECTS}/{number}.dat")
}

/// Reads a line of a list of large objects: the number of one, and the name of its file. Pure.
///
/// # Errors
/// `InvalidData` for what is none.
pub fn object_number(line: &[u8]) -> io::Result<(u32, &[u8])> {
    let parts = line.iter().position(|byte| *byte == b' ');
    let parts = parts.and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)));
    let read = parts.and_then(|(number, name)| {
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some((number, name))
    });
    read.filter(|(number, _)| *number != 0).ok_or_else(|| {
        let text = "a line of the list of large objects makes no sense";
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// Chooses the file that an item has its data in. Pure.
fn file_name(item: &Item, has_several_lists: bool) -> Vec<u8> {
    match (item.kind.as_slice(), has_several_lists) {
        // pg_restore looks for it under this name alone.
        (b"BLOBS", false) => b"blobs.toc".to_vec(),
        (b"BLOBS", true) => format!("blobs_{}.toc", item.id).into_bytes(),
        (b"TABLE DATA", _) => {
            let (schema, table) = (plain(&item.schema), plain(&item.tag));
            format!("tables/{schema}/{table}.dat").into_bytes()
        }
        _ => format!("data/{}.dat", item.id).into_bytes(),
    }
}

/// Writes a name so that it can be one part of a file's path: `/`, `%`, control characters, what is not
/// UTF-8, and a dot in front as `%` and two hex digits.
fn plain(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '/' | '%' | '\0'..='\x1f' | '\x7f' => {
                    let _ = write!(text, "%{:02X}", u32::from(char));
                }
                '.' if text.is_empty() => text.push_str("%2E"),
                other => text.push(other),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Adds what to do about what a program says.
pub(super) fn advised(error: EngineError) -> EngineError {
    const ADVICE: [(&str, &str); 4] = [
        (
            "server version mismatch",
            "the programs of PostgreSQL on this machine are older than the server; install those of its version (on Debian the package postgresql-client-VERSION) and put them first on the PATH",
        ),
        (
            "pg_authid",
            "only a superuser may read the passwords of roles; add ?globals=without-passwords to the URL, or ?globals=no",
        ),
        (
            "single tablespace",
            "a server with tablespaces cannot be backed up in this way; back its databases up (postgres://)",
        ),
        (
            "no password supplied",
            "give the password by PGPASSWORD, ~/.pgpass or --postgres-password-command",
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

    #[test]
    fn names_become_parts_of_paths() {
        assert_eq!(plain(b"a/b%\n"), "a%2Fb%25%0A");
        assert_eq!(plain(b".."), "%2E.");
        assert_eq!(plain("Größe.".as_bytes()), "Größe.");
        assert_eq!(plain(b"a\xff."), "a%FF.");
    }

    #[test]
    fn lines_of_the_list_of_large_objects_are_read() {
        let (number, name) = object_number(b"4294967295 large-objects/x.dat").unwrap();
        assert_eq!((number, name), (u32::MAX, &b"large-objects/x.dat"[..]));
        for line in [&b""[..], b"12", b"0 x", b"-1 x", b"4294967296 x", b"\xff x"] {
            object_number(line).unwrap_err();
        }
    }

    #[test]
    fn advice_is_given_where_there_is_some() {
        let advice = |text: &str| advised(EngineError::Request(text.to_owned())).to_string();
        let told = advice("pg_dump: error: aborting because of server version mismatch");
        assert!(told.contains("older than the server"), "{told}");
        assert!(advice("permission denied for table pg_authid").contains("globals=no"));
        assert_eq!(advice("no space left"), "no space left");
    }
}
