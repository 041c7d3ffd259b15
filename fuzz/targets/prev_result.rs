//! libFuzzer over [`crosshost_fuzz::prev_result::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crosshost_fuzz::prev_result::check(data));
