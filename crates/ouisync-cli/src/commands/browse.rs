//! `ouisync browse`: a past state in a directory of its own.

use std::path::PathBuf;

use clap::Args;
use ouisync_api::history::BrowseRequest;

use super::{restore::report, show::When};
use crate::{
    command_line::Outcome,
    context::{Context, absolute, refused},
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync browse Notes --at 2026-11-20 /tmp/notes-then
  ouisync browse ~/Notes/letters --at '2 hours ago' letters-then
  ouisync browse Notes --version 3f2a9c01b7de /tmp/notes-then";

/// Write a past state of a folder into an empty directory
///
/// The folder itself isn't touched, and readers may do it, too. All or nothing: stopped or failed, it leaves nothing. Content that
/// isn't on this device is fetched from whoever holds it, safes included. JSON: {files, directories, bytes, missing, …}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_version_flag = true)]
pub(crate) struct Arguments {
    /// A folder, a path in a folder's directory, or FOLDER:path
    #[arg(value_name = "FOLDER")]
    path: String,
    #[command(flatten)]
    when: When,
    /// Where to write: an empty or missing directory outside of all folders
    #[arg(value_name = "DIR")]
    target: PathBuf,
    /// Write what can be had, and tell what can't
    #[arg(long)]
    partial: bool,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let (place, selection) = self.when.find(&client, &self.path).await?;
        let request = BrowseRequest {
            selection,
            target: absolute(&self.target)?,
            partial: self.partial,
        };
        let activity = Activity::start("looking");
        let working = client
            .browse(&place.folder, &request)
            .await
            .map_err(refused)?;
        let written = working
            .outcome(|phase, done, total| activity.work(phase, done, total))
            .await
            .map_err(refused)?;
        drop(activity);
        report(context, &written)
    }
}
