//! libFuzzer over [`crosshost_fuzz::cni_args::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crosshost_fuzz::cni_args::check(data));
