//! The units with which systemd runs what is due.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::output;
use crate::settings::{Env, process_env};

/// The names of the units.
const NAMES: [&str; 2] = ["larder-jobs.service", "larder-jobs.timer"];

/// Variables that say where settings, history and caches are: a unit has none of a person's.
const PLACES: [&str; 3] = ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"];

/// Whose units they are.
#[derive(Debug, Args)]
pub struct Place {
    /// Those of the machine, in /etc/systemd/system, in place of one's own
    #[arg(long)]
    system: bool,
}

/// What was written, or removed, for a program.
#[derive(Debug, Serialize)]
struct Done {
    files: Vec<String>,
    /// What is to be run next.
    next: Vec<&'static str>,
    dry_run: bool,
}

/// Writes the units, or shows them.
///
/// # Errors
/// When it cannot be told where they belong, or they cannot be written.
pub fn install(context: &Context, place: &Place, print: bool, dry_run: bool) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot tell where the program is")?;
    let settings = context.settings.file.as_deref().context(
        "cannot tell where larder.toml is: neither XDG_CONFIG_HOME nor HOME is set; use --config",
    )?;
    let settings = std::path::absolute(settings)?;
    let texts = [
        service(&program, &settings, place.system, &process_env)?,
        timer(),
    ];
    if print {
        let units = NAMES.iter().zip(&texts);
        let text: Vec<String> = units
            .map(|(name, text)| format!("# {name}\n{text}"))
            .collect();
        return output::line(text.join("\n").trim_end());
    }
    let folder = folder(place.system, &process_env)?;
    let tried = || format!("cannot write the units in {}", folder.display());
    if !dry_run {
        fs::create_dir_all(&folder).with_context(tried)?;
    }
    let mut files = Vec::new();
    for (name, text) in NAMES.iter().zip(&texts) {
        let path = folder.join(name);
        if !dry_run {
            fs::write(&path, text).with_context(tried)?;
        }
        files.push(path.display().to_string());
    }
    let next = match place.system {
        true => vec![
            "systemctl daemon-reload",
            "systemctl enable --now larder-jobs.timer",
        ],
        false => vec![
            "systemctl --user daemon-reload",
            "systemctl --user enable --now larder-jobs.timer",
            "loginctl enable-linger   # so that it also runs while you are not logged in",
        ],
    };
    let verb = if dry_run { "would write" } else { "wrote" };
    tell(
        context,
        verb,
        Done {
            files,
            next,
            dry_run,
        },
    )
}

/// Removes the units.
///
/// # Errors
/// When it cannot be told where they are, or they cannot be removed.
pub fn uninstall(context: &Context, place: &Place, dry_run: bool) -> anyhow::Result<()> {
    let folder = folder(place.system, &process_env)?;
    let mut files = Vec::new();
    for path in NAMES.map(|name| folder.join(name)) {
        if !path.exists() {
            continue;
        }
        if !dry_run {
            let tried = || format!("cannot remove {}", path.display());
            fs::remove_file(&path).with_context(tried)?;
        }
        files.push(path.display().to_string());
    }
    if files.is_empty() {
        bail!("there are no units of larder in {}", folder.display());
    }
    let next = match place.system {
        true => vec![
            "systemctl disable --now larder-jobs.timer",
            "systemctl daemon-reload",
        ],
        false => vec![
            "systemctl --user disable --now larder-jobs.timer",
            "systemctl --user daemon-reload",
        ],
    };
    let verb = if dry_run { "would remove" } else { "removed" };
    tell(
        context,
        verb,
        Done {
            files,
            next,
            dry_run,
        },
    )
}

fn tell(context: &Context, verb: &str, done: Done) -> anyhow::Result<()> {
    if context.json() {
        return output::json(&done);
    }
    if !context.talks() && !done.dry_run {
        return Ok(());
    }
    for file in &done.files {
        output::line(&format!("{verb} {file}"))?;
    }
    output::line("next:")?;
    for line in &done.next {
        output::line(&format!("  {line}"))?;
    }
    Ok(())
}

fn folder(system: bool, env: Env) -> anyhow::Result<PathBuf> {
    if system {
        return Ok(PathBuf::from("/etc/systemd/system"));
    }
    let config = env("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let config = config.or_else(|| Some(PathBuf::from(env("HOME")?).join(".config")));
    let config =
        config.context("cannot tell where units are: neither XDG_CONFIG_HOME nor HOME is set")?;
    Ok(config.join("systemd/user"))
}

/// Writes the unit that runs what is due.
fn service(program: &Path, settings: &Path, system: bool, env: Env) -> anyhow::Result<String> {
    let mut text = String::from(
        "[Unit]\nDescription=Backups by larder that are due\nDocumentation=man:larder(1)\n",
    );
    if system {
        text.push_str("Wants=network-online.target\nAfter=network-online.target\n");
    }
    let program = word(program)?;
    // Of what follows the program variables would be filled in.
    let settings = word(settings)?.replace('$', "$$");
    let _ = write!(
        text,
        "\n[Service]\nType=oneshot\nExecStart={program} --config {settings} --no-progress job due\n"
    );
    // A service of the machine has no home of its own accord, and nobody else's.
    let home = system.then_some("HOME");
    for name in home.into_iter().chain(PLACES) {
        if let Some(value) = env(name) {
            let value = word(Path::new(&format!("{name}={}", value.display())))?;
            let _ = writeln!(text, "Environment={value}");
        }
    }
    // The program is asked to stop, makes a checkpoint, and ends what it started.
    text.push_str("KillMode=mixed\nTimeoutStopSec=5min\nNice=10\nIOSchedulingClass=best-effort\nIOSchedulingPriority=7\n");
    Ok(text)
}

/// Writes the unit that calls the other.
fn timer() -> String {
    "[Unit]\nDescription=Looks every five minutes whether a backup by larder is due\n\n\
     [Timer]\nOnCalendar=*:0/5\nAccuracySec=30s\nPersistent=true\n\n\
     [Install]\nWantedBy=timers.target\n"
        .to_owned()
}

/// Writes a path as one word of a unit.
fn word(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str();
    let text = text.with_context(|| format!("{} is not UTF-8", path.display()))?;
    if text.chars().any(char::is_control) {
        bail!("{} cannot stand in a unit", path.display());
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_unit_has_all_that_the_program_needs_to_find() {
        let env = |name: &str| match name {
            "HOME" => Some("/root".into()),
            "XDG_STATE_HOME" => Some("/var/lib".into()),
            _ => None,
        };
        let program = Path::new("/opt/my larder/50%/larder");
        let text = service(program, Path::new("/etc/a$b.toml"), true, &env).unwrap();
        let line = "ExecStart=\"/opt/my larder/50%%/larder\" --config \"/etc/a$$b.toml\" --no-progress job due\n";
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains("Environment=\"HOME=/root\"\nEnvironment=\"XDG_STATE_HOME=/var/lib\"\n"),
            "{text}"
        );
        assert!(text.contains("After=network-online.target"));
        let text = service(program, Path::new("/etc/l.toml"), false, &env).unwrap();
        assert!(
            !text.contains("HOME=/root") && !text.contains("network-online"),
            "{text}"
        );
        assert!(service(Path::new("/a\nb"), Path::new("/x"), false, &env).is_err());
    }

    #[test]
    fn units_of_a_person_are_in_the_own_folder() {
        let at = |config: Option<&'static str>| {
            folder(false, &move |name| match name {
                "XDG_CONFIG_HOME" => config.map(Into::into),
                _ => Some("/home/me".into()),
            })
        };
        assert_eq!(
            at(None).unwrap(),
            Path::new("/home/me/.config/systemd/user")
        );
        assert_eq!(at(Some("/x")).unwrap(), Path::new("/x/systemd/user"));
        assert_eq!(
            folder(true, &|_| None).unwrap(),
            Path::new("/etc/systemd/system")
        );
    }
}
