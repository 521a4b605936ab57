//! The `ouisync` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ouisync_cli::command_line::run()
}
