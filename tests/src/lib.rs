//! The model of the collection protocol, for the tests and for longer explorations.

pub mod collection;
