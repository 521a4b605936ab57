//! `ouisync pause`: stops transfer.

use clap::Args;

use crate::{
    command_line::Outcome,
    context::{Context, refused},
};

const EXAMPLES: &str = "\
Examples:
  ouisync pause
  ouisync pause Notes";

/// Stop sending and receiving one folder, or all
///
/// Local changes are recorded and sent after 'ouisync resume'. JSON: {ok}.
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
