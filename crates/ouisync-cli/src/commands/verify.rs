//! `ouisync verify`: reads and checks every stored byte.

use clap::Args;
use ouisync_api::{data::Verification, error::ErrorKind};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync verify
  ouisync verify Notes && echo fine";

/// Check every stored byte of one folder, or of all
///
/// Works on safes and locked folders too. Exit code 0 only if nothing is wrong, 9 if something is. JSON: {ok, packs, bytes,
/// problems}, summed up over the folders.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder [default: all]
    folder: Option<String>,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let activity = Activity::start("checking");
        let checking = client
            .verify(self.folder.as_deref())
            .await
            .map_err(refused)?;
        let outcome = checking
            .outcome(|done, total| activity.bytes(done, total))
            .await
            .map_err(refused)?;
        drop(activity);
        report(context, &outcome)
    }
}

/// Prints an outcome; fails when something is wrong.
pub(super) fn report(context: &Context, outcome: &Verification) -> Outcome {
    if context.json {
        output::json(outcome)?;
    } else {
        for problem in &outcome.problems {
            output::line(&output::plain(problem))?;
        }
        let verdict = if outcome.ok {
            "all is well"
        } else {
            "something is wrong: run 'ouisync repair'"
        };
        output::line(&format!(
            "{} packs, {} checked: {verdict}.",
            outcome.packs,
            output::size(outcome.bytes)
        ))?;
    }
    if outcome.ok {
        DONE
    } else {
        Ok(ErrorKind::Corruption.exit_code())
    }
}
