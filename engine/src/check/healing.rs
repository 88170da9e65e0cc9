//! Where what was found damaged can be had again.

use larder_format::names::{self, Name};
use serde::Serialize;

use super::{Finding, Severity};

/// Where something damaged can be had again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Healing {
    /// From its twin, or as the twin of something that is whole: by `larder repair`.
    Twin,
    /// From the other copy of a directory: segments and packs say the same of what packs hold.
    Directory,
    /// From another copy of the object: a mirror, or another copy of the storage.
    Copy,
    /// From parity: by `larder repair`.
    Parity,
    /// From the living source, as far as it still has it: by backing it up again.
    Source,
    /// Nothing is kept in it: the next prune or check makes a new one.
    Anew,
}

/// Tells from where what a finding is about can be had again, the nearest first; pure.
///
/// `by_itself` tells that the check found enough parity for it, or its twin. Whether a copy or the source still has it, only looking there can tell.
#[must_use]
pub fn healing(finding: &Finding, by_itself: bool) -> Vec<Healing> {
    use Healing::{Anew, Copy, Directory, Source};
    if finding.severity == Severity::Note {
        return Vec::new();
    }
    let is_loss = finding.severity == Severity::Loss;
    let mut places = match names::parse(&finding.object) {
        Some(Name::Pack(_)) if is_loss => vec![Source, Copy],
        // All its chunks can be read, or nothing needs it.
        Some(Name::Pack(_)) | Some(Name::Segment(_)) => vec![Directory, Copy],
        // The cell is there, and what its tree says is wrong.
        Some(Name::Cell(_)) if !finding.paths.is_empty() => vec![Source],
        Some(Name::Reserve | Name::Ledger(_) | Name::Run(_) | Name::RunEnd(_)) => vec![Anew],
        // From its packs.
        Some(Name::Parity(_)) => vec![Anew, Copy],
        Some(_) => vec![Copy],
        None if finding.object == names::SEGMENTS => vec![Source, Copy],
        None => vec![Copy],
    };
    if by_itself {
        let from = match names::parse(&finding.object) {
            Some(Name::Pack(_)) => Healing::Parity,
            _ => Healing::Twin,
        };
        places.insert(0, from);
    }
    places
}

#[cfg(test)]
mod tests {
    use larder_format::ids::{LedgerId, ObjectId, SessionId};

    use super::*;

    #[test]
    fn each_kind_of_damage_can_be_had_again_from_somewhere_else() {
        let of = |severity, object: String, paths: &[&str]| {
            healing(
                &Finding {
                    severity,
                    object,
                    problem: String::new(),
                    snapshots: Vec::new(),
                    paths: paths.iter().map(|path| (*path).to_owned()).collect(),
                },
                false,
            )
        };
        let (loss, harmless) = (Severity::Loss, Severity::Harmless);
        let id = ObjectId([7; 32]);
        let cell = names::cell(&SessionId([1; 24]));
        use Healing::{Anew, Copy, Directory, Source};
        assert_eq!(of(loss, names::pack(&id), &["/a"]), [Source, Copy]);
        assert_eq!(of(harmless, names::pack(&id), &[]), [Directory, Copy]);
        assert_eq!(of(harmless, names::segment(&id), &[]), [Directory, Copy]);
        assert_eq!(
            of(loss, names::SEGMENTS.to_owned(), &["/a"]),
            [Source, Copy]
        );
        assert_eq!(of(loss, cell.clone(), &[]), [Copy]);
        assert_eq!(of(loss, cell, &["/a"]), [Source]);
        assert_eq!(of(loss, names::config(1), &[]), [Copy]);
        assert_eq!(
            of(harmless, names::ledger(&LedgerId::default()), &[]),
            [Anew]
        );
        assert_eq!(of(Severity::Note, names::pack(&id), &[]), []);
        let by_itself = |object: String| {
            let finding = Finding {
                severity: harmless,
                object,
                problem: String::new(),
                snapshots: Vec::new(),
                paths: Vec::new(),
            };
            healing(&finding, true)
        };
        assert_eq!(by_itself(names::config(1)), [Healing::Twin, Copy]);
        let pack = [Healing::Parity, Directory, Copy];
        assert_eq!(by_itself(names::pack(&id)), pack);
    }
}
