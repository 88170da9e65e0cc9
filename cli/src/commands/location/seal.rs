//! Sealing what stands in larder.toml for everybody to read.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::change::{key_of, values};
use crate::commands::change::{EDIT, change};
use crate::context::Context;
use crate::document::{self, Changed};
use crate::output;
use crate::sealing::Place;
use crate::settings::SecretText;

/// Seals all secrets of larder.toml that are not: those of locations, and `password`.
///
/// # Errors
/// When the key cannot be had, or larder.toml cannot be written.
pub fn all(context: &Context, dry_run: bool) -> anyhow::Result<()> {
    let mut is_any = false;
    for (name, table) in &context.settings.locations.0 {
        let clear = table.clear_secrets();
        let clear = clear.map(|(key, value)| (key.clone(), value.clone()));
        let clear: BTreeMap<String, Zeroizing<String>> = clear.collect();
        // What has a mistake is left as it is, and does not keep the others from it.
        if clear.is_empty() || table.mistake.is_some() {
            continue;
        }
        is_any = true;
        let values = values(context, name, &clear, &|_| true, dry_run)?;
        change(
            context,
            Changed::Location(name),
            EDIT,
            name,
            dry_run,
            |toml| {
                values
                    .into_iter()
                    .try_for_each(|(key, value)| document::set(toml, name, &key, value))
            },
        )?;
    }
    if let Some(SecretText::Clear(text)) = &context.settings.password {
        is_any = true;
        let sealed = key_of(context, dry_run)?.seal(Place::Password, text)?;
        let changed = Changed::Key("password");
        change(context, changed, EDIT, "password", dry_run, |toml| {
            document::set_key(toml, "password", document::sealed(&sealed));
            Ok(())
        })?;
    }
    if !is_any && context.talks() {
        output::line("no secret stands in larder.toml for everybody to read")?;
    }
    Ok(())
}
