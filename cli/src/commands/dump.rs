//! `larder dump`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use larder_engine::browse;

use crate::args::{FilterArgs, SNAPSHOT_HELP};
use crate::context::{Context, parse_spec, pick};
use crate::exit::Exit;
use crate::item;
use crate::output::Output;

/// Write a file of a snapshot, or a folder as tar, to standard output
///
/// What is not text is not written to a terminal: send it to a file or a pipe. Of a folder, what could
/// not be read when it was backed up is left out, and the exit code is 3.
///
/// Example: larder dump latest:/home/me/letters | tar -t
#[derive(Debug, Args)]
#[command(after_long_help = SNAPSHOT_HELP)]
pub struct DumpArgs {
    /// The snapshot, and the file or folder in it
    #[arg(value_name = "SNAPSHOT:PATH")]
    snapshot: OsString,
    /// Take what there was at this time, e.g. 2026-11-01 or 'last tuesday'; then PATH stands alone
    ///
    /// Of each source the newest snapshot is taken that is not later.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Write to this file; it appears when all of it is there
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Writes a file or folder out.
///
/// # Errors
/// What the engine or writing answers.
pub fn run(context: &Context, args: &DumpArgs) -> anyhow::Result<Exit> {
    let named = Some(args.snapshot.as_os_str());
    if args.at.is_none() && parse_spec(&args.snapshot)?.path.is_none() {
        bail!(
            "say which file or folder to dump, e.g. {}:/home/me/letters",
            args.snapshot.display()
        );
    }
    let repository = context.open()?;
    let picked = pick(
        &repository,
        named,
        args.at.as_deref(),
        &args.filter.filter(),
    )?;
    let ([snapshot], Some(path)) = (picked.snapshots.as_slice(), picked.path.as_deref()) else {
        bail!(
            "{} is above sources of several snapshots; dump one of them",
            args.snapshot.display()
        );
    };
    let mut unreadable = 0;
    match &args.output {
        Some(file) => write_file(file, &mut |out| {
            unreadable = browse::dump(&repository, snapshot, path, out)?;
            Ok(())
        })?,
        None => {
            let mut out = Output::new();
            unreadable = if io::stdout().is_terminal() {
                browse::dump(&repository, snapshot, path, &mut TextOnly(&mut out))?
            } else {
                browse::dump(&repository, snapshot, path, &mut out)?
            };
            out.flush()?;
        }
    }
    Ok(item::told_unreadable(unreadable))
}

/// Writes a file under a temporary name first, so that no half of it is taken for the whole.
fn write_file(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let tried = || format!("cannot write {}", path.display());
    // A device or a pipe cannot be replaced by a file.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let mut file = File::options().write(true).open(path).with_context(tried)?;
        return write(&mut file);
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")));
    let mut out = io::BufWriter::new(file.with_context(tried)?);
    write(&mut out)?;
    let file = out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .with_context(tried)?;
    file.as_file().sync_all().with_context(tried)?;
    file.persist(path)
        .map_err(|error| error.error)
        .with_context(tried)?;
    Ok(())
}

/// Lets text through to a terminal and refuses everything that could steer it.
struct TextOnly<W: Write>(W);

impl<W: Write> Write for TextOnly<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let binary = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r');
        if bytes.iter().any(binary) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this is not text, and standard output is a terminal; use -o FILE or a pipe",
            ));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_text_reaches_a_terminal() {
        let mut shown = Vec::new();
        let mut terminal = TextOnly(&mut shown);
        terminal.write_all("zażółć\r\n\tx\n".as_bytes()).unwrap();
        assert!(terminal.write_all(b"\x1b[2J").is_err());
        assert!(terminal.write_all(b"tar\0").is_err());
        assert_eq!(shown, "zażółć\r\n\tx\n".as_bytes());
    }

    #[test]
    fn a_file_appears_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before").unwrap();
        let failed = write_file(&path, &mut |out| {
            out.write_all(b"half")?;
            bail!("no more")
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        write_file(&path, &mut |out| Ok(out.write_all(b"whole")?)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
