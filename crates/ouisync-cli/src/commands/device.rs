//! `ouisync device`: who this device is and where it can be reached.

use clap::Args;

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync device
  ouisync --json device | jq -r '.addresses[0]'    # for 'ouisync connect' elsewhere";

/// Show this device's id, name and addresses
///
/// JSON: {device, name, addresses, passphrase_set, key_ring}; each address is an argument for 'ouisync connect'.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let device = context.client()?.device().await.map_err(refused)?;
        if context.json {
            output::json(&device)?;
        } else {
            output::line(&format!(
                "{}\n{}",
                output::plain(&device.name),
                device.device
            ))?;
            for address in &device.addresses {
                output::line(&format!("  {address}"))?;
            }
        }
        DONE
    }
}
