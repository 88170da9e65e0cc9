//! What there was at a time: for each source the newest snapshot that is not later.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Filter, SnapshotInfo, clean_path, of_view, read};
use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::view::View;

/// Finds for each source the newest snapshot that is not later than a time, or, for a path, the one
/// that has it; the newest comes first.
///
/// Each of them names in `sources` only those for which it was chosen, and a restore or a listing of it
/// goes through no others.
///
/// # Errors
/// `NotFound` if there is none; `Request` if several hosts have the same source.
pub fn at(
    repository: &Repository,
    time: Timestamp,
    filter: &Filter,
    path: Option<&[u8]>,
) -> Result<Vec<SnapshotInfo>> {
    at_in(&read(repository)?, time, filter, path)
}

/// Finds them in one reading, as [`at`] does.
pub(crate) fn at_in(
    view: &View,
    time: Timestamp,
    filter: &Filter,
    path: Option<&[u8]>,
) -> Result<Vec<SnapshotInfo>> {
    choose(of_view(view, filter, false), time, path)
}

/// Chooses among snapshots, the oldest first.
fn choose(
    list: Vec<SnapshotInfo>,
    time: Timestamp,
    path: Option<&[u8]>,
) -> Result<Vec<SnapshotInfo>> {
    let path = path.map(clean_path);
    let mut hosts: BTreeMap<String, String> = BTreeMap::new();
    let mut chosen = Vec::new();
    let mut is_within = false;
    for mut snapshot in list.into_iter().rev().filter(|one| one.time <= time) {
        let mut sources = Vec::new();
        for source in std::mem::take(&mut snapshot.sources) {
            let clean = clean_path(source.as_bytes());
            let holds = path.as_ref().is_some_and(|path| is_below(&clean, path));
            let is_part = path.as_ref().is_none_or(|path| is_below(path, &clean));
            if !(holds || is_part) {
                continue;
            }
            match hosts.get(&source) {
                Some(host) if *host != snapshot.host => {
                    return Err(EngineError::Request(format!(
                        "{source} was backed up on {host} and on {}; choose with --host",
                        snapshot.host
                    )));
                }
                Some(_) => continue,
                None => {}
            }
            is_within |= holds;
            hosts.insert(source.clone(), snapshot.host.clone());
            sources.push(source);
        }
        if !sources.is_empty() {
            snapshot.sources = sources;
            chosen.push(snapshot);
        }
    }
    if is_within {
        // One source inside another: the newest that can have the path.
        let holds = |one: &SnapshotInfo| {
            let mut sources = one.sources.iter();
            let path = path.as_deref().unwrap_or_default();
            sources.any(|source| is_below(&clean_path(source.as_bytes()), path))
        };
        chosen.retain(holds);
        chosen.truncate(1);
    }
    if chosen.is_empty() {
        let of = path.map(|path| format!(" of {}", String::from_utf8_lossy(&path)));
        return Err(EngineError::NotFound(format!(
            "there is no snapshot{} at or before {time}; `larder snapshots` lists what there is",
            of.unwrap_or_default()
        )));
    }
    Ok(chosen)
}

/// Tells whether a path is a folder or below it.
fn is_below(folder: &[u8], path: &[u8]) -> bool {
    match path.strip_prefix(folder) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || folder.ends_with(b"/"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::snapshots::Statistics;

    fn snapshot(id: &str, second: i64, host: &str, sources: &[&str]) -> SnapshotInfo {
        let time = Timestamp::from_second(second).unwrap();
        SnapshotInfo {
            id: id.to_owned(),
            time,
            end: time,
            partial: false,
            pinned: false,
            host: host.to_owned(),
            user: String::new(),
            tags: Vec::new(),
            sources: sources.iter().map(|source| (*source).to_owned()).collect(),
            read: Vec::new(),
            parent: None,
            shard: None,
            program: String::new(),
            statistics: Statistics::default(),
            session: Default::default(),
        }
    }

    fn chosen(second: i64, path: Option<&str>) -> Vec<String> {
        let list = vec![
            snapshot("a", 1, "h", &["/etc", "/home"]),
            snapshot("b", 2, "h", &["/home/me", "s3://b/p"]),
            snapshot("c", 3, "h", &["/etc"]),
            snapshot("d", 4, "h", &["/etc", "/homes"]),
        ];
        let time = Timestamp::from_second(second).unwrap();
        match choose(list, time, path.map(str::as_bytes)) {
            Ok(found) => {
                let found = found.into_iter();
                found
                    .map(|one| format!("{} {}", one.id, one.sources.join(" ")))
                    .collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn each_source_comes_from_the_newest_snapshot_that_is_not_later() {
        assert_eq!(chosen(1, None), ["a /etc /home"]);
        assert_eq!(
            chosen(3, None),
            ["c /etc", "b /home/me s3://b/p", "a /home"]
        );
        assert_eq!(
            chosen(9, None),
            ["d /etc /homes", "b /home/me s3://b/p", "a /home"]
        );
        assert!(chosen(0, None)[0].contains("no snapshot at or before"));
    }

    #[test]
    fn a_path_is_found_in_the_newest_that_can_have_it() {
        assert_eq!(chosen(9, Some("/etc/passwd")), ["d /etc"]);
        assert_eq!(chosen(3, Some("/etc/")), ["c /etc"]);
        assert_eq!(chosen(9, Some("/home/me/x")), ["b /home/me"]);
        assert_eq!(chosen(9, Some("/home/you")), ["a /home"]);
        assert_eq!(chosen(9, Some("s3://b/p/k//")), ["b s3://b/p"]);
        assert_eq!(
            chosen(9, Some("/")),
            ["d /etc /homes", "b /home/me", "a /home"]
        );
        assert!(chosen(1, Some("/home/me/x"))[0].starts_with("a /home"));
        assert!(chosen(9, Some("/hom"))[0].contains("no snapshot of /hom at"));
    }

    #[test]
    fn two_hosts_with_the_same_source_are_told_apart() {
        let list = || {
            vec![
                snapshot("a", 1, "one", &["/home", "/etc"]),
                snapshot("b", 2, "two", &["/home"]),
            ]
        };
        let time = Timestamp::from_second(9).unwrap();
        let error = choose(list(), time, None).unwrap_err().to_string();
        assert!(error.contains("on two and on one"), "{error}");
        assert_eq!(choose(list(), time, Some(b"/etc")).unwrap().len(), 1);
    }
}
