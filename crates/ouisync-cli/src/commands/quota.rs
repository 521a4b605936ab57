//! `ouisync quota`: how much a safe stores, and for how long nothing goes.

use clap::Args;
use ouisync_api::{
    duration,
    retention::{LimitsRequest, parse_size},
};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync quota 'for Alice'                  # what is stored, and the limit
  ouisync quota 'for Alice' 20GB
  ouisync quota 'for Alice' none
  ouisync quota 'for Alice' --floor 60d      # nothing goes sooner, whatever the members say";

/// Show or set how much a safe stores (on the safe's own device)
///
/// Above the quota history goes, what was given up first before the rest, but none of the last day, nor within a floor set here. What
/// the folder needs as it is now never goes: when that and young history exceed the quota the safe takes in nothing more, says so in
/// 'ouisync status', and is shown as lacking it at the members. JSON: as 'ouisync retention'.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder
    folder: String,
    /// Most ciphertext, such as 500MB, 20GB or 1TiB; 'none' for no limit but the disk
    #[arg(value_name = "SIZE", value_parser = size)]
    quota: Option<String>,
    /// For how long nothing goes that was stored, such as 30d ('default' for that)
    #[arg(long, value_name = "TIME", value_parser = floor)]
    floor: Option<String>,
}

fn size(text: &str) -> Result<String, String> {
    match text {
        "none" => Ok(text.to_owned()),
        text => parse_size(text)
            .map(|bytes| bytes.to_string())
            .map_err(|error| error.to_string()),
    }
}

fn floor(text: &str) -> Result<String, String> {
    match text {
        "default" => Ok(text.to_owned()),
        text => duration::parse(text)
            .map(|time| format!("{}s", time.as_secs()))
            .map_err(|error| error.to_string()),
    }
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let request = LimitsRequest {
            quota: self.quota,
            floor: self.floor,
        };
        let retention = if request == LimitsRequest::default() {
            client.retention(&self.folder).await
        } else {
            client.set_limits(&self.folder, &request).await
        }
        .map_err(refused)?;
        if context.json {
            output::json(&retention)?;
            return DONE;
        }
        let here = &retention.here;
        let quota = here.quota_bytes.map_or("none".to_owned(), output::size);
        output::text_block(&format!(
            "{}\n  quota       {quota}\n  stored      {} live, {} history\n  at least    {} for whatever was present\n",
            output::plain(&retention.folder),
            output::size(here.live_bytes),
            output::size(here.history_bytes),
            output::span(here.least_seconds),
        ))?;
        DONE
    }
}
