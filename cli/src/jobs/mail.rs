//! Mail about the runs of a job: what larder.toml says of it, and what that means.

use std::path::{Path, PathBuf};

use larder_engine::storage::mail::{Security, Server, check_address, read_server};
use larder_engine::storage::secret::SecretSource;
use serde::{Deserialize, Serialize};

use super::Mistake;

/// Who gets mail about the runs of a job, and through which server.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MailSettings {
    /// The server that takes it: HOST or HOST:PORT.
    pub server: String,
    /// How it is spoken to: `tls`, `starttls` or `none`.
    pub security: Option<String>,
    /// As whom.
    pub user: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// A shell command that prints the password.
    pub password_command: Option<String>,
    /// Certificates that are trusted besides the machine's own: PEM text, or the file that holds it.
    pub ca_certificate: Option<String>,
    /// Who sends it.
    pub from: String,
    /// Who gets it.
    pub to: Vec<String>,
}

impl MailSettings {
    /// Gives the server as it is spoken to.
    ///
    /// # Errors
    /// With the first thing that makes no sense.
    pub fn server(&self) -> Result<Server, Mistake> {
        let (host, port) = read_server(&self.server).map_err(|why| mistake("server", why))?;
        let security = match self.security.as_deref() {
            None => Security::default(),
            Some(word) => Security::from_word(word).ok_or_else(|| {
                let why =
                    format!("'{word}' is no way to speak to a server; write tls, starttls or none");
                mistake("security", why)
            })?,
        };
        check_address(&self.from).map_err(|why| mistake("from", why))?;
        let to = self
            .to
            .iter()
            .try_for_each(|address| check_address(address));
        to.map_err(|why| mistake("to", why))?;
        if self.to.is_empty() {
            let why = "the mail goes to nobody; write to = [\"you@example.org\"]";
            return Err(mistake("to", why.to_owned()));
        }
        let login = self.login()?;
        if security == Security::Plain && login.is_some() {
            let why = "without TLS everybody on the way could read the password; write tls or starttls, or leave user and password out";
            return Err(mistake("security", why.to_owned()));
        }
        Ok(Server {
            host,
            port: port.unwrap_or(security.usual_port()),
            security,
            login,
            ca_certificate: self.ca_certificate.clone(),
        })
    }

    /// Makes relative paths relative to the folder of larder.toml.
    pub fn place_paths(&mut self, placed: &dyn Fn(&Path) -> PathBuf) {
        if let Some(path) = &mut self.password_file {
            *path = placed(path);
        }
        if let Some(given) = &mut self.ca_certificate
            && !given.contains("-----BEGIN")
        {
            *given = placed(Path::new(given)).to_string_lossy().into_owned();
        }
    }

    fn login(&self) -> Result<Option<(String, SecretSource)>, Mistake> {
        let file = self.password_file.clone().map(SecretSource::File);
        let command = self.password_command.clone().map(SecretSource::Command);
        match (&self.user, file, command) {
            (_, Some(_), Some(_)) => Err(mistake(
                "password-command",
                "there is a password-file, too; leave one of both out".to_owned(),
            )),
            (Some(user), Some(password), None) | (Some(user), None, Some(password)) => {
                Ok(Some((user.clone(), password)))
            }
            (None, None, None) => Ok(None),
            (Some(_), None, None) => Err(mistake(
                "user",
                "a user needs a password; name its password-file or password-command".to_owned(),
            )),
            (None, _, _) => Err(mistake(
                "server",
                "a password is of a user, and none is named; write user = \"...\"".to_owned(),
            )),
        }
    }
}

fn mistake(key: &'static str, why: String) -> Mistake {
    Mistake {
        keys: vec!["mail", key],
        why: format!("mail: {why}"),
    }
}
