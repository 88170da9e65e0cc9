//! `larder check`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum, ValueHint};
use larder_engine::check::{
    CheckOptions, CheckReport, Cost, Costs, DrillOptions, Drilled, Due, Finding, Healing, ReadData,
    SAMPLE_MAX, Severity, check, costs, drill, healing, needs, quick,
};
use larder_engine::error::EngineError;
use larder_engine::format::names;
use larder_engine::ledger::Verified;
use larder_engine::progress::Progress as _;
use larder_engine::random;
use larder_engine::storage::error::ErrorKind;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::render::{self, Side, Table};
use crate::thaw::{ThawArgs, bring_back};
use crate::times;

/// Paths shown of one finding unless `-v` is given.
const PATHS_SHOWN: usize = 10;

/// Paths that a drill draws unless --sample says otherwise.
const SAMPLE: u64 = 100;

/// Check that everything is there and right
///
/// Four levels, each dearer than the one before but for the last:
///
/// quick      what the storage lists is compared with the index: every pack, its name and its size
/// structure  every snapshot, and all that it needs, is there (if nothing else is said)
/// data       the same, and the bytes of all packs, or of a part of them, are read and verified
/// drill      a random sample of paths of random snapshots is restored to nowhere
///
/// What is found names the damaged object and, but for the quick level, the snapshots and paths
/// that suffer. --dry-run says what each level would ask of the storage, and reads nothing else.
///
/// What was read is recorded in the repository, for all machines. With a budget (--max-duration,
/// --max-download, --max-age) the packs are read that were verified longest ago, so that runs of half an
/// hour go through all of them in turn; the summary says what share was verified lately.
///
/// Packs that are missing or damaged are recorded as suspect, where the repository can be written
/// to: no backup builds on them from then on, and what a backup still finds in its sources of what
/// they held is put in anew. --read-only leaves all recording out.
///
/// Examples: larder check --level quick
///           larder check --max-duration 30m --max-download 50GiB
///           larder check --max-age 30d       (what was not read within 30 days)
///           larder check --read-data
///           larder check --read-data=10%
///           larder check --read-data=3/7     (the third of seven parts)
///           larder check --level drill --sample 500 --against /home
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CheckArgs {
    /// How thoroughly to check
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
    /// Read and verify the packs too: all, a random N%, or the Nth of M parts
    #[arg(long, value_name = "N%|N/M", num_args = 0..=1, require_equals = true,
          default_missing_value = "all", value_parser = read_data)]
    read_data: Option<ReadData>,
    /// Read packs for so long at most, those verified longest ago first, e.g. 30m; one is always read
    #[arg(long, value_name = "DURATION", value_parser = times::seconds)]
    max_duration: Option<u64>,
    /// Read so much of packs at most, those verified longest ago first, e.g. 50GiB; one is always read
    #[arg(long, value_name = "SIZE", value_parser = times::bytes)]
    max_download: Option<u64>,
    /// Read only the packs that were not verified for so long, e.g. 30d
    #[arg(long, value_name = "DURATION", value_parser = times::days)]
    max_age: Option<u64>,
    /// Draw so many paths in a drill, or all there are if these are fewer [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SAMPLE_MAX))]
    sample: Option<u64>,
    /// Draw the paths that a drill with this number drew; it is in its summary
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Compare a drill's paths also with the files there now that have the size and time they had
    #[arg(long, value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    against: Option<PathBuf>,
    #[command(flatten)]
    thaw: ThawArgs,
    /// Say what each level would ask of the storage, and check nothing
    #[arg(short = 'n', long, conflicts_with = "thaw")]
    dry_run: bool,
    /// Change nothing: record neither damaged packs nor what was verified
    #[arg(long)]
    read_only: bool,
}

/// How thoroughly is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// What is listed, against the index
    Quick,
    /// Every snapshot down to the places of its chunks
    Structure,
    /// The same, and the bytes of packs
    Data,
    /// A sample of paths, restored to nowhere
    Drill,
}

impl CheckArgs {
    /// Decides the level; refuses flags that it has no use for.
    fn level(&self) -> anyhow::Result<Level> {
        let read_data = match (self.read_data, self.due()) {
            (Some(ReadData::All) | None, Some(due)) => Some(due),
            (Some(_), Some(_)) => {
                bail!("a budget chooses the packs itself; leave the share of --read-data out")
            }
            (read_data, None) => read_data,
        };
        let level = match (self.level, read_data) {
            (None, None) => Level::Structure,
            (None | Some(Level::Data), _) => Level::Data,
            (Some(level), None) => level,
            (Some(_), Some(_)) => {
                bail!("--read-data and budgets are of the level data; leave them out, or --level")
            }
        };
        if self.thaw.is_given() && level != Level::Data {
            bail!("--thaw brings back packs to be read, and only --read-data reads packs");
        }
        let is_of_drill = self.sample.is_some() || self.seed.is_some() || self.against.is_some();
        if is_of_drill && level != Level::Drill && !self.dry_run {
            bail!("--sample, --seed and --against are of a drill; add --level drill");
        }
        Ok(level)
    }

    /// Gives what a budget chooses, if there is one.
    fn due(&self) -> Option<ReadData> {
        let due = Due {
            max_age: self.max_age.map(Duration::from_secs),
            max_bytes: self.max_download,
            max_duration: self.max_duration.map(Duration::from_secs),
        };
        (due != Due::default()).then_some(ReadData::Due(due))
    }

    fn drill(&self) -> anyhow::Result<DrillOptions> {
        let seed = match self.seed {
            Some(seed) => seed,
            // Few digits, so that it is easily given again.
            None => u64::from(u32::from_le_bytes(random::bytes()?)),
        };
        let against = self.against.as_deref().map(std::path::absolute);
        Ok(DrillOptions {
            sample: self.sample.unwrap_or(SAMPLE),
            seed,
            against: against.transpose()?,
            records_suspects: !self.read_only,
        })
    }
}

/// Checks the repository.
///
/// # Errors
/// What keeps the check from being made; damage is in the exit code.
pub fn run(context: &Context, args: &CheckArgs) -> anyhow::Result<Exit> {
    let level = args.level()?;
    let repository = match context.open() {
        Ok(repository) => repository,
        Err(error) if is_damage(&error) => {
            // What keeps a repository from being opened costs everything in it.
            crate::report(&crate::paragraph(&error), Exit::DataLost, context.json());
            return Ok(Exit::DataLost);
        }
        Err(error) => return Err(error),
    };
    let (reporter, cancel) = (context.reporter(), context.cancel());
    if args.dry_run {
        let sample = args.sample.unwrap_or(SAMPLE);
        let read_data = args.due().or(args.read_data).unwrap_or(ReadData::All);
        let found = costs(&repository, read_data, sample, &reporter, cancel);
        reporter.finish();
        return tell_costs(context, &found?);
    }
    let records = !args.read_only;
    if let Some(how) = args.thaw.how() {
        let read_data = args.due().or(args.read_data);
        let needs =
            || -> anyhow::Result<_> { Ok(needs(&repository, read_data.unwrap_or(ReadData::All))?) };
        let brought = bring_back(context, &repository, &how, &reporter, &needs);
        brought.inspect_err(|_| reporter.finish())?;
    }
    let result = match level {
        Level::Quick => quick(&repository, records, &reporter, cancel),
        Level::Drill => drill(&repository, &args.drill()?, &reporter, cancel),
        Level::Structure | Level::Data => {
            let all = match level {
                Level::Data => ReadData::All,
                _ => ReadData::No,
            };
            let options = CheckOptions {
                read_data: args.due().or(args.read_data).unwrap_or(all),
                records_suspects: records,
            };
            check(&repository, &options, &reporter, cancel)
        }
    };
    reporter.finish();
    let report = result?;
    if let Some(why) = &report.not_recorded {
        reporter.warning(&format!(
            "the damaged packs could not be recorded as suspect: {why}; until they are, backups find by themselves only those that are missing or cut short"
        ));
    }
    if let (Some(why), true) = (&report.ledger_not_recorded, args.due().is_some()) {
        reporter.warning(&format!(
            "what was verified could not be recorded: {why}; the next check with a budget reads the same again"
        ));
    }
    if report.cold_packs > 0 {
        reporter.warning(&format!(
            "{} ({}) lie in cold storage and were not read; `larder check --read-data --thaw` brings them back, and reads them",
            render::counted(report.cold_packs, "pack", "packs"),
            render::size(report.cold_bytes)
        ));
    }
    if context.json() {
        let mut out = Output::new();
        for finding in &report.findings {
            let told = Told {
                finding,
                healing: healing(finding, report.healable.contains(&finding.object)),
            };
            output::message(&mut out, "finding", &told)?;
        }
        std::io::Write::flush(&mut out)?;
        output::summary(&Summary::of(level, &report))?;
    } else {
        let all_paths = context.globals.verbose > 0;
        let found = findings_with(&report.findings, &report.healable, all_paths);
        if !found.is_empty() {
            output::line(found.trim_end())?;
        }
        if report.new_suspects > 0 {
            output::line(&suspects(report.new_suspects))?;
        }
        if context.talks() {
            output::line(&summary(level, &report))?;
            if let Some(verified) = &report.verified {
                output::line(&share(verified))?;
            }
        }
    }
    Ok(exit(&report.findings))
}

/// What a dry run says, as an object.
#[derive(serde::Serialize)]
struct DryRun<'a> {
    dry_run: bool,
    costs: &'a Costs,
}

fn tell_costs(context: &Context, costs: &Costs) -> anyhow::Result<Exit> {
    if context.json() {
        output::summary(&DryRun {
            dry_run: true,
            costs,
        })?;
    } else {
        let mut out = Output::new();
        cost_table(costs).write(&mut out)?;
        std::io::Write::flush(&mut out)?;
    }
    Ok(Exit::Success)
}

fn cost_table(costs: &Costs) -> Table<'static> {
    let row = |name: &str, cost: &Cost| {
        let about = if cost.is_estimate { "about " } else { "" };
        let cells = [
            name.to_owned(),
            render::count(cost.list_requests),
            format!("{about}{}", render::count(cost.read_requests)),
            format!("{about}{}", render::size(cost.bytes)),
            format!("{about}{}", render::size(cost.egress_bytes)),
        ];
        cells.map(|cell| vec![cell]).to_vec()
    };
    Table {
        columns: &[
            ("Level", Side::Left),
            ("Lists", Side::Right),
            ("Reads", Side::Right),
            ("Bytes", Side::Right),
            ("Egress", Side::Right),
        ],
        rows: vec![
            row("quick", &costs.quick),
            row("structure", &costs.structure),
            row("data", &costs.data),
            row("drill", &costs.drill),
        ],
        footer: "requests and bytes that each level would ask of the storage".to_owned(),
    }
}

/// Tells whether the repository could not be opened because of damage: also of a config that is
/// listed and cannot be read.
fn is_damage(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| match cause.downcast_ref() {
        Some(EngineError::Damaged { .. }) => true,
        Some(EngineError::Storage(error)) => {
            let is_config = error.name.starts_with(names::CONFIGS);
            is_config && matches!(error.kind, ErrorKind::Denied | ErrorKind::Permanent)
        }
        _ => false,
    })
}

/// A finding, with from where what it is about can be had again.
#[derive(serde::Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    healing: Vec<Healing>,
}

/// The report without its findings, which were messages of their own.
#[derive(serde::Serialize)]
struct Summary {
    level: Level,
    snapshots: u64,
    nodes: u64,
    chunks: u64,
    packs: u64,
    packs_read: u64,
    cold_packs: u64,
    cold_bytes: u64,
    bytes_read: u64,
    new_suspects: u64,
    not_recorded: Option<String>,
    drilled: Option<Drilled>,
    verified: Option<Verified>,
    ledger_not_recorded: Option<String>,
    seconds: f64,
    loss: usize,
    harmless: usize,
    notes: usize,
}

impl Summary {
    fn of(level: Level, report: &CheckReport) -> Self {
        let count = |severity| number_of(&report.findings, severity);
        Self {
            level,
            snapshots: report.snapshots,
            nodes: report.nodes,
            chunks: report.chunks,
            packs: report.packs,
            packs_read: report.packs_read,
            cold_packs: report.cold_packs,
            cold_bytes: report.cold_bytes,
            bytes_read: report.bytes_read,
            new_suspects: report.new_suspects,
            not_recorded: report.not_recorded.clone(),
            drilled: report.drilled,
            verified: report.verified.clone(),
            ledger_not_recorded: report.ledger_not_recorded.clone(),
            seconds: report.seconds,
            loss: count(Severity::Loss),
            harmless: count(Severity::Harmless),
            notes: count(Severity::Note),
        }
    }
}

fn number_of(findings: &[Finding], severity: Severity) -> usize {
    findings
        .iter()
        .filter(|finding| finding.severity == severity)
        .count()
}

fn exit(findings: &[Finding]) -> Exit {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Loss) => Exit::DataLost,
        Some(Severity::Harmless) => Exit::DamageHarmless,
        Some(Severity::Note) | None => Exit::Success,
    }
}

fn read_data(text: &str) -> anyhow::Result<ReadData> {
    let wrong = || format!("'{text}' is neither a share like 10% nor a part like 3/7");
    if text == "all" {
        return Ok(ReadData::All);
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().ok().with_context(wrong)?;
        if !(percent > 0.0 && percent <= 100.0) {
            bail!("{text} is not between 0% and 100%");
        }
        return Ok(ReadData::Percent(percent));
    }
    let (part, parts) = text.split_once('/').with_context(wrong)?;
    let part: u64 = part.parse().ok().with_context(wrong)?;
    let parts: u64 = parts.parse().ok().with_context(wrong)?;
    if part == 0 || part > parts {
        bail!("there is no part {text}; the parts of {parts} are 1/{parts} to {parts}/{parts}");
    }
    Ok(ReadData::Part(part, parts))
}

/// Shows the findings in groups, worst first.
pub(super) fn findings(findings: &[Finding], all_paths: bool) -> String {
    findings_with(findings, &BTreeSet::new(), all_paths)
}

/// Shows the findings; `healable` names what a repair mends by itself.
fn findings_with(findings: &[Finding], healable: &BTreeSet<String>, all_paths: bool) -> String {
    let mut text = String::new();
    for (severity, heading) in [
        (Severity::Loss, "damage that costs data"),
        (Severity::Harmless, "damage that costs no data"),
        (Severity::Note, "worth knowing"),
    ] {
        let number = number_of(findings, severity);
        if number == 0 {
            continue;
        }
        let _ = writeln!(text, "{heading} ({}):", render::count(number as u64));
        for finding in findings
            .iter()
            .filter(|finding| finding.severity == severity)
        {
            let by_itself = healable.contains(&finding.object);
            show(&mut text, finding, by_itself, all_paths);
        }
        text.push('\n');
    }
    text
}

fn show(text: &mut String, finding: &Finding, by_itself: bool, all_paths: bool) {
    let printable = |text: &String| render::printable(text.as_bytes());
    let _ = writeln!(
        text,
        "  {}: {}",
        printable(&finding.object),
        printable(&finding.problem)
    );
    if !finding.snapshots.is_empty() {
        let short = |id: &String| id.get(..8).unwrap_or(id).to_owned();
        let ids: Vec<String> = finding.snapshots.iter().map(short).collect();
        let _ = writeln!(text, "    in snapshots {}", ids.join(", "));
    }
    let from: Vec<_> = healing(finding, by_itself).into_iter().map(place).collect();
    if !from.is_empty() {
        let _ = writeln!(text, "    to be had again from {}", from.join(", or "));
    }
    let shown = if all_paths {
        finding.paths.len()
    } else {
        PATHS_SHOWN
    };
    for path in finding.paths.iter().take(shown) {
        let _ = writeln!(text, "    {}", printable(path));
    }
    if finding.paths.len() > shown {
        let more = render::count((finding.paths.len() - shown) as u64);
        let _ = writeln!(text, "    and {more} more (-v shows them)");
    }
}

/// Names the place that something can be had from again.
fn place(healing: Healing) -> &'static str {
    match healing {
        Healing::Directory => "its other copy, which packs and segments have of each other",
        Healing::Twin => "its twin, by `larder repair`",
        Healing::Parity => "parity, by `larder repair`",
        Healing::Copy => "a mirror or another copy of the storage",
        Healing::Source => "the source, by backing it up again, if that still has it",
        Healing::Anew => "nowhere: a new one is made, since nothing is kept in it",
    }
}

/// Says what becomes of what was found.
fn suspects(count: u64) -> String {
    format!(
        "{} recorded as suspect: no backup builds on them, and what the sources still have of them is put in anew by the next one",
        render::counted(count, "damaged pack was", "damaged packs were")
    )
}

fn summary(level: Level, report: &CheckReport) -> String {
    let time = render::duration(report.seconds);
    let snapshots = render::counted(report.snapshots, "snapshot", "snapshots");
    let packs = |count| render::counted(count, "pack", "packs");
    let mut text = match (level, &report.drilled) {
        (Level::Quick, _) => {
            let packs = packs(report.packs);
            format!("compared {packs} of {snapshots} with the listing in {time}\n")
        }
        (_, Some(drilled)) => drill_summary(drilled, &snapshots, &time),
        _ => format!(
            "checked {snapshots}, {}, {} and {} in {time}; read {} ({})\n",
            render::counted(report.nodes, "node", "nodes"),
            render::counted(report.chunks, "chunk", "chunks"),
            packs(report.packs),
            render::counted(report.packs_read, "pack in full", "packs in full"),
            render::size(report.bytes_read)
        ),
    };
    let loss = number_of(&report.findings, Severity::Loss);
    let harmless = number_of(&report.findings, Severity::Harmless);
    text.push_str(match (loss, harmless) {
        (0, 0) => "no damage was found",
        (0, _) => "damage was found; it costs no data",
        _ => "damage was found; it costs data",
    });
    text
}

/// Says what share of the packs was verified lately.
pub(super) fn share(verified: &Verified) -> String {
    let percent = |part: u64| {
        format!(
            "{:.0} %",
            (part as f64 / verified.bytes as f64 * 100.0).floor()
        )
    };
    let Verified {
        bytes,
        days_7,
        days_30,
        days_90,
        never,
        oldest: _,
    } = verified;
    if *bytes == 0 {
        return "there is nothing yet that could be verified".to_owned();
    }
    let mut text = format!(
        "verified within 7 days {}, 30 days {}, 90 days {} of {}",
        percent(*days_7),
        percent(*days_30),
        percent(*days_90),
        render::size(*bytes)
    );
    if *never > 0 {
        let _ = write!(text, "; never {}", render::size(*never));
    }
    text
}

fn drill_summary(drilled: &Drilled, snapshots: &str, time: &str) -> String {
    let whole = render::counted(drilled.paths, "path", "paths");
    let all = render::count(drilled.paths + drilled.failed);
    let bytes = render::size(drilled.bytes);
    let mut text = format!(
        "restored {whole} of {all} that were drawn from {snapshots} to nowhere in {time}; {bytes} (--seed {} draws them again)\n",
        drilled.seed
    );
    if drilled.compared > 0 {
        let _ = writeln!(
            text,
            "compared {} that look unchanged; {} differ",
            render::counted(drilled.compared, "living file", "living files"),
            render::count(drilled.differing)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn finding(severity: Severity, paths: usize) -> Finding {
        Finding {
            severity,
            object: format!("packs/ab/{}", "ab".repeat(32)),
            problem: "it is missing".into(),
            snapshots: vec!["0123456789abcdef".into()],
            paths: (0..paths).map(|number| format!("/f{number}")).collect(),
        }
    }

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        let code = |severities: &[Severity]| {
            let findings: Vec<Finding> = severities.iter().map(|kind| finding(*kind, 0)).collect();
            exit(&findings).code()
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[Severity::Note]), 0);
        assert_eq!(code(&[Severity::Note, Severity::Harmless]), 5);
        assert_eq!(code(&[Severity::Loss, Severity::Harmless]), 4);
    }

    #[test]
    fn findings_are_grouped_worst_first() {
        let found = [finding(Severity::Note, 0), finding(Severity::Loss, 12)];
        let text = findings(&found, false);
        let expected = "\
damage that costs data (1):
  packs/ab/abababababababababababababababababababababababababababababababab: it is missing
    in snapshots 01234567
    to be had again from the source, by backing it up again, if that still has it, or a mirror or another copy of the storage
    /f0
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("    /f9\n    and 2 more (-v shows them)\n\nworth knowing (1):\n"));
        assert!(findings(&found, true).contains("    /f11\n\n"));
    }

    #[test]
    fn flags_that_a_level_has_no_use_for_are_refused() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: CheckArgs,
        }
        let level = |words: &[&str]| {
            let words = [&["check"], words].concat();
            let line = <Line as clap::Parser>::try_parse_from(words).unwrap();
            line.args.level().ok()
        };
        assert_eq!(level(&[]), Some(Level::Structure));
        assert_eq!(level(&["--read-data"]), Some(Level::Data));
        assert_eq!(
            level(&["--level", "data", "--read-data=1/2"]),
            Some(Level::Data)
        );
        assert_eq!(level(&["--level", "quick"]), Some(Level::Quick));
        assert_eq!(level(&["--level", "quick", "--read-data"]), None);
        assert_eq!(
            level(&["--level", "drill", "--seed", "7"]),
            Some(Level::Drill)
        );
        assert_eq!(level(&["--sample", "7"]), None);
        assert_eq!(level(&["--max-age", "30d"]), Some(Level::Data));
        assert_eq!(
            level(&["--read-data", "--max-download", "5G"]),
            Some(Level::Data)
        );
        assert_eq!(level(&["--read-data=5%", "--max-duration", "30m"]), None);
        assert_eq!(
            level(&["--level", "structure", "--max-duration", "30m"]),
            None
        );
        assert_eq!(
            level(&["--sample", "7", "--dry-run"]),
            Some(Level::Structure)
        );
    }

    #[test]
    fn the_share_that_was_verified_is_rounded_down() {
        let mut verified = Verified {
            bytes: 1000,
            days_7: 9,
            days_30: 500,
            days_90: 999,
            never: 1,
            oldest: None,
        };
        let text = share(&verified);
        assert!(
            text.starts_with("verified within 7 days 0 %, 30 days 50 %, 90 days 99 % of "),
            "{text}"
        );
        assert!(text.ends_with("; never 1 B"), "{text}");
        (verified.days_90, verified.never) = (1000, 0);
        assert!(share(&verified).contains("90 days 100 %"));
        assert!(share(&Verified::default()).contains("nothing yet"));
    }

    #[test]
    fn a_drill_says_how_it_is_made_again() {
        let mut report = CheckReport {
            snapshots: 3,
            drilled: Some(Drilled {
                seed: 42,
                paths: 9,
                failed: 1,
                bytes: 5 << 20,
                compared: 4,
                differing: 1,
            }),
            ..CheckReport::default()
        };
        let text = summary(Level::Drill, &report);
        assert!(
            text.starts_with("restored 9 paths of 10 that were drawn from 3 snapshots"),
            "{text}"
        );
        assert!(
            text.contains("(--seed 42 draws them again)\ncompared 4 living files"),
            "{text}"
        );
        report.drilled = None;
        assert!(summary(Level::Quick, &report).starts_with("compared 0 packs of 3 snapshots"));
    }

    #[test]
    fn the_part_to_read_is_a_share_or_a_part() {
        assert_eq!(read_data("all").unwrap(), ReadData::All);
        assert_eq!(read_data("2.5%").unwrap(), ReadData::Percent(2.5));
        assert_eq!(read_data("7/7").unwrap(), ReadData::Part(7, 7));
        for text in [
            "", "10", "0%", "101%", "NaN%", "-1%", "0/7", "8/7", "1/", "1/0", "a/b",
        ] {
            assert!(read_data(text).is_err(), "{text}");
        }
    }
}
