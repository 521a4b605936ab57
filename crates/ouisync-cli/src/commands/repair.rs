//! `ouisync repair`: sets damaged data aside and gets it anew.

use clap::Args;

use super::verify::report;
use crate::{
    command_line::Outcome,
    context::{Context, refused},
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync verify Notes || ouisync repair Notes";

/// Set damaged data of one folder or all aside, so that peers send it again, and rebuild the index
///
/// Nothing that is sound is touched. JSON: {ok, packs, bytes, problems}; exit code 9 if something stays wrong.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder [default: all]
    folder: Option<String>,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let activity = Activity::start("checking and repairing");
        let outcome = context
            .client()?
            .repair(self.folder.as_deref())
            .await
            .map_err(refused)?;
        drop(activity);
        report(context, &outcome)
    }
}
