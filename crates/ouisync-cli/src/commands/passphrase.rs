//! `ouisync passphrase`: what seals the secrets that read folders.

use clap::{Args, Subcommand};
use ouisync_api::data::PassphraseRequest;

use crate::{
    command_line::Outcome,
    context::{Context, refused},
    passphrase,
};

const EXAMPLES: &str = "\
Examples:
  ouisync passphrase set
  printf 'new\\n' | ouisync passphrase set              # none was set before
  printf 'old\\nnew\\n' | ouisync passphrase set         # change it";

/// Set or change the passphrase that seals this device's reading secrets
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Set(Set),
}

/// Set the passphrase, or change it
///
/// From a terminal it is asked for; otherwise standard input has the present one (if one is set) and the new one, a line each.
/// There is no way to recover it. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Set {}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let Action::Set(Set {}) = self.action;
        let client = context.client()?;
        let is_set = client.device().await.map_err(refused)?.passphrase_set;
        let old = if is_set {
            Some(passphrase::read("Present passphrase: ").await?)
        } else {
            None
        };
        let new = passphrase::read_new("New passphrase: ").await?;
        client
            .set_passphrase(&PassphraseRequest { old, new })
            .await
            .map_err(refused)?;
        context.done("The passphrase is set.")
    }
}
