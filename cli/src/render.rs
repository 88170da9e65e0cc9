//! How things are shown to people: sizes, times, paths, tables.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use larder_engine::format::entry::{Entry, EntryType};

/// Shows a size in binary units, e.g. `1.500 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        // 1023.9996 would be shown as 1024.000.
        if value < 1023.9995 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        return format!("{bytes} B");
    }
    format!("{value:.3} {unit}")
}

/// Shows a number with its thousands apart, e.g. `78,579`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Shows a number and the word for what is counted, e.g. `1 file`, `2 files`.
#[must_use]
pub fn counted(number: u64, singular: &str, plural: &str) -> String {
    let word = if number == 1 { singular } else { plural };
    format!("{} {word}", count(number))
}

/// Shows a duration, e.g. `4.20 s`, `3:05 min`, `1:02:03 h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if seconds < 9.995 {
        return format!("{:.2} s", seconds.max(0.0));
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours == 0 {
        return format!("{minutes}:{seconds:02} min");
    }
    format!("{hours}:{minutes:02}:{seconds:02} h")
}

/// Shows a time in a zone, to the second.
#[must_use]
pub fn time(time: jiff::Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// Takes a time as file systems keep it; none if it lies beyond the years that can be shown.
#[must_use]
pub fn timestamp(time: larder_engine::format::entry::Timestamp) -> Option<jiff::Timestamp> {
    let nanoseconds = i32::try_from(time.nanoseconds).ok()?;
    jiff::Timestamp::new(time.seconds, nanoseconds).ok()
}

/// Shows bytes as text that cannot steer a terminal: what is not UTF-8 as `\xNN`, controls and
/// marks that turn the direction of writing as escapes.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for char in part.valid().chars() {
            let turns = matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if char.is_control() || turns {
                shown.extend(char.escape_default());
            } else {
                shown.push(char);
            }
        }
        for byte in part.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// Shows type and permissions as `ls -l` does, e.g. `drwxr-xr-x`.
#[must_use]
pub fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryType::File => '-',
        EntryType::Directory => 'd',
        EntryType::Symlink => 'l',
        EntryType::Fifo => 'p',
        EntryType::Socket => 's',
        EntryType::CharacterDevice => 'c',
        EntryType::BlockDevice => 'b',
        EntryType::Object => 'o',
    };
    let mut shown = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = entry.mode >> shift;
        shown.push(if bits & 4 == 0 { '-' } else { 'r' });
        shown.push(if bits & 2 == 0 { '-' } else { 'w' });
        shown.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    shown
}

/// Shows owner and group by name where they have one, else by number.
#[must_use]
pub fn owner(entry: &Entry) -> (String, String) {
    let show = |name: &[u8], number: u32| match name {
        [] => number.to_string(),
        name => printable(name),
    };
    (show(&entry.user, entry.uid), show(&entry.group, entry.gid))
}

/// Gives the shortest prefixes, of 8 digits at least, that tell the ids apart.
#[must_use]
pub fn short_ids<'a>(ids: &[&'a str]) -> Vec<&'a str> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let shared = |pair: &[&str]| match pair {
        [a, b] => a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count(),
        _ => 0,
    };
    let longest = sorted.windows(2).map(shared).max().unwrap_or(0);
    let length = (longest + 1).max(8);
    ids.iter()
        .map(|id| id.get(..length).unwrap_or(id))
        .collect()
}

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table with a heading; a cell of several lines makes its row higher.
pub struct Table<'a> {
    /// The headings, and where their columns' cells stand.
    pub columns: &'a [(&'a str, Side)],
    /// The cells, row by row, each a list of lines.
    pub rows: Vec<Vec<Vec<String>>>,
    /// The line below the table.
    pub footer: String,
}

impl Table<'_> {
    /// Writes the table, or the footer alone if there are no rows; widths count characters.
    ///
    /// # Errors
    /// What writing answers.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return writeln!(out, "{}", self.footer);
        }
        let width = |column: usize, heading: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).flatten();
            let widest = cells.map(|line| line.chars().count()).max().unwrap_or(0);
            widest.max(heading.chars().count())
        };
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(column, (heading, _))| width(column, heading))
            .collect();
        let line = |cells: Vec<&str>| {
            let mut text = String::new();
            for ((cell, width), (_, side)) in cells.iter().zip(&widths).zip(self.columns) {
                match side {
                    Side::Left => text.push_str(&format!("{cell:<width$}  ")),
                    Side::Right => text.push_str(&format!("{cell:>width$}  ")),
                }
            }
            text.trim_end().to_owned()
        };
        let rule = "-".repeat(widths.iter().map(|width| width + 2).sum::<usize>().max(2) - 2);
        writeln!(
            out,
            "{}",
            line(self.columns.iter().map(|(heading, _)| *heading).collect())
        )?;
        writeln!(out, "{rule}")?;
        for row in &self.rows {
            for height in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
                let cell = |lines: &'_ Vec<String>| lines.get(height).cloned().unwrap_or_default();
                let cells: Vec<String> = row.iter().map(cell).collect();
                writeln!(out, "{}", line(cells.iter().map(String::as_str).collect()))?;
            }
        }
        writeln!(out, "{rule}")?;
        writeln!(out, "{}", self.footer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.000 KiB");
        assert_eq!(size((1 << 20) - 1), "1023.999 KiB");
        assert_eq!(size((1 << 30) - 1), "1.000 GiB");
        assert_eq!(size(3 << 29), "1.500 GiB");
        assert_eq!(size(u64::MAX), "16.000 EiB");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(78_579), "78,579");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(duration(0.034), "0.03 s");
        assert_eq!(duration(12.34), "12.3 s");
        assert_eq!(duration(59.97), "1:00 min");
        assert_eq!(duration(3723.0), "1:02:03 h");
    }

    #[test]
    fn paths_cannot_steer_the_terminal() {
        assert_eq!(printable("/home/żółw".as_bytes()), "/home/żółw");
        assert_eq!(printable(b"a\n\x1b[2Jb"), "a\\n\\u{1b}[2Jb");
        assert_eq!(printable(b"caf\xe9"), "caf\\xe9");
        assert_eq!(printable("x\u{202e}y".as_bytes()), "x\\u{202e}y");
    }

    #[test]
    fn modes_are_shown_as_ls_does() {
        let shown = |kind, bits| {
            mode(&Entry {
                kind,
                mode: bits,
                ..Entry::default()
            })
        };
        assert_eq!(shown(EntryType::Directory, 0o755), "drwxr-xr-x");
        assert_eq!(shown(EntryType::File, 0o4711), "-rws--x--x");
        assert_eq!(shown(EntryType::File, 0o6600), "-rwS--S---");
        assert_eq!(shown(EntryType::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(shown(EntryType::Directory, 0o1776), "drwxrwxrwT");
        assert_eq!(shown(EntryType::Fifo, 0), "p---------");
    }

    #[test]
    fn short_ids_stay_apart() {
        let ids = ["aaaaaaaabbbb", "aaaaaaaabbcc", "ffff00001111"];
        assert_eq!(
            short_ids(&ids),
            ["aaaaaaaabbb", "aaaaaaaabbc", "ffff0000111"]
        );
        assert_eq!(short_ids(&["0123456789ab"]), ["01234567"]);
    }

    #[test]
    fn a_table_lines_up() {
        let cell = |text: &str| vec![text.to_owned()];
        let table = Table {
            columns: &[
                ("ID", Side::Left),
                ("Paths", Side::Left),
                ("Size", Side::Right),
            ],
            rows: vec![
                vec![
                    cell("12"),
                    vec!["/a".into(), "/etc/long".into()],
                    cell("5 B"),
                ],
                vec![cell("3456"), cell("/b"), cell("10 MiB")],
            ],
            footer: "2 things".into(),
        };
        let mut bytes = Vec::new();
        table.write(&mut bytes).unwrap();
        let expected = "\
ID    Paths        Size
-----------------------
12    /a            5 B
      /etc/long
3456  /b         10 MiB
-----------------------
2 things
";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn times_are_shown_in_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let instant = "2026-11-01T23:30:00Z".parse().unwrap();
        assert_eq!(time(instant, &zone), "2026-11-02 01:30:00");
    }
}
