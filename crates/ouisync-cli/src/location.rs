//! Where in a folder something is: as a path on disk or as `FOLDER:path`, with or without a version behind an `@`.

use std::path::{Component, Path, PathBuf};

use ouisync_api::{
    client::Client,
    data::Folder,
    error::{ErrorBody, ErrorKind},
    history::Selection,
    moment::{Moment, Named},
};

use crate::context::{refused, usage};

/// A file or directory in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The folder's id.
    pub(crate) folder: String,
    /// Its name.
    pub(crate) name: String,
    /// Names joined by `/`; empty for the folder's top.
    pub(crate) path: String,
}

impl Location {
    /// Finds out what `text` means.
    pub(crate) async fn find(client: &Client, text: &str) -> Result<Self, ErrorBody> {
        let folders = client.folders().await.map_err(refused)?;
        Self::among(&folders, text)?.ok_or_else(|| {
            ErrorBody::new(
                ErrorKind::NotFound,
                format!("'{text}' is neither in the directory of a folder nor a folder"),
                "Give a path inside a folder's directory, a folder's name, or FOLDER:path. See 'ouisync status'.",
            )
        })
    }

    /// Like [`Self::find`]; `None` for what is outside all folders.
    pub(crate) async fn find_inside(
        client: &Client,
        text: &str,
    ) -> Result<Option<Self>, ErrorBody> {
        let folders = client.folders().await.map_err(refused)?;
        Self::among(&folders, text)
    }

    fn among(folders: &[Folder], text: &str) -> Result<Option<Self>, ErrorBody> {
        let named = |name: &str| {
            folders
                .iter()
                .find(|folder| folder.name == name)
                .or_else(|| folders.iter().find(|folder| folder.folder == name))
        };
        let at = |folder: &Folder, path: String| Self {
            folder: folder.folder.clone(),
            name: folder.name.clone(),
            path,
        };
        if let Some(folder) = named(text) {
            return Ok(Some(at(folder, String::new())));
        }
        // A folder's name may have a colon itself.
        for (index, _) in text.match_indices(':') {
            if let Some(folder) = named(&text[..index]) {
                let parts = text[index + 1..].split('/');
                let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
                if parts.contains(&"..") || parts.contains(&".") {
                    return Err(usage(
                        format!("'{text}' has '.' or '..' in it"),
                        "Write the names from the folder's top.",
                    ));
                }
                return Ok(Some(at(folder, parts.join("/"))));
            }
        }
        let path = real(Path::new(text))?;
        let mut best: Option<(usize, Self)> = None;
        for folder in folders {
            let Some(root) = &folder.path else { continue };
            let root = real(Path::new(root))?;
            let Ok(inside) = path.strip_prefix(&root) else {
                continue;
            };
            let names: Option<Vec<&str>> = inside
                .components()
                .map(|name| name.as_os_str().to_str())
                .collect();
            let names = names.ok_or_else(|| {
                usage(
                    format!("{} is not UTF-8", path.display()),
                    "Give the directory that it is in.",
                )
            })?;
            let depth = root.components().count();
            if best.as_ref().is_none_or(|(known, _)| *known < depth) {
                best = Some((depth, at(folder, names.join("/"))));
            }
        }
        Ok(best.map(|(_, location)| location))
    }

    /// For people.
    pub(crate) fn show(&self) -> String {
        format!("{}:{}", self.name, self.path)
    }

    /// The path for a request; none for the top.
    pub(crate) fn asked(&self) -> Option<String> {
        (!self.path.is_empty()).then(|| self.path.clone())
    }
}

/// The absolute path without links, as far as it exists; its last part is not followed.
fn real(path: &Path) -> Result<PathBuf, ErrorBody> {
    let fail =
        |error: std::io::Error| usage(format!("{}: {error}", path.display()), "Give another path.");
    let absolute = std::path::absolute(path).map_err(fail)?;
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                // What '..' means depends on links.
                plain = plain.canonicalize().unwrap_or(plain);
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    let mut missing = Vec::new();
    let mut there = plain.as_path();
    // A root of a folder may itself be reached through a link; what is in it never is.
    let is_last_link = there.is_symlink() && !there.is_dir();
    if is_last_link && let (Some(parent), Some(name)) = (there.parent(), there.file_name()) {
        missing.push(name.to_owned());
        there = parent;
    }
    loop {
        match there.canonicalize() {
            Ok(found) => {
                let rest = missing.iter().rev();
                return Ok(rest.fold(found, |path, name| path.join(name)));
            }
            Err(error) => match (there.parent(), there.file_name()) {
                (Some(parent), Some(name)) => {
                    missing.push(name.to_owned());
                    there = parent;
                }
                _ => return Err(fail(error)),
            },
        }
    }
}

/// A time that a person writes: the end of what it names.
pub(crate) fn time(text: &str) -> Result<String, ErrorBody> {
    Ok(named(text)?.last.to_rfc3339())
}

/// The beginning of what it names.
pub(crate) fn beginning(text: &str) -> Result<String, ErrorBody> {
    Ok(named(text)?.first.to_rfc3339())
}

fn named(text: &str) -> Result<Named, ErrorBody> {
    Named::parse(text, Moment::now())
        .map_err(|error| usage(error.to_string(), "See 'ouisync history --help'."))
}

/// Local time for people; the text itself if it is none.
pub(crate) fn local(time: &str) -> String {
    Moment::parse(time).map_or_else(|_| time.to_owned(), |moment| moment.to_local())
}

/// Takes a version or time behind the last `@` off.
pub(crate) fn split_version(text: &str) -> (&str, Option<Wanted>) {
    if let Some((path, version)) = text.rsplit_once('@')
        && !path.is_empty()
        && let Some(wanted) = Wanted::parse(version)
    {
        return (path, Some(wanted));
    }
    (text, None)
}

/// A version or time behind an `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Version(String),
    Time(String),
}

impl Wanted {
    fn parse(text: &str) -> Option<Self> {
        let (digits, index) = text.split_once('.').unwrap_or((text, "0"));
        let is_version = (4..=64).contains(&digits.len())
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && !index.is_empty()
            && index.bytes().all(|byte| byte.is_ascii_digit());
        if is_version {
            return Some(Self::Version(text.to_owned()));
        }
        time(text).ok().map(Self::Time)
    }

    /// The selection of a path so.
    pub(crate) fn select(wanted: Option<Self>, path: Option<String>) -> Selection {
        let (at, version) = match wanted {
            None => (None, None),
            Some(Self::Time(at)) => (Some(at), None),
            Some(Self::Version(version)) => (None, Some(version)),
        };
        Selection { path, at, version }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ouisync_api::data::Role;

    use super::*;

    fn folder(name: &str, path: Option<&Path>) -> Folder {
        Folder {
            folder: "00".repeat(32),
            name: name.to_owned(),
            role: Some(Role::Owner),
            path: path.map(|path| path.to_str().unwrap().to_owned()),
        }
    }

    fn find(folders: &[Folder], text: &str) -> Option<(String, String)> {
        let found = Location::among(folders, text).unwrap();
        found.map(|found| (found.name, found.path))
    }

    #[test]
    fn paths_and_names_lead_into_folders() {
        let scratch = tempfile::tempdir().unwrap();
        let (notes, inner) = (
            scratch.path().join("notes"),
            scratch.path().join("notes/in"),
        );
        std::fs::create_dir_all(&inner).unwrap();
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&notes, &link).unwrap();
        let folders = [
            folder("Notes", Some(&notes)),
            folder("Inner: one", Some(&inner)),
            folder("Bare", None),
        ];
        let text = |path: &str| scratch.path().join(path).to_str().unwrap().to_owned();
        let pair = |name: &str, path: &str| Some((name.to_owned(), path.to_owned()));
        assert_eq!(find(&folders, "Notes"), pair("Notes", ""));
        assert_eq!(find(&folders, "Notes:"), pair("Notes", ""));
        assert_eq!(find(&folders, "Notes:/a//b"), pair("Notes", "a/b"));
        assert_eq!(find(&folders, "Inner: one:a"), pair("Inner: one", "a"));
        assert_eq!(find(&folders, "Bare:a:b"), pair("Bare", "a:b"));
        assert_eq!(
            find(&folders, &text("notes/gone/x")),
            pair("Notes", "gone/x")
        );
        assert_eq!(find(&folders, &text("notes/in/x")), pair("Inner: one", "x"));
        assert_eq!(find(&folders, &text("link/a")), pair("Notes", "a"));
        assert_eq!(find(&folders, &text("notes/in/../b")), pair("Notes", "b"));
        assert_eq!(find(&folders, &text("elsewhere")), None);
        assert!(Location::among(&folders, "Notes:../x").is_err());
    }

    #[test]
    fn versions_behind_the_last_at() {
        let version = |text: &str| Some(Wanted::Version(text.to_owned()));
        assert_eq!(split_version("a@b.txt"), ("a@b.txt", None));
        assert_eq!(split_version("a@1f2e"), ("a", version("1f2e")));
        assert_eq!(split_version("a@1f2e.12"), ("a", version("1f2e.12")));
        assert_eq!(split_version("a@b@1f2e"), ("a@b", version("1f2e")));
        assert_eq!(split_version("@1f2e"), ("@1f2e", None));
        assert!(matches!(
            split_version("a@2 hours ago"),
            ("a", Some(Wanted::Time(_)))
        ));
    }
}
