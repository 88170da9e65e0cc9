//! Randomness of the operating system.

use crate::error::{EngineError, Result};

/// Gives so many random bytes.
///
/// # Errors
/// `Internal` when the operating system has none.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    #[cfg(any(test, feature = "testing"))]
    if let Some(bytes) = crate::simulated::draw() {
        return Ok(bytes);
    }
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        EngineError::Internal(format!("the operating system gives no randomness: {error}"))
    })?;
    Ok(bytes)
}
