//! `ouisync connect`: tells the device where another is.

use clap::Args;
use ouisync_api::data::Done;

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output,
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
        if context.json {
            output::json(&Done::OK)?
        } else {
            output::line("The address is noted.")?
        }
        DONE
    }
}
