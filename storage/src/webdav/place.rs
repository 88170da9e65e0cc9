//! What a location says, as WebDAV needs it.

use url::Url;

use super::server::Login;
use crate::http::is_this_machine;
use crate::location::{Location, Scheme};

/// Gives the URL of the repository's folder, with a slash at its end.
///
/// # Errors
/// In words.
pub(super) fn root_of(location: &Location) -> Result<Url, String> {
    let place = &location.place;
    let is_plain = place.scheme == Scheme::WebDav;
    let may_be_plain = location.settings.flag("allow-http").unwrap_or(false);
    if is_plain && !may_be_plain && !is_this_machine(&place.host) {
        return Err(
            "webdav:// sends password and token over the network for everybody to read; write \
             webdavs://, or set allow-http=true where the way is safe"
                .to_owned(),
        );
    }
    let scheme = if is_plain { "http" } else { "https" };
    let wrong = |error: url::ParseError| format!("the host or port makes no sense ({error})");
    let mut url = Url::parse(&format!("{scheme}://{}/", place.host)).map_err(wrong)?;
    let wrong = |()| "the host or port makes no sense".to_owned();
    url.set_port(place.port).map_err(wrong)?;
    let segments = place.path.split('/').filter(|segment| !segment.is_empty());
    url.path_segments_mut()
        .map_err(wrong)?
        .pop_if_empty()
        .extend(segments)
        .push("");
    Ok(url)
}

/// Gives what the user shows; the secrets are fetched.
///
/// # Errors
/// In words.
pub(super) fn login_of(location: &Location) -> Result<Login, String> {
    let settings = &location.settings;
    let user = location.place.user.as_deref().or(settings.text("user"));
    let password = settings.secret("password")?;
    match (settings.secret("token")?, user, password) {
        (Some(token), None, None) => Ok(Login::Bearer(token)),
        (Some(_), ..) => {
            Err("a token stands in place of user and password; leave one out".to_owned())
        }
        (None, Some(user), Some(password)) => Ok(Login::Basic(user.to_owned(), password)),
        (None, Some(_), None) => Err("there is a user, but no password".to_owned()),
        (None, None, Some(_)) => Err("there is a password, but no user".to_owned()),
        (None, None, None) => Ok(Login::None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::location::Layers;

    fn location(url: &str, settings: &[(&str, &str)]) -> Location {
        let file = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into()))
            .collect();
        let layers = Layers {
            file: Some(&file),
            ..Layers::default()
        };
        Location::new(url, &layers).unwrap()
    }

    #[test]
    fn the_root_is_written_as_servers_want_it() {
        let root = |url: &str| root_of(&location(url, &[])).map(String::from);
        for (url, expected) in [
            ("webdavs://host/a b/c", "https://host/a%20b/c/"),
            ("webdavs://me@host:8443/a//b/", "https://host:8443/a/b/"),
            ("webdavs://host", "https://host/"),
            ("webdav://[::1]:80/x%3Fy", "http://[::1]/x%3Fy/"),
            ("webdav://127.0.0.1:8080/x", "http://127.0.0.1:8080/x/"),
        ] {
            assert_eq!(root(url).unwrap(), expected, "{url}");
        }
        assert!(root("webdav://host/x").unwrap_err().contains("allow-http"));
        let allowed = location("webdav://host/x", &[("allow-http", "true")]);
        assert!(root_of(&allowed).is_ok());
    }

    #[test]
    fn a_login_is_whole_and_of_one_kind() {
        let login = |settings: &[_]| login_of(&location("webdavs://host/x", settings));
        assert!(login(&[("user", "me"), ("password", "x")]).is_ok());
        assert!(login(&[("token", "x")]).is_ok() && login(&[]).is_ok());
        for wrong in [
            [("user", "me")].as_slice(),
            &[("password", "x")],
            &[("token", "x"), ("password", "x")],
            &[("token", "x"), ("user", "x")],
        ] {
            assert!(login(wrong).is_err(), "{wrong:?}");
        }
    }
}
