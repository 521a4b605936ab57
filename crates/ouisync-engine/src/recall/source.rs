//! What is to be brought back: the entries of a past state below a path.

use ouisync_model::{
    id::{MemberId, NodeId, Timestamp},
    name::Name,
    operation::{FileContent, Metadata, Value},
    tree::{entry::Entry, view::View},
};

use super::Recall;
use crate::{
    error::EngineError,
    history::{FileVersion, FolderPath, RecalledEntry, When, short},
    past::{State, show},
};

/// An entry of the past.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// From the entry that was asked for; empty for itself.
    pub(crate) path: FolderPath,
    /// The node that it was.
    pub(crate) node: NodeId,
    /// What it was; never [`Value::Deleted`].
    pub(crate) value: Value,
    /// Its metadata.
    pub(crate) metadata: Metadata,
}

impl Item {
    pub(crate) fn is_leaf(&self) -> bool {
        self.value != Value::Directory
    }

    pub(crate) fn into_entry(self) -> RecalledEntry {
        RecalledEntry {
            path: self.path,
            value: self.value,
            metadata: self.metadata,
        }
    }

    /// A file's content.
    pub(crate) const fn content(&self) -> Option<&FileContent> {
        match &self.value {
            Value::File(content) => Some(content),
            _ => None,
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Where it was.
    pub(crate) path: FolderPath,
    /// Directories before what is in them. The folder's top is none of them.
    pub(crate) items: Vec<Item>,
    /// Who wrote a file or link, and when.
    pub(crate) written: Option<(MemberId, Timestamp)>,
    /// Names the version of a file or link.
    pub(crate) version: Option<String>,
}

impl Source {
    /// The one item, when that is a file or link.
    pub(crate) fn leaf(&self) -> Option<&Item> {
        match self.items.as_slice() {
            [item] if item.path.is_empty() && item.is_leaf() => Some(item),
            _ => None,
        }
    }

    /// Where an item was, for people.
    pub(crate) fn show(&self, item: &Item) -> String {
        show(&[self.path.as_slice(), item.path.as_slice()].concat())
    }
}

impl Recall {
    /// Finds what `when` means of `path`.
    pub(crate) fn find(&self, path: &[Name], when: &When) -> Result<Source, EngineError> {
        match when {
            When::Latest if path.is_empty() || self.past.entry(path)?.is_some() => {
                self.of_state(path, &self.past.state(when)?)
            }
            When::Latest => {
                let last = self.past.last_of_deleted(path)?;
                match &last.version {
                    Some(version) => self.of_version(path, version),
                    None => self.of_state(path, &self.past.state(&When::At(last.last))?),
                }
            }
            When::At(moment) => {
                let state = self.past.state(when)?;
                self.of_state(path, &state).map_err(|error| match error {
                    EngineError::UnknownPath(path) => EngineError::NotThen(path, *moment),
                    error => error,
                })
            }
            When::Version(version) => self.of_version(path, version),
        }
    }

    fn of_version(&self, path: &[Name], version: &str) -> Result<Source, EngineError> {
        let versions = match path {
            [] => Vec::new(),
            path => match self.past.versions(path) {
                Err(EngineError::UnknownPath(_)) => Vec::new(),
                versions => versions?,
            },
        };
        let mut named = versions.iter().filter(|found| found.is_named(version));
        match (named.next(), named.next()) {
            (Some(found), None) => of_file(found),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousVersion(version.to_owned())),
            (None, _) => {
                let state = self.past.state(&When::Version(version.to_owned()))?;
                self.of_state(path, &state)
            }
        }
    }

    fn of_state(&self, path: &[Name], state: &State) -> Result<Source, EngineError> {
        let label = |member: &MemberId| self.past.readable.label(member);
        self.past.with_tree(state, |tree| {
            let view = View::new(tree, &label);
            let mut source = Source {
                path: path.to_vec(),
                items: Vec::new(),
                written: None,
                version: None,
            };
            let mut start = NodeId::ROOT;
            if !path.is_empty() {
                let Some(entry) = view.lookup(path)? else {
                    return Err(EngineError::UnknownPath(show(path)));
                };
                start = entry.node;
                if !entry.is_directory() {
                    source.version = entry.op.map(|op| short(&op.commit));
                    source.written = entry.author.map(|author| (author, entry.time));
                }
                let is_directory = entry.is_directory();
                source.items.push(item(Vec::new(), entry));
                if !is_directory {
                    return Ok(source);
                }
            }
            let mut walk = view.walk(start)?;
            while let Some((path, entry)) = walk.step()? {
                source.items.push(item(path, entry));
            }
            Ok(source)
        })
    }
}

fn item(path: FolderPath, entry: Entry) -> Item {
    Item {
        path,
        node: entry.node,
        value: entry.value,
        metadata: entry.metadata,
    }
}

fn of_file(version: &FileVersion) -> Result<Source, EngineError> {
    let Some(value) = &version.value else {
        return Err(EngineError::DeletedVersion(version.version.clone()));
    };
    let item = Item {
        path: Vec::new(),
        node: version.node,
        value: value.clone(),
        metadata: version.metadata,
    };
    Ok(Source {
        path: version.path.clone(),
        items: vec![item],
        written: Some((version.author, version.time)),
        version: Some(version.version.clone()),
    })
}
