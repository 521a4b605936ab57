//! `ouisync status --watch`: the same, live.

use std::{io::IsTerminal, time::Duration};

use ouisync_api::{client::Client, data::FolderStatus, error::ErrorBody, event::Event};

use super::describe;
use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output,
};

/// Speeds change without an event.
const TICK: Duration = Duration::from_secs(1);
/// Events closer than this are one change.
const SETTLE: Duration = Duration::from_millis(100);

/// Shows until Ctrl-C or the daemon's end.
pub(super) async fn run(context: &Context, client: &Client, folder: Option<&str>) -> Outcome {
    // Before the first look, so that no change falls between the two.
    let mut events = client.events().await.map_err(refused)?;
    let redraw = !context.json && std::io::stdout().is_terminal();
    let mut shown = String::new();
    loop {
        let text = render(context, &look(client, folder).await?, folder.is_some())?;
        if text != shown {
            let lead = if redraw { "\u{1b}[H\u{1b}[J" } else { "" };
            output::text_block(&format!("{lead}{text}"))?;
            shown = text;
        }
        let event = tokio::select! {
            event = events.next() => event.map_err(refused)?,
            () = tokio::time::sleep(TICK) => continue,
        };
        match event {
            None | Some(Event::Stopping) => {
                output::note("The daemon has stopped.");
                return DONE;
            }
            Some(Event::Warning { message, .. }) => output::note(&output::plain(&message)),
            Some(_) => tokio::time::sleep(SETTLE).await,
        }
    }
}

async fn look(client: &Client, folder: Option<&str>) -> Result<Vec<FolderStatus>, ErrorBody> {
    match folder {
        Some(folder) => client.status(folder).await.map(|status| vec![status]),
        None => client.statuses().await,
    }
    .map_err(refused)
}

fn render(context: &Context, statuses: &[FolderStatus], one: bool) -> Result<String, ErrorBody> {
    if !context.json {
        return Ok(statuses.iter().map(describe).collect::<Vec<_>>().join("\n"));
    }
    let document = match statuses {
        [status] if one => serde_json::to_string(status),
        statuses => serde_json::to_string(statuses),
    };
    document
        .map(|line| format!("{line}\n"))
        .map_err(|error| crate::context::failure(error.to_string()))
}
