//! `ouisync invite`: a link by which others join a folder.

use std::{io::IsTerminal, time::Duration};

use clap::{Args, ValueEnum};
use ouisync_api::{
    data::{InviteRequest, Role},
    duration,
};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use crate::{
    command_line::{DONE, Outcome},
    context::{Context, refused},
    output,
};

const EXAMPLES: &str = "\
Examples:
  ouisync invite Notes --role writer
  ouisync invite Notes --role safe --expires 7d          # a device that stores ciphertext only
  ouisync invite 'Voyage pictures' --role reader --uses 5
  ouisync --json invite Notes --role writer | jq -r .link";

/// Make a link (and a QR code) by which others join a folder
///
/// Whoever has the link can join with its role until its uses are spent, it expires or is revoked: send it by a way that you
/// trust. It works while you are offline, as long as any member can be reached. JSON: {link, invitation, role, uses,
/// expires_seconds}.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name or id of the folder
    folder: String,
    /// What whoever joins may do
    #[arg(long, value_enum)]
    role: RoleName,
    /// How many may join
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long the link can be used, such as 12h or 7d [default: until it is used or revoked]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    expires: Option<Duration>,
    /// Show the QR code also where standard output is no terminal (with --json on standard error)
    #[arg(long)]
    qr: bool,
}

/// Role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// Writes and manages members
    Owner,
    /// Reads and writes
    Writer,
    /// Reads
    Reader,
    /// Stores and forwards ciphertext, reads nothing
    Safe,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Owner => Self::Owner,
            RoleName::Writer => Self::Writer,
            RoleName::Reader => Self::Reader,
            RoleName::Safe => Self::Safe,
        }
    }
}

impl Arguments {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let request = InviteRequest {
            role: self.role.into(),
            uses: self.uses,
            expires_seconds: self.expires.map(|expires| expires.as_secs()),
        };
        let invitation = context
            .client()?
            .invite(&self.folder, &request)
            .await
            .map_err(refused)?;
        let picture = (self.qr || (!context.json && std::io::stdout().is_terminal()))
            .then(|| picture(&invitation.link));
        if context.json {
            output::json(&invitation)?;
            if let Some(picture) = picture.flatten() {
                output::note(&picture);
            }
        } else {
            if let Some(picture) = picture.flatten() {
                output::line(&picture)?;
            }
            output::line(&invitation.link)?;
            let times = if self.uses == 1 {
                "once".to_owned()
            } else {
                format!("{} times", self.uses)
            };
            let until = self.expires.map_or(String::new(), |expires| {
                format!(" within {}", output::span(expires.as_secs()))
            });
            output::note(&format!(
                "Whoever has this link can join as {} {times}{until}: keep it secret. Take it back with: ouisync revoke '{}' {}",
                request.role, self.folder, invitation.invitation
            ));
        }
        DONE
    }
}

/// The link as a picture of half blocks; `None` when it is too long for one.
fn picture(link: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(link, EcLevel::L).ok()?;
    Some(
        code.render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_fit_a_picture() {
        let link = format!("ouisync://join/v1#{}", "x".repeat(600));
        let picture = picture(&link).unwrap();
        assert!(picture.lines().count() > 20);
        assert!(super::picture(&"x".repeat(4000)).is_none());
    }

    #[test]
    fn role_names_are_the_interface_s() {
        for name in RoleName::value_variants() {
            let text = name.to_possible_value().unwrap();
            assert_eq!(text.get_name(), Role::from(*name).name());
        }
    }
}
