//! `ouisync revoke`: takes an invitation back.

use clap::Args;

use crate::{
    command_line::Outcome,
    context::{Context, refused, usage},
    passphrase,
};

const EXAMPLES: &str = "\
Examples:
  ouisync revoke Notes 3fa9c2...        # the id that 'ouisync invite' showed
  wl-paste | ouisync revoke Notes -     # the link, from standard input";

/// Take an invitation back: nobody can join with it any more
///
/// Who has joined with it stays a member; see 'ouisync member remove'. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder
    folder: String,
    /// The invitation's id or link, or - to read it from standard input
    invitation: String,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let invitation = match self.invitation.as_str() {
            "-" => passphrase::line(None).await?.ok_or_else(|| {
                usage(
                    "standard input is empty",
                    "Give the invitation's id or link there.",
                )
            })?,
            given => given.to_owned(),
        };
        context
            .client()?
            .revoke(&self.folder, invitation.trim())
            .await
            .map_err(refused)?;
        context.done("The invitation is revoked.")
    }
}
