//! `ouisync lock`: forgets the secrets that read folders.

use std::time::Duration;

use clap::Args;
use ouisync_api::data::LockRequest;

use crate::{
    command_line::Outcome,
    context::{Context, refused},
    output, passphrase,
};

/// How long a pipe without a line is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  ouisync lock
  ouisync lock Notes
  pass show ouisync | ouisync lock      # also sets the passphrase when none is set yet";

/// Forget the secrets of one folder or all until 'ouisync unlock'
///
/// Locked folders go on syncing blind, as a safe would; their plain directories are no longer updated. When neither a
/// passphrase is set nor the key ring used yet, a passphrase is read from standard input and set. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder [default: all]
    folder: Option<String>,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let device = client.device().await.map_err(refused)?;
        let is_set = device.passphrase_set || device.key_ring;
        let passphrase = match (is_set, passphrase::at_terminal()) {
            (true, _) => None,
            (false, true) => {
                output::note(
                    "No passphrase is set yet. Without it nobody, not even you, can unlock: choose one and keep it.",
                );
                Some(passphrase::read_new("New passphrase: ").await?)
            }
            // Nothing there: the daemon says what to do.
            (false, false) => passphrase::line(Some(PATIENCE)).await?,
        };
        client
            .lock(&LockRequest {
                folder: self.folder,
                passphrase,
            })
            .await
            .map_err(refused)?;
        context.done("Locked; it goes on syncing, unreadable here.")
    }
}
