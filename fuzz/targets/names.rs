//! Names of objects: what is taken apart is written again as it was.

#![no_main]

use larder_format::names::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(name) = parse(text) {
        assert_eq!(name.to_string(), text);
    }
});
