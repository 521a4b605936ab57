//! `ouisync resolve`: settles a conflict, for everybody.

use std::path::PathBuf;

use clap::Args;
use ouisync_api::conflicts::ResolveRequest;

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, absolute, refused},
    location::Location,
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync resolve ~/Notes/diary.txt --keep 2            # as numbered by 'ouisync conflicts'
  ouisync resolve Notes:diary.txt --keep \"Bob's laptop\"
  ouisync resolve diary.txt --both                      # two ordinary files
  ouisync resolve diary.txt --merged /tmp/merged.txt    # this is the content now";

/// Settle a conflict, for everybody
///
/// One decision reaches every device, also those that are away now. Versions that are rejected stay in the history ('ouisync
/// history'). If somebody else decides differently at the same time, both decisions are in conflict again. Exit code 5 if there
/// is no conflict at the path, 6 if the versions changed meanwhile. JSON: {folder, path}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A path in a folder's directory, or FOLDER:path: the file in conflict, or any of its versions
    path: String,
    #[command(flatten)]
    way: Way,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Way {
    /// Keep this version: its number or name in 'ouisync conflicts', or its device's name
    #[arg(long, value_name = "VERSION")]
    keep: Option<String>,
    /// Keep all versions, as ordinary files under the names that they are shown under
    #[arg(long)]
    both: bool,
    /// Take this file's content for all versions
    #[arg(long, value_name = "FILE")]
    merged: Option<PathBuf>,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let place = Location::find(&client, &self.path).await?;
        let request = ResolveRequest {
            path: place.path.clone(),
            keep: self.way.keep,
            both: self.way.both,
            merged: self.way.merged.as_deref().map(absolute).transpose()?,
        };
        let resolved = client
            .resolve(&place.folder, &request)
            .await
            .map_err(refused)?;
        if context.json {
            output::json(&resolved)?;
        } else {
            output::line(&output::plain(&format!(
                "The conflict at '{}:{}' is settled for everybody.",
                resolved.folder, resolved.path
            )))?;
        }
        DONE
    }
}
