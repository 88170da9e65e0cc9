//! A walk in a thread of its own, ahead of who asks.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};

use super::walk::{Step, Walk};

/// Steps that change threads together: waking the other thread for each one costs more than the step.
const BATCH_STEPS: usize = 32;

impl Walk {
    /// Goes on in a thread of its own, up to `steps_max` steps ahead of who asks.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn ahead(self, steps_max: usize) -> io::Result<WalkAhead> {
        let (sender, receiver) = bounded(steps_max.div_ceil(BATCH_STEPS));
        let thread = std::thread::Builder::new()
            .name("walk".into())
            .spawn(move || {
                let mut steps = self;
                loop {
                    let batch: Vec<Step> = steps.by_ref().take(BATCH_STEPS).collect();
                    if batch.is_empty() || sender.send(batch).is_err() {
                        break;
                    }
                }
            })?;
        Ok(WalkAhead {
            receiver: Some(receiver),
            batch: Vec::new().into_iter(),
            thread: Some(thread),
        })
    }
}

/// A walk that goes on in a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct WalkAhead {
    receiver: Option<Receiver<Vec<Step>>>,
    batch: std::vec::IntoIter<Step>,
    thread: Option<JoinHandle<()>>,
}

impl Iterator for WalkAhead {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.batch.len() == 0 {
            self.batch = self.receiver.as_ref()?.recv().ok()?.into_iter();
        }
        self.batch.next()
    }
}

impl Drop for WalkAhead {
    fn drop(&mut self) {
        // The thread notices at its next step that nobody listens.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
