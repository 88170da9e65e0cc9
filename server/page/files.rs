//! The files of the web page: path, content type, bytes.

/// All of them.
pub const FILES: &[(&str, &str, &[u8])] = &[(
    "/",
    "text/html; charset=utf-8",
    include_bytes!("index.html"),
)];
