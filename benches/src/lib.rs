//! Benchmarks: `benches/parts.rs` for the parts (`cargo bench`), `peers/run.sh` for whole runs
//! beside other tools, `memory/run.sh` for peak memory by the number of entries.
