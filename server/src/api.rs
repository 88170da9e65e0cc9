//! What is behind the routes, by noun.

pub mod jobs;
pub mod locations;
pub mod login;
pub mod runs;
pub mod service;
pub mod snapshots;
pub mod tokens;
pub mod users;
pub mod work;
