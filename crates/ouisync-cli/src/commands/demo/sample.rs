//! Real files for Alice: a small tree as people have them, or a copy of a directory.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::{Duration, SystemTime},
};

use rand::Rng;

/// Where the demo's own files are, beside a copy of the user's.
pub(super) const OWN: &str = "OuiSync demo";

/// Makes the demo's own files in `directory`.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    let own = directory.join(OWN);
    let file = |path: &str, bytes: &[u8], age_hours: u64| -> io::Result<()> {
        let path = own.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&own))?;
        fs::write(&path, bytes)?;
        let modified = SystemTime::now()
            - Duration::from_secs(3600 * age_hours)
            - Duration::from_nanos(123_456_789);
        fs::File::options()
            .write(true)
            .open(&path)?
            .set_modified(modified)
    };
    let random = |length: usize| {
        let mut bytes = vec![0; length];
        rand::rng().fill_bytes(&mut bytes);
        bytes
    };
    file(
        "shopping list.txt",
        b"bread from the corner bakery\nmilk\napples, the red ones\nlamp oil\n",
        5,
    )?;
    file(
        "notes/garden journal.md",
        "# Garden\n\nThe medlar tree blossomed on the ninth of May.\n\n"
            .repeat(40)
            .as_bytes(),
        30,
    )?;
    file(
        "notes/letters/to grandmother.txt",
        b"Dear Grandmother, thank you for the recipe of the walnut cake.\n",
        400,
    )?;
    file(
        "notes/letters/unsent.txt",
        b"This letter was never sent, and perhaps better so.\n",
        9000,
    )?;
    file(
        "notes/ideas/deeply/nested/place/for/one thought.txt",
        b"What if the safe could not read what it keeps?\n",
        2,
    )?;
    file(
        "Größe – 大きさ – размер.txt",
        "Names are in every script.\n".as_bytes(),
        7,
    )?;
    file("naïve café ☕.md", "Coffee, but naïve.\n".as_bytes(), 8)?;
    file("-rf looks like an option.txt", b"but is a name\n", 1)?;
    file("empty file", b"", 3)?;
    file(
        "voyage pictures/harbour at dawn.raw",
        &random(3_000_000),
        700,
    )?;
    file("voyage pictures/lighthouse.raw", &random(1_500_000), 699)?;
    file(
        "voyage pictures/lighthouse (copy).raw",
        &fs::read(own.join("voyage pictures/lighthouse.raw"))?,
        10,
    )?;
    for day in 1..=40u32 {
        let text = format!(
            "Day {day} of the voyage: wind from the {} and {} miles made good.\n",
            ["north", "east", "south", "west"][day as usize % 4],
            day * 7 % 90
        );
        file(
            &format!("voyage log/day {day:02}.txt"),
            text.repeat(20).as_bytes(),
            u64::from(800 - day),
        )?;
    }
    file(
        "tools/count words.sh",
        b"#!/bin/sh\nexec wc -w \"$@\"\n",
        50,
    )?;
    fs::set_permissions(
        own.join("tools/count words.sh"),
        fs::Permissions::from_mode(0o755),
    )?;
    symlink("notes/garden journal.md", own.join("latest note"))?;
    fs::create_dir(own.join("an empty directory"))
}

/// Copies files, directories and links; gives what was left out, with reasons.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<Vec<String>> {
    let mut left_out = Vec::new();
    fs::create_dir_all(to)?;
    copy_directory(from, to, &mut left_out)?;
    Ok(left_out)
}

fn copy_directory(from: &Path, to: &Path, left_out: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        let copied = if kind.is_dir() {
            fs::create_dir_all(&target).and_then(|()| copy_directory(&source, &target, left_out))
        } else if kind.is_symlink() {
            fs::read_link(&source).and_then(|link| symlink(link, &target))
        } else if kind.is_file() {
            copy_file(&source, &target)
        } else {
            left_out.push(format!(
                "{}: neither file, directory nor link",
                source.display()
            ));
            Ok(())
        };
        match copied {
            // The copy itself must go on; a full disk must not.
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                left_out.push(format!("{}: {error}", source.display()))
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    fs::copy(source, target)?;
    let metadata = fs::metadata(source)?;
    // Writable, so that the demo can work with it.
    fs::set_permissions(
        target,
        fs::Permissions::from_mode(metadata.permissions().mode() | 0o600),
    )?;
    fs::File::options()
        .write(true)
        .open(target)?
        .set_modified(metadata.modified()?)
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[test]
    fn a_copy_is_equal() {
        let temporary = tempfile::tempdir().unwrap();
        let (a, b) = (temporary.path().join("a"), temporary.path().join("b"));
        make(&a).unwrap();
        assert!(tree::read(&a).unwrap().len() > 50);
        let (_, bytes) = tree::measure(&tree::read(&a).unwrap());
        assert!(bytes > 4_000_000);
        assert!(copy(&a, &b).unwrap().is_empty());
        assert_eq!(tree::differences(&a, &b).unwrap(), Vec::<String>::new());
    }
}
