//! The project's own source files, as the tests over them see them.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path below the root, and its code without comments and literals.
pub struct Source {
    /// Relative to the root, with `/` between its parts.
    pub path: String,
    /// The code, with a space in place of each byte of a comment, string or character.
    pub code: String,
}

impl Source {
    /// Gives the identifiers, keywords and numbers of the code with their line numbers, in order.
    pub fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().flat_map(|(index, line)| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .map(move |word| (index + 1, word))
        })
    }

    /// Tells whether the file is `prefix` itself, `prefix.rs`, or below `prefix/`.
    pub fn is_in(&self, prefix: &str) -> bool {
        self.path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
    }
}

/// Gives the root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Reads all Rust files below the given folders of the root, sorted by path.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        // A package that does not exist yet has no files.
        let Ok(listing) = fs::read_dir(&folder) else {
            continue;
        };
        for item in listing {
            let path = item.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(Source {
                    path: path
                        .strip_prefix(&root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                    code: without_comments_and_literals(&fs::read_to_string(&path).unwrap()),
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if after_word { 0 } else { literal_prefix(rest) };
        let length = match rest.as_bytes() {
            [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment_length(rest),
            _ if skipped > 0 => skipped,
            [b'"', ..] => quoted_length(rest),
            [b'\'', ..] => character_length(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (gone, left) = rest.split_at(length);
            code.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = left;
        }
    }
    code
}

/// Length of a raw, byte or C string at the start of `text`; 0 if there is none.
fn literal_prefix(text: &str) -> usize {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r')).unwrap_or(0);
    let hashes = text[prefix..].len() - text[prefix..].trim_start_matches('#').len();
    let open = prefix + hashes;
    if prefix == 0 || prefix > 2 || !text[open..].starts_with('"') {
        return 0;
    }
    if !text[..prefix].ends_with('r') {
        return if hashes == 0 {
            open + quoted_length(&text[open..])
        } else {
            0
        };
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = &text[open + 1..];
    open + 1 + body.find(&close).map_or(body.len(), |at| at + close.len())
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let step = match text.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// Length of a character literal; 0 for the quote of a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(text.len(), |at| at + 4),
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[test]
fn comments_and_literals_are_blanked() {
    let cases = [
        ("a // unsafe\nb", "a          \nb"),
        ("a /* /* x */ y */ b", "a                 b"),
        (r#"f("unsafe \" x", y)"#, "f(             , y)"),
        (r##"f(r#"a " b"#, y)"##, "f(          , y)"),
        (r#"f(b"ab", c"d")"#, "f(     ,     )"),
        ("f('\"', '\\'', 'x') g", "f(   ,     ,    ) g"),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ("let r = bar;", "let r = bar;"),
    ];
    for (text, code) in cases {
        assert_eq!(without_comments_and_literals(text), code, "{text}");
    }
}
