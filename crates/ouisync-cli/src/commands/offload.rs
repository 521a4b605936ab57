//! `ouisync offload` and `ouisync fetch`: this device's copies, which go and come back.

use clap::Args;
use ouisync_api::directory::{FetchRequest, OffloadRequest, Skipped};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    location::Location,
    output,
    progress::Activity,
};

/// Free the space that a file, or all files in a directory, take on this device
///
/// The files stay in the folder. In the place of each stays a small note, NAME.ouisync-offloaded; 'ouisync fetch' brings it back from
/// whoever holds it. Both copies that this device has go: the plain one, and the sealed one, as far as nothing else here needs it. Before
/// that, as many members as the folder wants replicas ('ouisync retention NAME --replicas N'; safes, and devices that may write) must
/// show that they hold it; otherwise nothing is dropped. With --plain only the plain copies go, and nobody else is asked. Files that
/// were changed and are not recorded yet are left alone. Ctrl-C stops between files. JSON: {files, bytes, packs, pack_bytes, skipped};
/// 'skipped' is a list of {path, reason}.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ouisync offload ~/Voyage/videos\n  ouisync offload Voyage:videos/long.mp4\n  ouisync offload Voyage --plain"
)]
pub(crate) struct Arguments {
    /// A file or directory in a folder, or FOLDER:path
    path: String,
    /// Drop the plain copies only; the sealed ones stay on this device
    #[arg(long)]
    plain: bool,
}

/// Bring offloaded files back into the directory, from whoever holds them
///
/// Returns when their content is on this device; 'ouisync wait' returns when all are in the directory. Ctrl-C stops; what has come
/// stays. JSON: {files, bytes, skipped}; 'skipped' is a list of {path, reason}.
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
        let request = OffloadRequest {
            path: place.path,
            plain: self.plain,
        };
        let working = client.offload(&place.folder, &request).await;
        let progress = |phase, done, total| activity.work(phase, done, total);
        let offloaded = working.map_err(refused)?.outcome(progress).await;
        drop(activity);
        let offloaded = offloaded.map_err(refused)?;
        if context.json {
            output::json(&offloaded)?;
            return DONE;
        }
        output::line(&format!(
            "{} files, {}: plain copies dropped.",
            offloaded.files,
            output::size(offloaded.bytes)
        ))?;
        if !self.plain {
            output::line(&format!(
                "{} sealed packs, {}: dropped; other members hold them.",
                offloaded.packs,
                output::size(offloaded.pack_bytes)
            ))?;
        }
        tell(&offloaded.skipped)
    }
}

impl FetchArguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let path = self.path.strip_suffix(".ouisync-offloaded");
        let place = Location::find(&client, path.unwrap_or(&self.path)).await?;
        let activity = Activity::start(format!("fetching {}", place.show()));
        let request = FetchRequest { path: place.path };
        let working = client.fetch(&place.folder, &request).await;
        let progress = |phase, done, total| activity.work(phase, done, total);
        let fetched = working.map_err(refused)?.outcome(progress).await;
        drop(activity);
        let fetched = fetched.map_err(refused)?;
        if context.json {
            output::json(&fetched)?;
            return DONE;
        }
        output::line(&format!(
            "{} files, {}: coming back.",
            fetched.files,
            output::size(fetched.bytes)
        ))?;
        tell(&fetched.skipped)
    }
}

/// Names the files that stay as they are.
fn tell(skipped: &[Skipped]) -> Outcome {
    let mut text = String::new();
    for skipped in skipped {
        text.push_str(&format!(
            "left alone: {}: {}\n",
            output::plain(&skipped.path),
            skipped.reason
        ));
    }
    output::text_block(&text)?;
    DONE
}
