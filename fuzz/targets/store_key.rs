//! libFuzzer over [`crosshost_fuzz::store_key::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crosshost_fuzz::store_key::check(data));
