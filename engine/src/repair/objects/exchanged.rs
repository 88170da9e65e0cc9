//! Records that are whole and another's: somebody exchanged them, which only the keys tell.

use larder_format::cell::Cell;
use larder_format::collector::{Round, State};
use larder_format::names::Name;
use larder_format::session::{Amendment, Session, SessionEnd};

use super::super::overlay::Overlay;
use super::{BATCH, Objects};
use crate::at_once;
use crate::check::{Outcome, Problem, attempt};
use crate::error::Result;
use crate::repository::Repository;
use crate::view::read_record;

impl Objects {
    /// Notes the records that verify and do not open, and takes those of the collector that the other copy has.
    pub(super) fn find_exchanged(
        &mut self,
        repository: &Repository,
        overlay: &Overlay,
    ) -> Result<()> {
        for names in self.records()?.chunks(BATCH) {
            let calls = overlay.base.calls_at_once();
            let opened = at_once::map(calls, names, |name| try_open(repository, name));
            for (name, outcome) in names.iter().zip(opened) {
                let Err(Problem::Damaged(why)) = outcome? else {
                    continue;
                };
                self.damaged.insert(*name, why);
                let is_of_collector = matches!(name, Name::State(_) | Name::Round(_));
                if is_of_collector
                    && self.take(overlay, name)?
                    && try_open(repository, name)?.is_err()
                {
                    self.leave(overlay, name);
                }
            }
        }
        Ok(())
    }

    /// Gives the records that verify; of the collector's those that count.
    fn records(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        let mut newest = 0;
        self.listed.each(&mut |name, _| {
            let is_meant = match name {
                Name::State(number) => {
                    newest = newest.max(number);
                    true
                }
                Name::Round(_)
                | Name::Cell(_)
                | Name::Amendment(..)
                | Name::Session(_)
                | Name::SessionEnd(_) => true,
                _ => false,
            };
            names.extend((is_meant && !self.damaged.contains_key(&name)).then_some(name));
            Ok(())
        })?;
        names.retain(|name| match name {
            Name::State(number) => *number == newest,
            Name::Round(number) => *number > newest,
            _ => true,
        });
        Ok(names)
    }
}

/// Opens a record with the keys of the repository.
fn try_open(repository: &Repository, name: &Name) -> Result<Outcome<()>> {
    attempt(|| match name {
        Name::Cell(_) => read_record::<Cell>(repository, name).map(drop),
        Name::Session(_) => read_record::<Session>(repository, name).map(drop),
        Name::SessionEnd(_) => read_record::<SessionEnd>(repository, name).map(drop),
        Name::Round(_) => read_record::<Round>(repository, name).map(drop),
        Name::State(_) => read_record::<State>(repository, name).map(drop),
        _ => read_record::<Amendment>(repository, name).map(drop),
    })
}
