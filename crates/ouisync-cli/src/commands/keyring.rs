//! `ouisync keyring`: the operating system's key ring as what opens folders.

use clap::{Args, Subcommand};
use ouisync_api::data::KeyRingRequest;

use crate::{
    command_line::Outcome,
    context::{Context, refused},
    passphrase,
};

const EXAMPLES: &str = "\
Examples:
  ouisync keyring enable
  pass show ouisync | ouisync keyring enable      # in place of a passphrase
  ouisync keyring disable";

/// Let the key ring of your session open this device's folders, so that nobody needs to type a passphrase
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Enable(Enable),
    Disable(Disable),
}

/// Seal the reading secrets with a key that only the key ring has
///
/// It replaces the passphrase, if one is set, which is asked for or read from standard input. Folders open by themselves while the
/// key ring is open; otherwise they sync blind until 'ouisync unlock'. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Enable {}

/// Keep the key beside the reading secrets again, as on a new device
///
/// Whoever has the home can read them then. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Disable {}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let enabled = matches!(self.action, Action::Enable(Enable {}));
        let replaces = enabled && client.device().await.map_err(refused)?.passphrase_set;
        let passphrase = match replaces {
            true => Some(passphrase::read("Present passphrase: ").await?),
            false => None,
        };
        client
            .set_key_ring(&KeyRingRequest {
                enabled,
                passphrase,
            })
            .await
            .map_err(refused)?;
        context.done(if enabled {
            "The key ring opens this device's folders now."
        } else {
            "The key ring is no longer used; the secrets are sealed with a key in the home."
        })
    }
}
