//! Jobs: what is due, what was run, and never two runs of one job at a time.
//!
//! [`schedule`] and [`cron`] decide: pure functions of a schedule, of what was run, and of now.
//! [`history`] and [`lock`] are the files that the answer depends on. What a run does is not known
//! here: a job has a name and kinds of runs, and that is all.

pub mod cron;
pub mod history;
pub mod lock;
pub mod schedule;
