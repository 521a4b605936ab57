//! `ouisync offload` and `ouisync fetch`: plain copies that go and come back.

use clap::Args;
use ouisync_api::{directory::CopiesOutcome, error::ErrorBody};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    location::Location,
    output,
    progress::Activity,
};

/// Drop the plain copy of a file, or of all files in a directory, on this device
///
/// In the file's place stays a small note, NAME.ouisync-offloaded. The file stays in the folder, on other devices, and sealed in this
/// device's store, from where 'ouisync fetch' brings it back, also without a network. Files that were changed and are not recorded yet
/// are left alone. JSON: {files, bytes, skipped}; 'skipped' is a list of {path, reason}.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ouisync offload ~/Voyage/videos\n  ouisync offload Voyage:videos/long.mp4"
)]
pub(crate) struct Arguments {
    /// A file or directory in a folder, or FOLDER:path
    path: String,
}

/// Bring offloaded files back into the directory
///
/// 'ouisync wait' returns when all are there. JSON: {files, bytes, skipped}; 'skipped' is a list of {path, reason}.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ouisync fetch ~/Voyage/videos/long.mp4\n  ouisync fetch Voyage && ouisync wait Voyage"
)]
pub(crate) struct FetchArguments {
    /// A file or directory in a folder, or FOLDER:path; a note's name means its file
    path: String,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let place = Location::find(&client, &self.path).await?;
        let activity = Activity::start(format!("offloading {}", place.show()));
        let outcome = client.offload(&place.folder, &place.path).await;
        drop(activity);
        tell(context, &outcome.map_err(refused)?, "offloaded")
    }
}

impl FetchArguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let path = self.path.strip_suffix(".ouisync-offloaded");
        let place = Location::find(&client, path.unwrap_or(&self.path)).await?;
        let activity = Activity::start(format!("fetching {}", place.show()));
        let outcome = client.fetch(&place.folder, &place.path).await;
        drop(activity);
        tell(context, &outcome.map_err(refused)?, "coming back")
    }
}

fn tell(context: &Context, outcome: &CopiesOutcome, done: &str) -> Result<u8, ErrorBody> {
    if context.json {
        output::json(outcome)?;
        return DONE;
    }
    let mut text = format!(
        "{} files, {}: {done}.\n",
        outcome.files,
        output::size(outcome.bytes)
    );
    for skipped in &outcome.skipped {
        text.push_str(&format!(
            "left alone: {}: {}\n",
            output::plain(&skipped.path),
            skipped.reason
        ));
    }
    output::text_block(&text)?;
    DONE
}
