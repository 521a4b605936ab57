//! The `ouisync` command.

fn main() {}
