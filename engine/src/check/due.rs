//! Which packs a check with a budget reads: those verified longest ago, as many as it allows.

use std::time::Duration;

use larder_format::ids::ObjectId;
use larder_format::object::Kind;

/// What reading packs may cost; each part that is there binds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// Packs that were verified within this time are left out.
    pub max_age: Option<Duration>,
    /// Bytes of packs that are read, but for the first pack.
    pub max_bytes: Option<u64>,
    /// Time after which no further pack is begun, but for the first one.
    pub max_duration: Option<Duration>,
}

/// A pack that may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub id: ObjectId,
    pub kind: Kind,
    pub size: u64,
    /// When it was verified last, in seconds since 1970.
    pub verified: Option<i64>,
}

/// Chooses what is read, and in which order: never verified before longest ago; pure.
pub(super) fn choose(mut candidates: Vec<Candidate>, due: &Due, now: i64) -> Vec<Candidate> {
    if let Some(max_age) = due.max_age {
        let seconds = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
        let since = now.saturating_sub(seconds);
        candidates.retain(|one| one.verified.is_none_or(|time| time < since));
    }
    candidates.sort_unstable_by_key(|one| (one.verified, one.id));
    if let Some(max_bytes) = due.max_bytes {
        let mut sum = 0_u64;
        let fits = candidates.iter().take_while(|one| {
            sum = sum.saturating_add(one.size);
            sum <= max_bytes
        });
        // A budget below one pack still goes through all of them in time.
        let count = fits.count().max(1);
        candidates.truncate(count);
    }
    candidates
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (any::<u8>(), 1_u64..100, prop::option::of(0_i64..50));
        prop::collection::vec(one, 0..40).prop_map(|all| {
            let all = all.into_iter().zip(0..);
            all.map(|((byte, size, verified), number)| {
                let mut id = [byte; 32];
                id[31] = number;
                Candidate {
                    id: ObjectId(id),
                    kind: Kind::DataPack,
                    size,
                    verified,
                }
            })
            .collect()
        })
    }

    proptest! {
        #[test]
        fn the_oldest_are_chosen_within_the_budget(
            all in candidates(),
            max_age in prop::option::of(0_u64..60),
            max_bytes in prop::option::of(0_u64..800),
        ) {
            let due = Due {
                max_age: max_age.map(Duration::from_secs),
                max_bytes,
                max_duration: None,
            };
            let now = 50;
            let chosen = choose(all.clone(), &due, now);
            let age = |one: &Candidate| one.verified.map_or(i64::MAX, |time| now - time);
            let is_due = |one: &&Candidate| max_age.is_none_or(|max| age(one) > max as i64);
            let left: Vec<_> = all.iter().filter(|one| !chosen.contains(one)).collect();
            prop_assert!(chosen.iter().all(|one| is_due(&one)));
            prop_assert!(chosen.is_sorted_by(|a, b| age(a) >= age(b)));
            for one in left.iter().copied().filter(is_due) {
                prop_assert!(chosen.iter().all(|other| age(other) >= age(one)));
            }
            let bytes: u64 = chosen.iter().map(|one| one.size).sum();
            prop_assert!(chosen.len() <= 1 || bytes <= max_bytes.unwrap_or(u64::MAX));
            // Nothing more fits: the next one in age is too much.
            let next = left.iter().copied().filter(is_due).min_by_key(|one| (one.verified, one.id));
            if let Some(next) = next {
                prop_assert!(bytes + next.size > max_bytes.unwrap_or(u64::MAX));
            }
            prop_assert_eq!(chosen.is_empty(), !all.iter().any(|one| is_due(&one)));
        }
    }
}
