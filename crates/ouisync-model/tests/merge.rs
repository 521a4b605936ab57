//! Merging texts, by property.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ouisync_model::merge::text::{LIMIT, LineChanges, changes, is_text, merge, union};
use proptest::prelude::*;

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

/// What happens to one line of the base.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    None,
    Replace,
    Delete,
    InsertBefore,
}

fn change() -> impl Strategy<Value = (bool, Change)> {
    let change = prop_oneof![
        4 => Just(Change::None),
        1 => Just(Change::Replace),
        1 => Just(Change::Delete),
        1 => Just(Change::InsertBefore),
    ];
    (any::<bool>(), change)
}

fn ending() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("\n"), Just("\r\n")]
}

/// A text of few different lines, with and without an ending.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("a\n"),
        Just("b\n"),
        Just("c\r\n"),
        Just("\n"),
        Just("d\n")
    ];
    (prop::collection::vec(line, 0..12), any::<bool>()).prop_map(|(lines, ended)| {
        let mut text = lines.concat();
        if !ended {
            text = text.trim_end_matches('\n').to_owned();
        }
        text.into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Row "texts, other lines": whatever two do to lines that don't touch, both have it, and nobody else.
    #[test]
    fn edits_of_other_lines_all_hold(
        changes in prop::collection::vec(change(), 1..40),
        ending in ending(),
        ended in any::<bool>(),
    ) {
        let (mut base, mut ours, mut theirs, mut both) = Default::default();
        let sides: &mut [&mut String; 4] = &mut [&mut base, &mut ours, &mut theirs, &mut both];
        let mut last = None;
        let count = changes.len();
        for (number, (mine, change)) in changes.into_iter().enumerate() {
            // Neighbouring lines are changed by one side only.
            let free = last.is_none_or(|(at, by)| number > at + 1 || by == mine);
            let change = if free { change } else { Change::None };
            if change != Change::None {
                last = Some((number, mine));
            }
            let end = if number + 1 == count && !ended { "" } else { ending };
            for (side, text) in sides.iter_mut().enumerate() {
                let changed = side == 3 || side == if mine { 1 } else { 2 };
                match change {
                    Change::Replace if changed => text.push_str(&format!("new {number}{end}")),
                    Change::Delete if changed => {}
                    Change::InsertBefore if changed => {
                        text.push_str(&format!("inserted {number}{ending}line {number}{end}"));
                    }
                    _ => text.push_str(&format!("line {number}{end}")),
                }
            }
        }
        let merged = merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
        let shown = merged.as_deref().map(String::from_utf8_lossy);
        prop_assert_eq!(shown.as_deref(), Some(both.as_str()));
        // A merge of a merge changes nothing.
        let again = merge(base.as_bytes(), both.as_bytes(), ours.as_bytes());
        prop_assert_eq!(again.as_deref(), Some(both.as_bytes()));
        let union = union(Some(base.as_bytes()), ours.as_bytes(), theirs.as_bytes());
        prop_assert_eq!(union, both.into_bytes());
    }

    #[test]
    fn whoever_changed_nothing_has_no_say(base in text(), one in text()) {
        prop_assert_eq!(merge(&base, &one, &base), Some(one.clone()));
        prop_assert_eq!(merge(&base, &base, &one), Some(one.clone()));
        prop_assert_eq!(merge(&base, &one, &one), Some(one));
    }

    /// Sides are alike, every line comes from somewhere, and no two are glued together.
    #[test]
    fn merges_are_made_of_the_inputs_lines(base in text(), one in text(), two in text()) {
        let merged = merge(&base, &one, &two);
        prop_assert_eq!(&merged, &merge(&base, &two, &one));
        let all: BTreeSet<Vec<u8>> = [&base, &one, &two]
            .into_iter()
            .flat_map(|text| lines(text))
            .map(|line| line.to_ascii_lowercase().trim_ascii_end().to_vec())
            .collect();
        for text in [merged.unwrap_or_default(), union(Some(&base), &one, &two), union(None, &one, &two)] {
            for line in lines(&text) {
                prop_assert!(all.contains(line.trim_ascii_end()), "{:?}", String::from_utf8_lossy(line));
            }
        }
    }

    /// Row "union": no line that anybody added is missing.
    #[test]
    fn a_union_has_all_that_was_added(base in text(), one in text(), two in text()) {
        let with_base = union(Some(&base), &one, &two);
        let without = union(None, &one, &two);
        let has = |text: &[u8], line: &[u8]| {
            lines(text).iter().any(|other| other.trim_ascii_end() == line.trim_ascii_end())
        };
        for line in lines(&one).into_iter().chain(lines(&two)) {
            prop_assert!(has(&without, line));
            prop_assert!(has(&base, line) || has(&with_base, line));
        }
        prop_assert_eq!(union(None, &one, &one), one);
    }
}

#[test]
fn overlapping_and_neighbouring_edits_do_not_merge() {
    let base = b"a\nb\nc\nd\n";
    assert_eq!(merge(base, b"a\nx\nc\nd\n", b"a\ny\nc\nd\n"), None);
    assert_eq!(merge(base, b"a\nx\nc\nd\n", b"a\nb\ny\nd\n"), None);
    assert_eq!(merge(base, b"a\nx\nb\nc\nd\n", b"a\ny\nb\nc\nd\n"), None);
    assert_eq!(merge(base, b"a\nx\nc\nd\n", b"a\nc\nd\n"), None);
    // The same change is one.
    let same = merge(base, b"a\nx\nc\nd\n", b"a\nx\nc\ny\n");
    assert_eq!(same.unwrap(), b"a\nx\nc\ny\n");
    let union = union(Some(base), b"a\nx\nc\nd\n", b"a\ny\nc\nd\n");
    assert_eq!(union, b"a\nx\ny\nc\nd\n");
}

#[test]
fn line_endings_stay() {
    let merged = merge(b"a\r\nb\r\nc", b"A\r\nb\r\nc", b"a\r\nb\r\nC").unwrap();
    assert_eq!(merged, b"A\r\nb\r\nC");
    let merged = merge(b"a\nb\nc\n", b"A\nb\nc\n", b"a\nb\nc").unwrap();
    assert_eq!(merged, b"A\nb\nc");
    assert_eq!(union(None, b"a\r\nb", b"a\r\nc"), b"a\r\nb\r\nc");
}

#[test]
fn what_is_text() {
    assert!(is_text(b"") && is_text("\u{e9}\n".as_bytes()));
    assert!(!is_text(b"a\0b") && !is_text(&[0xff]) && !is_text(&vec![b'a'; LIMIT + 1]));
    let before = b"a\nb\nc\n";
    assert_eq!(
        changes(before, b"a\nx\ny\nc\n"),
        LineChanges {
            added: 2,
            removed: 1
        }
    );
}

/// Texts without a line in common, the worst case of a simple algorithm: hours, where it is quadratic.
#[test]
fn long_texts_take_time_in_proportion() {
    let text = |salt: &str| {
        let mut text = String::new();
        for number in 0.. {
            if text.len() > LIMIT - 32 {
                break;
            }
            text.push_str(&format!("{salt}{number}\n"));
        }
        text.into_bytes()
    };
    let started = Instant::now();
    assert_eq!(merge(&text("a"), &text("b"), &text("c")), None);
    let newlines = vec![b'\n'; LIMIT / 8];
    assert_eq!(
        merge(&newlines, &newlines[1..], &newlines),
        Some(newlines[1..].to_vec())
    );
    let (mut one, mut two) = (text("a"), text("a"));
    one[0] = b'x';
    let last = two.len() - 2;
    two[last] = b'y';
    let merged = merge(&text("a"), &one, &two).unwrap();
    assert_eq!((merged[0], merged[last]), (b'x', b'y'));
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
}
