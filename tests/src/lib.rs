//! What tests and examples share: the model of the collection protocol, and repositories that
//! whoever holds the keys made to do harm.

pub mod collection;
pub mod hostile;
pub mod overlay;
