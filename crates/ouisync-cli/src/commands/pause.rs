//! `ouisync pause`: stops a folder.

use clap::Args;

use crate::{
    command_line::Outcome,
    context::{Context, refused},
};

const EXAMPLES: &str = "\
Examples:
  ouisync pause
  ouisync pause Notes";

/// Stop one folder, or all
///
/// Nothing of it is sent or received, peers see it as not connected, and its directory rests: what changes there is recorded
/// after 'ouisync resume', which catches up. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder [default: all]
    folder: Option<String>,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        context
            .client()?
            .pause(self.folder.as_deref())
            .await
            .map_err(refused)?;
        context.done("Paused.")
    }
}
