mod checkpoints;
mod collectors;
mod sources;
