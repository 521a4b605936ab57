//! Configuration, lifecycle, key store and HTTP server of a running device.

/// Runs.
pub fn run() {}
