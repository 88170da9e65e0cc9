//! Bringing back what lies in cold storage: its flags, its plan, and the wait for it.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use larder_engine::progress::Progress as _;
use larder_engine::repository::Repository;
use larder_engine::storage::bucket::Bucket;
use larder_engine::storage::bucket::thawing::Thawing;
use larder_engine::storage::thaw::{Thaw, Tier};
use larder_engine::thaw::{self, ColdPack, Need, Sum, ThawPlan};

use crate::context::Context;
use crate::output;
use crate::progress::Reporter;
use crate::render;

/// Days for which what is brought back can be read unless told otherwise.
const DAYS: u32 = 7;
/// How often it is planned and waited again, as others may have moved what is needed meanwhile.
const ROUNDS_MAX: usize = 5;

/// How what lies in cold storage is brought back.
#[derive(Debug, Clone, Default, Args)]
pub struct ThawArgs {
    /// Ask for what lies in cold storage, wait until it is there, and go on
    ///
    /// It can be interrupted and run again: what was asked for stays asked for, and is not asked for twice.
    #[arg(long, value_enum, value_name = "TIER", num_args = 0..=1, require_equals = true,
          default_missing_value = "bulk", help_heading = "Cold storage")]
    thaw: Option<TierArg>,
    /// Let what is brought back be readable for so many days [default: 7]
    ///
    /// Azure keeps it readable until it is moved again.
    #[arg(long, value_name = "N", requires = "thaw", help_heading = "Cold storage",
          value_parser = clap::value_parser!(u32).range(1..=365))]
    thaw_days: Option<u32>,
}

/// How fast it is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TierArg {
    /// Within half a day, or two from the deepest class; the cheapest
    Bulk,
    /// Within some hours
    Standard,
    /// Within minutes, where the storage can; the dearest
    Expedited,
}

impl ThawArgs {
    /// Gives how it is to be brought back, if it is.
    #[must_use]
    pub fn how(&self) -> Option<Thaw> {
        let tier = match self.thaw? {
            TierArg::Bulk => Tier::Bulk,
            TierArg::Standard => Tier::Standard,
            TierArg::Expedited => Tier::Expedited,
        };
        let days = self.thaw_days.unwrap_or(DAYS);
        Some(Thaw { tier, days })
    }

    /// Tells whether any of it was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.thaw.is_some() || self.thaw_days.is_some()
    }
}

/// Brings back what cannot be read of what is needed, and waits for it.
///
/// # Errors
/// What the engine answers.
pub fn bring_back(
    context: &Context,
    repository: &Arc<Repository>,
    how: &Thaw,
    reporter: &Reporter,
    needs: &dyn Fn() -> anyhow::Result<Vec<Need>>,
) -> anyhow::Result<()> {
    if !repository.storage().capabilities().thaws {
        reporter.warning(&format!(
            "{} keeps nothing in cold storage, so there is nothing to bring back",
            repository.location()
        ));
        return Ok(());
    }
    let cancel = context.cancel();
    for _ in 0..ROUNDS_MAX {
        let plan = thaw::plan(repository, &needs()?, &mut |_| Ok(()), reporter, cancel)?;
        if plan.is_readable() {
            break;
        }
        if context.json() {
            output::message(&mut std::io::stdout().lock(), "thawing", &plan)?;
        } else if context.talks() {
            reporter.above(&asking(&plan));
        }
        thaw::thaw(repository, plan, how, reporter, cancel)?;
    }
    Ok(())
}

fn asking(plan: &ThawPlan) -> String {
    let on_the_way = match plan.thawing.packs {
        0 => String::new(),
        _ => format!(", {} are on their way already", told(&plan.thawing)),
    };
    format!(
        "asking for {} in cold storage{on_the_way}; interrupted and run again, this goes on",
        told(&plan.cold)
    )
}

fn told(sum: &Sum) -> String {
    let packs = render::counted(sum.packs, "pack", "packs");
    format!("{packs} ({})", render::size(sum.bytes))
}

/// Says what has to be brought back before what is needed can be read; asks for nothing.
///
/// # Errors
/// What the engine answers.
pub fn tell_plan(
    context: &Context,
    repository: &Arc<Repository>,
    reporter: &Reporter,
    needs: &[Need],
) -> anyhow::Result<()> {
    let is_json = context.json();
    let mut each = |pack: &ColdPack| match is_json {
        true => {
            output::message(&mut std::io::stdout().lock(), "cold", pack).map_err(output::failed)
        }
        false => Ok(()),
    };
    let plan = thaw::plan(repository, needs, &mut each, reporter, context.cancel());
    reporter.finish();
    let plan = plan?;
    if is_json {
        output::summary(&plan)?;
    } else {
        output::line(&text(&plan, &TimeZone::system()))?;
    }
    Ok(())
}

/// Shows a plan.
fn text(plan: &ThawPlan, zone: &TimeZone) -> String {
    let mut text = format!(
        "to be read       {} in {}, {}\n",
        render::size(plan.read_bytes),
        render::counted(plan.read_requests, "request", "requests"),
        render::counted(plan.packs, "pack", "packs")
    );
    if !plan.thaws {
        text.push_str("the storage keeps nothing cold: all of it can be read now");
        return text;
    }
    let requests = render::counted(plan.cold.packs, "request asks", "requests ask");
    let cold = &plan.cold;
    text.push_str(&match cold.packs {
        0 => format!("in cold storage  {}\n", told(cold)),
        _ => format!("in cold storage  {}: {requests} for them\n", told(cold)),
    });
    text.push_str(&format!("on the way       {}\n", told(&plan.thawing)));
    let until = plan.thawed_until;
    let until = until.map_or_else(String::new, |until| {
        format!(", the first until {}", render::time(until, zone))
    });
    text.push_str(&format!("brought back     {}{until}\n", told(&plan.thawed)));
    text.push_str(match plan.is_readable() {
        true => "all of it can be read now",
        false => "--thaw in place of --plan asks for what is cold, waits, and restores",
    });
    text
}

/// Wraps a bucket that is backed up, so that what is cold of it is asked for; none where nothing can be cold.
#[must_use]
pub fn thawing(bucket: Arc<dyn Bucket>, how: &Thaw) -> Option<Arc<Thawing>> {
    bucket
        .thaws()
        .then(|| Arc::new(Thawing::new(Arc::clone(&bucket), *how)))
}

/// Waits until what a backup met of buckets in cold storage is there; false if it met nothing that was asked for.
///
/// # Errors
/// What the buckets answer, and when the wait is interrupted.
pub fn wait_for_buckets(
    context: &Context,
    buckets: &[Arc<Thawing>],
    how: &Thaw,
    reporter: &Reporter,
) -> anyhow::Result<bool> {
    let mut asked: Vec<_> = buckets.iter().map(|bucket| bucket.take()).collect();
    let objects: u64 = asked.iter().map(|asked| asked.objects).sum();
    let bytes: u64 = asked.iter().map(|asked| asked.bytes).sum();
    if objects == 0 {
        return Ok(false);
    }
    reporter.phase("waiting for cold objects", Some(objects), Some(bytes));
    if context.talks() {
        let objects = render::counted(objects, "object", "objects");
        let size = render::size(bytes);
        reporter.above(&format!(
            "{objects} ({size}) were asked for; once they are there, another snapshot is made that has them"
        ));
    }
    for pause in thaw::pauses(how.tier) {
        let mut is_on_its_way = false;
        for (bucket, asked) in buckets.iter().zip(&mut asked) {
            is_on_its_way |= bucket.is_on_its_way(asked)?;
        }
        if !is_on_its_way {
            break;
        }
        thaw::sleep(pause, context.cancel())?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_plan_is_told_with_the_way_out() {
        let sum = |packs| Sum {
            packs,
            bytes: packs << 20,
        };
        let mut plan = ThawPlan::default();
        (plan.thaws, plan.packs) = (true, 4);
        (plan.read_requests, plan.read_bytes) = (6, 3 << 20);
        (plan.cold, plan.thawing, plan.thawed) = (sum(2), sum(1), sum(1));
        plan.thawed_until = Some("2026-11-08T00:00:00Z".parse().unwrap());
        let expected = "\
to be read       3.000 MiB in 6 requests, 4 packs
in cold storage  2 packs (2.000 MiB): 2 requests ask for them
on the way       1 pack (1.000 MiB)
brought back     1 pack (1.000 MiB), the first until 2026-11-08 00:00:00
--thaw in place of --plan asks for what is cold, waits, and restores";
        assert_eq!(text(&plan, &TimeZone::UTC), expected);
        (plan.cold, plan.thawing, plan.thawed_until) = (sum(0), sum(0), None);
        let all = text(&plan, &TimeZone::UTC);
        assert!(all.ends_with("all of it can be read now"), "{all}");
        plan.thaws = false;
        assert!(text(&plan, &TimeZone::UTC).contains("keeps nothing cold"));
    }
}
