//! `larder forget`.

use std::ffi::OsString;
use std::io::IsTerminal as _;

use anyhow::bail;
use clap::Args;
use jiff::Zoned;
use jiff::tz::TimeZone;
use larder_engine::forget::{
    Choice, ForgetOptions, ForgetPlan, ForgetReport, PlannedGroup, PlannedSnapshot, apply, plan,
};
use larder_engine::prune::PruneReport;
use larder_engine::repository::Repository;
use larder_engine::retention::GroupBy;
use larder_engine::session::Author;
use larder_engine::snapshots::Which;
use serde::Serialize;

use super::prune::TuningArgs;
use crate::args::FilterArgs;
use crate::context::{Context, parse_whole};
use crate::exit::Exit;
use crate::keep::{self, KeepArgs};
use crate::output::{self, Output};
use crate::person;
use crate::render::{self, Side, Table};

/// Forget snapshots, by rules or by name
///
/// Rules say which snapshots stay; the others are forgotten. What any rule keeps stays, and each is
/// shown with the reasons. Rules count in each group by itself, by default the snapshots of one host
/// and the same paths. If there are fewer hours, days ... than a rule may keep, it also keeps the
/// oldest snapshot of the group. Rules can stand in larder.toml.
///
/// A pinned snapshot is never forgotten, nor is one whose time cannot be right (it lies in the
/// future, or contradicts the order of backups): such a one stays, and counts for no rule. The
/// checkpoint of an unfinished backup goes once a later backup has all of its paths.
///
/// Space is freed by `larder prune`, or in the same run with --prune; until then `larder undelete`
/// brings back what was forgotten.
///
/// Examples: larder forget --keep-last 3 --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
///           larder forget --keep-within 30d --host desk --group-by host
///           larder forget --keep-daily 30 --prune
///           larder forget 4f2a91c3 latest~2
#[derive(Debug, Default, Args)]
#[command(verbatim_doc_comment)]
pub struct ForgetArgs {
    /// Forget these snapshots, whatever rules there are: ids, latest, latest~2, '@[2026-11-01]'
    #[arg(value_name = "SNAPSHOT", conflicts_with = "KeepArgs")]
    snapshots: Vec<OsString>,
    /// Say what would be forgotten, and why the rest stays; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Forget even the last finished snapshot of a group
    #[arg(long)]
    allow_empty: bool,
    /// Let rules count for each of these by itself: any of host, paths and tags, or '' [default: host,paths]
    #[arg(long, value_name = "WHAT", value_parser = keep::group_by)]
    group_by: Option<GroupBy>,
    /// Time zone of days and hours, e.g. Europe/Berlin [default: the local one]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Prune afterwards
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// How --prune prunes.
    #[command(flatten, next_help_heading = "With --prune")]
    tuning: TuningArgs,
    /// Which snapshots stay.
    #[command(flatten)]
    pub keep: KeepArgs,
}

/// What was planned, and what of it was done.
#[derive(Serialize)]
struct Summary<'a> {
    dry_run: bool,
    kept: usize,
    #[serde(flatten)]
    report: &'a ForgetReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    prune: Option<&'a PruneReport>,
}

/// Forgets snapshots.
///
/// # Errors
/// What the engine answers, or what it refuses to do.
pub fn run(context: &Context, args: &ForgetArgs) -> anyhow::Result<Exit> {
    let file = &context.settings.forget;
    let zone = keep::zone(args.time_zone.as_deref(), file)?;
    let options = ForgetOptions {
        choice: args.choice(context)?,
        filter: args.filter.filter(),
        group_by: keep::grouping(args.group_by, file)?,
    };
    if args.tuning.is_given() && !args.prune {
        bail!("--max-unused and the other options of prune need --prune");
    }
    let prune = args
        .prune
        .then(|| args.tuning.options(context, args.dry_run));
    let prune = prune.transpose()?;
    let author = person::author(context)?;
    let repository = context.open()?;
    let plan = plan(
        &repository,
        &options,
        &Zoned::now().with_time_zone(zone.clone()),
    )?;
    show(context, args, &plan, &zone)?;
    if !args.allow_empty {
        plan.refuse_empty()?;
    }
    let report = carry_out(context, args, &repository, &plan, &author)?;
    if context.talks() {
        output::line(&conclusion(&plan, &report, args))?;
    }
    let pruned = match prune {
        Some(mut options) => {
            if args.dry_run {
                let forgotten = plan.forgotten().map(|one| one.snapshot.session);
                options.assume_forgotten = forgotten.collect();
            }
            Some(super::prune::carry_out(context, &repository, &options)?)
        }
        None => None,
    };
    if context.json() {
        output::summary(&Summary {
            dry_run: args.dry_run,
            kept: plan.kept() + report.pinned.len(),
            report: &report,
            prune: pruned.as_ref(),
        })?;
    } else if let Some(pruned) = &pruned {
        if context.talks() || args.dry_run {
            output::line(&format!(
                "\n{}",
                super::prune::text(pruned, &TimeZone::system())
            ))?;
        }
    } else if context.talks() && !args.dry_run && !report.forgotten.is_empty() {
        hint()?;
    }
    Ok(Exit::Success)
}

/// Forgets what is planned, or says in a dry run what that would be.
fn carry_out(
    context: &Context,
    args: &ForgetArgs,
    repository: &Repository,
    plan: &ForgetPlan,
    author: &Author,
) -> anyhow::Result<ForgetReport> {
    if args.dry_run {
        let ids = plan.forgotten().map(|one| one.snapshot.id.clone());
        return Ok(ForgetReport {
            forgotten: ids.collect(),
            ..ForgetReport::default()
        });
    }
    let reporter = context.reporter();
    let result = apply(repository, plan, author, &reporter, context.cancel());
    reporter.finish();
    let report = result?;
    for id in &report.pinned {
        eprintln!("larder: warning: snapshot {id} was pinned meanwhile, and stays");
    }
    Ok(report)
}

/// Tells a person at a terminal what comes next.
fn hint() -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() {
        output::line(
            "`larder prune` frees what only they needed; until then `larder undelete` brings them back",
        )?;
    }
    Ok(())
}

impl ForgetArgs {
    fn choice(&self, context: &Context) -> anyhow::Result<Choice> {
        let whole = |names: &[OsString]| -> anyhow::Result<Vec<Which>> {
            names.iter().map(|name| parse_whole(name)).collect()
        };
        if !self.snapshots.is_empty() {
            return Ok(Choice::Named(whole(&self.snapshots)?));
        }
        let policy = self.keep.policy(&context.settings.forget)?;
        Ok(Choice::Policy(Box::new(policy), whole(&self.keep.keep_id)?))
    }
}

/// Shows what is planned, as far as it was asked for.
fn show(
    context: &Context,
    args: &ForgetArgs,
    plan: &ForgetPlan,
    zone: &TimeZone,
) -> anyhow::Result<()> {
    let mut out = Output::new();
    if context.json() {
        for group in &plan.groups {
            output::message(&mut out, "group", group)?;
        }
    } else if context.talks() || args.dry_run {
        let all = plan.groups.iter().flat_map(|group| &group.snapshots);
        let ids: Vec<&str> = all.map(|one| one.snapshot.id.as_str()).collect();
        let digits = render::short_ids(&ids).first().map_or(8, |id| id.len());
        for group in &plan.groups {
            let name = render::printable(group.describe().as_bytes());
            std::io::Write::write_all(&mut out, format!("{name}\n").as_bytes())?;
            table(group, digits, zone, args.snapshots.is_empty()).write(&mut out)?;
            std::io::Write::write_all(&mut out, b"\n")?;
        }
    }
    Ok(std::io::Write::flush(&mut out)?)
}

fn table(group: &PlannedGroup, digits: usize, zone: &TimeZone, by_rules: bool) -> Table<'static> {
    let row = |one: &PlannedSnapshot| {
        let snapshot = &one.snapshot;
        let printable = |text: &String| render::printable(text.as_bytes());
        let id = snapshot.id.get(..digits).unwrap_or(&snapshot.id);
        let mut cells = vec![
            vec![if one.forget { "forget" } else { "keep" }.to_owned()],
            vec![id.to_owned()],
            vec![render::time(snapshot.time, zone)],
            vec![printable(&snapshot.host)],
            super::snapshots::tags(snapshot),
            vec![render::size(snapshot.statistics.bytes)],
        ];
        if by_rules {
            cells.push(vec![printable(&one.reasons.join(", "))]);
        }
        cells
    };
    // What goes by name goes for no reason, and the rest was not looked at.
    let shown = group.snapshots.iter().filter(|one| by_rules || one.forget);
    let columns: &[(&str, Side)] = &[
        ("", Side::Left),
        ("ID", Side::Left),
        ("Time", Side::Left),
        ("Host", Side::Left),
        ("Tags", Side::Left),
        ("Size", Side::Right),
        ("Why it stays", Side::Left),
    ];
    let forgotten = group.snapshots.iter().filter(|one| one.forget).count();
    let stay = (group.snapshots.len() - forgotten) as u64;
    Table {
        columns: if by_rules {
            columns
        } else {
            columns.split_last().map_or(columns, |(_, rest)| rest)
        },
        rows: shown.map(row).collect(),
        footer: format!(
            "{} to forget, {} to keep",
            render::count(forgotten as u64),
            render::count(stay)
        ),
    }
}

fn conclusion(plan: &ForgetPlan, report: &ForgetReport, args: &ForgetArgs) -> String {
    let count = |number: usize| render::counted(number as u64, "snapshot", "snapshots");
    if plan.groups.is_empty() {
        return "there is no snapshot to look at: none is there, or --host, --tag and --path leave \
                none"
            .to_owned();
    }
    let forgotten = count(report.forgotten.len());
    let kept = plan.kept() + report.pinned.len();
    match (args.dry_run, args.snapshots.is_empty()) {
        (true, _) => format!("{forgotten} would be forgotten; nothing was changed (dry run)"),
        (false, true) => format!("forgot {forgotten}, kept {}", render::count(kept as u64)),
        (false, false) => format!("forgot {forgotten}"),
    }
}
