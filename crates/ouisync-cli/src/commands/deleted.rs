//! `ouisync deleted`: what could be brought back.

use clap::Args;
use ouisync_api::history::{Deleted, DeletedRequest, EntryKind};

use super::history::{not_held, reach_back, who};
use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    location::{self, Location},
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync deleted Notes
  ouisync deleted ~/Notes/letters --all
  ouisync restore ~/Notes/letters/draft.txt       # brings the last version back";

/// Show what is deleted in a folder and could be brought back
///
/// What went with a directory is counted there, or shown one by one with --all. JSON: a list of everything, {path, kind, time,
/// at, author, files, bytes, version, here}; 'at' is the last moment at which it was there, 'here' that its content is on this
/// device; 'bytes' is null of what was deleted before the history that can be had.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A folder, a directory in one, or FOLDER:path
    path: String,
    /// Show also what went with its directory
    #[arg(long)]
    all: bool,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let place = Location::find(&client, &self.path).await?;
        let older = reach_back(&client, &place.folder, None).await?;
        let request = DeletedRequest {
            path: place.asked(),
        };
        let found = client
            .deleted(&place.folder, &request)
            .await
            .map_err(refused)?;
        if context.json {
            output::json(&found)?;
            return DONE;
        }
        if let Some(begins) = &older.begins {
            output::note(&not_held(begins, &older));
        }
        let shown: Vec<&Deleted> = found
            .iter()
            .filter(|entry| self.all || !is_inside_another(entry, &found))
            .collect();
        if shown.is_empty() {
            output::line("Nothing is deleted.")?;
            return DONE;
        }
        let head = ["DELETED", "BY", "FILES", "SIZE", "VERSION", "PATH"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(shown.into_iter().map(|entry| {
            let mut path = output::plain(&entry.path);
            if entry.kind == EntryKind::Directory {
                path.push('/');
            }
            if !entry.here {
                path.push_str("  (not on this device)");
            }
            vec![
                location::local(&entry.time),
                who(&entry.author),
                entry.files.to_string(),
                entry.bytes.map_or_else(|| "-".to_owned(), output::size),
                entry.version.clone().unwrap_or_else(|| "-".to_owned()),
                path,
            ]
        }));
        output::text_block(&output::table(&rows))?;
        DONE
    }
}

fn is_inside_another(entry: &Deleted, all: &[Deleted]) -> bool {
    entry
        .path
        .match_indices('/')
        .map(|(index, _)| &entry.path[..index])
        .any(|above| {
            let found = all.binary_search_by(|other| by_names(&other.path, above));
            found.is_ok_and(|index| all[index].kind == EntryKind::Directory)
        })
}

/// The order in which the list comes: name by name.
fn by_names(one: &str, other: &str) -> std::cmp::Ordering {
    one.split('/').cmp(other.split('/'))
}
