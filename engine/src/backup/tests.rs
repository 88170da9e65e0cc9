mod checkpoints;
mod collectors;
