//! Derived names: what a value is called when another one holds its name. A pure function of the directory's content and the
//! members' labels.

use std::collections::HashSet;

use crate::{
    id::{MemberId, NodeId, OpId, Timestamp},
    name::Name,
};

use super::entry::Entry;

const MARK: &str = " (conflict ";
/// Greatest length of a label within a name, in bytes.
const LABEL_LIMIT: usize = 64;
/// What stands behind a later dot than this is not taken for an extension, in bytes.
const EXTENSION_LIMIT: usize = 64;

/// Whether a name may be a derived one; if not, only a node that was given this very name has it.
pub(super) fn may_be_derived(name: &Name) -> bool {
    name.as_bytes()
        .windows(MARK.len())
        .any(|window| window == MARK.as_bytes())
}

/// Gives `entry` a name that is not in `taken`, and puts it there.
pub(super) fn derive(
    entry: &mut Entry,
    taken: &mut HashSet<Name>,
    label: &dyn Fn(&MemberId) -> String,
) {
    let label = match &entry.author {
        Some(author) => safe_label(&label(author), author),
        None => String::new(),
    };
    let what = format!("{MARK}{} {label}", date(entry.time));
    let tag = entry
        .op
        .map(|op| tag(&op))
        .unwrap_or_else(|| node_tag(&entry.node));
    let first = with_suffix(&entry.raw_name, &format!("{what})"));
    let tagged = std::iter::once_with(|| with_suffix(&entry.raw_name, &format!("{what} {tag})")));
    let numbered =
        (2_u64..).map(|number| with_suffix(&entry.raw_name, &format!("{what} {tag} {number})")));
    let mut candidates = std::iter::once(first).chain(tagged).chain(numbered);
    if let Some(name) = candidates.find(|candidate| !taken.contains(candidate)) {
        taken.insert(name.clone());
        entry.name = name;
    }
}

fn tag(op: &OpId) -> String {
    let [a, b, c, d, ..] = op.commit.as_bytes();
    format!("{a:02x}{b:02x}{c:02x}{d:02x}")
}

fn node_tag(node: &NodeId) -> String {
    let [a, b, c, d, ..] = node.as_bytes();
    format!("{a:02x}{b:02x}{c:02x}{d:02x}")
}

fn with_suffix(name: &Name, suffix: &str) -> Name {
    let (stem, extension) = match name.split_extension() {
        (_, extension) if extension.len() > EXTENSION_LIMIT => (name.as_bytes(), &[][..]),
        split => split,
    };
    let room = Name::MAX_LENGTH - suffix.len() - extension.len();
    let stem = cut(stem, room);
    Name::new([stem, suffix.as_bytes(), extension].concat())
        .expect("a name's parts around a suffix without '/' and NUL, of bounded length")
}

/// The first bytes of `text`, at most `limit`, without breaking a UTF-8 character.
fn cut(text: &[u8], limit: usize) -> &[u8] {
    if text.len() <= limit {
        return text;
    }
    // A character is at most four bytes long; in what is not UTF-8 there is nothing to spare.
    let start = (limit.saturating_sub(3)..=limit)
        .rev()
        .find(|at| text[*at] & 0xc0 != 0x80);
    &text[..start.unwrap_or(limit)]
}

/// The label without what names can't hold or what would mislead the eye.
fn safe_label(label: &str, author: &MemberId) -> String {
    let safe: String = label
        .trim()
        .chars()
        .map(|c| if misleads(c) { '_' } else { c })
        .collect();
    let mut end = safe.len().min(LABEL_LIMIT);
    while !safe.is_char_boundary(end) {
        end -= 1;
    }
    match safe[..end].trim() {
        "" => {
            let [a, b, c, d, ..] = author.as_bytes();
            format!("{a:02x}{b:02x}{c:02x}{d:02x}")
        }
        safe => safe.to_owned(),
    }
}

fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
        // Invisible characters and those that turn the direction of writing.
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `YYYY-MM-DD` in UTC; times before 1970 or after 9999 are shown as the first or last such day.
fn date(time: Timestamp) -> String {
    time.date()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
        }
    }

    fn named(name: &[u8], suffix: &str) -> Vec<u8> {
        with_suffix(&Name::new(name).unwrap(), suffix)
            .as_bytes()
            .to_vec()
    }

    #[test]
    fn dates() {
        assert_eq!(date(at(0)), "1970-01-01");
        assert_eq!(date(at(951_782_400)), "2000-02-29");
        assert_eq!(date(at(951_868_799)), "2000-02-29");
        assert_eq!(date(at(951_868_800)), "2000-03-01");
        assert_eq!(date(at(1_795_391_999)), "2026-11-22");
        assert_eq!(date(at(1_795_392_000)), "2026-11-23");
        assert_eq!(date(at(4_107_542_399)), "2100-02-28");
        assert_eq!(date(at(4_107_542_400)), "2100-03-01");
        assert_eq!(date(at(i64::MIN)), "1970-01-01");
        assert_eq!(date(at(i64::MAX)), "9999-12-31");
    }

    #[test]
    fn suffix_goes_before_the_extension() {
        assert_eq!(named(b"a.txt", " (x)"), b"a (x).txt");
        assert_eq!(named(b".profile", " (x)"), b".profile (x)");
        assert_eq!(named(b"a", " (x)"), b"a (x)");
        assert_eq!(named(b"\xff.jpg", " (x)"), b"\xff (x).jpg");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        for padding in 0..4 {
            let long = format!("{}{}.txt", "a".repeat(padding), "\u{1f600}".repeat(61));
            let derived = named(long.as_bytes(), " (conflict 2026-11-23 Bob)");
            assert!(
                derived.len() <= Name::MAX_LENGTH && derived.len() > 250,
                "{}",
                derived.len()
            );
            assert!(
                std::str::from_utf8(&derived)
                    .unwrap()
                    .ends_with(" Bob).txt")
            );
        }
        let binary = named(&[0x80; 255], " (x)");
        assert_eq!(binary.len(), 255);
        let extension = [b"a.".as_slice(), &[b'e'; 250]].concat();
        assert!(named(&extension, " (x)").ends_with(b"eee (x)"));
    }

    #[test]
    fn labels_are_made_safe() {
        let author = MemberId::from_bytes([0xab; 32]);
        assert_eq!(safe_label(" Bob's laptop ", &author), "Bob's laptop");
        assert_eq!(safe_label("../a\0b\n\u{202e}", &author), ".._a_b__");
        assert_eq!(safe_label("", &author), "abababab");
        assert_eq!(
            safe_label(&"\u{e9}".repeat(100), &author),
            "\u{e9}".repeat(32)
        );
    }
}
