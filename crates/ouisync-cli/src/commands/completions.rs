//! `ouisync completions`: completion scripts for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    command_line::{CommandLine, DONE, Outcome},
    context::Context,
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync completions bash > ~/.local/share/bash-completion/completions/ouisync
  ouisync completions zsh > ~/.zfunc/_ouisync
  ouisync completions fish > ~/.config/fish/completions/ouisync.fish";

/// Print a completion script for a shell
///
/// JSON: {script}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Arguments {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut CommandLine::command(),
            "ouisync",
            &mut script,
        );
        let script = String::from_utf8_lossy(&script);
        if context.json {
            output::json(&serde_json::json!({ "script": script }))?;
        } else {
            output::text_block(&script)?;
        }
        DONE
    }
}
