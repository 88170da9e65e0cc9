//! Every setting that a storage can have, as a table: the one place that names them.

use super::place::Scheme;

/// One setting of a storage.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in larder.toml and after `-o`; `LARDER_STORAGE_` and the name in capitals is
    /// its environment variable.
    pub name: &'static str,
    /// What its value has to be.
    pub kind: Kind,
    /// The schemes that know it; empty for all that are reached over a network.
    pub schemes: &'static [Scheme],
    /// The environment variables of the storage's own tools that stand for it, the first one set winning.
    pub native: &'static [&'static str],
    /// What it does, as one sentence for a person.
    pub about: &'static str,
}

/// What the value of a setting has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is never shown; `NAME-file` and `NAME-command` may give it as well.
    Secret,
    /// The path of a file on this machine.
    Path,
    /// `true` or `false`.
    Flag,
    /// A whole number, from 1 on.
    Count,
    /// A size such as `16M`; units count by 1024.
    Bytes,
    /// A time such as `90s` or `15min`.
    Duration,
    /// Bytes a second, such as `10M`, with hours where it differs: `off,2M@08:00-18:00`.
    Rate,
    /// One of these words.
    Choice(&'static [&'static str]),
}

const S3: &[Scheme] = &[Scheme::S3];
const GOOGLE: &[Scheme] = &[Scheme::Google];
const AZURE: &[Scheme] = &[Scheme::Azure];
const SFTP: &[Scheme] = &[Scheme::Sftp];
const FTP: &[Scheme] = &[Scheme::Ftp, Scheme::Ftps];
const WEBDAV: &[Scheme] = &[Scheme::WebDav, Scheme::WebDavs];
const DROPBOX: &[Scheme] = &[Scheme::Dropbox];
const WITH_USER: &[Scheme] = &[
    Scheme::Sftp,
    Scheme::Ftp,
    Scheme::Ftps,
    Scheme::WebDav,
    Scheme::WebDavs,
];
const WITH_TLS: &[Scheme] = &[
    Scheme::S3,
    Scheme::Google,
    Scheme::Azure,
    Scheme::Ftp,
    Scheme::Ftps,
    Scheme::WebDav,
    Scheme::WebDavs,
    Scheme::Dropbox,
];
const WITH_HTTP: &[Scheme] = &[
    Scheme::S3,
    Scheme::Google,
    Scheme::Azure,
    Scheme::WebDav,
    Scheme::WebDavs,
    Scheme::Dropbox,
];

const fn key(
    name: &'static str,
    kind: Kind,
    schemes: &'static [Scheme],
    native: &'static [&'static str],
    about: &'static str,
) -> Key {
    Key {
        name,
        kind,
        schemes,
        native,
        about,
    }
}

/// All settings, those of every network storage first.
pub const KEYS: &[Key] = &[
    key(
        "connections",
        Kind::Count,
        &[],
        &[],
        "connections at once (8)",
    ),
    key(
        "verify-uploads",
        Kind::Flag,
        &[],
        &[],
        "reads each object back once it is uploaded and compares it; by default for ftp:// and webdav:// only, where nothing else has a checksum",
    ),
    key(
        "upload-limit",
        Kind::Rate,
        &[],
        &[],
        "bytes a second sent at most",
    ),
    key(
        "download-limit",
        Kind::Rate,
        &[],
        &[],
        "bytes a second received at most",
    ),
    key(
        "connect-timeout",
        Kind::Duration,
        &[],
        &[],
        "how long a connection may take to come about (30s)",
    ),
    key(
        "read-timeout",
        Kind::Duration,
        &[],
        &[],
        "how long the other side may be silent (60s)",
    ),
    key(
        "retry-for",
        Kind::Duration,
        &[],
        &[],
        "how long a failed request is tried again (15min)",
    ),
    key(
        "ca-certificate",
        Kind::Text,
        WITH_TLS,
        &[],
        "certificates to trust besides the machine's own: a PEM file, or the PEM text itself",
    ),
    key(
        "skip-verification",
        Kind::Flag,
        WITH_TLS,
        &[],
        "trusts any certificate; whoever is on the way can then read the credentials",
    ),
    key(
        "proxy",
        Kind::Text,
        WITH_HTTP,
        &[],
        "URL of the proxy to go through, or `none`",
    ),
    key(
        "user-agent",
        Kind::Text,
        WITH_HTTP,
        &[],
        "what larder calls itself to the server",
    ),
    key(
        "region",
        Kind::Text,
        S3,
        &["AWS_REGION", "AWS_DEFAULT_REGION"],
        "region of the bucket (us-east-1)",
    ),
    key(
        "endpoint",
        Kind::Text,
        S3,
        &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        "URL of the service, for others than AWS itself",
    ),
    key(
        "endpoint",
        Kind::Text,
        GOOGLE,
        &[],
        "URL of the service, for others than Google itself",
    ),
    key(
        "endpoint",
        Kind::Text,
        AZURE,
        &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"],
        "URL of the service, for others than Azure itself",
    ),
    key(
        "allow-http",
        Kind::Flag,
        S3,
        &["AWS_ALLOW_HTTP"],
        "takes an endpoint without TLS that is not on this machine",
    ),
    key(
        "allow-http",
        Kind::Flag,
        &[Scheme::Google, Scheme::Azure, Scheme::WebDav],
        &[],
        "takes a server without TLS that is not on this machine",
    ),
    key(
        "path-style",
        Kind::Flag,
        S3,
        &[],
        "puts the bucket into the path (true) or the host name (false); by default the path for an endpoint of one's own",
    ),
    key(
        "access-key-id",
        Kind::Text,
        S3,
        &["AWS_ACCESS_KEY_ID"],
        "access key of a user",
    ),
    key(
        "secret-access-key",
        Kind::Secret,
        S3,
        &["AWS_SECRET_ACCESS_KEY"],
        "its secret",
    ),
    key(
        "session-token",
        Kind::Secret,
        S3,
        &["AWS_SESSION_TOKEN"],
        "token of temporary credentials",
    ),
    key(
        "profile",
        Kind::Text,
        S3,
        &["AWS_PROFILE"],
        "profile in the AWS configuration files",
    ),
    key(
        "role-arn",
        Kind::Text,
        S3,
        &["AWS_ROLE_ARN"],
        "role to assume with the other credentials",
    ),
    key(
        "external-id",
        Kind::Text,
        S3,
        &[],
        "external id that the role asks for",
    ),
    key(
        "web-identity-token-file",
        Kind::Path,
        S3,
        &["AWS_WEB_IDENTITY_TOKEN_FILE"],
        "token with which the role is assumed",
    ),
    key(
        "sts-endpoint",
        Kind::Text,
        S3,
        &["AWS_ENDPOINT_URL_STS"],
        "URL of the security token service",
    ),
    key(
        "metadata-endpoint",
        Kind::Text,
        S3,
        &["AWS_EC2_METADATA_SERVICE_ENDPOINT"],
        "URL of the instance's metadata service",
    ),
    key(
        "storage-class",
        Kind::Text,
        &[Scheme::S3, Scheme::Google],
        &[],
        "storage class of data packs; the rest stays in the bucket's own",
    ),
    key(
        "encryption",
        Kind::Choice(&["AES256", "aws:kms"]),
        S3,
        &[],
        "encryption by the storage itself, besides larder's own",
    ),
    key(
        "kms-key",
        Kind::Text,
        S3,
        &[],
        "key of aws:kms, the account's own by default",
    ),
    key(
        "request-payer",
        Kind::Flag,
        S3,
        &[],
        "accepts to pay for requests to somebody else's bucket",
    ),
    key(
        "checksum",
        Kind::Flag,
        S3,
        &[],
        "sends the SHA-256 of each object as a header of its own, which the storage keeps; by default for AWS only",
    ),
    key(
        "part-size",
        Kind::Bytes,
        S3,
        &[],
        "objects that are larger are uploaded in parts of this size (64M)",
    ),
    key(
        "service-account-file",
        Kind::Path,
        GOOGLE,
        &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"],
        "JSON key of a service account",
    ),
    key(
        "service-account-key",
        Kind::Secret,
        GOOGLE,
        &["GOOGLE_SERVICE_ACCOUNT_KEY"],
        "the JSON text itself",
    ),
    key(
        "application-credentials",
        Kind::Path,
        GOOGLE,
        &["GOOGLE_APPLICATION_CREDENTIALS"],
        "file of application default credentials",
    ),
    key(
        "account",
        Kind::Text,
        AZURE,
        &["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"],
        "storage account",
    ),
    key(
        "access-key",
        Kind::Secret,
        AZURE,
        &[
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_ACCESS_KEY",
        ],
        "key of the storage account",
    ),
    key(
        "sas-token",
        Kind::Secret,
        AZURE,
        &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"],
        "shared access signature",
    ),
    key(
        "tenant-id",
        Kind::Text,
        AZURE,
        &["AZURE_TENANT_ID"],
        "tenant of a client",
    ),
    key(
        "client-id",
        Kind::Text,
        AZURE,
        &["AZURE_CLIENT_ID"],
        "client (application)",
    ),
    key(
        "client-secret",
        Kind::Secret,
        AZURE,
        &["AZURE_CLIENT_SECRET"],
        "secret of the client",
    ),
    key(
        "managed-identity",
        Kind::Flag,
        AZURE,
        &[],
        "takes the identity of the machine",
    ),
    key(
        "identity-endpoint",
        Kind::Text,
        AZURE,
        &["IDENTITY_ENDPOINT", "MSI_ENDPOINT"],
        "URL that gives tokens to the machine's identity",
    ),
    key(
        "authority-host",
        Kind::Text,
        AZURE,
        &["AZURE_AUTHORITY_HOST"],
        "URL of the service that gives tokens to clients",
    ),
    key(
        "access-tier",
        Kind::Choice(&["Hot", "Cool", "Cold", "Archive"]),
        AZURE,
        &[],
        "access tier of data packs; the rest stays in the account's own",
    ),
    key(
        "user",
        Kind::Text,
        WITH_USER,
        &[],
        "user, if the URL has none",
    ),
    key(
        "password",
        Kind::Secret,
        WITH_USER,
        &[],
        "password of the user",
    ),
    key(
        "identity-file",
        Kind::Path,
        SFTP,
        &[],
        "private key of the user; without it the agent and the usual files are tried",
    ),
    key(
        "identity-passphrase",
        Kind::Secret,
        SFTP,
        &[],
        "passphrase of the private key",
    ),
    key(
        "agent",
        Kind::Flag,
        SFTP,
        &[],
        "asks the SSH agent for keys (true)",
    ),
    key(
        "known-hosts",
        Kind::Path,
        SFTP,
        &[],
        "file of the servers' keys (~/.ssh/known_hosts)",
    ),
    key(
        "host-key-checking",
        Kind::Choice(&["strict", "accept-new"]),
        SFTP,
        &[],
        "whether a server that is not in known-hosts is refused or remembered (strict)",
    ),
    key(
        "tls",
        Kind::Choice(&["off", "explicit", "implicit"]),
        FTP,
        &[],
        "how TLS begins; for ftps:// implicit on port 990 and explicit elsewhere",
    ),
    key(
        "token",
        Kind::Secret,
        WEBDAV,
        &[],
        "bearer token, in place of user and password",
    ),
    key(
        "app-key",
        Kind::Text,
        DROPBOX,
        &[],
        "key of the Dropbox app",
    ),
    key(
        "app-secret",
        Kind::Secret,
        DROPBOX,
        &[],
        "secret of the app",
    ),
    key(
        "refresh-token",
        Kind::Secret,
        DROPBOX,
        &[],
        "refresh token that the app was given for the account",
    ),
    key(
        "api-endpoint",
        Kind::Text,
        DROPBOX,
        &[],
        "URL in place of https://api.dropboxapi.com",
    ),
    key(
        "content-endpoint",
        Kind::Text,
        DROPBOX,
        &[],
        "URL in place of https://content.dropboxapi.com",
    ),
];

/// Gives the settings that a scheme knows.
pub fn of(scheme: Scheme) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| match key.schemes {
        [] => !matches!(scheme, Scheme::Folder | Scheme::Bundle),
        schemes => schemes.contains(&scheme),
    })
}

/// How the name of a setting gives its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The value stands there.
    Itself,
    /// `NAME-file` names a file that holds it.
    File,
    /// `NAME-command` is a command that prints it.
    Command,
}

/// Finds the setting of a scheme that a name means, and how it gives the value.
#[must_use]
pub fn find(scheme: Scheme, name: &str) -> Option<(&'static Key, How)> {
    of(scheme).find_map(|key| how(key, name).map(|how| (key, how)))
}

pub(super) fn how(key: &Key, name: &str) -> Option<How> {
    match name.strip_prefix(key.name)? {
        "" => Some(How::Itself),
        "-file" if key.kind == Kind::Secret => Some(How::File),
        "-command" if key.kind == Kind::Secret => Some(How::Command),
        _ => None,
    }
}

impl Key {
    /// Gives the name of its own environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        let name = self.name.to_ascii_uppercase().replace('-', "_");
        format!("{VARIABLES}{name}")
    }
}

/// How the environment variables of settings begin.
pub const VARIABLES: &str = "LARDER_STORAGE_";
