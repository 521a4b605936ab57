//! `ouisync recovery-kit`: a folder's reading secrets on paper, for when no device and no program is left.

use std::{
    fs::File,
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use ouisync_api::{data::RecoveryKitRequest, error::ErrorBody};
use serde::Serialize;

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, absolute, failure, refused, usage},
    output, passphrase,
};

const EXAMPLES: &str = "\
Examples:
  ouisync recovery-kit Notes                          # show it on the terminal, to copy it down
  ouisync recovery-kit Notes --output notes-kit.txt   # into a new file that only you can read
  pass show ouisync | ouisync recovery-kit Notes --output notes-kit.txt";

/// Write down the secrets that read a folder, to keep on paper or on a stick
///
/// Whoever has the kit and a copy of the folder's encrypted store, from any device or safe, can read all of the folder; the reader
/// in the program's sources (tools/reader) does so without the program. Keep it as you would keep the files. It opens what was
/// written until it was made: make a new one after a member was removed. Where a passphrase is set it is asked for, or read from
/// standard input. Only to a terminal or a new file, never anywhere else. JSON: {path}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder
    folder: String,
    /// A file to write it into, for you only (mode 0600); it must not exist
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Written {
    path: String,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        if self.output.is_none() && (context.json || !std::io::stdout().is_terminal()) {
            return Err(usage(
                "a recovery kit is only shown on a terminal",
                "Name a new file with '--output FILE'; nothing was written.",
            ));
        }
        let client = context.client()?;
        let device = client.device().await.map_err(refused)?;
        let passphrase = match device.passphrase_set {
            true => Some(passphrase::read("Passphrase: ").await?),
            false => None,
        };
        let kit = client
            .recovery_kit(&self.folder, &RecoveryKitRequest { passphrase })
            .await
            .map_err(refused)?;
        let Some(path) = self.output else {
            output::text_block(&kit.text)?;
            return DONE;
        };
        write(&path, &kit.text)?;
        if context.json {
            output::json(&Written {
                path: absolute(&path)?,
            })?;
        } else {
            output::line(&format!(
                "The recovery kit of '{}' is in {}. Whoever has it and a copy of the encrypted store can read the folder.",
                output::plain(&self.folder),
                path.display()
            ))?;
        }
        DONE
    }
}

/// Writes a new file, durably, that nobody else can read at any time.
fn write(path: &Path, text: &str) -> Result<(), ErrorBody> {
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => usage(
            format!("{} exists already", path.display()),
            "Name a file that doesn't exist; nothing was written.",
        ),
        _ => failure(format!("{}: {error}", path.display())),
    })
}
