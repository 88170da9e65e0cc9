mod buckets;
mod checkpoints;
mod collectors;
mod sources;
mod streams;
