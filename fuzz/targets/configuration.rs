//! libFuzzer over [`crosshost_fuzz::configuration::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crosshost_fuzz::configuration::check(data));
