mod buckets;
mod checkpoints;
mod collectors;
mod sources;
mod streams;
mod unlisted;
