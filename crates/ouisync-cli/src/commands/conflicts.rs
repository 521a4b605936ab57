//! `ouisync conflicts`: what is in conflict, by whom, and what differs.

use clap::Args;
use ouisync_api::{
    conflicts::{Conflict, ConflictVersion},
    data::Role,
    error::ErrorKind,
};

use super::history::who;
use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    location, output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync conflicts                                # of all folders
  ouisync conflicts Notes
  ouisync resolve Notes:diary.txt --keep 2         # settles one, for everybody
  ouisync --json conflicts | jq -r '.[].path'";

/// List the files that were changed differently on several devices
///
/// Edits of different lines of a text merge by themselves; what is listed here is for you to decide, with 'ouisync resolve' or
/// in the directory: delete the versions that you don't want. JSON: list of {folder, path, versions: [{version, number, path,
/// kind, size, author, time, here, lines_added, lines_removed}]}; the first version is the one that is shown under the path.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder [default: all that can be read]
    folder: Option<String>,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let activity = Activity::start("comparing");
        let mut conflicts: Vec<Conflict> = Vec::new();
        match &self.folder {
            Some(folder) => conflicts = client.conflicts(folder).await.map_err(refused)?,
            None => {
                for folder in client.folders().await.map_err(refused)? {
                    if folder.role == Some(Role::Safe) {
                        continue;
                    }
                    match client.conflicts(&folder.folder).await.map_err(refused) {
                        Ok(found) => conflicts.extend(found),
                        // What can't be read here has nothing to show.
                        Err(error)
                            if matches!(error.kind, ErrorKind::Locked | ErrorKind::Forbidden) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        drop(activity);
        if context.json {
            output::json(&conflicts)?;
            return DONE;
        }
        if conflicts.is_empty() {
            output::line("Nothing is in conflict.")?;
        }
        for conflict in &conflicts {
            output::text_block(&describe(conflict))?;
        }
        DONE
    }
}

fn describe(conflict: &Conflict) -> String {
    let title = output::plain(&format!("{}:{}", conflict.folder, conflict.path));
    let head = ["", "VERSION", "WHEN", "WHO", "SIZE", "DIFFERS", "SHOWN AS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(conflict.versions.iter().map(|version| {
        vec![
            format!("  {}", version.number),
            version.version.clone(),
            location::local(&version.time),
            version.author.as_ref().map_or_else(|| "-".to_owned(), who),
            output::size(version.size),
            difference(version),
            output::plain(&version.path),
        ]
    }));
    format!("{title}\n{}", output::table(&rows))
}

fn difference(version: &ConflictVersion) -> String {
    match (version.lines_added, version.lines_removed) {
        (Some(added), Some(removed)) => format!("+{added} -{removed} lines"),
        _ if !version.here => "not on this device yet".to_owned(),
        _ => "-".to_owned(),
    }
}
