//! `ouisync forget-versions`: gives the former versions of a file up everywhere.

use clap::Args;
use ouisync_api::retention::{ForgetVersionsRequest, Forgetting};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, check_somebody_is_there, confirm, refused, usage},
    location::Location,
    output,
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync forget-versions ~/Notes/tax.pdf --preview     # what that would let go
  ouisync forget-versions Notes:tax.pdf
  rm ~/Notes/tax.pdf && ouisync wait Notes && ouisync forget-versions Notes:tax.pdf --yes";

/// Let the former versions of a file go everywhere, before the folder's retention is over
///
/// The file as it is now stays; of a deleted file every version goes. It is a permission, not an order: holders drop what they have after
/// 30 days, safes after their floor, and nothing that the folder needs now. What lies in one pack (a sealed container) together with other
/// things stays as long as these, and content of at most 4 KiB is in the folder's log itself, which stays, too. JSON: {folder, path, versions,
/// inline, packs, bytes, shared_packs, after_seconds, preview}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A path in a folder's directory, or FOLDER:path
    path: String,
    /// Show what would go, and change nothing
    #[arg(long)]
    preview: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let place = Location::find(&client, &self.path).await?;
        let Some(path) = place.asked() else {
            return Err(usage(
                format!("'{}' is a folder", self.path),
                "Name one file; for the whole folder see 'ouisync retention'.",
            ));
        };
        let _activity = Activity::start("looking through the folder's history");
        let ask = async |preview| {
            let request = ForgetVersionsRequest {
                path: path.clone(),
                preview,
            };
            client
                .forget_versions(&place.folder, &request)
                .await
                .map_err(refused)
        };
        let found = if self.preview || self.yes {
            ask(self.preview).await?
        } else {
            check_somebody_is_there()?;
            confirm(&words(&ask(true).await?), "Type 'yes' to let it go:")?;
            ask(false).await?
        };
        if context.json {
            output::json(&found)?;
        } else {
            output::line(&words(&found))?;
        }
        DONE
    }
}

fn words(found: &Forgetting) -> String {
    let may = if found.preview { "could" } else { "may" };
    let mut text = format!(
        "{}: {} former versions {may} go: {} in {} packs, after {} days at the least.",
        output::plain(&found.path),
        found.versions,
        output::size(found.bytes),
        found.packs,
        found.after_seconds / 86_400,
    );
    if found.shared_packs > 0 {
        text.push_str(&format!(
            "\n{} packs that hold some of it hold other things, too, and stay as long as these.",
            found.shared_packs
        ));
    }
    if found.inline > 0 {
        text.push_str(&format!(
            "\n{} of the versions are in the folder's log and stay there.",
            found.inline
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_said() {
        let found = Forgetting {
            path: "a\nb".into(),
            versions: 5,
            inline: 1,
            packs: 2,
            bytes: 131_072,
            shared_packs: 3,
            after_seconds: 30 * 86_400,
            preview: true,
            ..Forgetting::default()
        };
        let text = words(&found);
        for part in [
            "a\u{fffd}b: 5 former versions could go: 131.1 kB in 2 packs, after 30 days",
            "3 packs that hold some of it",
            "1 of the versions are in the folder's log",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
