//! Shows the server who the user is: keys, the SSH agent, a password.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{self, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use zeroize::Zeroizing;

use super::channel::Failure;
use super::session::Gate;
use crate::error::{ErrorKind, Reason};
use crate::location::Settings;

/// The largest file of a private key; one of RSA with 16384 bits has 13,000 bytes.
const KEY_BYTES_MAX: u64 = 256 << 10;
/// Servers take few keys before they hang up (OpenSSH: 6); the agent may hold more.
const AGENT_KEYS_MAX: usize = 5;
/// How often a server may ask its questions before that counts as a refusal.
const QUESTIONS_MAX: usize = 4;

/// What the user has to show.
pub(super) struct Credentials {
    pub user: String,
    password: Option<Zeroizing<String>>,
    keys: Vec<(PathBuf, Arc<PrivateKey>)>,
    agent: bool,
    /// Keys that were found and cannot be used, each with its reason.
    passed_over: Vec<String>,
}

impl Credentials {
    /// Fetches what the settings name; the usual keys where they name none.
    ///
    /// # Errors
    /// In words, with the reason.
    pub(super) fn fetch(user: String, settings: &Settings) -> Result<Self, (Reason, String)> {
        let secret = |name| {
            settings
                .secret(name)
                .map_err(|why| (Reason::NoCredentials, why))
        };
        let password = secret("password")?;
        let passphrase = secret("identity-passphrase")?;
        let passphrase = passphrase.as_ref().map(|text| text.as_str());
        let mut credentials = Self {
            user,
            password,
            keys: Vec::new(),
            agent: false,
            passed_over: Vec::new(),
        };
        let identity = settings.text("identity-file").map(super::home_path);
        let is_named = identity.is_some() || credentials.password.is_some();
        credentials.agent = settings.flag("agent").unwrap_or(!is_named);
        if let Some(path) = identity {
            let key = load(&path, passphrase).map_err(|why| (Reason::NoCredentials, why))?;
            credentials.keys.push((path, Arc::new(key)));
        } else if !is_named {
            credentials.take_usual(passphrase);
        }
        Ok(credentials)
    }

    fn take_usual(&mut self, passphrase: Option<&str>) {
        for name in ["id_ed25519", "id_ecdsa", "id_rsa"] {
            let path = super::home_path(&format!("~/.ssh/{name}"));
            if !path.exists() {
                continue;
            }
            match load(&path, passphrase) {
                Ok(key) => self.keys.push((path, Arc::new(key))),
                Err(why) => self.passed_over.push(why),
            }
        }
    }
}

fn load(path: &Path, passphrase: Option<&str>) -> Result<PrivateKey, String> {
    let shown = path.display();
    let mut text = Zeroizing::new(String::new());
    let read =
        File::open(path).and_then(|file| file.take(KEY_BYTES_MAX + 1).read_to_string(&mut text));
    let size_bytes =
        read.map_err(|error| format!("cannot read the private key {shown}: {error}"))?;
    if size_bytes as u64 > KEY_BYTES_MAX {
        return Err(format!("{shown} is too large for a private key"));
    }
    if text.starts_with("ssh-") || text.starts_with("ecdsa-") {
        return Err(format!(
            "{shown} is a public key; name the private one, usually without .pub"
        ));
    }
    let is_encrypted = text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----");
    match (keys::decode_secret_key(&text, passphrase), passphrase) {
        (Ok(key), _) => Ok(key),
        (Err(error), None) if is_encrypted || matches!(error, keys::Error::KeyIsEncrypted) => {
            Err(format!(
                "the private key {shown} is encrypted; give its passphrase as the setting identity-passphrase"
            ))
        }
        (Err(_), Some(_)) => Err(format!(
            "the private key {shown} cannot be read; the passphrase in identity-passphrase may be wrong"
        )),
        (Err(error), None) => Err(format!("the private key {shown} cannot be read: {error}")),
    }
}

/// Logs in with the first of the credentials that the server takes.
pub(super) async fn log_in(
    handle: &mut Handle<Gate>,
    credentials: &Credentials,
) -> Result<(), Failure> {
    let mut tried = Vec::new();
    if credentials.agent && by_agent(handle, credentials, &mut tried).await? {
        return Ok(());
    }
    for (path, key) in &credentials.keys {
        if by_key(handle, &credentials.user, key).await? {
            return Ok(());
        }
        tried.push(format!("the key {}", path.display()));
        refuse_if_closed(handle, tried.len())?;
    }
    if let Some(password) = &credentials.password {
        if by_password(handle, &credentials.user, password).await? {
            return Ok(());
        }
        tried.push("the password".to_owned());
        refuse_if_closed(handle, tried.len())?;
    }
    let user = &credentials.user;
    let mut cause = format!("the server does not take the user {user} with {}", {
        tried.join(", ")
    });
    if tried.is_empty() {
        cause = format!("there is no password, no key and no agent to log in with as {user}");
    }
    for why in &credentials.passed_over {
        cause = format!("{cause}; {why}");
    }
    let reason = match tried.is_empty() {
        true => Reason::NoCredentials,
        false => Reason::WrongLogin,
    };
    Err(Failure::Known(ErrorKind::Denied, reason, cause))
}

/// A server that hangs up at the first attempt has other troubles than the login.
fn refuse_if_closed(handle: &Handle<Gate>, attempts: usize) -> Result<(), Failure> {
    if handle.is_closed() && attempts < 2 {
        return Err(Failure::Lost(
            "the server hung up during the login".to_owned(),
        ));
    }
    Ok(())
}

async fn by_key(
    handle: &mut Handle<Gate>,
    user: &str,
    key: &Arc<PrivateKey>,
) -> Result<bool, Failure> {
    for hash in hashes(handle, key.algorithm().is_rsa()).await? {
        let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
        if handle.authenticate_publickey(user, key).await?.success() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives the hashes to sign with: what the server asks for, or else SHA-2 and then the old one.
async fn hashes(handle: &mut Handle<Gate>, is_rsa: bool) -> Result<Vec<Option<HashAlg>>, Failure> {
    if !is_rsa {
        return Ok(vec![None]);
    }
    Ok(match handle.best_supported_rsa_hash().await? {
        Some(hash) => vec![hash],
        None => vec![Some(HashAlg::Sha512), None],
    })
}

async fn by_agent(
    handle: &mut Handle<Gate>,
    credentials: &Credentials,
    tried: &mut Vec<String>,
) -> Result<bool, Failure> {
    let Some(socket) = env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) else {
        return Ok(false);
    };
    // An agent that is gone is as good as none: the other credentials may do.
    let Ok(mut agent) = AgentClient::connect_uds(socket).await else {
        return Ok(false);
    };
    if let Some(binding) = handle.agent_session_binding() {
        // Agents that do not know of it answer with a failure, which changes nothing.
        let _ = agent.bind_session(binding, false).await;
    }
    let identities = agent.request_identities().await.unwrap_or_default();
    for identity in identities.into_iter().take(AGENT_KEYS_MAX) {
        let AgentIdentity::PublicKey { key, comment } = identity else {
            continue;
        };
        for hash in hashes(handle, key.algorithm().is_rsa()).await? {
            let user = credentials.user.as_str();
            let outcome = handle
                .authenticate_publickey_with(user, key.clone(), hash, &mut agent)
                .await;
            // The agent may decline to sign; its next key may do.
            if outcome.is_ok_and(|outcome| outcome.success()) {
                return Ok(true);
            }
        }
        tried.push(format!("the agent's key {comment}"));
        refuse_if_closed(handle, tried.len())?;
    }
    Ok(false)
}

async fn by_password(
    handle: &mut Handle<Gate>,
    user: &str,
    password: &Zeroizing<String>,
) -> Result<bool, Failure> {
    let outcome = handle
        .authenticate_password(user, password.as_str())
        .await?;
    let AuthResult::Failure {
        remaining_methods, ..
    } = outcome
    else {
        return Ok(true);
    };
    let may_ask = remaining_methods.contains(&russh::MethodKind::KeyboardInteractive);
    if !may_ask || remaining_methods.contains(&russh::MethodKind::Password) {
        return Ok(false);
    }
    // Some servers ask for the password as a question among others.
    let mut answer = handle
        .authenticate_keyboard_interactive_start(user, None)
        .await?;
    for _ in 0..QUESTIONS_MAX {
        let KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } = answer else {
            break;
        };
        let answers = prompts
            .iter()
            .map(|prompt| match prompt.echo {
                true => String::new(),
                false => password.as_str().to_owned(),
            })
            .collect();
        answer = handle
            .authenticate_keyboard_interactive_respond(answers)
            .await?;
    }
    Ok(matches!(answer, KeyboardInteractiveAuthResponse::Success))
}
