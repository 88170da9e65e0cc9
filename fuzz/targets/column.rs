//! Columns of integers and of strings. The first two bytes are the number of values.

#![no_main]

use larder_format::column::{put_integers, put_strings, read_integers, read_strings};
use larder_format::limits::{KEY_BYTES, NODE_ITEMS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((count, column)) = input.split_first_chunk::<2>() else {
        return;
    };
    let count = usize::from(u16::from_le_bytes(*count)) % (NODE_ITEMS + 1);

    let mut values = Vec::new();
    if read_integers(column, count, &mut values).is_ok() {
        assert_eq!(values.len(), count);
        if count > 0 {
            let mut again = Vec::new();
            put_integers(&mut again, &values);
            assert_eq!(again, column);
        }
    }
    if let Ok(strings) = read_strings(column, count, "string", KEY_BYTES) {
        assert_eq!(strings.len(), count);
        assert!(strings.iter().all(|string| string.len() <= KEY_BYTES));
        if count > 0 {
            let mut again = Vec::new();
            put_strings(&mut again, strings.iter().copied());
            assert_eq!(again, column);
        }
    }
});
