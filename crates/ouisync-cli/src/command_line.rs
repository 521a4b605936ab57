//! The command line: what there is, how it is read, and how a command ends.

use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand, builder::NonEmptyStringValueParser,
    error::ErrorKind as ClapKind,
};
use ouisync_api::error::{ApiError, ErrorBody, ErrorKind};

use crate::{
    commands::{
        brake, browse, completions, conflicts, connect, deleted, demo, device, diff, folder,
        forget_versions, history, invite, join, keyring, lock, member, members, offload,
        passphrase, pause, quota, recovery_kit, repair, resolve, restore, resume, retention,
        revoke, serve, service, show, status, unlock, verify, wait,
    },
    context::Context,
};

/// Exit codes, for `--help`.
const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failure of the program or the machine
   2  wrong use of the command or the request
   3  no daemon is running for this home
   4  not done in the time given
   5  what was named does not exist here
   6  it contradicts what exists
   7  not allowed
   8  the folder is locked
   9  stored data is damaged
  10  not possible now; may work later
 130  stopped by Ctrl-C

Examples:
  ouisync serve                                     # the device itself: keep it running
  ouisync folder create Notes --path ~/Notes        # share a directory
  ouisync invite Notes --role writer                # a link for another person or device
  ouisync join 'ouisync://join/v1#...' --path ~/Notes
  ouisync status --watch";

/// Keeps folders in sync between your devices and the people you choose, end-to-end encrypted, without any server.
///
/// 'ouisync serve' is the device: it runs in the foreground or as a service ('ouisync service install'). All other
/// commands ask it. A device that only stores ciphertext for others is a 'safe'.
#[derive(Debug, Parser)]
#[command(name = "ouisync", version, after_help = EXIT_CODES, propagate_version = true, disable_help_subcommand = true)]
pub struct CommandLine {
    /// The device's home directory [default: $OUISYNC_HOME, or ouisync in the XDG data directory]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print one JSON document on standard output, and errors as JSON on standard error
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Device(device::Arguments),
    Folder(folder::Arguments),
    Invite(invite::Arguments),
    Revoke(revoke::Arguments),
    Join(join::Arguments),
    Connect(connect::Arguments),
    Members(members::Arguments),
    Member(member::Arguments),
    Status(status::Arguments),
    History(history::Arguments),
    Deleted(deleted::Arguments),
    Show(show::Arguments),
    Diff(diff::Arguments),
    Restore(restore::Arguments),
    Browse(browse::Arguments),
    Conflicts(conflicts::Arguments),
    Resolve(resolve::Arguments),
    Wait(wait::Arguments),
    Verify(verify::Arguments),
    Repair(repair::Arguments),
    Lock(lock::Arguments),
    Unlock(unlock::Arguments),
    Passphrase(passphrase::Arguments),
    Keyring(keyring::Arguments),
    RecoveryKit(recovery_kit::Arguments),
    Brake(brake::Arguments),
    Offload(offload::Arguments),
    Fetch(offload::FetchArguments),
    Pause(pause::Arguments),
    Resume(resume::Arguments),
    Retention(retention::Arguments),
    Quota(quota::Arguments),
    ForgetVersions(forget_versions::Arguments),
    Completions(completions::Arguments),
    Service(service::Arguments),
    Demo(demo::Arguments),
}

/// How a command ends: with an exit code, or with an error to show.
pub(crate) type Outcome = Result<u8, ErrorBody>;

/// All went well.
pub(crate) const DONE: Outcome = Ok(0);

impl Command {
    async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Serve(arguments) => arguments.run(context).await,
            Self::Device(arguments) => arguments.run(context).await,
            Self::Folder(arguments) => arguments.run(context).await,
            Self::Invite(arguments) => arguments.run(context).await,
            Self::Revoke(arguments) => arguments.run(context).await,
            Self::Join(arguments) => arguments.run(context).await,
            Self::Connect(arguments) => arguments.run(context).await,
            Self::Members(arguments) => arguments.run(context).await,
            Self::Member(arguments) => arguments.run(context).await,
            Self::Status(arguments) => arguments.run(context).await,
            Self::History(arguments) => arguments.run(context).await,
            Self::Deleted(arguments) => arguments.run(context).await,
            Self::Show(arguments) => arguments.run(context).await,
            Self::Diff(arguments) => arguments.run(context).await,
            Self::Restore(arguments) => arguments.run(context).await,
            Self::Browse(arguments) => arguments.run(context).await,
            Self::Conflicts(arguments) => arguments.run(context).await,
            Self::Resolve(arguments) => arguments.run(context).await,
            Self::Wait(arguments) => arguments.run(context).await,
            Self::Verify(arguments) => arguments.run(context).await,
            Self::Repair(arguments) => arguments.run(context).await,
            Self::Lock(arguments) => arguments.run(context).await,
            Self::Unlock(arguments) => arguments.run(context).await,
            Self::Passphrase(arguments) => arguments.run(context).await,
            Self::Keyring(arguments) => arguments.run(context).await,
            Self::RecoveryKit(arguments) => arguments.run(context).await,
            Self::Brake(arguments) => arguments.run(context).await,
            Self::Offload(arguments) => arguments.run(context).await,
            Self::Fetch(arguments) => arguments.run(context).await,
            Self::Pause(arguments) => arguments.run(context).await,
            Self::Resume(arguments) => arguments.run(context).await,
            Self::Retention(arguments) => arguments.run(context).await,
            Self::Quota(arguments) => arguments.run(context).await,
            Self::ForgetVersions(arguments) => arguments.run(context).await,
            Self::Completions(arguments) => arguments.run(context),
            Self::Service(arguments) => arguments.run(context),
            Self::Demo(arguments) => arguments.run(context).await,
        }
    }

    /// What Ctrl-C leaves behind; `None` for commands that end themselves.
    const fn kept(&self) -> Option<&'static str> {
        match self {
            Self::Serve(_) | Self::Demo(_) => None,
            Self::Join(_) => {
                Some("The daemon goes on trying to join; 'ouisync status' shows when it has.")
            }
            Self::History(_) | Self::Deleted(_) | Self::Show(_) | Self::Diff(_) => {
                Some("Nothing was changed.")
            }
            Self::Restore(_) => Some(
                "Nothing was restored, or all of it: 'ouisync history' shows which. What was fetched is kept for a while.",
            ),
            Self::Browse(_) => Some("Nothing was left, and the folder is as it was."),
            Self::Wait(_) | Self::Status(_) | Self::Conflicts(_) => {
                Some("Nothing was changed; the daemon goes on syncing.")
            }
            Self::Verify(_) => Some("The check was stopped; nothing was changed."),
            Self::Repair(_) => Some(
                "A check that was under way was stopped; the daemon finishes a repair that it has begun.",
            ),
            _ => Some("If the daemon had the request already, it is carried out."),
        }
    }
}

/// Reads a command line. No command takes an empty name for a folder or a member: it stands for none.
fn read<T: Into<OsString> + Clone>(
    arguments: impl IntoIterator<Item = T>,
) -> Result<CommandLine, clap::Error> {
    let mut matches = named(CommandLine::command()).try_get_matches_from(arguments)?;
    CommandLine::from_arg_matches_mut(&mut matches)
}

fn named(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        "folder" | "member" => argument.value_parser(NonEmptyStringValueParser::new()),
        _ => argument,
    });
    command.mut_subcommands(named)
}

/// Reads the command line of the process and carries it out.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    let command_line = match read(&arguments) {
        Ok(command_line) => command_line,
        Err(error) if wants_json && !is_help(error.kind()) => {
            let text = error.render().to_string();
            let message = text
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            let body = ErrorBody::new(
                ErrorKind::Invalid,
                message,
                "See 'ouisync --help' and 'ouisync COMMAND --help'.",
            );
            return fail(&body, true);
        }
        Err(error) => error.exit(),
    };
    let json = command_line.json;
    match carry_out(command_line) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error, json),
    }
}

fn is_help(kind: ClapKind) -> bool {
    matches!(kind, ClapKind::DisplayHelp | ClapKind::DisplayVersion)
}

fn carry_out(command_line: CommandLine) -> Outcome {
    let context = Context::new(command_line.home, command_line.json);
    let command = command_line.command;
    let runtime = match &command {
        Command::Serve(_) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build(),
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
    }
    .map_err(|error| crate::context::failure(format!("the program can't start: {error}")))?;
    let outcome = runtime.block_on(async {
        match command.kept() {
            None => command.run(&context).await,
            Some(kept) => tokio::select! {
                outcome = command.run(&context) => outcome,
                _ = tokio::signal::ctrl_c() => {
                    Err(ErrorBody::new(ErrorKind::Cancelled, "stopped", "Give the command again to go on.").keeping(kept))
                }
            },
        }
    });
    // The process ends next: a read of standard input that nobody waits for any more must not hold it, and a connection that is still
    // being closed need not be torn down.
    std::mem::forget(runtime);
    outcome
}

fn fail(error: &ErrorBody, json: bool) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    // Nothing is left to do when even this fails.
    let _ = if json {
        let document = serde_json::to_string(&ApiError::from(error.clone())).unwrap_or_default();
        writeln!(stderr, "{document}")
    } else {
        let kept = error
            .kept
            .as_deref()
            .map(|kept| format!("{kept}\n"))
            .unwrap_or_default();
        write!(stderr, "error: {}\n{kept}{}\n", error.message, error.hint)
    };
    ExitCode::from(error.kind.exit_code())
}

#[cfg(test)]
mod tests {

    use super::*;

    fn each(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        visit(path, command);
        for child in command.get_subcommands() {
            each(child, &format!("{path} {}", child.get_name()), visit);
        }
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_examples() {
        let mut seen = 0;
        each(&CommandLine::command(), "ouisync", &mut |path, command| {
            let help = command.clone().render_long_help().to_string();
            assert!(
                help.contains("Examples:"),
                "{path} has no examples:\n{help}"
            );
            // Longer lines are wrapped, and can't be copied.
            let examples = command.get_after_help().map(ToString::to_string);
            for line in examples.iter().flat_map(|text| text.lines()) {
                let paste = line.contains("  ouisync") && line.chars().count() > 100;
                assert!(!paste, "{path}: {line}");
            }
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                let named = argument.get_id();
                assert!(
                    argument.get_help().is_some() || argument.is_hide_set(),
                    "{path}: {named} is not explained"
                );
            }
            seen += 1;
        });
        assert!(seen > 25, "{seen} commands");
    }

    #[test]
    fn exit_codes_in_the_help_are_the_real_ones() {
        for kind in ErrorKind::ALL {
            let code = format!("{:>4}  ", kind.exit_code());
            assert!(
                EXIT_CODES.lines().any(|line| line.starts_with(&code)),
                "{kind:?} {code:?}"
            );
        }
    }

    #[test]
    fn the_contract_parses() {
        for line in [
            "ouisync --home /h serve --listen 127.0.0.1:0 --no-lan",
            "ouisync --home /h --json device",
            "ouisync device --json --home /h",
            "ouisync folder create Notes --path /d",
            "ouisync invite Notes --role owner",
            "ouisync invite Notes --role safe --uses 3 --expires 7d",
            "ouisync join ouisync://join/v1#abc --path /d --name N",
            "ouisync join -",
            "ouisync connect abc@127.0.0.1:5",
            "ouisync members Notes",
            "ouisync member remove Notes Bob",
            "ouisync member role Notes Bob reader",
            "ouisync status",
            "ouisync status Notes --watch",
            "ouisync wait Notes --timeout 30",
            "ouisync wait Notes --timeout 0.5",
            "ouisync verify",
            "ouisync verify Notes",
            "ouisync conflicts",
            "ouisync conflicts Notes",
            "ouisync resolve Notes:a --keep 2",
            "ouisync resolve a --both",
            "ouisync resolve a --merged b",
            "ouisync lock",
            "ouisync keyring enable",
            "ouisync keyring disable",
            "ouisync unlock Notes",
            "ouisync retention Notes",
            "ouisync retention Notes --keep staggered --preview",
            "ouisync retention Notes --keep 90d --devices same --replicas 3 --yes",
            "ouisync retention Notes --keep-forgotten",
            "ouisync quota Notes",
            "ouisync forget-versions Notes:a --preview",
            "ouisync forget-versions /d/a --yes",
            "ouisync quota Notes 20GB --floor 30d",
            "ouisync quota Notes none --floor default",
            "ouisync offload Notes:a --plain",
            "ouisync fetch /d/a",
            "ouisync brake Notes",
            "ouisync brake Notes --undo",
            "ouisync brake Notes --files 10 --percent 5 --within 5m",
            "ouisync pause",
            "ouisync resume Notes",
            "ouisync folder confirm Notes --deletion",
            "ouisync history Notes:a --since yesterday --limit 5",
            "ouisync deleted Notes --all",
            "ouisync show Notes:a@1f2e",
            "ouisync diff Notes:a@1f2e Notes:b",
            "ouisync restore Notes:a --version 1f2e --to b",
            "ouisync restore Notes --at yesterday --exact --partial",
            "ouisync browse Notes --at 2026-11-20 /d",
            "ouisync folder confirm Notes --directory",
        ] {
            read(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "ouisync invite Notes --role boss",
            "ouisync invite Notes",
            "ouisync resolve a",
            "ouisync resolve a --both --keep 1",
            "ouisync retention Notes --keep some",
            "ouisync retention Notes --keep same",
            "ouisync retention Notes --replicas 0",
            "ouisync quota Notes much",
            "ouisync brake Notes --undo --allow",
            "ouisync brake Notes --percent 101",
            "ouisync wait",
            "ouisync wait ",
            "ouisync status ",
            "ouisync pause ",
            "ouisync member remove Notes ",
            "ouisync member role  bob reader",
            "ouisync folder forget ",
            "ouisync wait N --timeout -1",
            "ouisync folder confirm Notes",
            "ouisync folder confirm Notes --deletion --directory",
            "ouisync restore Notes --at now --version 1f2e",
            "ouisync",
        ] {
            assert!(read(line.split(' ')).is_err(), "{line}");
        }
    }
}
