//! The text of a rules file. Knows nothing of the rest of this crate: the fuzzing targets compile it by itself.

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The rules of a text.
pub(crate) fn parse(text: &[u8]) -> Gitignore {
    let mut builder = GitignoreBuilder::new(".");
    for line in String::from_utf8_lossy(text).lines() {
        // A line that is no pattern says nothing, as in git.
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}
