//! `ouisync wait`: until a folder is in sync.

use std::time::Duration;

use clap::Args;
use ouisync_api::{client::Client, duration};

use super::status;
use crate::{
    command_line::Outcome,
    context::{Context, refused},
    progress::Activity,
};

const EXAMPLES: &str = "\
Examples:
  ouisync wait Notes --timeout 60 && echo 'safe to close the lid'
  ouisync wait Notes --timeout 5m";

/// Wait until a folder is in sync
///
/// That is: this device has recorded its directory, has all that its connected peers announce, has applied it, and at least
/// one connected peer has all of its own. Exit code 4 when that is not so in time, and 10, at once, while the folder is
/// paused. JSON: {ok}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder
    folder: String,
    /// How long to wait, in seconds or with a unit [default: without end]
    #[arg(long, value_name = "SECONDS", value_parser = timeout)]
    timeout: Option<Duration>,
}

/// Seconds, also with a fraction, or a number with a unit.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => duration::parse(text).map_err(|error| error.to_string()),
    }
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let activity = Activity::start(format!("waiting for '{}'", self.folder));
        tokio::select! {
            outcome = client.wait(&self.folder, self.timeout) => outcome.map_err(refused)?,
            () = narrate(&client, &self.folder, &activity) => {}
        }
        drop(activity);
        context.done(&format!("'{}' is in sync.", self.folder))
    }
}

/// Says what is still owed; never ends.
async fn narrate(client: &Client, folder: &str, activity: &Activity) {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // What can't be asked isn't shown; the wait itself tells of errors.
        if let Ok(status) = client.status(folder).await {
            activity.say(status::sentence(&status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs() {
        assert_eq!(timeout("30"), Ok(Duration::from_secs(30)));
        assert_eq!(timeout("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(timeout("0"), Ok(Duration::ZERO));
        assert_eq!(timeout("5m"), Ok(Duration::from_secs(300)));
        for text in ["-1", "nan", "inf", "x", ""] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }
}
