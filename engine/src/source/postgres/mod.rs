//! A server of PostgreSQL as a source and a target: what its URL means, and its own programs.

pub mod base;
pub mod dump;
pub mod form;
mod manifest;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::process::{Running, hide_secrets};

/// Where Debian keeps the programs of each version of PostgreSQL.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";
/// Bytes of an answer that is held in memory.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// What a URL begins with: of databases, and of the files of a server.
const DUMP: &str = "postgres://";
const BASE: &str = "postgres+basebackup://";
/// The database that is asked about others.
pub const MAINTENANCE: &str = "postgres";

/// Which of a cluster's roles, tablespaces and settings are backed up with its databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Globals {
    /// All of them: only a superuser may read the passwords of roles.
    All,
    /// All but the passwords of roles.
    WithoutPasswords,
    /// None.
    None,
}

/// One database of a server, or all of them, as a URL names them.
#[derive(Debug, Clone)]
pub struct Server {
    /// User, host and port, as they stand in the URL.
    authority: String,
    /// The parameters of the URL that are libpq's.
    parameters: String,
    /// Whether the files of the server are meant, and not what is in them.
    pub is_base: bool,
    /// The database; none for all.
    pub database: Option<String>,
    /// What is backed up of the cluster besides.
    pub globals: Globals,
    /// The password, if it comes from neither the environment nor a password file.
    pub password: Option<Zeroizing<String>>,
}

impl Server {
    /// Tells whether a source or target is a server of PostgreSQL.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        let schemes = [DUMP, "postgresql://", BASE];
        schemes.iter().any(|scheme| text.starts_with(scheme))
    }

    /// Reads a URL: `postgres://user@host:port/database?parameters`.
    ///
    /// # Errors
    /// `Request` for what is none, and for one that has a password in it; the error does not show it.
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |why: &str| {
            EngineError::Request(format!(
                "this is no URL of a PostgreSQL server: {why}; write e.g. postgres://user@host:5432/database"
            ))
        };
        let base = url.strip_prefix(BASE);
        let rest = base
            .or_else(|| url.strip_prefix("postgresql://"))
            .or_else(|| url.strip_prefix(DUMP))
            .ok_or_else(|| wrong("it begins with neither postgres:// nor postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        let parameters: Vec<&str> = query.split('&').filter(|one| !one.is_empty()).collect();
        let key = |one: &str| {
            one.split('=')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
        };
        if user.contains(':') || parameters.iter().any(|one| key(one) == "password") {
            return Err(EngineError::Request(
                "the URL of the PostgreSQL server holds a password, which everybody on this machine could read; use PGPASSWORD, PGPASSFILE or ~/.pgpass, or --postgres-password-command"
                    .to_owned(),
            ));
        }
        if parameters.iter().any(|one| key(one) == "dbname") {
            return Err(wrong(
                "the database stands behind the host, not in `dbname`",
            ));
        }
        let decoded = unescaped(database.trim_end_matches('/'))
            .ok_or_else(|| wrong("the name of the database is not well-formed"))?;
        if base.is_some() && !decoded.is_empty() {
            return Err(wrong(
                "a base backup is of a whole server, so no database stands behind the host",
            ));
        }
        let globals = parameters
            .iter()
            .rev()
            .find_map(|one| one.strip_prefix("globals="));
        Ok(Self {
            authority: authority.to_owned(),
            is_base: base.is_some(),
            globals: match globals {
                // Whoever may read a database need not be allowed to read the cluster's roles.
                None if !decoded.is_empty() => Globals::None,
                None | Some("yes") => Globals::All,
                Some("without-passwords") => Globals::WithoutPasswords,
                Some("no") => Globals::None,
                Some(_) => {
                    return Err(wrong("`globals` is one of yes, without-passwords and no"));
                }
            },
            parameters: {
                let libpq = parameters.iter().filter(|one| key(one) != "globals");
                libpq.copied().collect::<Vec<_>>().join("&")
            },
            database: (!decoded.is_empty()).then_some(decoded),
            password: None,
        })
    }

    /// Gives the name of the source: the URL without its parameters.
    #[must_use]
    pub fn name(&self) -> String {
        let authority = match self.authority.as_str() {
            "" => "local",
            authority => authority,
        };
        let scheme = if self.is_base { BASE } else { DUMP };
        match &self.database {
            Some(database) => format!("{scheme}{authority}/{}", escaped(database)),
            None => format!("{scheme}{authority}"),
        }
    }

    /// Gives the URL of one of its databases, for its programs.
    fn url(&self, database: &str) -> String {
        let mark = if self.parameters.is_empty() { "" } else { "?" };
        let (authority, parameters) = (&self.authority, &self.parameters);
        format!(
            "postgresql://{authority}/{}{mark}{parameters}",
            escaped(database)
        )
    }

    /// Prepares one of its programs for a database; it never asks for a password.
    ///
    /// # Errors
    /// `Request` if the program is not there.
    fn program(&self, program: &'static str, database: &str) -> Result<Command> {
        let mut command = Command::new(find(program)?);
        command
            .arg("--no-password")
            .arg(format!("--dbname={}", self.url(database)))
            .stdin(Stdio::null())
            .env("PGAPPNAME", "larder")
            .env("LC_ALL", "C");
        match program {
            "psql" => command.env("PGCLIENTENCODING", "UTF8"),
            // A dump has the encoding of its database.
            _ => command.env_remove("PGCLIENTENCODING"),
        };
        hide_secrets(&mut command);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password.as_str());
        }
        Ok(command)
    }

    /// Starts one of its programs for a database.
    ///
    /// # Errors
    /// `Request` if the program is not there.
    pub fn start(
        &self,
        program: &'static str,
        database: &str,
        arguments: &[&str],
        cancel: &Cancel,
    ) -> Result<Running> {
        let mut command = self.program(program, database)?;
        command.args(arguments);
        Running::start(&mut command, &self.called(program, database), cancel)
    }

    /// Starts one of its programs for a database, which reads what is written to it.
    ///
    /// # Errors
    /// `Request` if the program is not there.
    pub fn start_input(
        &self,
        program: &'static str,
        database: &str,
        arguments: &[&str],
        cancel: &Cancel,
    ) -> Result<Running> {
        let mut command = self.program(program, database)?;
        command.args(arguments).stdin(Stdio::piped());
        Running::start(&mut command, &self.called(program, database), cancel)
    }

    /// Runs one of its programs and gives what it prints.
    ///
    /// # Errors
    /// `Request` if it is not there or fails, or prints too much.
    pub fn answer(
        &self,
        program: &'static str,
        database: &str,
        arguments: &[&str],
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let mut running = self.start(program, database, arguments, cancel)?;
        let mut answer = Vec::new();
        let read = running
            .by_ref()
            .take(ANSWER_BYTES_MAX + 1)
            .read_to_end(&mut answer);
        cancel.check()?;
        let called = self.called(program, database);
        if read.is_err() || answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err(EngineError::Request(format!(
                "{called} answered more than can be true"
            )));
        }
        running.finish()?;
        Ok(answer)
    }

    /// Asks a database, and gives the rows of the only column.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn ask(&self, database: &str, query: &str, cancel: &Cancel) -> Result<Vec<String>> {
        let arguments = [
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--record-separator-zero",
            "--command",
            query,
        ];
        let answer = self.answer("psql", database, &arguments, cancel)?;
        let answer = String::from_utf8(answer).map_err(|_| {
            EngineError::Request(format!(
                "{} has names that are not UTF-8, which larder cannot pass on",
                self.name()
            ))
        })?;
        let rows = answer.split('\0').map(|row| row.trim_end_matches('\n'));
        Ok(rows
            .filter(|row| !row.is_empty())
            .map(str::to_owned)
            .collect())
    }

    fn called(&self, program: &str, database: &str) -> String {
        let server = Self {
            database: (!database.is_empty()).then(|| database.to_owned()),
            ..self.clone()
        };
        format!("{program} of {}", server.name())
    }
}

/// Finds a program of PostgreSQL: on the path, or the newest where Debian keeps them.
fn find(program: &'static str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program));
    if let Some(found) = found.into_iter().find(|file| file.is_file()) {
        return Ok(found);
    }
    let versions = std::fs::read_dir(DEBIAN_FOLDER).into_iter().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let version = version.ok()?;
            let number = version.file_name().to_str()?.parse().ok()?;
            let file = version.path().join("bin").join(program);
            file.is_file().then_some((number, file))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, file)| file).ok_or_else(|| {
        EngineError::Request(format!(
            "there is no {program} on this machine, which PostgreSQL is backed up and restored with; on Debian it is in the package postgresql-client (`apt-get install postgresql-client`), and it must not be older than the server"
        ))
    })
}

/// Writes a name as a part of a URL.
#[must_use]
pub fn escaped(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
    }
    text
}

/// Reads a part of a URL; nothing if it is not well-formed.
#[must_use]
pub fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut parts = text.split('%');
    bytes.extend(parts.next()?.bytes());
    for part in parts {
        let digits = part.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(part.get(2..)?.bytes());
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_url_names_a_database_or_all() {
        let server =
            Server::parse("postgresql://me@db.example:5433/my%20shop?sslmode=require").unwrap();
        assert_eq!(server.database.as_deref(), Some("my shop"));
        assert_eq!(server.name(), "postgres://me@db.example:5433/my%20shop");
        let other = server.url("a/b");
        assert_eq!(
            other,
            "postgresql://me@db.example:5433/a%2Fb?sslmode=require"
        );
        for all in [
            "postgres://host",
            "postgres://host/",
            "postgres://host/?globals=no",
        ] {
            let server = Server::parse(all).unwrap();
            assert_eq!(
                (server.name().as_str(), server.database),
                ("postgres://host", None)
            );
        }
        let socket = Server::parse("postgres:///x?host=/run/pg&globals=without-passwords").unwrap();
        assert_eq!(socket.name(), "postgres://local/x");
        assert_eq!(socket.globals, Globals::WithoutPasswords);
        assert_eq!(socket.url("x"), "postgresql:///x?host=/run/pg");
        let base = Server::parse("postgres+basebackup://me@host:5433/?sslmode=require").unwrap();
        assert!(base.is_base && !socket.is_base);
        assert_eq!(base.name(), "postgres+basebackup://me@host:5433");
        assert_eq!(base.url(""), "postgresql://me@host:5433/?sslmode=require");
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_shown() {
        for url in [
            "postgres://me:hunter2@host/x",
            "postgres://host/x?password=hunter2",
            "postgres://host/x?sslmode=require&PASSWORD=hunter2",
        ] {
            let error = Server::parse(url).unwrap_err().to_string();
            assert!(
                error.contains("PGPASSWORD") && !error.contains("hunter2"),
                "{error}"
            );
        }
        for url in [
            "mysql://x",
            "postgres://h/%zz",
            "postgres://h/x?dbname=y",
            "postgres://h/?globals=some",
            "postgres+basebackup://h/x",
        ] {
            assert!(Server::parse(url).is_err(), "{url}");
        }
    }
}
