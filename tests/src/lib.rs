//! What tests, examples and fuzz targets share: the model of the collection protocol, and repositories that
//! whoever holds the keys made to do harm.

pub mod collection;
pub mod overlay;
