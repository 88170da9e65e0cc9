//! Tokens: who may do what. Only their hashes are kept.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::problem::Problem;
use crate::shared::Shared;

/// What a token begins with, so that it is known for one where it leaks.
const PREFIX: &str = "larder_";
/// The most characters of a name.
const NAME_MAX: usize = 100;
/// How many tokens an owner may have.
const COUNT_MAX: usize = 1_000;

/// What a token opens; each of the first four also what those before it do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Looking.
    ReadOnly,
    /// Running and cancelling jobs.
    BackupOnly,
    /// Restoring, checking, forgetting, pruning.
    Operate,
    /// Locations, jobs, tokens, the audit log.
    Admin,
    /// The two calls of portable backups, and nothing else.
    Portable,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ReadOnly,
        Self::BackupOnly,
        Self::Operate,
        Self::Admin,
        Self::Portable,
    ];

    /// Tells whether it suffices for what needs another.
    pub fn allows(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Portable, needed) => needed == Self::Portable,
            (_, Self::Portable) => false,
            (own, needed) => own >= needed,
        }
    }

    /// Gives its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::BackupOnly => "backup-only",
            Self::Operate => "operate",
            Self::Admin => "admin",
            Self::Portable => "portable",
        }
    }
}

/// A token as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    token: Token,
    /// BLAKE3 of the text, in hex. The text is 256 random bits, so nothing slower is needed.
    hash: String,
}

/// A token as it is shown: never itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// By which it is revoked.
    pub id: String,
    /// Whose it is, or what for.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it opens nothing.
    pub expires: Option<Timestamp>,
}

/// All tokens of one owner. The command line may make and revoke them while the service is run.
#[derive(Debug)]
pub struct Tokens {
    kept: Shared<Vec<Kept>>,
    /// Whether there is nobody else who could make one.
    is_of_administrator: bool,
}

impl Tokens {
    /// Reads them; none if there is no file yet.
    ///
    /// # Errors
    /// When the file cannot be read or understood: then nobody would get in, or the wrong ones.
    pub fn open(file: PathBuf, is_of_administrator: bool) -> std::io::Result<Self> {
        Ok(Self {
            kept: Shared::open(file)?,
            is_of_administrator,
        })
    }

    /// Tells whether there is none at all: the service is started for the first time.
    pub fn is_empty(&self) -> bool {
        self.kept.read().is_empty()
    }

    /// Makes a token, and gives it with its text, which is known to nobody afterwards.
    ///
    /// # Errors
    /// When its name is none, or it cannot be kept.
    pub fn add(
        &self,
        name: &str,
        scope: Scope,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(Token, Zeroizing<String>), Problem> {
        let is_shown = |c: char| !c.is_control();
        if name.trim().is_empty() || name.chars().count() > NAME_MAX || !name.chars().all(is_shown)
        {
            let why =
                format!("a token needs a name of 1 to {NAME_MAX} characters, such as who has it");
            return Err(Problem::field("name", why));
        }
        if expires.is_some_and(|expires| expires <= now) {
            return Err(Problem::field(
                "expires",
                "the token would open nothing: its time is over",
            ));
        }
        let text = fresh_text()?;
        let token = Token {
            id: format!("t{}", random_hex::<4>()?),
            name: name.trim().to_owned(),
            scope,
            created: now,
            expires,
        };
        self.kept.change(|kept| {
            // Each request of everybody looks at all of them.
            if kept.len() >= COUNT_MAX {
                return Err(Problem::conflict(format!(
                    "there are {COUNT_MAX} tokens already; revoke some first"
                )));
            }
            kept.push(Kept {
                token: token.clone(),
                hash: hash(&text).to_hex().to_string(),
            });
            Ok(())
        })?;
        Ok((token, text))
    }

    /// Gives all of them, the oldest first.
    pub fn list(&self) -> Vec<Token> {
        let kept = self.kept.read().into_iter();
        kept.map(|kept| kept.token).collect()
    }

    /// Finds the token that a text is, in a time that tells nothing of the others.
    pub fn find(&self, text: &str, now: Timestamp) -> Option<Token> {
        if !text.starts_with(PREFIX) {
            return None;
        }
        let given = hash(text);
        let mut found = None;
        for kept in self.kept.read() {
            // Compared in constant time.
            let is_it = blake3::Hash::from_hex(&kept.hash).is_ok_and(|hash| hash == given);
            if is_it && kept.token.is_valid(now) {
                found = Some(kept.token);
            }
        }
        found
    }

    /// Finds a token that opens something still.
    pub fn by_id(&self, id: &str, now: Timestamp) -> Option<Token> {
        let mut kept = self.kept.read().into_iter();
        let found = kept.find(|kept| kept.token.id == id && kept.token.is_valid(now));
        found.map(|kept| kept.token)
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// When there is none of that id, or nobody could make another one afterwards.
    pub fn revoke(&self, id: &str, now: Timestamp) -> Result<(), Problem> {
        let is_admin = |kept: &Kept| {
            let lasts = kept.token.expires.is_none() && kept.token.is_valid(now);
            kept.token.scope == Scope::Admin && lasts
        };
        self.kept.change(|kept| {
            let before = kept.len();
            kept.retain(|kept| kept.token.id != id);
            if kept.len() == before {
                return Err(Problem::missing(format!("there is no token {id}")));
            }
            if self.is_of_administrator && !kept.iter().any(is_admin) {
                return Err(Problem::conflict(
                    "this is the last token of the scope admin that does not expire; make another one first, or nobody could make any",
                ));
            }
            Ok(())
        })
    }
}

impl Token {
    fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Gives random text of 256 bits that looks like a token.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn fresh_text() -> Result<Zeroizing<String>, Problem> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    fill(bytes.as_mut_slice())?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    Ok(Zeroizing::new(format!("{PREFIX}{}", text.as_str())))
}

/// Gives `N` random bytes in hex.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn random_hex<const N: usize>() -> Result<String, Problem> {
    let mut bytes = [0_u8; N];
    fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Hashes a secret that is as long as a key.
pub fn hash(text: &str) -> blake3::Hash {
    blake3::hash(text.as_bytes())
}

fn fill(bytes: &mut [u8]) -> Result<(), Problem> {
    let filled = getrandom::fill(bytes);
    filled.map_err(|error| {
        Problem::internal(format!("the operating system gives no randomness: {error}"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn each_scope_opens_what_it_says() {
        use Scope::{Admin, BackupOnly, Operate, Portable, ReadOnly};
        let ladder = [ReadOnly, BackupOnly, Operate, Admin];
        for (own, scope) in ladder.iter().enumerate() {
            for (needed, other) in ladder.iter().enumerate() {
                assert_eq!(scope.allows(*other), own >= needed);
            }
            assert!(!scope.allows(Portable) && !Portable.allows(*scope));
        }
        assert!(Portable.allows(Portable));
        for scope in [ReadOnly, BackupOnly, Operate, Admin, Portable] {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.word());
        }
    }

    #[test]
    fn a_token_is_found_until_it_is_revoked_and_its_text_is_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.json");
        let tokens = Tokens::open(file.clone(), true).unwrap();
        assert!(tokens.is_empty());
        let (first, text) = tokens.add("me", Scope::Admin, None, at(1)).unwrap();
        let (second, other) = tokens
            .add("eye", Scope::ReadOnly, Some(at(9)), at(1))
            .unwrap();
        assert_eq!(text.len(), PREFIX.len() + 43);
        let written = std::fs::read_to_string(&file).unwrap();
        assert!(!written.contains(text.as_str()) && !written.contains(other.as_str()));

        let tokens = Tokens::open(file.clone(), true).unwrap();
        assert_eq!(tokens.find(&text, at(2)).unwrap(), first);
        assert_eq!(tokens.find(&other, at(8)).unwrap(), second);
        assert_eq!(tokens.find(&other, at(9)), None);
        let mut wrong = text.as_str().to_owned();
        let last = if wrong.pop() == Some('A') { 'B' } else { 'A' };
        wrong.push(last);
        for wrong in [wrong.as_str(), "", PREFIX, "larder_x"] {
            assert_eq!(tokens.find(wrong, at(2)), None, "{wrong}");
        }
        assert_eq!(tokens.revoke("t0", at(2)).unwrap_err().status, 404);
        assert_eq!(tokens.revoke(&first.id, at(2)).unwrap_err().status, 409);
        tokens.revoke(&second.id, at(2)).unwrap();
        assert_eq!(tokens.find(&other, at(2)), None);
        assert_eq!(tokens.list(), std::slice::from_ref(&first));
        // An administrator makes users new ones.
        let tokens = Tokens::open(file, false).unwrap();
        tokens.revoke(&first.id, at(2)).unwrap();
    }

    #[test]
    fn a_token_without_a_name_or_a_future_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path().join("x"), true).unwrap();
        let refused = |name: &str, expires| {
            let added = tokens.add(name, Scope::ReadOnly, expires, at(5));
            added.unwrap_err().field.unwrap()
        };
        assert_eq!(refused(" ", None), "name");
        assert_eq!(refused("a\nb", None), "name");
        assert_eq!(refused(&"x".repeat(101), None), "name");
        assert_eq!(refused("x", Some(at(5))), "expires");
    }
}
