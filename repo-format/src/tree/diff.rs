//! Comparing two trees at the cost of what differs between them.

use core::cmp::Ordering;

use super::build::Root;
use super::walk::{Head, NodeSource, Walker};
use crate::entry::Entry;

/// One difference between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "each is handled as it comes; none is kept in numbers"
)]
pub enum Change {
    /// Only the new tree has it.
    Added(Entry),
    /// Only the old tree has it.
    Removed(Entry),
    /// Both have the key, with different entries.
    Changed {
        /// The entry of the old tree.
        old: Entry,
        /// The entry of the new tree.
        new: Entry,
    },
}

/// Gives the differences between two trees in key order.
///
/// Nodes that both trees hold are passed over unread, wherever they stand. After an error it
/// gives nothing more.
#[derive(Debug, Clone)]
pub struct Diff<S> {
    source: S,
    old: Walker,
    new: Walker,
    failed: bool,
}

/// What to do about the heads of the two trees.
enum Step {
    SkipBoth,
    Open { old: bool, new: bool },
    Take { old: bool, new: bool },
}

impl<S: NodeSource> Diff<S> {
    /// Starts before the first difference; reads nothing yet.
    pub fn new(source: S, old: &Root, new: &Root) -> Self {
        Self {
            source,
            old: Walker::new(old),
            new: Walker::new(new),
            failed: false,
        }
    }

    /// Moves forward to the first difference whose key is `key` or after it; never moves back.
    ///
    /// Reads no node that lies wholly before `key`.
    pub fn skip_to(&mut self, key: &[u8]) -> Result<(), S::Error> {
        let old = self.old.seek((key, 0), &mut self.source);
        let sought = old.and_then(|()| self.new.seek((key, 0), &mut self.source));
        self.failed |= sought.is_err();
        sought
    }

    fn next_change(&mut self) -> Result<Option<Change>, S::Error> {
        loop {
            let step = match (self.old.head(), self.new.head()) {
                (None, None) => return Ok(None),
                (Some(old), Some(new)) => step(old, new),
                (Some(Head::Node { .. }), None) => Step::Open {
                    old: true,
                    new: false,
                },
                (None, Some(Head::Node { .. })) => Step::Open {
                    old: false,
                    new: true,
                },
                (Some(Head::Entry(_)), None) => Step::Take {
                    old: true,
                    new: false,
                },
                (None, Some(Head::Entry(_))) => Step::Take {
                    old: false,
                    new: true,
                },
            };
            match step {
                Step::SkipBoth => {
                    self.old.take_node();
                    self.new.take_node();
                }
                Step::Open { old, new } => {
                    if old {
                        self.old.open(&mut self.source)?;
                    }
                    if new {
                        self.new.open(&mut self.source)?;
                    }
                }
                Step::Take { old, new } => {
                    let old = old.then(|| self.old.take_entry()).flatten();
                    let new = new.then(|| self.new.take_entry()).flatten();
                    match (old, new) {
                        (Some(old), Some(new)) if old == new => {}
                        (Some(old), Some(new)) => return Ok(Some(Change::Changed { old, new })),
                        (Some(old), None) => return Ok(Some(Change::Removed(old))),
                        (None, Some(new)) => return Ok(Some(Change::Added(new))),
                        (None, None) => return Ok(None),
                    }
                }
            }
        }
    }
}

impl<S: NodeSource> Iterator for Diff<S> {
    type Item = Result<Change, S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_change();
        self.failed |= next.is_err();
        next.transpose()
    }
}

fn step(old: Head<'_>, new: Head<'_>) -> Step {
    let order = old.start().cmp(&new.start());
    match (old, new) {
        (Head::Entry(_), Head::Entry(_)) => Step::Take {
            old: order.is_le(),
            new: order.is_ge(),
        },
        // A node that starts at an entry's key may hold it.
        (Head::Node { .. }, Head::Entry(_)) if order.is_le() => Step::Open {
            old: true,
            new: false,
        },
        (Head::Node { .. }, Head::Entry(_)) => Step::Take {
            old: false,
            new: true,
        },
        (Head::Entry(_), Head::Node { .. }) if order.is_ge() => Step::Open {
            old: false,
            new: true,
        },
        (Head::Entry(_), Head::Node { .. }) => Step::Take {
            old: true,
            new: false,
        },
        (
            Head::Node {
                child: old,
                level: old_level,
                upper: old_upper,
            },
            Head::Node {
                child: new,
                level: new_level,
                upper: new_upper,
            },
        ) => {
            if old_level == new_level && old.id == new.id {
                return Step::SkipBoth;
            }
            let new_start = (new.separator_key.as_slice(), new.separator_ordinal);
            let old_start = (old.separator_key.as_slice(), old.separator_ordinal);
            let apart = old_upper.is_some_and(|upper| upper <= new_start)
                || new_upper.is_some_and(|upper| upper <= old_start);
            // Where two nodes overlap the higher is opened first: the lower may be equal to one
            // of its descendants, while the higher cannot be equal to anything still to come.
            let level = if apart {
                Ordering::Equal
            } else {
                old_level.cmp(&new_level)
            };
            match level.reverse().then(order) {
                Ordering::Less => Step::Open {
                    old: true,
                    new: false,
                },
                Ordering::Greater => Step::Open {
                    old: false,
                    new: true,
                },
                Ordering::Equal => Step::Open {
                    old: true,
                    new: true,
                },
            }
        }
    }
}
