//! What Alice and Bob do to the same files while they are apart, and what must have come of it.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use super::{sample::OWN, tree};

/// Alice's words in the file that both change.
const ALICE_SAYS: &str = "bread from the market\nmilk\napples, the red ones\nlamp oil\n";
/// Bob's words there.
const BOB_SAYS: &str = "no bread, we have flour\nmilk\napples, the red ones\nlamp oil\n";
/// What Bob adds to a file in the directory that Alice renames.
const BOB_ADDS: &str = "Bob was there too.\n";

fn append(path: PathBuf, text: &str) -> io::Result<()> {
    fs::File::options()
        .append(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Alice edits, renames and deletes; tells what, in words.
pub(super) fn by_alice(directory: &Path) -> io::Result<&'static str> {
    let own = directory.join(OWN);
    append(
        own.join("notes/garden journal.md"),
        "The medlars are ripe.\n",
    )?;
    fs::rename(own.join("voyage log"), own.join("log of the voyage"))?;
    fs::remove_file(own.join("notes/letters/unsent.txt"))?;
    fs::create_dir_all(own.join("new by Alice"))?;
    fs::write(
        own.join("new by Alice/poem.txt"),
        "The sea is wide, the safe is blind.\n",
    )?;
    fs::write(own.join("shopping list.txt"), ALICE_SAYS)?;
    Ok(
        "Alice (switched off) edits her journal and the shopping list, renames the directory 'voyage log', deletes a letter, writes a poem",
    )
}

/// Bob edits, renames and deletes; tells what, in words.
pub(super) fn by_bob(directory: &Path) -> io::Result<&'static str> {
    let own = directory.join(OWN);
    append(own.join("voyage log/day 07.txt"), BOB_ADDS)?;
    fs::rename(
        own.join("voyage pictures/lighthouse.raw"),
        own.join("voyage pictures/the old lighthouse.raw"),
    )?;
    fs::remove_file(own.join("naïve café ☕.md"))?;
    fs::remove_dir(own.join("an empty directory"))?;
    fs::write(own.join("shopping list.txt"), BOB_SAYS)?;
    Ok(
        "Bob edits a page in 'voyage log' and the shopping list too, renames a picture, deletes a note and a directory",
    )
}

/// What must be so after they met: a claim, and whether it holds in `directory`.
pub(super) fn claims(directory: &Path) -> io::Result<Vec<(bool, &'static str)>> {
    let own = directory.join(OWN);
    let text = |path: &str| fs::read_to_string(own.join(path)).unwrap_or_default();
    let gone = |path: &str| fs::symlink_metadata(own.join(path)).is_err();
    let versions: Vec<String> = tree::read(&own)?
        .keys()
        .filter(|path| path.to_string_lossy().starts_with("shopping list"))
        .map(|path| fs::read_to_string(own.join(path)))
        .collect::<io::Result<_>>()?;
    Ok(vec![
        (
            text("log of the voyage/day 07.txt").ends_with(BOB_ADDS) && gone("voyage log"),
            "Bob's edit is in the file in the directory that Alice renamed: the move and the edit merged",
        ),
        (
            text("notes/garden journal.md").ends_with("ripe.\n")
                && !text("new by Alice/poem.txt").is_empty(),
            "Alice's edit and her new file are there",
        ),
        (
            !gone("voyage pictures/the old lighthouse.raw")
                && gone("voyage pictures/lighthouse.raw"),
            "Bob's renamed picture is there under its new name only",
        ),
        (
            gone("notes/letters/unsent.txt")
                && gone("naïve café ☕.md")
                && gone("an empty directory"),
            "what either deleted is gone",
        ),
        (
            versions.len() == 2
                && versions.iter().any(|text| text == ALICE_SAYS)
                && versions.iter().any(|text| text == BOB_SAYS),
            "both versions of the shopping list are there side by side: nothing was overwritten",
        ),
    ])
}
