//! How commands change larder.toml, and tell of it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use toml_edit::DocumentMut;

use super::job;
use crate::context::Context;
use crate::document::{Changed, Document};
use crate::output;

/// What is done to something, in words.
#[derive(Debug, Clone, Copy)]
pub struct Verb {
    /// What was done.
    pub did: &'static str,
    /// What would be done.
    pub would: &'static str,
}

/// It is new.
pub const ADD: Verb = Verb {
    did: "added",
    would: "would add",
};
/// It says something else.
pub const EDIT: Verb = Verb {
    did: "changed",
    would: "would change",
};
/// It is gone.
pub const REMOVE: Verb = Verb {
    did: "removed",
    would: "would remove",
};
/// It has another name.
pub const RENAME: Verb = Verb {
    did: "renamed",
    would: "would rename",
};

/// What was done, or would be, for a program.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Change")]
pub struct Done<'a> {
    #[serde(flatten)]
    changed: Changed<'a>,
    file: String,
    dry_run: bool,
    /// When a job would be run next, of each kind; for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    upcoming: Option<BTreeMap<&'static str, Vec<Timestamp>>>,
}

/// Changes larder.toml by `work`; `what` tells a person which job or location that concerns.
///
/// # Errors
/// When it cannot be read, what is changed would make no sense, or it cannot be written.
pub fn change(
    context: &Context,
    changed: Changed<'_>,
    verb: Verb,
    what: &str,
    dry_run: bool,
    work: impl FnOnce(&mut DocumentMut) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = context.settings.file.as_deref().context(
        "cannot tell where larder.toml is: neither XDG_CONFIG_HOME nor HOME is set; use --config",
    )?;
    let mut document = Document::open(path)?;
    work(&mut document.toml)?;
    match dry_run {
        true => document.would_save(changed)?,
        false => document.save(changed)?,
    }
    let file = path.display().to_string();
    if context.json() {
        let upcoming = match changed {
            Changed::Job(name) if dry_run => job::upcoming(&document, name)?,
            _ => None,
        };
        return output::json_line(&Done {
            changed,
            file,
            dry_run,
            upcoming,
        });
    }
    if context.talks() || dry_run {
        let done = if dry_run { verb.would } else { verb.did };
        let kind = changed.kind();
        output::line(&format!("{done} the {kind} {what} in {file}"))?;
    }
    Ok(())
}
