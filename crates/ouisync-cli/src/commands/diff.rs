//! `ouisync diff`: what differs between two versions.

use clap::Args;
use imara_diff::{Algorithm, BasicLineDiffPrinter, Diff, InternedInput, UnifiedDiffConfig};
use ouisync_api::{
    client::Client,
    error::ErrorBody,
    history::{EntryKind, Found, HistoryRequest, Selection, Version},
};
use serde::Serialize;

use super::show::{Ready, find};
use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused, usage},
    location::{self, Location, Wanted},
    output,
};

/// Longer texts are told apart by their size alone.
const MAX_TEXT: u64 = 4 << 20;
/// Versions that are looked through for the one before.
const LOOK_BACK: u32 = 1000;

const EXAMPLES: &str = "\
Examples:
  ouisync diff ~/Notes/diary.txt                        # the last edit
  ouisync diff ~/Notes/diary.txt@3f2a9c01b7de           # that version and the present one
  ouisync diff 'Notes:diary.txt@yesterday' Notes:diary.txt
  ouisync diff Notes:a.txt@3f2a9c01b7de Notes:b.txt@77ab01c2d3e4";

/// Show what differs between two versions of a file
///
/// With one PATH@VERSION: that version and the present one. With a PATH alone: the present version and the one before it. Texts
/// in UTF-8 of up to 4 MiB are compared by lines; of others it is told whether they differ, and their sizes. JSON: {from, to,
/// equal, binary, text}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A path in a folder's directory or FOLDER:path, with @VERSION or @TIME
    #[arg(value_name = "PATH[@VERSION]")]
    from: String,
    /// What it is compared with [default: the present version of the same file]
    #[arg(value_name = "PATH[@VERSION]")]
    to: Option<String>,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Difference<'a> {
    from: &'a Found,
    to: &'a Found,
    equal: bool,
    binary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let (path, wanted) = location::split_version(&self.from);
        let place = Location::find(&client, path).await?;
        let (from, (to_place, to)) = match &self.to {
            Some(text) => {
                let (path, wanted_to) = location::split_version(text);
                let to_place = Location::find(&client, path).await?;
                let to = Wanted::select(wanted_to, to_place.asked());
                (Wanted::select(wanted, place.asked()), (to_place, to))
            }
            None => {
                let to = Wanted::select(None, place.asked());
                let from = match wanted {
                    Some(wanted) => Wanted::select(Some(wanted), place.asked()),
                    None => the_one_before(&client, &place).await?,
                };
                (from, (place.clone(), to))
            }
        };
        let from = find(&client, &place, from).await?;
        let to = find(&client, &to_place, to).await?;
        let sides = [(&from, &place), (&to, &to_place)];
        let small = sides.iter().all(|(side, _)| side.found.size <= MAX_TEXT);
        let mut texts = Vec::new();
        let mut equal = same_version(&from.found, &to.found);
        if small && !equal {
            let before = from.read(&client, &place.folder).await?;
            let after = to.read(&client, &to_place.folder).await?;
            equal = before == after && from.found.kind == to.found.kind;
            texts.extend(as_text(before));
            texts.extend(as_text(after));
        } else if !equal {
            equal = from.found.size == to.found.size && self.compare(&client, &sides).await?;
        }
        let text = match texts.as_slice() {
            [before, after] if !equal => Some(unified(&from.found, before, &to.found, after)),
            _ => None,
        };
        let difference = Difference {
            from: &from.found,
            to: &to.found,
            equal,
            binary: !equal && text.is_none(),
            text,
        };
        if context.json {
            output::json(&difference)?;
        } else {
            show(&difference)?;
        }
        DONE
    }

    /// Compares long contents piece by piece.
    async fn compare(
        &self,
        client: &Client,
        sides: &[(&Ready, &Location); 2],
    ) -> Result<bool, ErrorBody> {
        let [(from, place), (to, to_place)] = sides;
        let mut before = client
            .content(&place.folder, &from.request)
            .await
            .map_err(refused)?;
        let mut after = client
            .content(&to_place.folder, &to.request)
            .await
            .map_err(refused)?;
        let (mut left, mut right) = (Vec::new(), Vec::new());
        loop {
            if left.is_empty() {
                match before.next().await.map_err(refused)? {
                    Some(bytes) => left = bytes.to_vec(),
                    None => {
                        return Ok(
                            right.is_empty() && after.next().await.map_err(refused)?.is_none()
                        );
                    }
                }
            }
            if right.is_empty() {
                match after.next().await.map_err(refused)? {
                    Some(bytes) => right = bytes.to_vec(),
                    None => return Ok(false),
                }
            }
            let length = left.len().min(right.len());
            if left[..length] != right[..length] {
                return Ok(false);
            }
            left.drain(..length);
            right.drain(..length);
        }
    }
}

fn same_version(from: &Found, to: &Found) -> bool {
    from.version.is_some() && from.version == to.version && from.path == to.path
}

/// The version before the present one, of a deleted file before the last one.
async fn the_one_before(client: &Client, place: &Location) -> Result<Selection, ErrorBody> {
    let request = HistoryRequest {
        path: place.asked(),
        limit: Some(LOOK_BACK),
        ..HistoryRequest::default()
    };
    let history = client
        .history(&place.folder, &request)
        .await
        .map_err(refused)?;
    let written = |version: &&Version| {
        use ouisync_api::history::Action::{Created, Edited, Restored};
        matches!(version.action, Created | Edited | Restored)
            && version.kind == Some(EntryKind::File)
    };
    let versions = history.versions.unwrap_or_default();
    let mut contents = versions.iter().filter(written);
    let before = contents.nth(1).ok_or_else(|| {
        usage(
            format!("{} has only one version", place.show()),
            "Nothing to compare; see 'ouisync history'.",
        )
    })?;
    Ok(Wanted::select(
        Some(Wanted::Version(before.version.clone())),
        place.asked(),
    ))
}

fn as_text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

fn label(side: &Found) -> String {
    let version = side.version.as_deref().unwrap_or("-");
    let time = side.time.as_deref().unwrap_or_default();
    format!(
        "{}@{version}  {}",
        output::plain(&side.path),
        location::local(time)
    )
}

fn unified(from: &Found, before: &str, to: &Found, after: &str) -> String {
    let input = InternedInput::new(before, after);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let printer = BasicLineDiffPrinter(&input.interner);
    let text = diff.unified_diff(&printer, UnifiedDiffConfig::default(), &input);
    format!("--- {}\n+++ {}\n{text}", label(from), label(to))
}

fn show(difference: &Difference<'_>) -> Outcome {
    let Difference { from, to, .. } = difference;
    if difference.equal {
        output::line("No difference.")?;
    } else if let Some(text) = &difference.text {
        // Lines of files may hold what steers a terminal.
        for line in text.split_inclusive('\n') {
            let (line, end) = match line.strip_suffix('\n') {
                Some(line) => (line, "\n"),
                None => (line, ""),
            };
            let line = line.replace('\t', "\u{1}");
            let line = output::plain(&line.replace('\u{1}', "    "));
            output::text_block(&format!("{line}{end}"))?;
        }
    } else {
        output::line(&format!(
            "Not texts, or too long, and they differ: {} ({}) and {} ({}).",
            label(from),
            output::size(from.size),
            label(to),
            output::size(to.size)
        ))?;
    }
    DONE
}
