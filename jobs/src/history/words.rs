//! The words of the history: what is run, why, and how it came out.

use std::borrow::Cow;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// Makes an enum of words, which are the same in the database, in JSON and on the screen.
macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$inner])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Gives its word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                concat!("Past", stringify!($name)).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "enum": [$($word),+]})
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let word = value.as_str()?;
                let mut all = Self::ALL.iter().copied();
                let found = all.find(|one| one.word() == word);
                found.ok_or_else(|| FromSqlError::Other(format!("there is no '{word}'").into()))
            }
        }
    };
}

words! {
    /// What is run.
    Kind {
        /// The backup itself.
        Backup = "backup",
        /// Forgetting by the job's retention.
        Forget = "forget",
        /// Freeing space.
        Prune = "prune",
        /// Checking the repository.
        Check = "check",
    }
}

words! {
    /// Why something is run.
    Trigger {
        /// Its time came.
        Schedule = "schedule",
        /// Somebody asked for it.
        Manual = "manual",
        /// Its time was missed, or the run that was begun then died.
        CatchUp = "catch-up",
    }
}

words! {
    /// How a run came out.
    Outcome {
        /// All was done.
        Success = "success",
        /// It was done, but for sources or files that could not be read; or damage was found.
        Incomplete = "incomplete",
        /// It failed.
        Failure = "failure",
        /// A signal ended it.
        Interrupted = "interrupted",
        /// Its time limit ended it.
        TimeLimit = "time-limit",
        /// The process, or the machine, died.
        Died = "died",
        /// It was not run at all.
        Missed = "missed",
    }
}
