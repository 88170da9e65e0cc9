//! Ends of runs: one encoding for each.

#![no_main]

use larder_format::run::RunEnd;
use larder_fuzz::check_record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|cbor: &[u8]| check_record::<RunEnd>(cbor));
