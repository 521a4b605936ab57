#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ouisync_fuzz::run("catalogue", data));
