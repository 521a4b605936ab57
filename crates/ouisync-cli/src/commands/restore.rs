//! `ouisync restore`: brings back what was.

use clap::Args;
use ouisync_api::history::{BrowseRequest, RestoreRequest, Restored};

use super::show::When;
use crate::{
    command_line::{DONE, Outcome},
    context::{Context, absolute, refused, usage},
    location::Location,
    output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync restore ~/Notes/diary.txt                            # a deleted file
  ouisync restore ~/Notes/diary.txt --version 3f2a9c01b7de     # an overwritten version
  ouisync restore Notes:letters --at yesterday                 # a directory
  ouisync restore Notes --at '2026-11-20 18:00' --exact        # the folder as it was
  ouisync restore Notes:diary.txt --at '2 hours ago' --to /tmp/diary.txt";

/// Bring a file, a directory or a whole folder back as it was
///
/// A restore is an ordinary change, made by this device: what is there now becomes the version before and stays in history, and
/// nothing else is touched. What was made since then stays, unless --exact. Local changes are recorded first. Content that isn't
/// on this device is fetched from whoever holds it, safes included; when nobody reachable holds some of it, nothing is restored,
/// unless --partial. JSON: {files, directories, bytes, unchanged, removed, beside, missing, applied, version}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_version_flag = true)]
pub(crate) struct Arguments {
    /// A path in a folder's directory, FOLDER:path, or a folder
    #[arg(value_name = "PATH[@VERSION]")]
    path: String,
    #[command(flatten)]
    when: When,
    /// Put it here instead: a path in the same folder, or one outside of all folders that is free
    #[arg(long, value_name = "PATH")]
    to: Option<String>,
    /// Also take away what is there now and wasn't then; it stays in history
    #[arg(long)]
    exact: bool,
    /// Restore what can be had, and tell what can't
    #[arg(long)]
    partial: bool,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let (place, selection) = self.when.find(&client, &self.path).await?;
        if place.path.is_empty()
            && selection.at.is_none()
            && selection.version.is_none()
            && self.to.is_none()
        {
            return Err(usage(
                "a whole folder is restored to a state that is told",
                "Give --at TIME or --version VERSION; see 'ouisync history'.",
            ));
        }
        let target = match &self.to {
            Some(to) => Location::find_inside(&client, to).await?,
            None => None,
        };
        if let Some(target) = &target
            && target.folder != place.folder
        {
            return Err(usage(
                format!("{} is in another folder", target.show()),
                "Restore it outside of folders with --to and move it there.",
            ));
        }
        let activity = Activity::start("looking");
        let progress = |phase, done, total| activity.work(phase, done, total);
        let restored = match (&self.to, target) {
            (Some(to), None) => {
                if self.exact {
                    return Err(usage(
                        "--exact is for what is restored into the folder",
                        "Leave it out: outside, only what was is written.",
                    ));
                }
                let request = BrowseRequest {
                    selection,
                    target: absolute(std::path::Path::new(to))?,
                    partial: self.partial,
                };
                let working = client.browse(&place.folder, &request).await;
                working.map_err(refused)?.outcome(progress).await
            }
            (_, target) => {
                let request = RestoreRequest {
                    selection,
                    to: target.map(|target| target.path),
                    exact: self.exact,
                    partial: self.partial,
                };
                let working = client.restore(&place.folder, &request).await;
                working.map_err(refused)?.outcome(progress).await
            }
        };
        drop(activity);
        let restored = restored.map_err(refused)?;
        report(context, &restored)
    }
}

/// Tells what was written.
pub(super) fn report(context: &Context, restored: &Restored) -> Outcome {
    if context.json {
        output::json(restored)?;
        return DONE;
    }
    let counts = [
        (restored.files, "files"),
        (restored.directories, "directories"),
    ];
    let written: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if written.is_empty() && restored.removed == 0 {
        output::line("Everything is as it was: nothing had to be restored.")?;
    } else {
        let written = if written.is_empty() {
            "nothing".to_owned()
        } else {
            written.join(" and ")
        };
        let mut text = format!("Restored {written}, {}.", output::size(restored.bytes));
        if restored.unchanged > 0 {
            text.push_str(&format!(" {} were as they should be.", restored.unchanged));
        }
        if restored.removed > 0 {
            text.push_str(&format!(
                " {} made room; they are in history.",
                restored.removed
            ));
        }
        output::line(&text)?;
    }
    for beside in &restored.beside {
        output::line(&format!(
            "A directory is at {}; the file is at {}.",
            output::plain(&beside.path),
            output::plain(&beside.to)
        ))?;
    }
    for missing in &restored.missing {
        output::line(&format!(
            "Nobody reachable holds {}.",
            output::plain(missing)
        ))?;
    }
    if !restored.applied {
        output::note("The folder's directory shows it soon; see 'ouisync status'.");
    }
    DONE
}
