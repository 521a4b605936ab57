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
/// A device that joined anew is a new member; its old entry stays until an owner removes it. JSON: a list of {member, name, role,
/// this_device, connected, newer}; 'name' is null where it can't be read, such as on a safe; 'this_device' is null while the folder
/// is locked and nobody can tell; 'newer' is there when a member of the same name joined later: perhaps the same device.
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
                (Some(true), _) => "this device",
                (_, true) => "connected",
                (_, false) => "",
            };
            vec![
                output::plain(member.name.as_deref().unwrap_or("-")),
                member.role.to_string(),
                state.to_owned(),
                member.member.clone(),
            ]
        }));
        let mut text = output::table(&rows);
        for member in &members {
            let Some(newer) = &member.newer else { continue };
            text.push_str(&format!(
                "\n{} joined before {} of the same name ({}). If it is the same device, which joined anew:\n  ouisync member remove {} {}\n",
                short(&member.member),
                short(newer),
                output::plain(member.name.as_deref().unwrap_or("-")),
                output::plain(&self.folder),
                short(&member.member),
            ));
        }
        output::text_block(&text)?;
        DONE
    }
}

/// As much of a member's id as tells it apart.
fn short(member: &str) -> &str {
    member.get(..12).unwrap_or(member)
}
