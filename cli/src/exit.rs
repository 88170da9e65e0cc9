//! Exit codes: what a script learns from a run.

use larder_engine::error::EngineError;
use larder_jobs::lock::LockError;

/// What the process answers when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All was done.
    Success = 0,
    /// The command failed, or was not understood.
    Failure = 1,
    /// A snapshot was made, or is shown, but some source files could not be read; or all was restored
    /// that the snapshot has and whose name the target can have.
    SourceUnreadable = 3,
    /// Damage was met that costs data, or may.
    DataLost = 4,
    /// Damage was met that costs none.
    DamageHarmless = 5,
    /// A newest snapshot is older than it may be.
    Stale = 6,
    /// There is no repository at the location.
    NoRepository = 10,
    /// The job is being run already.
    Busy = 11,
    /// The password or key opens no slot.
    WrongSecret = 12,
    /// SIGINT or SIGTERM ended the command.
    Interrupted = 130,
}

/// The codes as `larder --help` explains them.
pub const HELP: &str = "\
Exit codes:
    0  all was done
    1  the command failed, or was not understood
    3  backup: a snapshot was made, but some sources or files could not be read;
       ls, dump: the snapshot lacks what was asked for, since it could not be read then;
       restore: the same, or some names cannot be had in the target; all else was restored
    4  check, scrub, repair, restore: damage that costs data, or may
    5  check, scrub, repair: damage that costs no data, or that --apply would mend
    6  status: a newest snapshot is older than --max-age
   10  there is no repository at the location
   11  job run: the job is being run already
   12  wrong password or key
  130  interrupted";

impl Exit {
    /// Gives the number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Chooses the code for a failure.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        let engine = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<EngineError>());
        match engine {
            Some(EngineError::NoRepository { .. }) => Self::NoRepository,
            Some(EngineError::WrongSecret { .. }) => Self::WrongSecret,
            Some(EngineError::Interrupted) => Self::Interrupted,
            Some(EngineError::Unread { .. }) => Self::SourceUnreadable,
            _ if is_of_running_job(error) => Self::Busy,
            _ => Self::Failure,
        }
    }
}

fn is_of_running_job(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| matches!(cause.downcast_ref(), Some(LockError::Running { .. })))
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    fn code(error: EngineError) -> u8 {
        let wrapped = Err::<(), _>(error).context("while trying");
        wrapped.map_or_else(|error| Exit::of(&error).code(), |()| 0)
    }

    #[test]
    fn each_failure_has_the_code_that_the_help_names() {
        let location = || "/srv/backup".to_owned();
        assert_eq!(
            code(EngineError::NoRepository {
                location: location()
            }),
            10
        );
        let wrong = EngineError::WrongSecret {
            location: location(),
            slots: 2,
        };
        assert_eq!(code(wrong), 12);
        assert_eq!(code(EngineError::Interrupted), 130);
        let path = "/f".to_owned();
        assert_eq!(code(EngineError::Unread { path }), 3);
        assert_eq!(
            code(EngineError::RepositoryExists {
                location: location()
            }),
            1
        );
        assert_eq!(code(EngineError::Request("no".into())), 1);
        assert_eq!(Exit::of(&anyhow::anyhow!("anything else")), Exit::Failure);
        let running = LockError::Running {
            job: "nightly".to_owned(),
            process: None,
        };
        assert_eq!(Exit::of(&running.into()), Exit::Busy);
    }

    #[test]
    fn the_help_lists_every_code() {
        let listed: Vec<u8> = HELP
            .lines()
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        let all = [
            Exit::Success,
            Exit::Failure,
            Exit::SourceUnreadable,
            Exit::DataLost,
            Exit::DamageHarmless,
            Exit::Stale,
            Exit::NoRepository,
            Exit::Busy,
            Exit::WrongSecret,
            Exit::Interrupted,
        ];
        assert_eq!(listed, all.map(Exit::code));
    }
}
