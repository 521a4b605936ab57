//! `ouisync retention`: how long history is kept.

use clap::Args;
use ouisync_api::{
    client::Client,
    error::ErrorBody,
    retention::{Keep, Retention, RetentionPreview, RetentionRequest},
};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, confirm, refused},
    output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync retention Notes                               # what holds, and what this device stores
  ouisync retention Notes --keep 90d --preview          # what that would let go and free
  ouisync retention Notes --keep staggered              # fewer versions the older they are
  ouisync retention Notes --keep all --devices little   # safes keep all, devices little
  ouisync --json retention Notes --keep 1d --yes        # without a question
  ouisync retention Notes --keep-forgotten              # after a thief's word

KEEP is one of:
  all        every version, for ever
  90d        versions for this time after they were replaced or deleted (s, m, h, d, w)
  staggered  versions 30 s apart for an hour, hourly for a day, daily for 30 days, then weekly
  little     30 days, as every holder does at least";

/// Show or change how long former versions and deleted files are kept, by whom (owners change it)
///
/// The policy is the whole folder's: every holder obeys it, safes too. Without one safes keep 90 days and devices 30. What is shortened
/// counts at safes only after their floor (30 days, or what their host says), so that a stolen device can't make them
/// drop anything at once. A change that lets history go asks first. JSON: {folder, keep, devices, replicas, set, safes, here};
/// with --preview {folder, keep_before, keep, devices_before, devices, shortens, here, safes, versions}; with --keep-forgotten
/// {packs, bytes}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder
    folder: String,
    /// What every holder keeps
    #[arg(long, value_name = "KEEP", value_parser = keep)]
    keep: Option<String>,
    /// What devices that read the folder keep, if not the same ('same' again for the same)
    #[arg(long, value_name = "KEEP", value_parser = keep_or_same)]
    devices: Option<String>,
    /// How many holders shall have all present data before a device may drop its own copy of some
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    replicas: Option<u16>,
    /// Show what the change would let go and free, and change nothing
    #[arg(long)]
    preview: bool,
    /// Take back what members said to forget in the last 40 days: a thief's word, or a change of mind (members that write)
    #[arg(long, conflicts_with_all = ["keep", "devices", "replicas", "preview"])]
    keep_forgotten: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

fn keep(text: &str) -> Result<String, String> {
    let keep: Result<Keep, _> = text.parse();
    keep.map(|keep| keep.to_string())
        .map_err(|error| error.to_string())
}

fn keep_or_same(text: &str) -> Result<String, String> {
    match text {
        "same" => Ok(text.to_owned()),
        text => keep(text),
    }
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let request = RetentionRequest {
            keep: self.keep.clone(),
            devices: self.devices.clone(),
            replicas: self.replicas,
        };
        if self.keep_forgotten {
            let kept = client.keep_forgotten(&self.folder).await.map_err(refused)?;
            if context.json {
                output::json(&kept)?;
            } else {
                output::line(&format!(
                    "{} in {} packs that could have gone are kept on, as history.",
                    output::size(kept.bytes),
                    kept.packs
                ))?;
            }
            return DONE;
        }
        if self.preview {
            let preview = preview(&client, &self.folder, &request).await?;
            if context.json {
                output::json(&preview)?;
            } else {
                output::text_block(&foretold(&preview))?;
            }
            return DONE;
        }
        let retention = if request == RetentionRequest::default() {
            client.retention(&self.folder).await.map_err(refused)?
        } else {
            if !self.yes {
                let preview = preview(&client, &self.folder, &request).await?;
                if preview.shortens {
                    confirm(&foretold(&preview), "Type 'yes' to change it:")?;
                }
            }
            client
                .set_retention(&self.folder, &request)
                .await
                .map_err(refused)?
        };
        if context.json {
            output::json(&retention)?;
        } else {
            output::text_block(&describe(&retention))?;
        }
        DONE
    }
}

async fn preview(
    client: &Client,
    folder: &str,
    request: &RetentionRequest,
) -> Result<RetentionPreview, ErrorBody> {
    let _activity = Activity::start("looking through the folder's history");
    client
        .preview_retention(folder, request)
        .await
        .map_err(refused)
}

/// What is kept, in words.
fn words(keep: &str) -> String {
    match keep.parse() {
        Ok(Keep::All) => "everything, for ever".to_owned(),
        Ok(Keep::Staggered) => "fewer versions the older they are".to_owned(),
        Ok(Keep::For(time)) if time.is_zero() => "little (30 days)".to_owned(),
        Ok(Keep::For(time)) => format!("history for {}", days(time.as_secs())),
        Err(_) => output::plain(keep),
    }
}

fn days(seconds: u64) -> String {
    match seconds {
        86_400 => "1 day".to_owned(),
        seconds if seconds > 0 && seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
        seconds => output::span(seconds),
    }
}

/// A folder's retention in several lines.
fn describe(retention: &Retention) -> String {
    let here = &retention.here;
    let unset = if retention.set { "" } else { " (default)" };
    let mut text = format!("{}{unset}\n", output::plain(&retention.folder));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<11} {value}\n"));
    if let Some(version) = retention.unknown_version {
        line(
            "policy",
            format!(
                "version {version}, of a newer program than this: everything is kept until this one is updated"
            ),
        );
    }
    line("safes keep", words(&retention.keep));
    line("devices", words(&retention.devices));
    if let Some(replicas) = retention.replicas {
        line("replicas", format!("{replicas} wanted"));
    }
    line(
        "here",
        format!(
            "{} live, {} history{}",
            output::size(here.live_bytes),
            output::size(here.history_bytes),
            match here.forgotten_bytes {
                0 => String::new(),
                bytes => format!(", of which {} may go", output::size(bytes)),
            }
        ),
    );
    line(
        "at least",
        format!("{} for whatever was present", days(here.least_seconds)),
    );
    if let (Some(held), Some(left)) = (&here.held, here.held_seconds) {
        line(
            "for now",
            format!("{}, for {} more", words(held), output::span(left)),
        );
    }
    if here.safe {
        let quota = here.quota_bytes.map_or("none".to_owned(), output::size);
        line("quota", quota);
    }
    if retention.safes == 0 && !here.safe {
        line(
            "note",
            "no safe is a member: history is only where devices keep it".to_owned(),
        );
    }
    text
}

/// A preview in several lines.
fn foretold(preview: &RetentionPreview) -> String {
    let mut text = format!("{}\n", output::plain(&preview.folder));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<11} {value}\n"));
    let change = |before: &str, after: &str| {
        if before == after {
            format!("{}, as before", words(after))
        } else {
            format!("{} (now: {})", words(after), words(before))
        }
    };
    line("safes keep", change(&preview.keep_before, &preview.keep));
    line("devices", change(&preview.devices_before, &preview.devices));
    line(
        "frees here",
        format!(
            "{} in {} packs",
            output::size(preview.here.bytes),
            preview.here.packs
        ),
    );
    if preview.safes.safes > 0 {
        line(
            "at safes",
            format!(
                "about {} at {}, not before {} have passed",
                output::size(preview.safes.bytes),
                if preview.safes.safes == 1 {
                    "the safe".to_owned()
                } else {
                    format!("{} safes", preview.safes.safes)
                },
                days(preview.safes.after_seconds)
            ),
        );
    }
    line(
        "versions",
        format!(
            "{} would go, {} former ones stay",
            preview.versions.going, preview.versions.staying
        ),
    );
    for version in &preview.versions.examples {
        line(
            "",
            format!(
                "{}  {}, {}",
                output::plain(&version.path),
                version.written,
                output::size(version.bytes)
            ),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use ouisync_api::retention::{
        GoingVersion, PackCount, RetentionHere, SafesEstimate, VersionCount,
    };

    use super::*;

    #[test]
    fn a_preview_in_words() {
        let preview = RetentionPreview {
            folder: "Notes".into(),
            keep_before: "all".into(),
            keep: "90d".into(),
            devices_before: "little".into(),
            devices: "little".into(),
            shortens: true,
            here: PackCount {
                packs: 2,
                bytes: 131_072,
            },
            safes: SafesEstimate {
                safes: 2,
                packs: 10,
                bytes: 5_000_000,
                after_seconds: 30 * 86_400,
            },
            versions: VersionCount {
                going: 7,
                staying: 3,
                examples: vec![GoingVersion {
                    path: "a/b\n.txt".into(),
                    written: "2026-11-23T00:00:00Z".into(),
                    bytes: 1000,
                }],
            },
        };
        let text = foretold(&preview);
        for part in [
            "history for 90 days (now: everything, for ever)",
            "little (30 days), as before",
            "131.1 kB in 2 packs",
            "about 5.0 MB at 2 safes, not before 30 days have passed",
            "7 would go, 3 former ones stay",
            "a/b\u{fffd}.txt  2026-11-23T00:00:00Z, 1.0 kB",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn retention_in_words() {
        let retention = Retention {
            folder: "Notes".into(),
            keep: "staggered".into(),
            devices: "little".into(),
            replicas: Some(2),
            set: true,
            unknown_version: None,
            safes: 0,
            here: RetentionHere {
                safe: false,
                keep: "little".into(),
                held: Some("all".into()),
                held_seconds: Some(86_400),
                least_seconds: 30 * 86_400,
                quota_bytes: None,
                live_bytes: 5000,
                history_bytes: 2000,
                forgotten_bytes: 1000,
            },
        };
        let text = describe(&retention);
        for part in [
            "fewer versions the older they are",
            "5.0 kB live, 2.0 kB history, of which 1.0 kB may go",
            "everything, for ever, for 1 d 0 h more",
            "no safe is a member",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
