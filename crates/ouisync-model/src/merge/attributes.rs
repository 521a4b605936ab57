//! Rules by pattern: which files merge how. They stand in `.ouisyncattributes`, a file of the folder itself.
//!
//! The patterns are those of `.gitignore`; of several that match, the last one counts. What makes no sense is skipped, so that
//! no line can stop the others from working.

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::name::Name;

/// Name of the file with rules for its directory and what is below.
pub const FILE: &str = ".ouisyncattributes";
/// A longer file has no effect, in bytes.
pub const LIMIT: u64 = 64 << 10;
/// Rules beyond this number have no effect.
const RULES: usize = 1000;
/// Longer patterns have no effect, in bytes.
const PATTERN: usize = 1024;

/// What becomes of several values of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Edits that don't overlap merge; where they do, all versions stay.
    Text,
    /// As text; where edits overlap, the lines of both stand one after the other.
    Union,
    /// The version with the greatest stamp stays; the others are history.
    Newest,
    /// All versions stay.
    KeepBoth,
}

impl Strategy {
    /// The word for it in a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Union => "union",
            Self::Newest => "newest",
            Self::KeepBoth => "keep-both",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Text, Self::Union, Self::Newest, Self::KeepBoth]
            .into_iter()
            .find(|strategy| strategy.as_str() == word)
    }
}

/// The rules of one file.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    globs: GlobSet,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    strategy: Strategy,
    /// The pattern ends with a slash: it is for directories and so for what is inside.
    directories: bool,
}

impl Attributes {
    /// Reads rules: lines of a pattern and `merge=STRATEGY`. A pattern with blanks stands in double quotes; `#` begins a
    /// comment line.
    ///
    /// ```
    /// use ouisync_model::{merge::attributes::{Attributes, Strategy}, name::Name};
    /// let rules = Attributes::parse(b"*.log merge=union\n");
    /// let path = [Name::new("a.log").unwrap()];
    /// assert_eq!(rules.strategy(&path), Some(Strategy::Union));
    /// ```
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut globs = Vec::new();
        let mut rules = Vec::new();
        for (pattern, strategy) in text.lines().filter_map(rule).take(RULES) {
            let (directories, pattern) = match pattern.strip_suffix('/') {
                Some(pattern) => (true, pattern),
                None => (false, pattern.as_str()),
            };
            let anchored = match pattern.strip_prefix('/') {
                Some(pattern) => pattern.to_owned(),
                None if pattern.contains('/') => pattern.to_owned(),
                None => format!("**/{pattern}"),
            };
            let mut builder = GlobBuilder::new(&anchored);
            builder.literal_separator(true).backslash_escape(true);
            // A pattern alone may be sound and too big beside the others: then it is the one that is left out.
            if let Ok(glob) = builder.build() {
                globs.push(glob);
                rules.push(Rule {
                    strategy,
                    directories,
                });
            }
        }
        let mut builder = GlobSetBuilder::new();
        for glob in globs {
            builder.add(glob);
        }
        match builder.build() {
            Ok(globs) => Self { globs, rules },
            Err(_) => Self::default(),
        }
    }

    /// What the rules say of a path from the directory of the file. A rule for a directory holds for all that is inside,
    /// unless one for something deeper says otherwise.
    pub fn strategy(&self, path: &[Name]) -> Option<Strategy> {
        for length in (1..=path.len()).rev() {
            let names: Vec<_> = path[..length].iter().map(Name::as_bytes).collect();
            let joined = names.join(&b'/');
            let matches = self
                .globs
                .matches_candidate(&Candidate::from_bytes(&joined));
            let rule = matches
                .into_iter()
                .rev()
                .filter_map(|index| self.rules.get(index))
                .find(|rule| !rule.directories || length < path.len());
            if let Some(rule) = rule {
                return Some(rule.strategy);
            }
        }
        None
    }
}

fn rule(line: &str) -> Option<(String, Strategy)> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with(['#', '!']) {
        return None;
    }
    let (pattern, rest) = match line.strip_prefix('"') {
        Some(quoted) => quoted_pattern(quoted)?,
        None => {
            let end = line.find([' ', '\t']).unwrap_or(line.len());
            (line[..end].to_owned(), &line[end..])
        }
    };
    if pattern.trim_matches('/').is_empty() || pattern.len() > PATTERN {
        return None;
    }
    let words = rest.split_ascii_whitespace();
    let strategy = words
        .rev()
        .find_map(|word| Strategy::from_word(word.strip_prefix("merge=")?))?;
    Some((pattern, strategy))
}

/// The pattern up to the closing quote, and what follows. `\"` and `\\` stand for themselves.
fn quoted_pattern(quoted: &str) -> Option<(String, &str)> {
    let mut pattern = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((pattern, &quoted[at + 1..])),
            '\\' => match characters.next()?.1 {
                '"' => pattern.push('"'),
                other => pattern.extend(['\\', other]),
            },
            other => pattern.push(other),
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn strategy(rules: &str, path: &str) -> Option<Strategy> {
        let path: Vec<_> = path
            .split('/')
            .map(|part| Name::new(part).unwrap())
            .collect();
        Attributes::parse(rules.as_bytes()).strategy(&path)
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        use Strategy::{KeepBoth, Newest, Text, Union};
        for (rules, path, expected) in [
            ("*.log merge=union", "a.log", Some(Union)),
            ("*.log merge=union", "d/e/a.log", Some(Union)),
            ("*.log merge=union", "a.txt", None),
            ("/a.log merge=union", "d/a.log", None),
            ("d/*.log merge=union", "d/a.log", Some(Union)),
            ("d/*.log merge=union", "d/e/a.log", None),
            ("d/**/*.log merge=union", "d/e/f/a.log", Some(Union)),
            ("d/ merge=newest", "d/e/f", Some(Newest)),
            ("d/ merge=newest", "d", None),
            ("d merge=newest", "e/d/f", Some(Newest)),
            ("* merge=newest\n*.md merge=text", "a.md", Some(Text)),
            ("*.md merge=text\n* merge=newest", "a.md", Some(Newest)),
            ("d/ merge=newest\n*.md merge=text", "d/a.md", Some(Text)),
            (
                "\"with blank.txt\" merge=keep-both",
                "with blank.txt",
                Some(KeepBoth),
            ),
            ("# *.log merge=union", "a.log", None),
            ("!*.log merge=union", "a.log", None),
            ("*.log merge=wrong", "a.log", None),
            ("*.log text merge=union eol=lf", "a.log", Some(Union)),
            ("[ merge=union\n*.log merge=union", "a.log", Some(Union)),
            (
                "*.log merge=union\r\n*.md merge=text\r\n",
                "a.log",
                Some(Union),
            ),
            ("\u{feff}*.log merge=union", "a.log", Some(Union)),
            ("A.log merge=union", "a.log", None),
        ] {
            assert_eq!(strategy(rules, path), expected, "{rules:?} for {path}");
        }
    }

    #[test]
    fn no_file_is_too_strange() {
        let long = format!("{} merge=union\n*.log merge=union", "x".repeat(5000));
        assert_eq!(strategy(&long, "a.log"), Some(Strategy::Union));
        let many = "*a*a*a*a*a*a*a*a*b merge=union\n".repeat(3000);
        assert_eq!(strategy(&many, &"a".repeat(255)), None);
        let _ = Attributes::parse(&[0xff, 0xfe, 0, b'\n', b'"', b'\\']);
        let path = [Name::new([0xff, b'.', b'x'].to_vec()).unwrap()];
        let rules = Attributes::parse(b"*.x merge=union");
        assert_eq!(rules.strategy(&path), Some(Strategy::Union));
    }
}
