//! Secrets of a location that is added or changed: asked for, or read from standard input.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, bail};
use larder_engine::storage::location::keys::{self, How, Kind, VARIABLES};
use larder_engine::storage::location::{Place, Scheme, place};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::settings::process_env;

/// Gets the secrets that were asked for by name, or, at a terminal, those that such a place needs.
///
/// # Errors
/// As [`ask_for`].
pub fn gather(
    context: &Context,
    name: &str,
    url: &str,
    settings: &[(String, String)],
    named: &[String],
) -> anyhow::Result<BTreeMap<String, Zeroizing<String>>> {
    let place = place::parse(url).map_err(anyhow::Error::msg)?;
    if !named.is_empty() || !is_interactive() || !context.talks() {
        return ask_for(name, place.scheme, named);
    }
    let mut secrets = BTreeMap::new();
    for key in usually_needed(&place, settings) {
        let is_set = process_env(&variable(key)).is_some();
        let typed = match is_set {
            true => Zeroizing::default(),
            false => prompt(&format!("{key} of {name} (nothing for none): "))?,
        };
        if !typed.is_empty() {
            secrets.insert(key.to_owned(), typed);
        }
    }
    Ok(secrets)
}

/// Gets secrets by name: asks for each at a terminal, or reads a line for each elsewhere.
///
/// # Errors
/// When one is no secret of such a place, is empty, or cannot be had.
pub fn ask_for(
    name: &str,
    scheme: Scheme,
    named: &[String],
) -> anyhow::Result<BTreeMap<String, Zeroizing<String>>> {
    let mut secrets = BTreeMap::new();
    for key in named {
        let is_secret = keys::find(scheme, key)
            .is_some_and(|(key, how)| key.kind == Kind::Secret && how == How::Itself);
        if !is_secret {
            let all = keys::of(scheme).filter(|key| key.kind == Kind::Secret);
            let all: Vec<_> = all.map(|key| key.name).collect();
            bail!(
                "{key} is no secret of such a location; there are {}",
                if all.is_empty() {
                    "none".to_owned()
                } else {
                    all.join(", ")
                }
            );
        }
        let secret = match is_interactive() {
            true => prompt(&format!("{key} of {name}: "))?,
            false => line()?,
        };
        if secret.is_empty() {
            bail!("{key} is empty");
        }
        secrets.insert(key.clone(), secret);
    }
    Ok(secrets)
}

fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn variable(key: &str) -> String {
    format!("{VARIABLES}{}", key.to_ascii_uppercase().replace('-', "_"))
}

fn prompt(text: &str) -> anyhow::Result<Zeroizing<String>> {
    let typed = rpassword::prompt_password(text);
    typed
        .map(Zeroizing::new)
        .context("cannot ask for the secret at the terminal")
}

fn line() -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(4096));
    let read = std::io::stdin().lock().read_line(&mut line);
    read.context("cannot read the secret from standard input")?;
    let text = line.strip_suffix('\n').unwrap_or(&line);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(Zeroizing::new(text.to_owned()))
}

/// Gives the secrets that such a place usually needs and that nothing gives yet.
fn usually_needed(place: &Place, settings: &[(String, String)]) -> Vec<&'static str> {
    let is_set = |name: &str| settings.iter().any(|(key, _)| key == name);
    let is_given =
        |name: &str| is_set(&format!("{name}-file")) || is_set(&format!("{name}-command"));
    let has_user = place.user.is_some() || is_set("user");
    let needed: &[&'static str] = match place.scheme {
        Scheme::S3 if is_set("access-key-id") => &["secret-access-key"],
        Scheme::Azure if is_set("client-id") => &["client-secret"],
        Scheme::Azure if is_set("account") && !is_given("sas-token") => &["access-key"],
        Scheme::Ftp | Scheme::Ftps | Scheme::WebDav | Scheme::WebDavs if has_user => &["password"],
        Scheme::Dropbox => &["app-secret", "refresh-token"],
        // Keys are the usual way of SFTP, files that of Google.
        _ => &[],
    };
    let is_missing = |name: &&'static str| !is_given(name);
    needed.iter().copied().filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_secret_is_asked_for_where_one_is_usual() {
        let needed = |url: &str, set: &[&str]| {
            let set: Vec<_> = set
                .iter()
                .map(|key| ((*key).to_owned(), "x".to_owned()))
                .collect();
            usually_needed(&place::parse(url).unwrap(), &set).join(" ")
        };
        assert_eq!(needed("/srv", &[]), "");
        assert_eq!(needed("s3://bucket", &[]), "");
        assert_eq!(
            needed("s3://bucket", &["access-key-id"]),
            "secret-access-key"
        );
        let by_file = ["access-key-id", "secret-access-key-file"];
        assert_eq!(needed("s3://bucket", &by_file), "");
        assert_eq!(needed("ftp://h", &[]), "");
        assert_eq!(needed("ftp://me@h", &[]), "password");
        assert_eq!(needed("webdavs://h", &["user"]), "password");
        assert_eq!(needed("sftp://me@h", &[]), "");
        assert_eq!(needed("az://abc", &["account", "sas-token-file"]), "");
        assert_eq!(
            needed("dropbox:///", &["app-secret-command"]),
            "refresh-token"
        );
    }

    #[test]
    fn only_secrets_are_asked_for() {
        let error = ask_for("nas", Scheme::Ftp, &["user".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("there are password"), "{error}");
        assert!(ask_for("nas", Scheme::Folder, &["password".to_owned()]).is_err());
    }
}
