//! `ouisync members`: who takes part in a folder.

use clap::Args;

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync members Notes
  ouisync --json members Notes | jq -r '.[] | select(.role == \"safe\") | .member'";

/// Show who takes part in a folder
///
/// JSON: a list of {member, name, role, this_device, connected}; 'name' is null where it can't be read, such as on a safe.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder
    folder: String,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let members = context
            .client()?
            .members(&self.folder)
            .await
            .map_err(refused)?;
        if context.json {
            output::json(&members)?;
            return DONE;
        }
        let mut rows = vec![["NAME", "ROLE", "", "MEMBER"].map(str::to_owned).to_vec()];
        rows.extend(members.iter().map(|member| {
            let state = match (member.this_device, member.connected) {
                (true, _) => "this device",
                (false, true) => "connected",
                (false, false) => "",
            };
            vec![
                output::plain(member.name.as_deref().unwrap_or("-")),
                member.role.to_string(),
                state.to_owned(),
                member.member.clone(),
            ]
        }));
        output::text_block(&output::table(&rows))?;
        DONE
    }
}
