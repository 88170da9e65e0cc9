//! Lines of listings: MLSD's facts, and what LIST prints in the manner of Unix and of DOS.

/// What a line says of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    pub kind: Kind,
    /// Unknown where the line does not tell.
    pub size_bytes: Option<u64>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A link, or what the server has no word for: it has to be asked.
    Unclear,
    /// Neither, or the folder itself.
    Nothing,
}

/// Parses a line of MLSD: `type=file;size=12;modify=20261121200000; name`.
pub(super) fn facts(line: &str) -> Option<Entry> {
    let (facts, name) = line.split_once(' ')?;
    let mut kind = Kind::Unclear;
    let mut size_bytes = None;
    for fact in facts.split(';').filter(|fact| !fact.is_empty()) {
        let (key, value) = fact.split_once('=')?;
        if key.eq_ignore_ascii_case("type") {
            kind = match value.to_ascii_lowercase().as_str() {
                "file" => Kind::File,
                "dir" => Kind::Folder,
                "cdir" | "pdir" => Kind::Nothing,
                _ => Kind::Unclear,
            };
        } else if key.eq_ignore_ascii_case("size") {
            size_bytes = Some(value.parse().ok()?);
        }
    }
    Some(Entry {
        name: name.to_owned(),
        kind,
        size_bytes,
    })
}

/// Parses a line of LIST.
pub(super) fn line(line: &str) -> Option<Entry> {
    if is_total(line) {
        return Some(Entry {
            name: String::new(),
            kind: Kind::Nothing,
            size_bytes: None,
        });
    }
    dos(line).or_else(|| unix(line))
}

/// `total 12`, which some servers print before the entries.
fn is_total(line: &str) -> bool {
    let rest = line.strip_prefix("total ");
    rest.is_some_and(|rest| rest.trim().bytes().all(|byte| byte.is_ascii_digit()))
}

/// `-rw-r--r--    1 ftp      ftp          12 Nov 21 20:00 name`
fn unix(line: &str) -> Option<Entry> {
    let kind = match line.as_bytes().first()? {
        b'-' => Kind::File,
        b'd' => Kind::Folder,
        b'l' => Kind::Unclear,
        b'b' | b'c' | b'p' | b's' => Kind::Nothing,
        _ => return None,
    };
    let words = words(line);
    let word = |at: usize| words.get(at).map(|(_, word)| *word);
    // Owner and group may be left out or have spaces in them: the date says where things are.
    for at in 2..words.len() {
        let Some(length) = date(word(at)?, word(at + 1), word(at + 2)) else {
            continue;
        };
        let Ok(size_bytes) = word(at - 1)?.parse() else {
            continue;
        };
        let (begin, last) = words.get(at + length - 1)?;
        // One space only: a name may begin with others.
        let name = line.get(begin + last.len()..)?.strip_prefix(' ')?;
        if name.is_empty() {
            return None;
        }
        let link = name.split_once(" -> ").filter(|_| kind == Kind::Unclear);
        return Some(Entry {
            name: link.map_or(name, |(name, _)| name).to_owned(),
            kind,
            // The size of a link is not that of what it leads to.
            size_bytes: (kind == Kind::File).then_some(size_bytes),
        });
    }
    None
}

/// `11-21-26  08:00PM       <DIR>          name`
fn dos(line: &str) -> Option<Entry> {
    let words = words(line);
    let word = |at: usize| words.get(at).map(|(_, word)| *word);
    let is_date = |text: &str| {
        let parts: Vec<_> = text.split(['-', '/']).collect();
        parts.len() == 3 && parts.iter().all(|part| is_number(part, 4))
    };
    let is_time = |text: &str| {
        let text = text.strip_suffix(['M', 'm']).unwrap_or(text);
        is_clock(text.strip_suffix(['A', 'P', 'a', 'p']).unwrap_or(text))
    };
    if !is_date(word(0)?) || !is_time(word(1)?) {
        return None;
    }
    let (kind, size_bytes) = match word(2)? {
        "<DIR>" => (Kind::Folder, None),
        "<JUNCTION>" | "<SYMLINK>" | "<SYMLINKD>" => (Kind::Unclear, None),
        size => (Kind::File, Some(size.replace(',', "").parse().ok()?)),
    };
    let (begin, last) = words.get(2)?;
    let rest = line.get(begin + last.len()..)?;
    // Folders are followed by blanks up to the column of names.
    let name = match kind {
        Kind::File => rest.strip_prefix(' ')?,
        _ => rest.trim_start(),
    };
    (!name.is_empty()).then(|| Entry {
        name: name.to_owned(),
        kind,
        size_bytes,
    })
}

/// Tells how many words a date has that begins with `first`.
fn date(first: &str, second: Option<&str>, third: Option<&str>) -> Option<usize> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let is_year_or_clock = |text: &str| is_clock(text) || (text.len() == 4 && is_number(text, 4));
    let is_iso = first.len() == 10 && first.split('-').all(|part| is_number(part, 4));
    if is_iso && first.split('-').count() == 3 {
        return second.is_some_and(is_clock).then_some(2);
    }
    let is_month = |text: &str| MONTHS.contains(&text.to_ascii_lowercase().as_str());
    let is_day = |text: &str| is_number(text, 2);
    let (second, third) = (second?, third?);
    let is_usual = is_month(first) && is_day(second);
    let is_turned = is_day(first) && is_month(second);
    ((is_usual || is_turned) && is_year_or_clock(third)).then_some(3)
}

fn is_clock(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    (2..=3).contains(&parts.len()) && parts.iter().all(|part| is_number(part, 2))
}

fn is_number(text: &str, digits_max: usize) -> bool {
    (1..=digits_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Gives the words of a line with where each begins.
fn words(line: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut at = 0;
    for part in line.split(' ') {
        if !part.is_empty() {
            words.push((at, part));
        }
        at += part.len() + 1;
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn entry(name: &str, kind: Kind, size_bytes: Option<u64>) -> Entry {
        Entry {
            name: name.to_owned(),
            kind,
            size_bytes,
        }
    }

    #[test]
    fn facts_tell_kind_size_and_name() {
        for (text, expected) in [
            (
                "type=file;size=12;modify=20261121200000;perm=r; ab",
                entry("ab", Kind::File, Some(12)),
            ),
            (
                "Type=DIR;Size=4096; ab cd",
                entry("ab cd", Kind::Folder, Some(4096)),
            ),
            ("type=cdir; .", entry(".", Kind::Nothing, None)),
            ("type=OS.unix=slink:x; l", entry("l", Kind::Unclear, None)),
            (" bare", entry("bare", Kind::Unclear, None)),
        ] {
            assert_eq!(facts(text).unwrap(), expected, "{text}");
        }
        for text in ["", "type=file;size=x; a", "type; a", "nothing"] {
            assert_eq!(facts(text), None, "{text}");
        }
    }

    #[test]
    fn lines_of_many_servers_are_understood() {
        let file = |name: &str, size| entry(name, Kind::File, Some(size));
        for (text, expected) in [
            // vsftpd, ProFTPD, pure-ftpd
            (
                "-rw-------    1 20001    20001          70 Nov 21 20:01 abcd",
                file("abcd", 70),
            ),
            (
                "-rw-r--r--   1 ftp ftp  5368709120 Feb  3  2024 a.b",
                file("a.b", 5_368_709_120),
            ),
            (
                "drwx------    2 20001    20001        4096 Nov 21 20:01 packs",
                entry("packs", Kind::Folder, None),
            ),
            (
                "lrwxrwxrwx    1 0  0   7 Nov 21 20:01 bin -> usr/bin",
                entry("bin", Kind::Unclear, None),
            ),
            (
                "prw-r--r--    1 0  0   0 Nov 21 20:01 fifo",
                entry("fifo", Kind::Nothing, None),
            ),
            // Names that look like other fields, or begin with blanks.
            (
                "-rw-r--r-- 1 a b 5 Nov 21 20:01 6 Dec 22 20:02 x",
                file("6 Dec 22 20:02 x", 5),
            ),
            ("-rw-r--r-- 1 a b 5 Nov 21 20:01  x", file(" x", 5)),
            ("-rw-r--r-- 1 a b 5 Nov 21 20:01 a -> b", file("a -> b", 5)),
            // No group; an owner with a blank; other dates.
            ("-rw-r--r-- 1 owner 5 Nov 21 20:01 x", file("x", 5)),
            (
                "-rw-r--r-- 1 DOMAIN USERS grp 5 Nov 21 20:01 x",
                file("x", 5),
            ),
            ("-rw-r--r-- 1 a b 5 21 Nov 2025 x", file("x", 5)),
            ("-rw-r--r-- 1 a b 5 2026-11-21 20:01 x", file("x", 5)),
            ("-rw-r--r--+ 1 a b 5 Nov 21 20:01 x", file("x", 5)),
            // IIS
            (
                "11-21-26  08:01PM                   70 abcd",
                file("abcd", 70),
            ),
            (
                "11-21-2026  20:01       <DIR>          packs",
                entry("packs", Kind::Folder, None),
            ),
            ("total 12", entry("", Kind::Nothing, None)),
        ] {
            assert_eq!(line(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "abcd",
            "-rw-r--r-- 1 a b c",
            "-rw-r--r-- 1 a b 5 Nov 21 20:01",
            "total x",
            "11-21-26 08:01PM many a",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}
