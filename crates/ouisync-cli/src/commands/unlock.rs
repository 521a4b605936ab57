//! `ouisync unlock`: makes locked folders readable again.

use clap::Args;
use ouisync_api::data::UnlockRequest;

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output, passphrase,
};

const EXAMPLES: &str = "\
Examples:
  ouisync unlock                                # asks for the passphrase, or the key ring
  pass show ouisync | ouisync unlock Notes";

/// Make locked folders readable again, with the passphrase from standard input or the key ring
///
/// At a terminal the passphrase is asked for, without echo. Where the key ring is used, that is asked instead, and standard input
/// is left alone. JSON: a list of {folder, name, role, path} that can be read now.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder [default: all]
    folder: Option<String>,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let passphrase = match client.device().await.map_err(refused)?.key_ring {
            true => None,
            false => Some(passphrase::read("Passphrase: ").await?),
        };
        let folders = client
            .unlock(&UnlockRequest {
                folder: self.folder,
                passphrase,
            })
            .await
            .map_err(refused)?;
        if context.json {
            output::json(&folders)?;
        } else if folders.is_empty() {
            output::line("Nothing was locked.")?;
        } else {
            let names: Vec<_> = folders
                .iter()
                .map(|folder| output::plain(&folder.name))
                .collect();
            output::line(&format!("Unlocked: {}.", names.join(", ")))?;
        }
        DONE
    }
}
