#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodetrust_fuzz::pki_settings(data));
