//! `ouisync status`: what the folders are doing.

mod watch;

use clap::Args;
use ouisync_api::data::FolderStatus;

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync status
  ouisync status Notes --watch
  ouisync --json status | jq -r '.[] | [.name, .state] | @tsv'
  ouisync --json status Notes | jq .missing_bytes";

/// Show what the folders are doing, what is still owed and to whom
///
/// JSON: without a folder a list, with one an object: {name, folder, role, state, files, bytes, missing_bytes, stored_bytes,
/// live_bytes, history_bytes, offloaded_bytes, missing_history_bytes, quota_bytes, refused_bytes, conflicts, problems, peers, path, download_rate, upload_rate}. States: synced, syncing, waiting (somebody needed isn't
/// connected), paused, locked, error. With --watch and --json one such document a line, whenever something changed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder [default: all]
    folder: Option<String>,
    /// Go on showing it until Ctrl-C: speeds, what each peer lacks, time left
    #[arg(long, short)]
    watch: bool,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        if self.watch {
            return watch::run(context, &client, self.folder.as_deref()).await;
        }
        match &self.folder {
            Some(folder) => {
                let status = client.status(folder).await.map_err(refused)?;
                if context.json {
                    output::json(&status)?
                } else {
                    output::text_block(&describe(&status))?
                }
            }
            None => {
                let statuses = client.statuses().await.map_err(refused)?;
                if context.json {
                    output::json(&statuses)?;
                } else if statuses.is_empty() {
                    output::line(
                        "There are no folders yet: make one with 'ouisync folder create', or join one with 'ouisync join'.",
                    )?;
                } else {
                    output::text_block(
                        &statuses.iter().map(describe).collect::<Vec<_>>().join("\n"),
                    )?;
                }
            }
        }
        DONE
    }
}

/// A folder's condition in a line.
pub(super) fn sentence(status: &FolderStatus) -> String {
    let mut parts = vec![format!("{}: {}", output::plain(&status.name), status.state)];
    if status.missing_bytes > 0 {
        parts.push(format!("{} to receive", output::size(status.missing_bytes)));
    }
    for peer in status.peers.iter().filter(|peer| peer.missing_bytes > 0) {
        parts.push(format!(
            "{} lacks {}",
            peer_name(peer),
            output::size(peer.missing_bytes)
        ));
    }
    if !status.peers.iter().any(|peer| peer.connected) {
        parts.push("nobody is connected".to_owned());
    }
    parts.join(" · ")
}

/// A folder's condition in several lines.
fn describe(status: &FolderStatus) -> String {
    let mut text = format!(
        "{}  {} ({})\n",
        output::plain(&status.name),
        status.state,
        output::role_name(status.role)
    );
    if let Some(path) = &status.path {
        text.push_str(&format!("  directory   {}\n", output::plain(path)));
    }
    if status.files > 0 || status.path.is_some() {
        text.push_str(&format!(
            "  content     {} files, {}\n",
            status.files,
            output::size(status.bytes)
        ));
    }
    let history = match status.history_bytes {
        0 => String::new(),
        bytes => format!(", {} of it history", output::size(bytes)),
    };
    let quota = match status.quota_bytes {
        None => String::new(),
        Some(bytes) => format!(" (quota {})", output::size(bytes)),
    };
    text.push_str(&format!(
        "  stored      {} of ciphertext{history}{quota}\n",
        output::size(status.stored_bytes)
    ));
    if status.offloaded_bytes > 0 {
        text.push_str(&format!(
            "  offloaded   {} of ciphertext, held by others\n",
            output::size(status.offloaded_bytes)
        ));
    }
    if status.missing_history_bytes > 0 {
        text.push_str(&format!(
            "  history     {} of ciphertext is not here yet: it comes from whoever still has it\n",
            output::size(status.missing_history_bytes)
        ));
    }
    if status.missing_bytes > 0 {
        text.push_str(&format!(
            "  to receive  {}{}\n",
            output::size(status.missing_bytes),
            time_left(status.missing_bytes, status.download_rate)
        ));
    }
    if status.download_rate + status.upload_rate > 0 {
        text.push_str(&format!(
            "  speed       {}/s in, {}/s out\n",
            output::size(status.download_rate),
            output::size(status.upload_rate)
        ));
    }
    if status.conflicts > 0 {
        text.push_str(&format!(
            "  conflicts   {}: all versions are in the directory; see 'ouisync conflicts'\n",
            status.conflicts
        ));
    }
    for peer in &status.peers {
        let role = peer.role.map_or(String::new(), |role| format!(" ({role})"));
        let state = if peer.connected { "connected" } else { "away" };
        let owed = match peer.missing_bytes {
            0 => String::new(),
            owed => {
                let rate = if peer.connected {
                    status.upload_rate
                } else {
                    0
                };
                format!(", lacks {}{}", output::size(owed), time_left(owed, rate))
            }
        };
        text.push_str(&format!(
            "  peer        {}{role} {state}{owed}\n",
            peer_name(peer)
        ));
    }
    for problem in &status.problems {
        let path = problem
            .path
            .as_deref()
            .map(|path| format!("{}: ", output::plain(path)))
            .unwrap_or_default();
        text.push_str(&format!(
            "  problem     {path}{}\n",
            output::plain(&problem.message)
        ));
    }
    text
}

fn peer_name(peer: &ouisync_api::data::Peer) -> String {
    match (&peer.name, &peer.member) {
        (Some(name), _) => output::plain(name),
        (None, Some(member)) => member.chars().take(8).collect(),
        (None, None) => "a device".to_owned(),
    }
}

fn time_left(bytes: u64, rate: u64) -> String {
    match bytes.checked_div(rate) {
        Some(seconds) => format!(", {} left", output::span(seconds.max(1))),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use ouisync_api::data::{FolderState, Peer, Problem, Role};

    use super::*;

    #[test]
    fn a_condition_in_words() {
        let status = FolderStatus {
            name: "Notes".into(),
            folder: "00".into(),
            role: Some(Role::Writer),
            state: FolderState::Syncing,
            files: 3,
            bytes: 5000,
            missing_bytes: 10_000_000,
            stored_bytes: 0,
            live_bytes: 0,
            history_bytes: 0,
            offloaded_bytes: 0,
            missing_history_bytes: 5_000_000,
            quota_bytes: None,
            refused_bytes: 0,
            conflicts: 1,
            problems: vec![Problem {
                path: Some("a\nb".into()),
                message: "unreadable".into(),
            }],
            peers: vec![Peer {
                member: Some("abcdef0123".into()),
                name: None,
                role: Some(Role::Safe),
                connected: true,
                missing_bytes: 2_000_000,
            }],
            path: Some("/notes".into()),
            download_rate: 1_000_000,
            upload_rate: 1_000_000,
        };
        let text = describe(&status);
        for part in [
            "Notes  syncing (writer)",
            "10.0 MB, 10 s left",
            "abcdef01 (safe) connected, lacks 2.0 MB, 2 s left",
            "a\u{fffd}b: unreadable",
            "conflicts   1",
            "history     5.0 MB of ciphertext",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(
            sentence(&status),
            "Notes: syncing · 10.0 MB to receive · abcdef01 lacks 2.0 MB"
        );
    }
}
