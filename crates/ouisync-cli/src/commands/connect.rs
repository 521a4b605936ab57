//! `ouisync connect`: tells the device where another is.

use clap::Args;

use crate::{
    command_line::Outcome,
    context::{Context, refused},
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync connect 8c4e...d1@192.0.2.7:20209      # an address that 'ouisync device' shows there";

/// Tell this device where another one is; kept for later, too
///
/// Needed only where devices don't find each other by the local network or by the addresses in an invitation. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// DEVICE@IP:PORT
    address: String,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let _activity = Activity::start("connecting");
        context
            .client()?
            .connect(&self.address)
            .await
            .map_err(refused)?;
        context.done("The address is noted.")
    }
}
