//! `ouisync brake`: bursts of changes that are held back.

use std::time::Duration;

use clap::Args;
use ouisync_api::{
    client::Client,
    data::FolderState,
    directory::{Brake, BrakeRequest, Verdict},
    duration,
};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    location, output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync brake Notes                           # is something held back?
  ouisync brake Notes --undo                    # an accident or an attack: put the files back
  ouisync brake Notes --allow                   # it was meant: record it and send it
  ouisync brake Notes --files 500 --percent 50  # hold back larger bursts only
  ouisync brake Notes --off
  ouisync restore Notes --at '10 minutes ago'   # for what was sent before the brake held";

/// Show, settle or set up the brake that holds back bursts of deleting and rewriting
///
/// When much of a folder's directory is deleted or rewritten at once, such as by ransomware or a wrong 'rm', nothing of that is
/// recorded or sent until you have said what it was. Files that look encrypted all of a sudden count five times. An undo puts
/// the folder's versions back and sets the changed ones aside, in a hidden directory that isn't synced. JSON: {enabled, files,
/// percent, window_seconds, burst, undoing, undone}; 'burst' is null or {since, deleted, rewritten, scrambled, of}, 'undone' null
/// or {put_back, set_aside, kept_in}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder
    folder: String,
    /// What is held back was meant: record it and send it
    #[arg(long, conflicts_with = "undo")]
    allow: bool,
    /// What is held back was an accident: put the files back
    #[arg(long)]
    undo: bool,
    /// Hold back bursts (as at first)
    #[arg(long, conflicts_with = "off")]
    on: bool,
    /// Never hold anything back
    #[arg(long)]
    off: bool,
    /// Hold back from so many files on [default: 100]
    #[arg(long, value_name = "N")]
    files: Option<u64>,
    /// And from such a share of the folder's files on [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    percent: Option<u8>,
    /// Within such a time, in seconds or with a unit [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = within)]
    within: Option<Duration>,
}

fn within(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => duration::parse(text).map_err(|error| error.to_string()),
    }
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let request = BrakeRequest {
            verdict: match (self.allow, self.undo) {
                (true, _) => Some(Verdict::Allow),
                (_, true) => Some(Verdict::Undo),
                _ => None,
            },
            enabled: match (self.on, self.off) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            files: self.files,
            percent: self.percent,
            window_seconds: self.within.map(|within| within.as_secs()),
        };
        let mut brake = if request == BrakeRequest::default() {
            client.brake(&self.folder).await.map_err(refused)?
        } else {
            client
                .set_brake(&self.folder, &request)
                .await
                .map_err(refused)?
        };
        if self.undo {
            brake = follow(&client, &self.folder, brake).await?;
        }
        if context.json {
            output::json(&brake)?;
        } else {
            output::text_block(&describe(&brake, self.undo))?;
        }
        DONE
    }
}

/// Waits until the files are back.
async fn follow(
    client: &Client,
    folder: &str,
    mut brake: Brake,
) -> Result<Brake, ouisync_api::error::ErrorBody> {
    let activity = Activity::start("putting files back");
    while brake.undoing {
        tokio::time::sleep(Duration::from_millis(200)).await;
        brake = client.brake(folder).await.map_err(refused)?;
        if let Some(undone) = &brake.undone {
            activity.say(format!("{} files come back", undone.put_back));
        }
        // Then they come when it goes on.
        let status = client.status(folder).await.map_err(refused)?;
        if status.state == FolderState::Paused {
            break;
        }
    }
    Ok(brake)
}

fn describe(brake: &Brake, undone: bool) -> String {
    let mut text = match brake.enabled {
        true => format!(
            "Held back: from {} files on that are deleted or rewritten within {} s, if they are {} % of the folder.\n",
            brake.files, brake.window_seconds, brake.percent
        ),
        false => "Nothing is ever held back.\n".to_owned(),
    };
    match &brake.burst {
        Some(burst) => text.push_str(&format!(
            "Since {} it holds: {} files deleted, {} rewritten ({} of them look encrypted now), of {}.\n\
             If it was meant: --allow. If not, end the program that does it, then: --undo.\n",
            location::local(&burst.since),
            burst.deleted,
            burst.rewritten,
            burst.scrambled,
            burst.of
        )),
        None if undone => {}
        None => text.push_str("Nothing is held back now.\n"),
    }
    if undone && let Some(undone) = &brake.undone {
        text.push_str(&format!("{} files are back.\n", undone.put_back));
        if let Some(kept) = &undone.kept_in {
            text.push_str(&format!(
                "{} changed versions are kept in {}: look through them, then delete the directory.\n",
                undone.set_aside,
                output::plain(kept)
            ));
        }
    }
    text
}
