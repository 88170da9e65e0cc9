//! The rules of retention, from flags and from larder.toml.

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Span;
use jiff::tz::TimeZone;
use larder_engine::retention::{Count, GroupBy, Period, Policy, parse_duration};

use crate::settings::ForgetSettings;

/// Which snapshots stay.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Rules: what one of them keeps stays")]
pub struct KeepArgs {
    /// Keep the newest N snapshots; -1 keeps all
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_last: Option<Count>,
    /// Keep the newest snapshot of each of the last N hours that have one; -1 for all hours
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_hourly: Option<Count>,
    /// The same for days
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_daily: Option<Count>,
    /// The same for weeks, which begin on Monday
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_weekly: Option<Count>,
    /// The same for months
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_monthly: Option<Count>,
    /// The same for quarters of a year
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_quarterly: Option<Count>,
    /// The same for years
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_yearly: Option<Count>,
    /// Keep all that is less than this older than the newest snapshot of the group
    ///
    /// As with restic, the newest snapshot is what counts and not the present: a machine that is
    /// switched off for a year loses nothing. A duration is for example 36h, 7d, 2w, 6mo or 1y6mo.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_within: Option<Span>,
    /// Of those within this duration, keep the newest of each hour
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_within_hourly: Option<Span>,
    /// The same for days
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_within_daily: Option<Span>,
    /// The same for weeks
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_within_weekly: Option<Span>,
    /// The same for months
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_within_monthly: Option<Span>,
    /// The same for quarters of a year
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_within_quarterly: Option<Span>,
    /// The same for years
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_within_yearly: Option<Span>,
    /// Keep what has all of these tags; given several times, any of the lists
    #[arg(long, value_name = "TAG[,TAG...]")]
    keep_tag: Vec<String>,
    /// Keep this snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    pub keep_id: Vec<std::ffi::OsString>,
    /// Forget nothing that is younger than this, whatever the rules say
    ///
    /// This counts from the present, and is no rule by itself.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_minimum_age: Option<Span>,
}

impl KeepArgs {
    /// Joins the flags with the file's rules: a flag wins over the same key, and lists of tags add
    /// up.
    ///
    /// # Errors
    /// For a value of the file that is none.
    pub fn policy(&self, file: &ForgetSettings) -> anyhow::Result<Policy> {
        let number = |flag: Option<Count>, file: Option<i64>, key: &str| {
            let file = file.map(|number| count(&number.to_string()));
            let file = file.transpose().with_context(|| in_file(key))?;
            anyhow::Ok(flag.or(file))
        };
        let duration = |flag: Option<Span>, file: &Option<String>, key: &str| {
            let file = file.as_deref().map(parse_duration);
            let file = file.transpose().with_context(|| in_file(key))?;
            anyhow::Ok(flag.or(file))
        };
        let mut policy = Policy {
            last: number(self.keep_last, file.keep_last, "keep-last")?,
            within: duration(self.keep_within, &file.keep_within, "keep-within")?,
            minimum_age: duration(
                self.keep_minimum_age,
                &file.keep_minimum_age,
                "keep-minimum-age",
            )?,
            tags: file
                .keep_tag
                .iter()
                .chain(&self.keep_tag)
                .map(|list| tags(list))
                .collect::<anyhow::Result<_>>()?,
            ..Policy::default()
        };
        for (period, flag, file, key) in [
            (
                Period::Hour,
                self.keep_hourly,
                file.keep_hourly,
                "keep-hourly",
            ),
            (Period::Day, self.keep_daily, file.keep_daily, "keep-daily"),
            (
                Period::Week,
                self.keep_weekly,
                file.keep_weekly,
                "keep-weekly",
            ),
            (
                Period::Month,
                self.keep_monthly,
                file.keep_monthly,
                "keep-monthly",
            ),
            (
                Period::Quarter,
                self.keep_quarterly,
                file.keep_quarterly,
                "keep-quarterly",
            ),
            (
                Period::Year,
                self.keep_yearly,
                file.keep_yearly,
                "keep-yearly",
            ),
        ] {
            let count = number(flag, file, key)?;
            policy.counts.extend(count.map(|count| (period, count)));
        }
        for (period, flag, file, key) in [
            (
                Period::Hour,
                self.keep_within_hourly,
                &file.keep_within_hourly,
                "keep-within-hourly",
            ),
            (
                Period::Day,
                self.keep_within_daily,
                &file.keep_within_daily,
                "keep-within-daily",
            ),
            (
                Period::Week,
                self.keep_within_weekly,
                &file.keep_within_weekly,
                "keep-within-weekly",
            ),
            (
                Period::Month,
                self.keep_within_monthly,
                &file.keep_within_monthly,
                "keep-within-monthly",
            ),
            (
                Period::Quarter,
                self.keep_within_quarterly,
                &file.keep_within_quarterly,
                "keep-within-quarterly",
            ),
            (
                Period::Year,
                self.keep_within_yearly,
                &file.keep_within_yearly,
                "keep-within-yearly",
            ),
        ] {
            let span = duration(flag, file, key)?;
            policy.within_each.extend(span.map(|span| (period, span)));
        }
        Ok(policy)
    }
}

/// Parses what makes snapshots one group: any of `host`, `paths` and `tags`, or nothing.
///
/// # Errors
/// For another word.
pub fn group_by(text: &str) -> anyhow::Result<GroupBy> {
    let mut by = GroupBy {
        host: false,
        paths: false,
        tags: false,
    };
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        match word {
            "host" => by.host = true,
            "path" | "paths" => by.paths = true,
            "tag" | "tags" => by.tags = true,
            _ => bail!("'{word}' is none of host, paths and tags"),
        }
    }
    Ok(by)
}

/// Chooses the grouping: that of the flag, of larder.toml, or by host and paths.
///
/// # Errors
/// For a value of the file that is none.
pub fn grouping(flag: Option<GroupBy>, file: &ForgetSettings) -> anyhow::Result<GroupBy> {
    let file = file.group_by.as_deref().map(group_by);
    let file = file.transpose().with_context(|| in_file("group-by"))?;
    Ok(flag.or(file).unwrap_or_default())
}

/// Finds the zone of days and hours: that of the flag, of larder.toml, or the local one.
///
/// # Errors
/// For a zone that is not known, also where TZ names it.
pub fn zone(flag: Option<&str>, file: &ForgetSettings) -> anyhow::Result<TimeZone> {
    let Some(name) = flag.or(file.time_zone.as_deref()) else {
        let named = std::env::var_os("TZ").filter(|name| !name.is_empty());
        return match (TimeZone::try_system(), named) {
            (Ok(zone), _) => Ok(zone),
            // A machine that knows no zone has UTC; one that is told a wrong one has days at random.
            (Err(_), None) => Ok(TimeZone::UTC),
            (Err(_), Some(name)) => bail!(
                "there is no time zone '{}', which TZ names; put it right, or give --time-zone",
                name.display()
            ),
        };
    };
    TimeZone::get(name).with_context(|| {
        format!("there is no time zone '{name}'; use a name such as Europe/Berlin or UTC")
    })
}

fn in_file(key: &str) -> String {
    format!("larder.toml, [forget] {key}")
}

fn count(text: &str) -> anyhow::Result<Count> {
    if text == "-1" {
        return Ok(Count::All);
    }
    let count = text.parse().ok().map(Count::Some);
    count.with_context(|| format!("'{text}' is no count; use 0, 1, 2 ..., or -1 for all"))
}

fn tags(list: &str) -> anyhow::Result<Vec<String>> {
    let tags = list.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    let tags: Vec<String> = tags.map(ToOwned::to_owned).collect();
    if tags.is_empty() {
        bail!("'{list}' names no tag to keep");
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use clap::Parser as _;
    use larder_engine::retention::show_duration;

    use super::*;
    use crate::args::{Arguments, Command};
    use crate::settings::Settings;

    fn policy(flags: &str, file: &str) -> anyhow::Result<Policy> {
        let line = format!("larder forget {flags}");
        let arguments = Arguments::try_parse_from(line.split_whitespace())?;
        let Command::Forget(args) = arguments.command else {
            bail!("it is not understood as forget");
        };
        let settings = Settings::parse(&format!("[forget]\n{file}"), Path::new("larder.toml"))?;
        args.keep.policy(&settings.forget)
    }

    #[test]
    fn each_flag_and_each_key_is_the_rule_of_its_name() {
        let periods = [
            "hourly",
            "daily",
            "weekly",
            "monthly",
            "quarterly",
            "yearly",
        ];
        for (name, period) in periods.iter().zip(Period::ALL) {
            assert_eq!(period.to_string(), *name);
            for made in [
                policy(&format!("--keep-{name} 3"), ""),
                policy("", &format!("keep-{name} = 3")),
                policy(&format!("--keep-{name} 3"), &format!("keep-{name} = -1")),
            ] {
                let made = made.unwrap();
                assert_eq!(made.counts, [(period, Count::Some(3))].into(), "{name}");
                assert!(made.last.is_none() && made.within_each.is_empty());
            }
            for made in [
                policy(&format!("--keep-within-{name} 1y6mo"), ""),
                policy("", &format!("keep-within-{name} = '1y 6mo'")),
            ] {
                let made = made.unwrap();
                let spans = made
                    .within_each
                    .iter()
                    .map(|(at, span)| (*at, show_duration(span)));
                assert_eq!(spans.collect::<Vec<_>>(), [(period, "1y 6mo".to_owned())]);
                assert!(made.within.is_none() && made.counts.is_empty());
            }
        }
    }

    #[test]
    fn flags_and_file_are_joined() {
        let file = "keep-last = 7\nkeep-daily = -1\nkeep-within = '30d'\nkeep-tag = ['a,b']\n\
                    keep-minimum-age = '36h'";
        let made = policy("--keep-last -1 --keep-within 7d --keep-tag c", file).unwrap();
        assert_eq!(made.last, Some(Count::All));
        assert_eq!(made.counts, [(Period::Day, Count::All)].into());
        assert_eq!(made.within.map(|span| show_duration(&span)).unwrap(), "7d");
        assert_eq!(
            made.minimum_age.map(|span| show_duration(&span)).unwrap(),
            "36h"
        );
        assert_eq!(
            made.tags,
            [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]]
        );
        assert!(policy("", "").unwrap().is_empty());
        assert!(policy("--keep-minimum-age 3d", "").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_rule_says_so() {
        let error = |flags: &str, file: &str| format!("{:#}", policy(flags, file).unwrap_err());
        assert!(error("--keep-last -2", "").contains("-1 for all"));
        assert!(error("--keep-last many", "").contains("-1 for all"));
        assert!(error("--keep-within 5m", "").contains("mo for months"));
        assert!(error("--keep-tag ,", "").contains("names no tag"));
        assert!(error("latest --keep-last 3", "").contains("cannot be used"));
        assert!(error("", "keep-daily = -7").contains("[forget] keep-daily"));
        assert!(error("", "keep-within = '5m'").contains("[forget] keep-within"));
    }

    #[test]
    fn groups_are_named_by_words() {
        let by = |text: &str| {
            let by = group_by(text).unwrap();
            (by.host, by.paths, by.tags)
        };
        assert_eq!(by("host,paths"), (true, true, false));
        assert_eq!(by("tags, host"), (true, false, true));
        assert_eq!(by("path"), (false, true, false));
        assert_eq!(by(""), (false, false, false));
        assert!(group_by("user").is_err());
        let file = ForgetSettings {
            group_by: Some(String::new()),
            time_zone: Some("Europe/Nowhere".into()),
            ..ForgetSettings::default()
        };
        assert!(!grouping(None, &file).unwrap().host);
        assert!(grouping(Some(GroupBy::default()), &file).unwrap().host);
        assert!(zone(None, &file).is_err());
        assert!(zone(Some("Europe/Berlin"), &file).is_ok());
    }
}
