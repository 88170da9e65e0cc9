//! The history of runs: one row for each, in a database of the local state folder.
//!
//! A row is written when a run begins and filled in when it ends. One without an end whose job can be locked is
//! of a run that died, and the next who has the lock writes that down.

mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};
use schemars::JsonSchema;
use serde::Serialize;

use crate::lock::{JobLock, hold, make_folder};
use crate::schedule::Past;
pub use words::{Kind, Outcome, Trigger};

/// Runs of each kind that are kept of each job.
const KEPT: i64 = 500;
/// The longest error that is kept, in bytes.
const ERROR_BYTES: usize = 4096;
/// How long somebody else's writing is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Marks the file as larder's: the bytes `lard`.
const APPLICATION: i64 = 0x6c61_7264;
/// The version of the tables.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL,
    kind TEXT NOT NULL,
    cause TEXT NOT NULL,
    slot INTEGER,
    started INTEGER NOT NULL,
    ended INTEGER,
    outcome TEXT,
    exit_code INTEGER,
    snapshot TEXT,
    files INTEGER,
    bytes INTEGER,
    bytes_read INTEGER,
    bytes_stored INTEGER,
    error TEXT
) STRICT;
CREATE INDEX runs_of_jobs ON runs (job, kind, id);
CREATE TABLE jobs (name TEXT PRIMARY KEY, known_since INTEGER NOT NULL) STRICT;
";

const COLUMNS: &str = "id, job, kind, cause, slot, started, ended, outcome, exit_code, snapshot, \
                       files, bytes, bytes_read, bytes_stored, error";

/// The history of all runs of all jobs.
pub struct History {
    connection: Connection,
    folder: PathBuf,
    path: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "PastRun")]
pub struct Run {
    /// Its number, which no other ever has.
    pub id: i64,
    /// The job.
    pub job: String,
    /// What was run.
    pub kind: Kind,
    /// Why.
    pub trigger: Trigger,
    /// The time that the schedule names, if it was run in its turn.
    pub slot: Option<Timestamp>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; none while it runs, and if it died.
    pub ended: Option<Timestamp>,
    /// How it came out; none while it runs.
    pub outcome: Option<Outcome>,
    /// The exit code that it ends with.
    pub exit_code: Option<u8>,
    /// The snapshot that it made.
    pub snapshot: Option<String>,
    /// What was counted.
    #[serde(flatten)]
    pub figures: Figures,
    /// What went wrong.
    pub error: Option<String>,
}

/// What a run counted; none where it counts no such thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Figures {
    /// Files of the snapshot.
    pub files: Option<u64>,
    /// Bytes of all of them.
    pub bytes: Option<u64>,
    /// Bytes that were read.
    pub bytes_read: Option<u64>,
    /// Bytes that were written to the repository.
    pub bytes_stored: Option<u64>,
}

/// A run that begins.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    /// What is run.
    pub kind: Kind,
    /// Why.
    pub trigger: Trigger,
    /// The time that the schedule names, if it is run in its turn.
    pub slot: Option<Timestamp>,
    /// When it begins.
    pub started: Timestamp,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ending {
    /// When.
    pub ended: Timestamp,
    /// How it came out.
    pub outcome: Outcome,
    /// The exit code.
    pub exit_code: u8,
    /// The snapshot that was made.
    pub snapshot: Option<String>,
    /// What was counted.
    pub figures: Figures,
    /// What went wrong.
    pub error: Option<String>,
}

/// What keeps the history from being read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file is not what was written.
    #[error(
        "the history of runs in {path} is damaged ({cause}); the next run moves it aside and begins a new one, and backups are not concerned"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What was found.
        cause: String,
    },
    /// A later version of larder has written it.
    #[error("the history of runs in {path} is of a newer larder; use that one")]
    Newer {
        /// The file.
        path: String,
    },
    /// It cannot be opened, read or written.
    #[error("cannot use the history of runs in {path}: {cause}")]
    Failed {
        /// The file.
        path: String,
        /// What was answered.
        cause: String,
    },
}

type Result<T> = std::result::Result<T, HistoryError>;

impl History {
    /// Opens the history in the folder of jobs, or begins it.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("history.db");
        let shown = path.display().to_string();
        let failed = |cause: std::io::Error| HistoryError::Failed {
            path: shown.clone(),
            cause: cause.to_string(),
        };
        make_folder(folder).map_err(&failed)?;
        // Two who begin it at once do not both make its tables.
        let _alone = hold(&folder.join("opening")).map_err(failed)?;
        let connection = Connection::open(&path).map_err(|error| told(&shown, &error))?;
        let history = Self {
            connection,
            folder: folder.to_owned(),
            path: shown,
        };
        history.prepare()?;
        Ok(history)
    }

    /// Opens the history for a run: one that is damaged is moved aside, and a new one begun, with why.
    ///
    /// # Errors
    /// As [`HistoryError`] has them, but for damage that could be moved aside.
    pub fn open_or_begin(folder: &Path, now: Timestamp) -> Result<(Self, Option<HistoryError>)> {
        let damage = match Self::open(folder) {
            Err(damage @ HistoryError::Damaged { .. }) => damage,
            opened => return Ok((opened?, None)),
        };
        for name in ["history.db", "history.db-wal", "history.db-shm"] {
            let aside = folder.join(format!("{name}.damaged-{}", now.as_second()));
            match std::fs::rename(folder.join(name), aside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(damage),
                _ => {}
            }
        }
        Ok((Self::open(folder)?, Some(damage)))
    }

    fn prepare(&self) -> Result<()> {
        let answered = self.prepare_tables();
        let version = answered.map_err(|error| self.told(&error))?;
        match version {
            VERSION => Ok(()),
            newer if newer > VERSION => Err(HistoryError::Newer {
                path: self.path.clone(),
            }),
            _ => Err(self.damaged("it is a database of something else")),
        }
    }

    /// Makes the tables if there are none; gives the version that is there, 0 for something else.
    fn prepare_tables(&self) -> rusqlite::Result<i64> {
        let connection = &self.connection;
        connection.busy_timeout(PATIENCE)?;
        let number = |name: &str| -> rusqlite::Result<i64> {
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        };
        let is_new = number("schema_version")? == 0;
        if !is_new {
            if number("application_id")? != APPLICATION {
                return Ok(0);
            }
            let found: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if found != "ok" {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
                return Err(rusqlite::Error::SqliteFailure(code, Some(found)));
            }
        }
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;")?;
        if is_new {
            connection.execute_batch(&format!(
                "BEGIN; {TABLES} PRAGMA application_id = {APPLICATION}; \
                 PRAGMA user_version = {VERSION}; COMMIT;"
            ))?;
        }
        number("user_version")
    }

    /// Notes that a run begins; runs of the same job that died are settled first.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn begin(&self, lock: &JobLock, run: &Beginning) -> Result<i64> {
        self.settle(lock)?;
        let sql = "INSERT INTO runs (job, kind, cause, slot, started) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![
            lock.job(),
            run.kind.word(),
            run.trigger.word(),
            run.slot.map(Timestamp::as_millisecond),
            run.started.as_millisecond(),
        ];
        self.write(sql, values)?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Notes how a run ended, and forgets the oldest of its kind.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn end(&self, id: i64, ending: &Ending) -> Result<()> {
        let number =
            |number: Option<u64>| number.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let error = ending.error.as_deref().map(|error| {
            let end = error.floor_char_boundary(ERROR_BYTES);
            error.get(..end).unwrap_or_default()
        });
        let figures = &ending.figures;
        let sql = "UPDATE runs SET ended = ?2, outcome = ?3, exit_code = ?4, snapshot = ?5, \
                   files = ?6, bytes = ?7, bytes_read = ?8, bytes_stored = ?9, error = ?10 \
                   WHERE id = ?1";
        let values = params![
            id,
            ending.ended.as_millisecond(),
            ending.outcome.word(),
            ending.exit_code,
            ending.snapshot,
            number(figures.files),
            number(figures.bytes),
            number(figures.bytes_read),
            number(figures.bytes_stored),
            error,
        ];
        self.write(sql, values)?;
        let sql = "DELETE FROM runs WHERE outcome IS NOT NULL AND id IN (\
                   SELECT old.id FROM runs AS old, runs AS this \
                   WHERE this.id = ?1 AND old.job = this.job AND old.kind = this.kind \
                   ORDER BY old.id DESC LIMIT -1 OFFSET ?2)";
        self.write(sql, params![id, KEPT])
    }

    /// Notes that a run was missed and is not made up for.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn missed(
        &self,
        lock: &JobLock,
        kind: Kind,
        slot: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        let id = self.begin(
            lock,
            &Beginning {
                kind,
                trigger: Trigger::Schedule,
                slot: Some(slot),
                started: now,
            },
        )?;
        let sql = "UPDATE runs SET ended = started, outcome = ?2 WHERE id = ?1";
        self.write(sql, params![id, Outcome::Missed.word()])
    }

    /// Writes down which runs of a job died: those without an end, as nobody else runs it.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn settle(&self, lock: &JobLock) -> Result<()> {
        let sql = "UPDATE runs SET outcome = ?2, error = ?3 WHERE job = ?1 AND outcome IS NULL";
        let why = "the process ended without a word: it was killed, or the machine went down";
        self.write(sql, params![lock.job(), Outcome::Died.word(), why])
    }

    /// The same for every job that nobody runs.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn settle_all(&self) -> Result<()> {
        let sql = "SELECT DISTINCT job FROM runs WHERE outcome IS NULL";
        let jobs: Vec<String> = self.rows(sql, [], |row| row.get(0))?;
        for job in jobs {
            // One whose lock cannot be had is being run.
            if let Ok(lock) = JobLock::take(&self.folder, &job) {
                self.settle(&lock)?;
            }
        }
        Ok(())
    }

    /// Gives the newest runs of a job, or of all for none, newest first.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn runs(&self, job: Option<&str>, count: u32) -> Result<Vec<Run>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM runs WHERE ?1 IS NULL OR job = ?1 ORDER BY id DESC LIMIT ?2"
        );
        self.rows(&sql, params![job, count], read)
    }

    /// Gives the newest run of a kind that came out in this way; any for none.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn newest(&self, job: &str, kind: Kind, outcome: Option<Outcome>) -> Result<Option<Run>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM runs WHERE job = ?1 AND kind = ?2 \
             AND (?3 IS NULL OR outcome = ?3) ORDER BY id DESC LIMIT 1"
        );
        let values = params![job, kind.word(), outcome.map(Outcome::word)];
        Ok(self.rows(&sql, values, read)?.pop())
    }

    /// Gives what the next run of a kind depends on. A job that is not known yet is known from now on.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn past(&self, job: &str, kind: Kind, now: Timestamp) -> Result<Past> {
        let since = self.known_since(job, now)?;
        let newest = self.newest(job, kind, None)?;
        let is_died =
            |run: &Run| run.outcome == Some(Outcome::Died) && run.trigger != Trigger::CatchUp;
        let missed = self.newest(job, kind, Some(Outcome::Missed))?;
        // One that died is made up for, once.
        let sql = format!(
            "SELECT {COLUMNS} FROM runs WHERE job = ?1 AND kind = ?2 \
             AND COALESCE(outcome, '') <> 'missed' \
             AND (COALESCE(outcome, '') <> 'died' OR cause = 'catch-up') ORDER BY id DESC LIMIT 1"
        );
        let last = self.rows(&sql, params![job, kind.word()], read)?.pop();
        Ok(Past {
            last_run: last.map(|run| run.slot.unwrap_or(run.started)),
            known_since: missed.map_or(since, |run| run.started.max(since)),
            died: newest.as_ref().is_some_and(is_died),
        })
    }

    fn known_since(&self, job: &str, now: Timestamp) -> Result<Timestamp> {
        let sql = "SELECT known_since FROM jobs WHERE name = ?1";
        let row = self.connection.query_row(sql, [job], |row| row.get(0));
        let known: Option<i64> = row.optional().map_err(|error| self.told(&error))?;
        if known.is_none() {
            self.knows(job, now)?;
        }
        Ok(known
            .and_then(|at| Timestamp::from_millisecond(at).ok())
            .unwrap_or(now))
    }

    /// Notes that a job is known from a time on, if it is not known yet.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn knows(&self, job: &str, since: Timestamp) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO jobs (name, known_since) VALUES (?1, ?2)";
        self.write(sql, params![job, since.as_millisecond()])
    }

    /// Forgets since when a job is known, once it is there no more; its runs stay.
    ///
    /// # Errors
    /// As [`HistoryError`] has them.
    pub fn forget(&self, job: &str) -> Result<()> {
        self.write("DELETE FROM jobs WHERE name = ?1", params![job])
    }

    fn write(&self, sql: &str, values: impl rusqlite::Params) -> Result<()> {
        let done = self.connection.execute(sql, values);
        done.map(drop).map_err(|error| self.told(&error))
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let rows = || {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map(values, read)?;
            rows.collect::<rusqlite::Result<Vec<T>>>()
        };
        rows().map_err(|error| self.told(&error))
    }

    fn told(&self, error: &rusqlite::Error) -> HistoryError {
        told(&self.path, error)
    }

    fn damaged(&self, cause: &str) -> HistoryError {
        HistoryError::Damaged {
            path: self.path.clone(),
            cause: cause.to_owned(),
        }
    }
}

/// Tells damage apart from what may work another time.
fn told(path: &str, error: &rusqlite::Error) -> HistoryError {
    use rusqlite::Error as E;
    let (path, cause) = (path.to_owned(), error.to_string());
    let is_damage = match error {
        E::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
        ),
        // Rows and tables that were never written so.
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::SqlInputError { .. } => true,
        _ => false,
    };
    match is_damage {
        true => HistoryError::Damaged { path, cause },
        false => HistoryError::Failed { path, cause },
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
    let out_of_range = |column, number| rusqlite::Error::IntegralValueOutOfRange(column, number);
    let time = |column: usize| -> rusqlite::Result<Option<Timestamp>> {
        let number: Option<i64> = row.get(column)?;
        let time =
            |number| Timestamp::from_millisecond(number).map_err(|_| out_of_range(column, number));
        number.map(time).transpose()
    };
    let number = |column: usize| -> rusqlite::Result<Option<u64>> {
        let number: Option<i64> = row.get(column)?;
        let number =
            number.map(|number| u64::try_from(number).map_err(|_| out_of_range(column, number)));
        number.transpose()
    };
    Ok(Run {
        id: row.get(0)?,
        job: row.get(1)?,
        kind: row.get(2)?,
        trigger: row.get(3)?,
        slot: time(4)?,
        started: time(5)?.ok_or_else(|| out_of_range(5, 0))?,
        ended: time(6)?,
        outcome: row.get(7)?,
        exit_code: row.get(8)?,
        snapshot: row.get(9)?,
        figures: Figures {
            files: number(10)?,
            bytes: number(11)?,
            bytes_read: number(12)?,
            bytes_stored: number(13)?,
        },
        error: row.get(14)?,
    })
}

#[cfg(test)]
mod tests;
