//! Progress: what a long operation tells while it runs.

/// Receives what a long operation has done so far; called from several threads.
///
/// Every method has an empty default, so that a caller takes what it wants to show.
pub trait Progress: Send + Sync {
    /// A new phase begins, e.g. "backing up"; totals are given when they are known beforehand.
    fn phase(&self, name: &'static str, items: Option<u64>, bytes: Option<u64>) {
        let _ = (name, items, bytes);
    }

    /// So many more items and bytes of the current phase are done.
    fn advance(&self, items: u64, bytes: u64) {
        let _ = (items, bytes);
    }

    /// The total of the current phase grew to this.
    fn total(&self, items: u64, bytes: u64) {
        let _ = (items, bytes);
    }

    /// Tells whether totals are worth counting beforehand, which costs a walk of its own.
    fn wants_totals(&self) -> bool {
        false
    }

    /// The path that is being worked on.
    fn current(&self, path: &[u8]) {
        let _ = path;
    }

    /// Something that a person should know although the operation goes on.
    fn warning(&self, text: &str) {
        let _ = text;
    }
}

/// Passes everything on but warnings, for what is done twice and told once.
pub struct Muted<'a>(pub &'a dyn Progress);

impl Progress for Muted<'_> {
    fn phase(&self, name: &'static str, items: Option<u64>, bytes: Option<u64>) {
        self.0.phase(name, items, bytes);
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.0.advance(items, bytes);
    }

    fn total(&self, items: u64, bytes: u64) {
        self.0.total(items, bytes);
    }

    fn wants_totals(&self) -> bool {
        self.0.wants_totals()
    }

    fn current(&self, path: &[u8]) {
        self.0.current(path);
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
