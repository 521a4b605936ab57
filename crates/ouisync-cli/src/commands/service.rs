//! `ouisync service`: the device as a sandboxed systemd user unit.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Args, Subcommand};
use etcetera::BaseStrategy;
use ouisync_api::error::ErrorBody;

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, failure, usage},
    output,
};

const UNIT: &str = "ouisync.service";

const EXAMPLES: &str = "\
Examples:
  ouisync service print
  ouisync service install --now
  ouisync service install --allow ~/Notes --allow /data/pictures
  ouisync service uninstall";

/// Run the device as a sandboxed service of this user (systemd)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Print(Print),
    Install(Install),
    Uninstall(Uninstall),
}

#[derive(Debug, Args)]
struct Limits {
    /// Directory that the service may write beside its home; may be repeated [default: the user's home directory]
    #[arg(long, value_name = "DIR")]
    allow: Vec<PathBuf>,
}

/// Print the unit without installing it
///
/// JSON: {unit, text}, where 'unit' is where it would be.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ouisync service print --allow ~/Notes")]
struct Print {
    #[command(flatten)]
    limits: Limits,
}

/// Write the unit to the user's systemd directory
///
/// The service may write only its home and the allowed directories, gains no privileges and sees no other processes' memory. JSON:
/// {unit}.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ouisync service install --now\n  ouisync service install --allow ~/Notes && systemctl --user enable --now ouisync"
)]
struct Install {
    #[command(flatten)]
    limits: Limits,
    /// Also enable and start it
    #[arg(long)]
    now: bool,
}

/// Stop the service and remove its unit; the home and all files stay
///
/// JSON: {unit}.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ouisync service uninstall")]
struct Uninstall {}

impl Arguments {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self.action {
            Action::Print(print) => {
                let text = unit(context, &print.limits)?;
                if context.json {
                    output::json(&serde_json::json!({ "unit": unit_path()?, "text": text }))?;
                } else {
                    output::text_block(&text)?;
                }
            }
            Action::Install(install) => {
                let text = unit(context, &install.limits)?;
                let path = unit_path()?;
                let home = context.home()?;
                // The sandbox can only open what exists.
                make_private(&home)
                    .map_err(|error| failure(format!("{}: {error}", home.display())))?;
                write(&path, &text)?;
                if install.now {
                    systemctl(&["daemon-reload"])?;
                    systemctl(&["enable", "--now", UNIT])?;
                }
                let next = if install.now {
                    "The service runs.".to_owned()
                } else {
                    format!(
                        "Start it with: systemctl --user daemon-reload && systemctl --user enable --now {UNIT}"
                    )
                };
                report(
                    context,
                    &path,
                    &format!(
                        "{} is written. {next}\nTo keep it running while you are logged out: loginctl enable-linger",
                        path.display()
                    ),
                )?;
            }
            Action::Uninstall(Uninstall {}) => {
                let path = unit_path()?;
                if !path.exists() {
                    return Err(ErrorBody::new(
                        ouisync_api::error::ErrorKind::NotFound,
                        format!("{} does not exist", path.display()),
                        "There is no service of this user to remove.",
                    ));
                }
                // Without a running systemd there is nothing to stop.
                let _ = systemctl(&["disable", "--now", UNIT]);
                fs::remove_file(&path)
                    .map_err(|error| failure(format!("{}: {error}", path.display())))?;
                let _ = systemctl(&["daemon-reload"]);
                report(
                    context,
                    &path,
                    &format!(
                        "{} is removed; the home and all files stay.",
                        path.display()
                    ),
                )?;
            }
        }
        DONE
    }
}

fn report(context: &Context, path: &Path, words: &str) -> Result<(), ErrorBody> {
    if context.json {
        output::json(&serde_json::json!({ "unit": path }))
    } else {
        output::line(words)
    }
}

fn unit_path() -> Result<PathBuf, ErrorBody> {
    let strategy = etcetera::choose_base_strategy().map_err(|error| failure(error.to_string()))?;
    Ok(strategy.config_dir().join("systemd/user").join(UNIT))
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

fn write(path: &Path, text: &str) -> Result<(), ErrorBody> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let temporary = path.with_extension("service.new");
    let write = || -> io::Result<()> {
        fs::create_dir_all(parent)?;
        fs::write(&temporary, text)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| failure(format!("{}: {error}", path.display())))
}

fn systemctl(arguments: &[&str]) -> Result<(), ErrorBody> {
    let command = format!("systemctl --user {}", arguments.join(" "));
    let ended = Command::new("systemctl")
        .arg("--user")
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(failure(format!("'{command}' failed: {status}")).keeping("The unit is written."))
        }
        Err(error) => {
            Err(failure(format!("'{command}' can't be run: {error}"))
                .keeping("The unit is written."))
        }
    }
}

fn unit(context: &Context, limits: &Limits) -> Result<String, ErrorBody> {
    let program = std::env::current_exe()
        .map_err(|error| failure(format!("this program can't be found: {error}")))?;
    let home = context.home()?;
    let mut writable = vec![quote(&home)?];
    for directory in &limits.allow {
        let absolute = std::path::absolute(directory)
            .map_err(|error| usage(format!("{}: {error}", directory.display()), "Give another."))?;
        writable.push(quote(&absolute)?);
    }
    if limits.allow.is_empty() {
        writable.push("%h".to_owned());
    }
    Ok(text(&quote(&program)?, &quote(&home)?, &writable.join(" ")))
}

/// A path as systemd reads it in quotes.
fn quote(path: &Path) -> Result<String, ErrorBody> {
    let text = path
        .to_str()
        .filter(|text| !text.chars().any(char::is_control));
    let text = text.ok_or_else(|| {
        usage(
            format!("{} can't stand in a unit", path.display()),
            "Use a plain path.",
        )
    })?;
    Ok(format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('%', "%%")
    ))
}

fn text(program: &str, home: &str, writable: &str) -> String {
    // Only command lines know variables.
    let (program, home) = (program.replace('$', "$$"), home.replace('$', "$$"));
    format!(
        "\
[Unit]
Description=OuiSync: keeps folders in sync, end-to-end encrypted
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={program} --home {home} serve
Restart=on-failure
RestartSec=5
TimeoutStopSec=20
UMask=0077
Nice=5

# It may write only its home and the folders' directories.
ProtectSystem=strict
ReadWritePaths={writable}
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
LimitNOFILE=65536

[Install]
WantedBy=default.target
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_sandboxed_and_quotes_its_paths() {
        let context = Context::new(Some("/srv/a \"b\" 100%".into()), false);
        let text = unit(
            &context,
            &Limits {
                allow: vec!["/data/notes".into()],
            },
        )
        .unwrap();
        assert!(
            text.contains(r#"--home "/srv/a \"b\" 100%%" serve"#),
            "{text}"
        );
        assert!(
            text.contains(r#"ReadWritePaths="/srv/a \"b\" 100%%" "/data/notes""#),
            "{text}"
        );
        for line in [
            "ProtectSystem=strict",
            "NoNewPrivileges=yes",
            "RestrictSUIDSGID=yes",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}");
        }
        assert!(quote(Path::new("/a\nb")).is_err());
    }

    /// By systemd's own reckoning, where it is installed: 20 of 100 and less is its second best mark.
    #[test]
    fn systemd_finds_the_unit_little_exposed() {
        let directory = tempfile::tempdir().unwrap();
        let unit = directory.path().join(UNIT);
        fs::write(&unit, text("\"/usr/bin/ouisync\"", "\"/home/a\"", "%h")).unwrap();
        let analysed = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(&unit)
            .output();
        let Ok(output) = analysed else {
            eprintln!("skipped: systemd-analyze is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
}
