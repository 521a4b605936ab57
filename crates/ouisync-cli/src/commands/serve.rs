//! `ouisync serve`: the running device.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use ouisync_api::error::{ErrorBody, ErrorKind};
use ouisync_daemon::{
    home::HomeError,
    logs::{self, LogFormat},
    serve::{ServeError, ServeOptions},
};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, usage},
};

const EXAMPLES: &str = "\
Examples:
  ouisync serve
  ouisync serve --device-name \"Alice's laptop\"
  ouisync --home /srv/ouisync serve --listen 0.0.0.0:20209 --no-lan
  ouisync serve --log debug --log-format json 2>> ouisync.log";

/// Run the device in the foreground: syncs its folders and answers all other commands
///
/// Prints 'ready' on standard output once other commands are answered; logs go to standard error. SIGTERM or Ctrl-C ends it
/// cleanly. It contacts no server: only the devices of your folders, and the local network unless --no-lan is given.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// UDP address for other devices [default: all interfaces, on a port that is chosen once and kept]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Don't look for devices on the local network, and don't let them find this one there
    #[arg(long)]
    no_lan: bool,
    /// This device's name as other members see it; kept for later starts [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    device_name: Option<String>,
    /// Log level (error, warn, info, debug, trace) or filters like ouisync_net=debug [default: $OUISYNC_LOG, or info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// A JSON object a line
    Json,
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let format = match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        bound_memory();
        logs::start(self.log.as_deref(), format)
            .map_err(|error| usage(error.to_string(), "See 'ouisync serve --help'."))?;
        let options = ServeOptions {
            home: context.home()?,
            listen: self.listen,
            lan: !self.no_lan,
            device_name: self.device_name,
        };
        ouisync_daemon::serve::run(options)
            .await
            .map_err(|error| explain(&error))?;
        DONE
    }
}

/// Starts the program again in its own place with fewer heaps, unless the environment says how many.
///
/// glibc gives each thread a heap of its own, up to eight for each core, and none of them gives back what lies below its
/// newest live block. What a first synchronisation leaves behind would be half of the memory that the device has.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn bound_memory() {
    use std::{env, os::unix::process::CommandExt, process::Command};

    const HEAPS: &str = "MALLOC_ARENA_MAX";
    if env::var_os(HEAPS).is_some() {
        return;
    }
    let mut arguments = env::args_os();
    if let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) {
        // It only returns when that can't be done: the device then runs with more memory.
        let _ = Command::new(program)
            .arg0(name)
            .args(arguments)
            .env(HEAPS, "2")
            .exec();
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn bound_memory() {}

fn explain(error: &ServeError) -> ErrorBody {
    let (kind, hint) = match error {
        ServeError::Home(HomeError::Running { .. }) => (
            ErrorKind::Conflict,
            "Use that one, or stop it first; each home has one daemon.",
        ),
        ServeError::Home(HomeError::Nowhere) => (ErrorKind::Invalid, "Give --home DIR."),
        ServeError::Settings(_) => (
            ErrorKind::Invalid,
            "Correct that file in the home, or remove it: it is not needed.",
        ),
        ServeError::Home(_) => (
            ErrorKind::Internal,
            "Check that the home is yours, can be written and has space.",
        ),
        ServeError::Engine(error) if error.is_about_the_address() => (
            ErrorKind::Conflict,
            "Give another address or port with --listen, or end the program that has it.",
        ),
        ServeError::Engine(_) => (
            ErrorKind::Internal,
            "Check the address and the home; nothing that was stored is lost.",
        ),
        _ => (
            ErrorKind::Internal,
            "Nothing that was stored is lost; see the message.",
        ),
    };
    ErrorBody::new(kind, error.to_string(), hint)
}
