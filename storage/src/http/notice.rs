//! Notices to other services: a ping, or a message, over HTTP.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};

use super::failure::innermost;
use crate::network::choose_cryptography;
use crate::runtime::block_on;

/// Calls a URL: with GET, or with POST and this body.
///
/// # Errors
/// In words, which name the host and nothing else of the URL: the rest of it may be a secret.
pub fn send(
    url: &str,
    body: Option<(&'static str, String)>,
    limit: Duration,
) -> Result<(), String> {
    let url = Url::parse(url).map_err(|error| format!("it is no URL: {error}"))?;
    let host = host(&url)?;
    choose_cryptography();
    let client = Client::builder()
        .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
        .timeout(limit)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .build()
        .map_err(|error| format!("cannot speak HTTP: {}", innermost(&error)))?;
    let request = match body {
        None => client.get(url),
        Some((kind, text)) => client.post(url).header(CONTENT_TYPE, kind).body(text),
    };
    let answer = block_on(async { request.send().await })?;
    match answer {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!(
            "{host} answered with status {}",
            answer.status().as_u16()
        )),
        Err(error) if error.is_timeout() => Err(format!(
            "{host} did not answer within {} s",
            limit.as_secs()
        )),
        Err(error) => Err(format!("{host} cannot be reached: {}", innermost(&error))),
    }
}

/// Looks whether a URL is one that can be called.
///
/// # Errors
/// In words, without the URL.
pub fn check(url: &str) -> Result<(), String> {
    let url = Url::parse(url).map_err(|error| format!("it is no URL: {error}"))?;
    host(&url).map(drop)
}

fn host(url: &Url) -> Result<String, String> {
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(host)) => Ok(host.to_owned()),
        _ => Err("it has to begin with https:// or http:// and a host".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Answers one request with a status line, and gives what was asked and what was said of it.
    fn served(status: &str, body: Option<&str>) -> (String, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/secret-path", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let end = format!("\r\n\r\n{}", body.unwrap_or_default());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let asked = until(&mut stream, &end);
            stream.write_all(answer.as_bytes()).unwrap();
            asked
        });
        let body = body.map(|body| ("application/json", body.to_owned()));
        let said = send(&url, body, LIMIT);
        (server.join().unwrap(), said)
    }

    fn until(stream: &mut TcpStream, end: &str) -> String {
        let mut asked = Vec::new();
        let mut part = [0; 4096];
        while !asked.ends_with(end.as_bytes()) {
            let count = stream.read(&mut part).unwrap();
            assert!(count > 0, "the request ends early");
            asked.extend_from_slice(part.get(..count).unwrap());
        }
        String::from_utf8(asked).unwrap()
    }

    #[test]
    fn a_ping_is_a_get_and_a_message_a_post() {
        let (asked, said) = served("200 OK", None);
        assert_eq!(said, Ok(()));
        assert!(
            asked.starts_with("GET /secret-path HTTP/1.1\r\n"),
            "{asked}"
        );
        let (asked, said) = served("204 No Content", Some("{\"a\":1}"));
        assert_eq!(said, Ok(()));
        assert!(asked.starts_with("POST /secret-path "), "{asked}");
        assert!(asked.contains("application/json"), "{asked}");
    }

    #[test]
    fn what_fails_names_the_host_and_not_the_path() {
        let (_, said) = served("500 No", None);
        assert_eq!(said, Err("127.0.0.1 answered with status 500".to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = format!("http://{}/secret-path", listener.local_addr().unwrap());
        drop(listener);
        let why = send(&nobody, None, LIMIT).unwrap_err();
        assert!(why.starts_with("127.0.0.1 cannot be reached: "), "{why}");
        assert!(!why.contains("secret"), "{why}");
        assert_eq!(check("https://hc.example/secret"), Ok(()));
        for url in [
            "",
            "secret",
            "file:///secret",
            "ftp://host/secret",
            "http://",
        ] {
            let why = check(url).unwrap_err();
            assert!(!why.contains("secret"), "{url}: {why}");
        }
    }
}
