//! libFuzzer over [`crosshost_fuzz::store_record::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crosshost_fuzz::store_record::check(data));
