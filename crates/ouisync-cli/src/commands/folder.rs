//! `ouisync folder`: the folders on this device.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ouisync_api::data::{Confirmation, CreateRequest, Done};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, absolute, refused},
    output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync folder create Notes --path ~/Notes
  ouisync folder list
  ouisync folder attach Notes --path /mnt/disk/Notes
  ouisync folder forget Notes";

/// Make, list, move and forget folders
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    List(List),
    Attach(Attach),
    Confirm(Confirm),
    Forget(Forget),
}

/// Make a folder from a directory; this device becomes its owner
///
/// The directory is made when it is missing; what is in it becomes the folder's content. JSON: {folder, name, role, path}.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ouisync folder create Notes --path ~/Notes\n  ouisync --json folder create 'Voyage pictures' --path /data/voyage"
)]
struct Create {
    /// The folder's name: 1 to 64 characters
    name: String,
    /// Its plain directory
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
}

/// List the folders on this device
///
/// JSON: a list of {folder, name, role, path}.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ouisync folder list")]
struct List {}

/// Give a folder its plain directory, or another one
///
/// Stop using the old directory first, and move its files if you want to keep them together: what is in the new directory is
/// united with the folder, nothing is deleted. Safes have no directory. JSON: {folder, name, role, path}.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mv ~/Notes /mnt/disk/Notes && ouisync folder attach Notes --path /mnt/disk/Notes"
)]
struct Attach {
    /// Name or id of the folder
    folder: String,
    /// Its new plain directory
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
}

/// Say that what looks like an accident to a folder's directory was meant
///
/// An emptied directory, or another one in its place, is never taken for the deletion of everything: 'ouisync status' shows it
/// as a problem until you say what was meant. JSON: {ok}.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ouisync folder confirm Notes --deletion     # I emptied it; delete the files everywhere\n  ouisync folder confirm Notes --directory    # this is another directory; take it over"
)]
struct Confirm {
    /// Name or id of the folder
    folder: String,
    #[command(flatten)]
    meant: Meant,
}

/// One of the two. A group of its own, because a struct's group holds all of its arguments.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Meant {
    /// The directory was emptied on purpose: delete its files on every device
    #[arg(long)]
    deletion: bool,
    /// Another directory is there on purpose: unite it with the folder, delete nothing
    #[arg(long)]
    directory: bool,
}

/// Stop a folder on this device and delete its encrypted store; plain files and other devices keep what they have
///
/// What only this device holds of the folder's history is gone after this. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ouisync folder forget Notes")]
struct Forget {
    /// Name or id of the folder
    folder: String,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self.action {
            Action::Create(create) => {
                let request = CreateRequest {
                    name: create.name,
                    path: Some(absolute(&create.path)?),
                };
                let folder = client.create(&request).await.map_err(refused)?;
                let words = || {
                    format!(
                        "The folder '{}' is made from {}.\nInvite a device with: ouisync invite '{}' --role writer",
                        folder.name,
                        create.path.display(),
                        folder.name
                    )
                };
                show(context, &folder, words)?;
            }
            Action::List(List {}) => {
                let folders = client.folders().await.map_err(refused)?;
                show(context, &folders, || {
                    let mut rows = vec![
                        ["NAME", "ROLE", "DIRECTORY", "ID"]
                            .map(str::to_owned)
                            .to_vec(),
                    ];
                    rows.extend(folders.iter().map(|folder| {
                        let path = folder.path.as_deref().unwrap_or("-");
                        vec![
                            output::plain(&folder.name),
                            output::role_name(folder.role).to_owned(),
                            output::plain(path),
                            folder.folder[..folder.folder.len().min(16)].to_owned(),
                        ]
                    }));
                    output::table(&rows).trim_end().to_owned()
                })?;
            }
            Action::Attach(attach) => {
                let folder = client
                    .attach(&attach.folder, absolute(&attach.path)?)
                    .await
                    .map_err(refused)?;
                show(context, &folder, || {
                    format!(
                        "The folder '{}' is now at {}.",
                        folder.name,
                        attach.path.display()
                    )
                })?;
            }
            Action::Confirm(confirm) => {
                let meant = if confirm.meant.deletion {
                    Confirmation::Deletion
                } else {
                    Confirmation::Directory
                };
                client
                    .confirm(&confirm.folder, meant)
                    .await
                    .map_err(refused)?;
                show(context, &Done::OK, || "Confirmed.".to_owned())?;
            }
            Action::Forget(forget) => {
                let _activity = Activity::start("deleting the encrypted store");
                client.forget(&forget.folder).await.map_err(refused)?;
                show(context, &Done::OK, || {
                    format!(
                        "'{}' is forgotten here; its plain files stay.",
                        forget.folder
                    )
                })?;
            }
        }
        DONE
    }
}

fn show(
    context: &Context,
    document: &impl serde::Serialize,
    words: impl FnOnce() -> String,
) -> Result<(), ouisync_api::error::ErrorBody> {
    if context.json {
        output::json(document)
    } else {
        output::line(&words())
    }
}
