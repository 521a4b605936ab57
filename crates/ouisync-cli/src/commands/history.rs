//! `ouisync history`: what happened to a file or in a folder.

use clap::Args;
use ouisync_api::{
    client::Client,
    error::ErrorBody,
    history::{
        Action, Author, Change, History, HistoryRequest, OlderHistory, OlderHistoryRequest, Version,
    },
};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    location::{self, Location},
    output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync history ~/Notes/diary.txt               # its versions, deleted or not
  ouisync history Notes:diary.txt
  ouisync history Notes --since '2 days ago'      # what was done in the folder
  ouisync --json history diary.txt | jq -r '.versions[].version'

TIME is RFC 3339 ('2026-11-23T14:30:00Z'), a local date or time ('2026-11-23', '2026-11-23 14:30'), or a span back from now
('2 hours ago', 'yesterday'). It means the end of what it names: of the day, the minute, the second.";

/// Show the versions of a file, or what was done in a directory or folder
///
/// Versions of a file: every saved state, by whom and when, on whichever device, also of a file that is deleted or was moved.
/// The newest comes first. 'show', 'diff' and 'restore' take a version's name behind an '@'. JSON: {folder, path, versions |
/// changes, more, begins}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A path in a folder's directory, FOLDER:path, or a folder
    path: String,
    /// Nothing that was done before this time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Nothing that was done after this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many entries, the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let place = Location::find(&client, &self.path).await?;
        let request = HistoryRequest {
            path: place.asked(),
            since: self.since.as_deref().map(location::beginning).transpose()?,
            until: self.until.as_deref().map(location::time).transpose()?,
            limit: Some(self.limit),
        };
        let asked = client.history(&place.folder, &request).await;
        let mut found = asked.map_err(refused)?;
        let mut older = OlderHistory::default();
        // Times are RFC 3339 in UTC, of the same length up to the second.
        let wants_more =
            |begins: &String| request.since.as_ref().is_none_or(|since| since < begins);
        if !found.more && found.begins.as_ref().is_some_and(wants_more) {
            let begins = found.begins.clone();
            older = reach_back(&client, &place.folder, request.since.clone()).await?;
            if older.begins != begins {
                let asked = client.history(&place.folder, &request).await;
                found = asked.map_err(refused)?;
            }
        }
        if context.json {
            output::json(&found)?;
            return DONE;
        }
        show(&found, &older)
    }
}

/// Fetches what is before the history on this device from whoever is connected and holds it.
pub(super) async fn reach_back(
    client: &Client,
    folder: &str,
    since: Option<String>,
) -> Result<OlderHistory, ErrorBody> {
    let activity = Activity::start("fetching older history");
    let request = OlderHistoryRequest { since };
    let working = client.older_history(folder, &request).await;
    let progress = |phase, done, total| activity.work(phase, done, total);
    let outcome = working.map_err(refused)?.outcome(progress).await;
    drop(activity);
    outcome.map_err(refused)
}

/// What people can do about history that isn't on this device.
pub(super) fn not_held(begins: &str, older: &OlderHistory) -> String {
    let mut text = format!(
        "History before {} isn't on this device",
        location::local(begins)
    );
    match older.asked.as_slice() {
        [] => text.push_str(", and no other member is connected"),
        asked => text.push_str(&format!(", and {} hold it no more", asked.join(", "))),
    }
    match older.away.as_slice() {
        [] => text.push('.'),
        away => text.push_str(&format!(
            "; not connected, and may hold it: {}. Connect one and ask again.",
            away.join(", ")
        )),
    }
    text
}

fn show(found: &History, older: &OlderHistory) -> Outcome {
    let rows = match (&found.versions, &found.changes) {
        (Some(versions), _) => version_rows(versions),
        (None, changes) => change_rows(changes.as_deref().unwrap_or_default()),
    };
    if rows.len() == 1 {
        output::line("Nothing was done.")?;
    } else {
        output::text_block(&output::table(&rows))?;
    }
    if found.more {
        output::note("There is more: see --limit.");
    }
    if let Some(begins) = &found.begins
        && !found.more
    {
        output::note(&not_held(begins, older));
    }
    DONE
}

fn head(columns: [&str; 5]) -> Vec<String> {
    columns.map(str::to_owned).to_vec()
}

fn version_rows(versions: &[Version]) -> Vec<Vec<String>> {
    let mut rows = vec![head(["VERSION", "WHEN", "WHO", "SIZE", "WHAT"])];
    rows.extend(versions.iter().map(|version| {
        let mut what = version.action.name().to_owned();
        if version.action == Action::Moved
            && let Some(from) = &version.from
        {
            what = format!("moved from {}", output::plain(from));
        }
        if version.current {
            what.push_str(" (current)");
        } else if !version.here && version.kind.is_some() {
            what.push_str(" (not on this device)");
        }
        vec![
            version.version.clone(),
            location::local(&version.time),
            who(&version.author),
            version.size.map_or_else(|| "-".to_owned(), output::size),
            what,
        ]
    }));
    rows
}

fn change_rows(changes: &[Change]) -> Vec<Vec<String>> {
    let mut rows = vec![head(["VERSION", "WHEN", "WHO", "NEW DATA", "WHAT"])];
    rows.extend(changes.iter().map(|change| {
        let counts = [
            (change.created, "new"),
            (change.edited, "edited"),
            (change.deleted, "deleted"),
            (change.moved, "moved"),
            (change.metadata, "metadata"),
            (change.directories_created, "new directories"),
            (change.directories_deleted, "deleted directories"),
            (change.directories_moved, "moved directories"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        vec![
            change.version.clone(),
            location::local(&change.time),
            who(&change.author),
            output::size(change.bytes),
            counts.join(", "),
        ]
    }));
    rows
}

/// A member for people.
pub(super) fn who(author: &Author) -> String {
    match (&author.name, author.this_device) {
        (_, true) => "this device".to_owned(),
        (Some(name), false) => output::plain(name),
        (None, false) => author.member.chars().take(8).collect(),
    }
}
