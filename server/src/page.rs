//! The web page: files that are part of the program.

#[path = "../page/files.rs"]
mod files;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::routes;

/// Gives the files: path, content type, bytes.
pub fn files() -> impl Iterator<Item = (&'static str, &'static str, &'static [u8])> {
    files::FILES.iter().copied()
}

/// Answers with a file, or that the browser has it already.
pub fn answer(kind: &'static str, bytes: &'static [u8], headers: &HeaderMap) -> Response {
    let tag = routes::etag(bytes);
    let is_known = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known == tag.as_str());
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Response::new(Body::from(bytes)),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}
