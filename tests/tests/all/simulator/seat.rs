//! The storage as one simulated process sees it.

use std::sync::Arc;

use bytes::Bytes;
use larder_engine::storage::error::{ErrorKind, Operation, Result, StorageError};
use larder_engine::storage::{Capabilities, CreateExclusive, ObjectInfo, Storage};

use super::stage::{Fate, Request, Stage};

/// The storage as one process sees it.
pub struct Seat {
    /// The storage.
    pub stage: Arc<Stage>,
    /// The process.
    pub who: usize,
}

impl Seat {
    fn error(
        &self,
        operation: Operation,
        name: &str,
        kind: ErrorKind,
        cause: &str,
    ) -> StorageError {
        StorageError::new(operation, "the stage", name, kind, cause)
    }

    fn fault(&self, operation: Operation, name: &str, fate: Fate) -> StorageError {
        let kind = match fate {
            Fate::Dead | Fate::DeadAfter => ErrorKind::Permanent,
            _ => ErrorKind::Transient,
        };
        self.error(operation, name, kind, fate.word())
    }

    fn read(&self, operation: Operation, name: &str) -> Result<Bytes> {
        let (state, fate) = self.stage.call(self.who, operation, name);
        if fate != Fate::Done {
            return Err(self.fault(operation, name, fate));
        }
        let found = state.objects.get(name).cloned();
        found.ok_or_else(|| self.error(operation, name, ErrorKind::NotFound, "it is not there"))
    }

    fn write(&self, operation: Operation, name: &str, what: Request) -> Result<()> {
        let (mut state, fate) = self.stage.call(self.who, operation, name);
        match fate {
            Fate::Failed | Fate::Dead | Fate::Cut => {
                return Err(self.fault(operation, name, fate));
            }
            Fate::Late => {
                state.send_later(name, what);
                return Err(self.fault(operation, name, fate));
            }
            Fate::Again => state.send_later(name, what.clone()),
            Fate::Done | Fate::Unanswered | Fate::DeadAfter => {}
        }
        let is_done = state.carry_out(name, what);
        if matches!(fate, Fate::Unanswered | Fate::DeadAfter) {
            return Err(self.fault(operation, name, fate));
        }
        if is_done {
            return Ok(());
        }
        Err(self.error(operation, name, ErrorKind::AlreadyExists, "it is there"))
    }
}

impl Storage for Seat {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let bytes = self.read(Operation::Get, name)?;
        if bytes.len() as u64 > max_bytes {
            return Err(self.error(Operation::Get, name, ErrorKind::Oversized, "it is too long"));
        }
        Ok(bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let bytes = self.read(Operation::GetRange, name)?;
        let (start, length) = (offset_bytes as usize, length_bytes as usize);
        if start + length > bytes.len() {
            let kind = ErrorKind::Truncated;
            return Err(self.error(Operation::GetRange, name, kind, "it is too short"));
        }
        Ok(bytes.slice(start..start + length))
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.write(Operation::Put, name, Request::Put(bytes))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.write(Operation::Create, name, Request::Create(bytes))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.write(Operation::Delete, name, Request::Delete)
    }

    /// Lists what is there throughout, and some of what comes or goes meanwhile, in any order.
    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let operation = Operation::List;
        let folder = folder.trim_end_matches('/');
        let (mut state, fate) = self.stage.call(self.who, operation, folder);
        if !matches!(fate, Fate::Done | Fate::Cut) {
            return Err(self.fault(operation, folder, fate));
        }
        let first = state.names(folder);
        let mut waiting = first.clone();
        state.chance.shuffle(&mut waiting);
        let page = state.habits.page as usize;
        let mut left = match fate {
            Fate::Cut => Some(state.chance.below(first.len() as u64 + 1)),
            _ => None,
        };
        let mut seen_late = Vec::new();
        while !waiting.is_empty() {
            let mut batch = Vec::new();
            for name in waiting.drain(..page.min(waiting.len())) {
                // What went away meanwhile may have been seen before.
                let size = state.objects.get(&name).map(Bytes::len);
                if size.is_some() || (!seen_late.contains(&name) && state.chance.hits(5000)) {
                    let size_bytes = size.unwrap_or(1) as u64;
                    batch.push(ObjectInfo { name, size_bytes });
                }
            }
            drop(state);
            for object in batch {
                match &mut left {
                    Some(0) => return Err(self.fault(operation, folder, Fate::Cut)),
                    Some(left) => *left -= 1,
                    None => {}
                }
                visit(object)?;
            }
            let fate;
            (state, fate) = self.stage.call(self.who, operation, folder);
            if !matches!(fate, Fate::Done | Fate::Cut) {
                return Err(self.fault(operation, folder, fate));
            }
            if waiting.is_empty() {
                for name in state.names(folder) {
                    let is_new = !first.contains(&name) && !seen_late.contains(&name);
                    if is_new && state.chance.hits(5000) {
                        seen_late.push(name.clone());
                        waiting.push(name);
                    }
                }
            }
        }
        if left.is_some() {
            return Err(self.fault(operation, folder, Fate::Cut));
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<u64> {
        Ok(self.read(Operation::Size, name)?.len() as u64)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            create_exclusive: CreateExclusive::Native,
            sorted_listing: false,
            atomic_put: true,
            object_bytes_max: None,
            thaws: false,
        }
    }

    fn describe(&self) -> String {
        "the stage".to_owned()
    }
}
