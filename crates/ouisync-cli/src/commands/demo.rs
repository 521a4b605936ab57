//! `ouisync demo`: three real devices on this machine, one of them a blind safe, with real files.
//!
//! Everything here goes through the same processes and the same interface as a user's own devices would.

mod blind;
mod edits;
mod narrator;
mod sample;
mod stage;
mod story;
pub mod tree;

use std::path::PathBuf;

use clap::Args;
use ouisync_api::error::{ErrorBody, ErrorKind};

use self::{narrator::Narrator, stage::Stage};
use crate::{
    command_line::{DONE, Outcome},
    context::Context,
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync demo
  ouisync demo --path ~/Documents      # with a copy of your own files
  ouisync demo --keep                  # and look at the three homes afterwards";

/// See it work: Alice, her Pi as a blind safe, and Bob, as three real processes on this machine
///
/// Alice's files reach the Pi as ciphertext. With Alice switched off, Bob joins and gets them through the Pi. Both then edit,
/// rename and delete while apart, and meet again. All trees are compared byte for byte, and the Pi's disk is searched for every
/// name and for samples of the contents. Exit code 0 only if all held. Nothing outside a temporary folder is changed. JSON:
/// {ok, checks: [{ok, what}], safe: {packs, bytes}}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Use a copy of this directory's files beside the demo's own
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Keep the temporary folder with the three homes and directories
    #[arg(long)]
    keep: bool,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let mut narrator = Narrator::new(context.json);
        let mut stage = Stage::build()?;
        let told = tokio::select! {
            told = story::tell(&mut stage, &mut narrator, self.path.as_deref()) => told,
            _ = tokio::signal::ctrl_c() => {
                Err(ErrorBody::new(ErrorKind::Cancelled, "stopped", "Run 'ouisync demo' again to see it whole."))
            }
        };
        narrator.clear();
        stage.stop_all().await;
        let failed = told
            .as_ref()
            .is_err_and(|error| error.kind != ErrorKind::Cancelled)
            || !narrator.all_held();
        if failed {
            narrator.logs(&stage.logs());
        }
        let kept = stage.close(self.keep);
        if let Some(path) = &kept {
            narrator.say(&format!(
                "The three homes and directories are kept in {}.",
                path.display()
            ));
        }
        match told {
            Err(error) if kept.is_none() => {
                Err(error.keeping("The temporary folder and the three processes are gone."))
            }
            Err(error) => Err(error),
            Ok(safe) => {
                if context.json {
                    output::json(&narrator.document(&safe))?;
                }
                if narrator.all_held() {
                    DONE
                } else {
                    Ok(ErrorKind::Internal.exit_code())
                }
            }
        }
    }
}
