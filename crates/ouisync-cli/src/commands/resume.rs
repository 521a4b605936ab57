//! `ouisync resume`: goes on after a pause.

use clap::Args;

use crate::{
    command_line::Outcome,
    context::{Context, refused},
};

const EXAMPLES: &str = "\
Examples:
  ouisync resume
  ouisync resume Notes";

/// Go on sending and receiving one folder, or all
///
/// The opposite of 'ouisync pause'. JSON: {ok}.
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
            .resume(self.folder.as_deref())
            .await
            .map_err(refused)?;
        context.done("Resumed.")
    }
}
