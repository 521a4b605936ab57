//! A folder's reading secrets as text for people to keep: `docs/format/recovery-kit.md`. The one place that writes secrets in the clear.

use std::fmt::Write;

use data_encoding::HEXLOWER;
use ouisync_model::id::{EpochId, FolderId};
use zeroize::Zeroizing;

use crate::secret::ReadSecret;

/// What a kit says of itself to whoever finds it.
const PREFACE: &str = "\
# OuiSync recovery kit. Whoever has this text and a copy of the folder's encrypted store, from any
# device or safe, can read the folder: keep it as you would keep the files themselves.
# It opens what was written until it was made. Make a new one after the folder's secrets were
# renewed (a member was removed).
";

/// The text of a kit with the given reading secrets, in the order given; control characters in the name are left out.
///
/// The check finds typing errors; it protects nothing.
pub fn text<'a>(
    folder: &FolderId,
    name: &str,
    epochs: impl IntoIterator<Item = (EpochId, &'a ReadSecret)>,
) -> Zeroizing<String> {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let mut check = blake3::Hasher::new();
    check.update(folder.as_bytes());
    let mut lines = Zeroizing::new(String::new());
    for (epoch, secret) in epochs {
        check.update(epoch.as_bytes());
        check.update(secret.expose());
        let digits = Zeroizing::new(HEXLOWER.encode(secret.expose()));
        // Writing to a string does not fail.
        let _ = writeln!(lines, "epoch {epoch} {}", digits.as_str());
    }
    let check = check.finalize().to_hex();
    Zeroizing::new(format!(
        "{PREFACE}ouisync-recovery-kit 1\nfolder {folder}\nname {name}\n{}check {}\n",
        lines.as_str(),
        &check.as_str()[..16]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kit_is_as_the_document_says() {
        let text = text(
            &FolderId::from_bytes([1; 32]),
            "Holiday\n2026",
            [(
                EpochId::from_bytes([2; 32]),
                &ReadSecret::from_bytes([3; 32]),
            )],
        );
        let (one, two, three) = ("01".repeat(32), "02".repeat(32), "03".repeat(32));
        let check = blake3::hash(&[[1; 32], [2; 32], [3; 32]].concat()).to_hex();
        let expected = format!(
            "ouisync-recovery-kit 1\nfolder {one}\nname Holiday2026\nepoch {two} {three}\ncheck {}\n",
            &check.as_str()[..16]
        );
        assert_eq!(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
            expected
        );
    }
}
