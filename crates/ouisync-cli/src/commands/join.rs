//! `ouisync join`: takes part in a folder by a link.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use ouisync_api::data::JoinRequest;

use super::wait::timeout;
use crate::{
    command_line::{DONE, Outcome},
    context::{Context, absolute, refused, usage},
    output, passphrase,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync join 'ouisync://join/v1#...' --path ~/Notes
  ouisync join - --path ~/Notes < link.txt      # keeps the link out of the shell's history
  ouisync join 'ouisync://join/v1#...'          # as a safe: no directory";

/// Take part in a folder by an invitation's link
///
/// Waits until a member lets this device in; any member can, also a safe. After the time-out it goes on in the background. A
/// directory that isn't empty is united with the folder: nothing is overwritten. JSON: {folder, name, role, path}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The link, in quotes, or - to read it from standard input
    link: String,
    /// The folder's plain directory; not for a safe
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Name of the folder on this device [default: the inviter's; a safe, which must not know that, makes one up]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long to wait for a member
    #[arg(long, value_name = "SECONDS", value_parser = timeout, default_value = "60")]
    timeout: Duration,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let link = match self.link.as_str() {
            "-" => passphrase::line(None).await?.ok_or_else(|| {
                usage(
                    "standard input is empty",
                    "Give the invitation's link there, as one line.",
                )
            })?,
            given => given.to_owned(),
        };
        let request = JoinRequest {
            link: link.trim().to_owned(),
            path: self.path.as_deref().map(absolute).transpose()?,
            name: self.name,
            timeout_seconds: Some(self.timeout.as_secs().max(1)),
        };
        let _activity = Activity::start("looking for a member that lets this device in");
        let folder = context.client()?.join(&request).await.map_err(refused)?;
        if context.json {
            output::json(&folder)?;
        } else {
            let place = match &folder.path {
                Some(path) => format!("; its files come to {}", output::plain(path)),
                None => String::new(),
            };
            output::line(&format!(
                "This device is now a {} of '{}'{place}.",
                output::role_name(folder.role),
                output::plain(&folder.name)
            ))?;
        }
        DONE
    }
}
