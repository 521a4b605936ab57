//! `ouisync show`: the content of a version.

use clap::Args;
use ouisync_api::{
    client::Client,
    error::{ErrorBody, ErrorKind},
    history::{ContentRequest, EntryKind, Found, Selection},
};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused, usage},
    location::{self, Location, Wanted},
    output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync show ~/Notes/diary.txt@3f2a9c01b7de     # a version as 'ouisync history' names it
  ouisync show 'Notes:diary.txt@2 hours ago'
  ouisync show ~/Notes/photo.jpg --at 2026-11-20 > photo.jpg";

/// Write the content of a file as it was to standard output
///
/// PATH@VERSION names a version of 'ouisync history', PATH@TIME the state at a time; PATH alone is the present one, of a deleted
/// file the last one. Content that isn't on this device is fetched from whoever holds it, safes included. JSON: what was found,
/// {path, kind, size, time, author, version}, without the content.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_version_flag = true)]
pub(crate) struct Arguments {
    /// A path in a folder's directory or FOLDER:path, with @VERSION or @TIME
    #[arg(value_name = "PATH[@VERSION]")]
    path: String,
    #[command(flatten)]
    when: When,
}

/// Which state is meant.
#[derive(Debug, Default, Args)]
pub(crate) struct When {
    /// The state at this time
    #[arg(long, value_name = "TIME", conflicts_with = "version")]
    at: Option<String>,
    /// This version, as 'ouisync history' names it
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
}

impl When {
    /// What of which folder is meant by `text` and these options.
    pub(crate) async fn find(
        self,
        client: &Client,
        text: &str,
    ) -> Result<(Location, Selection), ErrorBody> {
        let given = match (self.at, self.version) {
            (Some(at), _) => Some(Wanted::Time(location::time(&at)?)),
            (None, version) => version.map(Wanted::Version),
        };
        let (path, wanted) = match given {
            Some(given) => (text, Some(given)),
            None => location::split_version(text),
        };
        let place = Location::find(client, path).await?;
        let selection = Wanted::select(wanted, place.asked());
        Ok((place, selection))
    }
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let (place, selection) = self.when.find(&client, &self.path).await?;
        let found = find(&client, &place, selection).await?;
        if context.json {
            output::json(&found.found)?;
            return DONE;
        }
        found.check_leaf()?;
        let request = found.request;
        let mut content = client
            .content(&place.folder, &request)
            .await
            .map_err(refused)?;
        while let Some(bytes) = content.next().await.map_err(refused)? {
            output::bytes(&bytes)?;
        }
        DONE
    }
}

/// A version whose content can be read.
pub(super) struct Ready {
    pub(super) found: Found,
    /// Asks for its content.
    pub(super) request: ContentRequest,
}

impl Ready {
    fn check_leaf(&self) -> Result<(), ErrorBody> {
        if self.found.kind == EntryKind::Directory {
            return Err(usage(
                format!("'{}' is a directory and has no content", self.found.path),
                "Write it out with 'ouisync browse'.",
            ));
        }
        Ok(())
    }

    /// The whole content.
    pub(super) async fn read(&self, client: &Client, folder: &str) -> Result<Vec<u8>, ErrorBody> {
        self.check_leaf()?;
        let mut content = client
            .content(folder, &self.request)
            .await
            .map_err(refused)?;
        let mut all = Vec::new();
        while let Some(bytes) = content.next().await.map_err(refused)? {
            all.extend_from_slice(&bytes);
        }
        if all.len() as u64 == self.found.size {
            return Ok(all);
        }
        Err(ErrorBody::new(
            ErrorKind::Unavailable,
            "the content ended early",
            "Look at the daemon's log and try again.",
        ))
    }
}

/// Finds a version and fetches its content to this device.
pub(super) async fn find(
    client: &Client,
    place: &Location,
    selection: Selection,
) -> Result<Ready, ErrorBody> {
    let request = ContentRequest { selection };
    let activity = Activity::start("looking");
    let working = client
        .find_version(&place.folder, &request)
        .await
        .map_err(refused)?;
    let found = working
        .outcome(|phase, done, total| activity.work(phase, done, total))
        .await
        .map_err(refused)?;
    Ok(Ready { found, request })
}
