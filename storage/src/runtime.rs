//! The one async runtime of the process, for the protocols that need one.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// Runs a future to its end on the calling thread, its background work on the runtime's own.
///
/// # Errors
/// In words: when the runtime's threads cannot be started.
pub(crate) fn block_on<F: Future>(future: F) -> Result<F::Output, String> {
    runtime().map(|runtime| runtime.block_on(future))
}

/// Gives the runtime that all storages of the process share, started on first use.
fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let start = || {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("larder-storage")
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start the storage's threads: {error}"))
    };
    RUNTIME.get_or_init(start).as_ref().map_err(Clone::clone)
}
