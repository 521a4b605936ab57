//! `ouisync member`: removes members and changes their roles.

use clap::{Args, Subcommand};

use super::invite::RoleName;
use crate::{
    command_line::Outcome,
    context::{Context, refused},
};

const EXAMPLES: &str = "\
Examples:
  ouisync member remove Notes \"Bob's laptop\"
  ouisync member role Notes 3fa9c2 reader";

/// Remove a member, or change what it may do (owners only)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Remove(Remove),
    Role(Role),
}

/// Remove a member and renew the folder's secrets
///
/// It keeps what it has already received, but can't connect any more and can't read what comes after. What it did at the
/// same time is kept apart and shown. JSON: {ok}.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ouisync member remove Notes \"Bob's laptop\"\n  ouisync member remove Notes 3fa9c2"
)]
struct Remove {
    /// Name or id of the folder
    folder: String,
    /// The member's id, the beginning of it, or its name
    member: String,
}

/// Change what a member may do
///
/// A member that may no longer read keeps what it has already received. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ouisync member role Notes \"Bob's laptop\" reader")]
struct Role {
    /// Name or id of the folder
    folder: String,
    /// The member's id, the beginning of it, or its name
    member: String,
    /// The new role
    #[arg(value_enum)]
    role: RoleName,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let words = match self.action {
            Action::Remove(Remove { folder, member }) => {
                client
                    .remove_member(&folder, &member)
                    .await
                    .map_err(refused)?;
                format!(
                    "'{member}' is removed from '{folder}', and the folder's secrets are renewed."
                )
            }
            Action::Role(Role {
                folder,
                member,
                role,
            }) => {
                let role = role.into();
                client
                    .set_role(&folder, &member, role)
                    .await
                    .map_err(refused)?;
                format!("'{member}' is now a {role} of '{folder}'.")
            }
        };
        context.done(&words)
    }
}
