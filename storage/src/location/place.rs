//! Turns the text of a location into the place that it names: pure, nothing is asked.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

/// The kinds of place that a repository can live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// A folder of this machine.
    Folder,
    /// S3 and its compatibles.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
    /// SFTP, over SSH.
    Sftp,
    /// FTP.
    Ftp,
    /// FTP with TLS.
    Ftps,
    /// WebDAV without TLS.
    WebDav,
    /// WebDAV with TLS.
    WebDavs,
    /// Dropbox.
    Dropbox,
    /// A bundle: a file of this machine with a whole repository in it, which is only read.
    Bundle,
}

/// A place, as its URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What kind it is.
    pub scheme: Scheme,
    /// The user before the `@`, if there is one.
    pub user: Option<String>,
    /// The host, or the bucket or container; empty for a folder and Dropbox.
    pub host: String,
    /// The port, where the URL names one.
    pub port: Option<u16>,
    /// The folder, decoded. For buckets the prefix, without slashes at its ends; for a folder as it
    /// was written; for servers with the slash that follows the host.
    pub path: String,
}

const SCHEMES: &[(&str, Scheme)] = &[
    ("file", Scheme::Folder),
    ("s3", Scheme::S3),
    ("gs", Scheme::Google),
    ("az", Scheme::Azure),
    ("sftp", Scheme::Sftp),
    ("ftp", Scheme::Ftp),
    ("ftps", Scheme::Ftps),
    ("webdav", Scheme::WebDav),
    ("webdavs", Scheme::WebDavs),
    ("dropbox", Scheme::Dropbox),
    ("bundle", Scheme::Bundle),
];

/// What a bundle's location begins with; a path follows.
const BUNDLE: &str = "bundle:";

/// Gives every scheme with its name in a URL.
#[cfg(test)]
pub(super) fn all() -> &'static [(&'static str, Scheme)] {
    SCHEMES
}

/// What other programs call these schemes.
const OTHER_SCHEMES: &[(&str, &str)] = &[
    ("ssh", "sftp://user@host:port/path"),
    ("gcs", "gs://bucket/prefix"),
    ("azure", "az://container/prefix"),
    (
        "http",
        "webdav://host/path, or s3://bucket with -o endpoint=http://host",
    ),
    (
        "https",
        "webdavs://host/path, or s3://bucket with -o endpoint=https://host",
    ),
    ("dav", "webdav://host/path"),
    ("davs", "webdavs://host/path"),
];

impl Scheme {
    /// Gives its name in a URL.
    #[must_use]
    pub fn name(self) -> &'static str {
        SCHEMES
            .iter()
            .find(|(_, scheme)| *scheme == self)
            .map_or("", |(name, _)| name)
    }
}

impl Place {
    /// Gives the folder of this machine that it is, if it is one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::Folder).then(|| PathBuf::from(&self.path))
    }

    /// Gives the file of this machine in which it is, if it is a bundle.
    #[must_use]
    pub fn bundle(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::Bundle).then(|| PathBuf::from(&self.path))
    }
}

impl fmt::Display for Place {
    /// The place for a person: without user and settings, and a folder as a plain path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Folder => return f.write_str(&self.path),
            Scheme::Bundle => return write!(f, "{BUNDLE}{}", self.path),
            _ => {}
        }
        write!(f, "{}://{}", self.scheme.name(), self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if !self.path.is_empty() && !self.path.starts_with('/') {
            f.write_str("/")?;
        }
        f.write_str(&self.path)
    }
}

/// Parses a location; the error says what is wrong with it, without repeating what may be secret.
pub fn parse(location: &str) -> Result<Place, String> {
    if location.is_empty() {
        return Err("the location is empty; name a folder or a URL".to_owned());
    }
    if location.contains(char::is_control) {
        return Err("the location has a control character in it".to_owned());
    }
    if let Some(path) = location.strip_prefix(BUNDLE) {
        return bundle(path);
    }
    let Some((name, rest)) = location
        .split_once("://")
        .filter(|(scheme, _)| is_scheme(scheme))
    else {
        refuse_other_spellings(location)?;
        return Ok(folder(location.to_owned()));
    };
    let name = name.to_ascii_lowercase();
    let found = SCHEMES.iter().find(|(known, _)| *known == name);
    let Some((_, scheme)) = found else {
        return Err(unknown_scheme(&name));
    };
    match scheme {
        Scheme::Folder => file(rest),
        Scheme::S3 | Scheme::Google | Scheme::Azure => bucket(*scheme, rest),
        Scheme::Dropbox => dropbox(rest),
        _ => server(*scheme, rest),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

fn unknown_scheme(name: &str) -> String {
    let hint = OTHER_SCHEMES.iter().find(|(other, _)| *other == name);
    if let Some((_, usual)) = hint {
        return format!("the scheme {name}:// is not known; write {usual}");
    }
    let known = SCHEMES.iter();
    let known = known.filter(|(_, scheme)| *scheme != Scheme::Bundle);
    let known: Vec<_> = known.map(|(name, _)| format!("{name}://")).collect();
    format!(
        "the scheme {name}:// is not known; there are {}",
        known.join(", ")
    )
}

/// Refuses what other programs' users write for a storage elsewhere, before it names a folder here.
fn refuse_other_spellings(location: &str) -> Result<(), String> {
    const OTHERS: &[&str] = &["b2", "rclone", "rest", "swift"];
    let Some((scheme, rest)) = location.split_once(':') else {
        return Ok(());
    };
    let is_ours = SCHEMES.iter().any(|(name, _)| *name == scheme);
    let is_known = OTHER_SCHEMES.iter().any(|(name, _)| *name == scheme);
    if is_ours && scheme != "file" && !rest.contains('/') && rest.is_empty() {
        return Err(format!(
            "nothing follows {scheme}:; write {scheme}://host/path"
        ));
    }
    if is_ours || is_known || OTHERS.contains(&scheme) {
        return Err(format!(
            "{scheme}: is no kind of location that is known: URLs have //, as in {}; \
             for a folder of that name write ./{scheme}:",
            if is_ours {
                format!("{scheme}://host/path")
            } else {
                "s3://bucket/prefix".to_owned()
            }
        ));
    }
    Ok(())
}

fn folder(path: String) -> Place {
    Place {
        scheme: Scheme::Folder,
        user: None,
        host: String::new(),
        port: None,
        path,
    }
}

/// A file; its path stands as it is, nothing is decoded.
fn bundle(path: &str) -> Result<Place, String> {
    if path.is_empty() || path.starts_with("//") {
        return Err(format!(
            "a bundle is named by its file: {BUNDLE}/path/to/file"
        ));
    }
    Ok(Place {
        scheme: Scheme::Bundle,
        ..folder(path.to_owned())
    })
}

fn file(rest: &str) -> Result<Place, String> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err("file:// takes an absolute path: file:///path".to_owned());
    }
    decoded(path).map(folder)
}

/// A bucket or container and a prefix; both stand as they are, nothing is decoded.
fn bucket(scheme: Scheme, rest: &str) -> Result<Place, String> {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(no_credentials(scheme));
    }
    check_bucket(scheme, host)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if !path.is_empty() {
        check_parts(path, "prefix")?;
    }
    Ok(Place {
        scheme,
        user: None,
        host: host.to_owned(),
        port: None,
        path: path.to_owned(),
    })
}

fn dropbox(rest: &str) -> Result<Place, String> {
    let Some(path) = rest.strip_prefix('/') else {
        return Err("dropbox:// takes a path alone: dropbox:///folder".to_owned());
    };
    let path = decoded(path.trim_end_matches('/'))?;
    if !path.is_empty() {
        check_parts(&path, "folder")?;
    }
    Ok(Place {
        scheme: Scheme::Dropbox,
        user: None,
        host: String::new(),
        port: None,
        path: format!("/{path}"),
    })
}

fn server(scheme: Scheme, rest: &str) -> Result<Place, String> {
    let name = scheme.name();
    // An authority is the same for every scheme, but only unknown ones keep the port as written.
    let url = Url::parse(&format!("x-{name}://{rest}")).map_err(|error| {
        format!("the URL cannot be understood ({error}); write {name}://user@host:port/path")
    })?;
    if url.password().is_some() {
        return Err(no_credentials(scheme));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(
            "the URL has a ? or # in it; write %3F or %23 where they belong to the path".to_owned(),
        );
    }
    let host = match url.host_str() {
        Some(host) if !host.is_empty() => decoded(host)?,
        _ => {
            return Err(format!(
                "the URL names no host; write {name}://user@host:port/path"
            ));
        }
    };
    let user = match url.username() {
        "" => None,
        user => Some(decoded(user)?),
    };
    // The URL type drops `.` and `..`, which the folder of a repository has no need of either.
    let path = decoded(url.path())?;
    Ok(Place {
        scheme,
        user,
        host,
        port: url.port(),
        path,
    })
}

fn no_credentials(scheme: Scheme) -> String {
    let setting = match scheme {
        Scheme::S3 => "secret-access-key",
        Scheme::Azure => "access-key",
        Scheme::Google => "service-account-file",
        _ => "password",
    };
    format!(
        "a secret in a URL is seen by others in process lists and logs; give it as the setting {setting}, \
         for example by the variable {}",
        super::keys::KEYS
            .iter()
            .find(|key| key.name == setting)
            .map(super::keys::Key::variable)
            .unwrap_or_default()
    )
}

/// Holds the name of a bucket or container against its store's rules.
fn check_bucket(scheme: Scheme, name: &str) -> Result<(), String> {
    let what = if scheme == Scheme::Azure {
        "container"
    } else {
        "bucket"
    };
    let refuse = |why: &str| Err(format!("{name:?} cannot be the name of a {what}: {why}"));
    if name.is_empty() {
        return Err(format!(
            "the URL names no {what}; write {}://{what}/prefix",
            scheme.name()
        ));
    }
    let most = if scheme == Scheme::Google && name.contains('.') {
        222
    } else {
        63
    };
    if name.len() < 3 || name.len() > most {
        return refuse(&format!("it has to have 3 to {most} characters"));
    }
    let is_allowed = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' => true,
        b'.' => scheme != Scheme::Azure,
        b'_' => scheme == Scheme::Google,
        _ => false,
    };
    if !name.bytes().all(is_allowed) {
        let also = match scheme {
            Scheme::Azure => "",
            Scheme::Google => ", '.' and '_'",
            _ => " and '.'",
        };
        return refuse(&format!(
            "only lower-case letters, digits, '-'{also} may stand in it"
        ));
    }
    let is_edge = |char: char| char.is_ascii_alphanumeric();
    if !name.starts_with(is_edge) || !name.ends_with(is_edge) {
        return refuse("it has to begin and end with a letter or digit");
    }
    if scheme == Scheme::Azure && name.contains("--") {
        return refuse("two '-' may not follow each other");
    }
    if name.contains("..") {
        return refuse("two '.' may not follow each other");
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return refuse("it looks like an IP address");
    }
    Ok(())
}

fn check_parts(path: &str, what: &str) -> Result<(), String> {
    let is_bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.split('/').any(is_bad) {
        return Err(format!(
            "the {what} {path:?} has an empty part, '.' or '..' in it"
        ));
    }
    Ok(())
}

/// Undoes the %-escapes of a URL.
fn decoded(text: &str) -> Result<String, String> {
    let broken = || "the URL has a broken %-escape; write % as %25".to_owned();
    let mut parts = text.split('%');
    parts.next();
    let is_escape =
        |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !parts.all(is_escape) {
        return Err(broken());
    }
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| broken())?;
    if decoded.contains(char::is_control) {
        return Err("the URL has a control character in it".to_owned());
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn place(
        scheme: Scheme,
        user: Option<&str>,
        host: &str,
        port: Option<u16>,
        path: &str,
    ) -> Place {
        Place {
            scheme,
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        }
    }

    #[test]
    fn paths_and_file_urls_name_folders() {
        let folder = |location| parse(location).unwrap().folder().unwrap();
        assert_eq!(folder("/srv/r"), PathBuf::from("/srv/r"));
        assert_eq!(folder("r:x"), PathBuf::from("r:x"));
        assert_eq!(folder("./s3:x"), PathBuf::from("./s3:x"));
        assert_eq!(folder("./a b%20/://x"), PathBuf::from("./a b%20/://x"));
        assert_eq!(
            folder("file:///srv/a%20b%C3%A9"),
            PathBuf::from("/srv/a bé")
        );
        assert_eq!(folder("FILE://localhost/srv"), PathBuf::from("/srv"));
        for elsewhere in [
            "sftp:user@host:/srv",
            "s3:https://host/bucket",
            "rest:http://host",
            "b2:bucket",
        ] {
            assert!(
                parse(elsewhere).unwrap_err().contains("write ./"),
                "{elsewhere}"
            );
        }
    }

    #[test]
    fn a_bundle_is_named_by_its_file() {
        for path in ["/a b/%20.larder", "x", "./bundle:x", "../a://b"] {
            let location = format!("bundle:{path}");
            let place = parse(&location).unwrap();
            assert_eq!(place.bundle(), Some(PathBuf::from(path)));
            assert_eq!((place.folder(), place.to_string()), (None, location));
        }
        assert_eq!(
            parse("./bundle:x").unwrap().folder(),
            Some(PathBuf::from("./bundle:x"))
        );
    }

    #[test]
    fn urls_name_places_on_servers_and_in_buckets() {
        for (url, expected) in [
            ("s3://bucket", place(Scheme::S3, None, "bucket", None, "")),
            (
                "s3://my.bucket-1/a/b%20c/",
                place(Scheme::S3, None, "my.bucket-1", None, "a/b%20c"),
            ),
            ("gs://a_b/x", place(Scheme::Google, None, "a_b", None, "x")),
            (
                "az://container/x",
                place(Scheme::Azure, None, "container", None, "x"),
            ),
            (
                "sftp://me@host:2222/srv/r",
                place(Scheme::Sftp, Some("me"), "host", Some(2222), "/srv/r"),
            ),
            ("sftp://host", place(Scheme::Sftp, None, "host", None, "")),
            (
                "sftp://h:443/~/r",
                place(Scheme::Sftp, None, "h", Some(443), "/~/r"),
            ),
            (
                "ftp://a%40b@host/a%20b",
                place(Scheme::Ftp, Some("a@b"), "host", None, "/a b"),
            ),
            (
                "ftps://host:990/",
                place(Scheme::Ftps, None, "host", Some(990), "/"),
            ),
            (
                "webdav://[::1]:80/dav",
                place(Scheme::WebDav, None, "[::1]", Some(80), "/dav"),
            ),
            (
                "WEBDAVS://host/dav/",
                place(Scheme::WebDavs, None, "host", None, "/dav/"),
            ),
            (
                "dropbox:///a/b",
                place(Scheme::Dropbox, None, "", None, "/a/b"),
            ),
            ("dropbox:///", place(Scheme::Dropbox, None, "", None, "/")),
        ] {
            assert_eq!(parse(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn what_names_no_place_is_refused_with_a_reason() {
        for (location, reason) in [
            ("", "is empty"),
            ("file://", "absolute"),
            ("file://host/x", "absolute"),
            ("file:///%", "%25"),
            ("file:///%zz", "%25"),
            ("file:///%00", "control"),
            ("/a\nb", "control"),
            ("s9://host/x", "s3://"),
            ("https://host/x", "webdavs://host/path"),
            ("ssh://host/x", "sftp://"),
            ("s3://", "names no bucket"),
            ("s3://ab", "3 to 63"),
            ("s3://Bucket", "lower-case"),
            ("s3://a_b", "lower-case"),
            ("s3://-ab", "begin and end"),
            ("s3://a..b", "two '.'"),
            ("s3://10.0.0.1", "IP address"),
            ("az://a.b", "lower-case"),
            ("az://a--b", "two '-'"),
            ("s3://bucket/a//b", "empty part"),
            ("s3://bucket/../b", "'..'"),
            ("sftp:///path", "names no host"),
            ("sftp://host:99999/x", "cannot be understood"),
            ("ftp://host/a?b", "%3F"),
            ("dropbox://folder", "dropbox:///folder"),
            ("bundle:", "bundle:/path"),
            ("bundle:///x", "bundle:/path"),
        ] {
            let error = parse(location).unwrap_err();
            assert!(error.contains(reason), "{location}: {error}");
        }
    }

    #[test]
    fn a_secret_in_a_url_is_refused_and_not_repeated() {
        for url in [
            "sftp://me:hunter2@host/x",
            "ftp://me:hunter2@host/",
            "s3://key:hunter2@bucket/x",
            "webdavs://:hunter2@host/",
        ] {
            let error = parse(url).unwrap_err();
            assert!(
                error.contains("LARDER_STORAGE_") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_place_is_shown_without_its_user() {
        for (url, shown) in [
            ("sftp://me@host:22/srv", "sftp://host:22/srv"),
            ("s3://bucket/a/", "s3://bucket/a"),
            ("dropbox:///a", "dropbox:///a"),
            ("/srv/r", "/srv/r"),
        ] {
            assert_eq!(parse(url).unwrap().to_string(), shown);
        }
    }
}
