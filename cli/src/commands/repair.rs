//! `larder repair`.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use larder_engine::check::Healing;
use larder_engine::format::names;
use larder_engine::repair::{
    Lost, LostPart, PastRepair, Repair, RepairOptions, RepairReport, UndoReport, past_repairs, undo,
};
use larder_engine::repository::{OpenOptions, default_cache_dir, open_storage};

use super::check;
use crate::args::parse_setting;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::{password, person, render};

/// Losses that are shown unless `-v` is given.
const LOSSES_SHOWN: usize = 20;

/// Mend a damaged repository
///
/// Says what it would do; --apply does it. With --from, what is damaged or missing here and sound in
/// another copy of the same repository (a mirror, or a copy of its folder) is put in its place, byte for
/// byte. What snapshots need and only damaged packs or packs without an index hold is read from what still
/// opens of them and put in anew. What stays lost is named, with the bytes of each file.
///
/// All records are verified, and the packs that are missing, have a wrong size or are known to be
/// damaged since `larder check --read-data`; --read-data reads all packs here. Nothing is deleted: what is replaced
/// moves to quarantine/, and --undo puts it back. What the sources still have comes back with the next backup.
///
/// Where a part of a snapshot's tree is in no copy any more, restores pass over it and no prune goes on, as what was in it
/// is not known. --cut-lost gives it up: each such snapshot is replaced by one with all that can still be reached, which
/// says what it lacks, and is forgotten. Until the next prune `larder undelete` has it back, should what is lost turn up.
///
/// Examples: larder repair --from sftp://me@nas/srv/mirror
///           larder repair --from sftp://me@nas/srv/mirror --apply
///           larder repair --undo 3fa9c1de52b07c4488a1f0d2c9b6e7aa
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RepairArgs {
    /// Another copy of the repository: a path, a URL, or a location of larder.toml by its name
    #[arg(long, value_name = "LOCATION")]
    from: Option<String>,
    /// Set one thing about how the other copy's storage is reached; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting, requires = "from")]
    from_option: Vec<(String, String)>,
    /// Read every byte of every pack to find what is damaged
    #[arg(long)]
    read_data: bool,
    /// Do it; without this nothing is written
    #[arg(long)]
    apply: bool,
    /// Give up lost parts of trees: snapshots that lack some are replaced by what is left of them
    #[arg(long)]
    cut_lost: bool,
    /// Put back what the repair with this id replaced
    #[arg(long, value_name = "ID", conflicts_with_all = ["from", "read_data", "apply", "cut_lost", "list"])]
    undo: Option<String>,
    /// With --undo, say what it would change, and change nothing
    #[arg(short = 'n', long, requires = "undo")]
    dry_run: bool,
    /// List the repairs that can be undone
    #[arg(long, conflicts_with_all = ["from", "read_data", "apply", "cut_lost"])]
    list: bool,
}

/// Repairs a repository, or undoes that.
///
/// # Errors
/// What the engine answers; what stays lost is in the exit code.
pub fn run(context: &Context, args: &RepairArgs) -> anyhow::Result<Exit> {
    if let Some(id) = &args.undo {
        return run_undo(context, id, args.dry_run);
    }
    if args.list {
        return run_list(context);
    }
    let stop = context.interrupt.flag();
    let storage = open_storage(&context.place()?, Arc::clone(&stop))?;
    let from = match &args.from {
        None => None,
        Some(named) => {
            let place = context.second_place(named, &args.from_option)?;
            if place.place == context.place()?.place {
                bail!(
                    "{} is the repository itself; --from is another copy of it, such as a mirror",
                    place.place
                );
            }
            let from = open_storage(&place, stop);
            Some(from.with_context(|| format!("{} is needed to repair from", place.place))?)
        }
    };
    let options = RepairOptions {
        apply: args.apply,
        read_data: args.read_data,
        cuts_lost: args.cut_lost,
        author: person::author(context)?,
    };
    let scratch = context.cache_dir().unwrap_or_else(default_cache_dir);
    // What a repair shows of a repository is not what this machine is to remember of it.
    let open = OpenOptions {
        state_dir: None,
        ..context.open_options()
    };
    let reporter = context.reporter();
    let cancel = context.cancel();
    let repaired = (|| -> anyhow::Result<RepairReport> {
        let repair = Repair::prepare(
            &storage,
            from.as_ref(),
            &scratch,
            &options,
            &reporter,
            cancel,
        )?;
        reporter.finish();
        let repository = password::open(&repair.storage(), context.secret_source()?, &open)?;
        Ok(repair.run(&repository, &open)?)
    })();
    reporter.finish();
    let report = repaired?;
    tell(context, &report)?;
    Ok(exit(&report))
}

fn exit(report: &RepairReport) -> Exit {
    match () {
        () if report.has_loss() => Exit::DataLost,
        () if report.leaves_damage() || (report.dry_run && report.has_work()) => {
            Exit::DamageHarmless
        }
        () => Exit::Success,
    }
}

fn tell(context: &Context, report: &RepairReport) -> anyhow::Result<()> {
    if context.json() {
        let mut out = Output::new();
        for mended in &report.mended {
            output::message(&mut out, "mended", mended)?;
        }
        for finding in &report.findings {
            output::message(&mut out, "finding", finding)?;
        }
        for lost in &report.losses {
            output::message(&mut out, "lost", lost)?;
        }
        for cut in &report.cuts {
            output::message(&mut out, "cut", cut)?;
        }
        std::io::Write::flush(&mut out)?;
        return output::summary(report);
    }
    let all = context.globals.verbose > 0;
    let found = details(report, all);
    if !found.is_empty() && (context.talks() || report.dry_run || report.has_loss()) {
        output::line(found.trim_end())?;
    }
    if context.talks() || report.dry_run {
        output::line(&summary(report))?;
    }
    Ok(())
}

/// Says object by object what is mended, and what is not.
fn details(report: &RepairReport, all: bool) -> String {
    let mut text = String::new();
    if !report.mended.is_empty() {
        let what = match report.dry_run {
            true => "would be put back",
            false => "put back",
        };
        let _ = writeln!(
            text,
            "{what} ({}):",
            render::count(report.mended.len() as u64)
        );
        for mended in &report.mended {
            let from = match mended.from {
                Healing::Parity => "rebuilt from parity",
                Healing::Directory => "made anew from its packs",
                Healing::Twin => "from its twin",
                Healing::Anew if mended.object.starts_with(names::PARITY) => {
                    "put aside, not all of its packs being sound; `larder parity build` protects them anew"
                }
                Healing::Anew => "put aside: nothing should be there",
                _ => "from the other copy",
            };
            let _ = writeln!(text, "  {}: {} ({from})", mended.object, mended.problem);
        }
    }
    text.push_str(&check::findings(&report.findings, all));
    if report.lost > 0 {
        let _ = writeln!(text, "lost ({}):", render::count(report.lost));
        let shown = if all { usize::MAX } else { LOSSES_SHOWN };
        for lost in report.losses.iter().take(shown) {
            let _ = writeln!(text, "  {}", loss(lost));
        }
        let more = report
            .lost
            .saturating_sub(report.losses.len().min(shown) as u64);
        if more > 0 {
            let _ = writeln!(text, "  and {} more", render::count(more));
        }
    }
    for cut in &report.cuts {
        let lacks = render::counted(cut.entries_lost, "entry", "entries");
        let (from, new) = (short(&cut.from), short(&cut.snapshot));
        let _ = writeln!(
            text,
            "{new} has what is left of {from}, which lost {lacks} and is forgotten"
        );
    }
    text
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Says what is lost of a path.
fn loss(lost: &Lost) -> String {
    let id = short(&lost.snapshot);
    match lost.part {
        LostPart::Content => {
            let ranges: Vec<String> = lost
                .ranges
                .iter()
                .map(|(offset, length)| format!("{offset}..{}", offset.saturating_add(*length)))
                .collect();
            format!("{id}:{}: bytes {}", lost.path, ranges.join(", "))
        }
        LostPart::Attributes => format!("{id}:{}: extended attributes", lost.path),
        LostPart::Entries => match &lost.until {
            Some(until) => format!("{id}: what was from {} to before {until}", lost.path),
            None => format!("{id}: what was from {} on", lost.path),
        },
    }
}

fn summary(report: &RepairReport) -> String {
    if !report.has_work() && report.left == 0 && report.lost == 0 {
        return format!(
            "nothing is to be repaired, as far as was looked, in {}",
            render::duration(report.seconds)
        );
    }
    let objects = format!(
        "{} ({})",
        render::counted(report.objects, "object", "objects"),
        render::size(report.bytes)
    );
    let chunks = format!(
        "{} ({})",
        render::counted(report.chunks, "chunk", "chunks"),
        render::size(report.chunk_bytes)
    );
    if report.dry_run {
        let mut text = format!("would put {objects} back and save {chunks} from what opens");
        text.push_str(match report.has_work() {
            true => "; nothing was changed: --apply does it",
            false => "; there is nothing more to be done",
        });
        text.push_str(&torn(report));
        return text;
    }
    let mut text = format!(
        "put {objects} back and saved {chunks} from what opens, in {}",
        render::duration(report.seconds)
    );
    if let Some(id) = &report.repair {
        let _ = write!(text, "\n`larder repair --undo {id}` takes that back");
    }
    if let Some(why) = &report.not_recorded {
        let _ = write!(
            text,
            "\nthe damaged packs could not be made known to other machines: {why}; run `larder check --read-data` later"
        );
    }
    if report.lost > 0 {
        text.push_str("\nwhat is lost, the next backup brings back where its source still has it");
    }
    text.push_str(&torn(report));
    text
}

/// Says what is to be done about snapshots of whose trees parts are lost.
fn torn(report: &RepairReport) -> String {
    if report.torn == 0 {
        return String::new();
    }
    format!(
        "\n{} lost parts of their trees, and no prune goes on meanwhile; put these back from a copy of the storage, or `larder repair --cut-lost --apply` replaces the snapshots by what is left of them",
        render::counted(report.torn, "snapshot", "snapshots")
    )
}

fn run_undo(context: &Context, id: &str, dry_run: bool) -> anyhow::Result<Exit> {
    let storage = open_storage(&context.place()?, context.interrupt.flag())?;
    let author = person::author(context)?;
    let reporter = context.reporter();
    let undone = undo(
        storage.as_ref(),
        id,
        &author,
        dry_run,
        &reporter,
        context.cancel(),
    );
    reporter.finish();
    let report = undone?;
    if context.json() {
        output::json(&report)?;
    } else if context.talks() || dry_run {
        output::line(&undone_text(&report))?;
    }
    Ok(Exit::Success)
}

fn undone_text(report: &UndoReport) -> String {
    match (report.objects, &report.repair) {
        (0, None) => "nothing is as that repair left it, so nothing would be changed".to_owned(),
        (0, Some(_)) => "nothing is as that repair left it, so nothing was changed".to_owned(),
        (objects, None) => format!(
            "{} as before that repair; nothing was changed",
            render::counted(objects, "object would be", "objects would be")
        ),
        (objects, Some(id)) => format!(
            "{} as before that repair; `larder repair --undo {id}` takes this back",
            render::counted(objects, "object is", "objects are"),
        ),
    }
}

fn run_list(context: &Context) -> anyhow::Result<Exit> {
    let storage = open_storage(&context.place()?, context.interrupt.flag())?;
    let repairs = past_repairs(storage.as_ref(), &context.reporter())?;
    if context.json() {
        output::json(&repairs)?;
        return Ok(Exit::Success);
    }
    for repair in &repairs {
        output::line(&past(repair))?;
    }
    if repairs.is_empty() && context.talks() {
        output::line("no repair left anything in quarantine")?;
    }
    Ok(Exit::Success)
}

fn past(repair: &PastRepair) -> String {
    let time = jiff::Timestamp::from_second(repair.time).map_or_else(
        |_| "an unknown time".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    );
    format!(
        "{}  {time}  {}  {}",
        repair.repair,
        repair.host,
        render::counted(repair.objects.len() as u64, "object", "objects")
    )
}

#[cfg(test)]
mod tests {
    use larder_engine::check::{Finding, Severity};

    use super::*;

    #[test]
    fn the_summary_says_what_is_to_be_done_next() {
        let mut report = RepairReport {
            dry_run: true,
            ..RepairReport::default()
        };
        assert!(summary(&report).starts_with("nothing is to be repaired"));
        assert!(matches!(exit(&report), Exit::Success));
        report.objects = 2;
        assert!(summary(&report).ends_with("--apply does it"));
        assert!(matches!(exit(&report), Exit::DamageHarmless));
        report.dry_run = false;
        report.repair = Some("ab".to_owned());
        assert!(summary(&report).ends_with("`larder repair --undo ab` takes that back"));
        assert!(matches!(exit(&report), Exit::Success));
        report.findings.push(Finding {
            severity: Severity::Harmless,
            object: "index/ab".to_owned(),
            problem: "it is missing".to_owned(),
            snapshots: Vec::new(),
            paths: Vec::new(),
        });
        assert!(matches!(exit(&report), Exit::DamageHarmless));
        report.lost = 1;
        assert!(matches!(exit(&report), Exit::DataLost));
    }

    #[test]
    fn what_is_lost_is_named_with_its_bytes() {
        let mut lost = Lost {
            snapshot: "0123456789".to_owned(),
            path: "/a/b".to_owned(),
            part: LostPart::Content,
            ranges: vec![(0, 10), (20, 5)],
            until: None,
        };
        assert_eq!(loss(&lost), "01234567:/a/b: bytes 0..10, 20..25");
        lost.part = LostPart::Entries;
        assert_eq!(loss(&lost), "01234567: what was from /a/b on");
        lost.until = Some("/a/c".to_owned());
        assert_eq!(loss(&lost), "01234567: what was from /a/b to before /a/c");
    }
}
