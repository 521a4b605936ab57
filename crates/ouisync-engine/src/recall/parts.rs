//! Reading a past state part by part, so that only one part's packs need be on the device at once.

use std::collections::{BTreeSet, VecDeque};

use ouisync_model::{
    id::PackId,
    name::Name,
    operation::{FileContent, FileData},
};
use ouisync_store::content::ChunkPlaces;

use super::{
    Recall, RecallProgress,
    source::{Item, Source},
};
use crate::{
    error::EngineError,
    history::{FolderPath, RecalledEntry, When},
    port::on_folder,
};

/// A past state whose content comes part by part. Blocks; packs that came for it alone go again with it.
pub struct RecalledParts {
    recall: Recall,
    /// What is still to come: directories before what is in them, and files that share packs side by side.
    left: VecDeque<Item>,
    path: FolderPath,
    is_leaf: bool,
    partial: bool,
    bytes: u64,
    /// Packs that came for the present part.
    held: Vec<PackId>,
    missing: Vec<FolderPath>,
}

impl RecalledParts {
    /// Finds what `when` means of `path`. With `partial` what nobody reachable holds is left out.
    pub(crate) fn find(
        mut recall: Recall,
        path: &[Name],
        when: &When,
        partial: bool,
        progress: &mut dyn RecallProgress,
    ) -> Result<Self, EngineError> {
        let source = recall.find_held(path, when, progress)?;
        let is_leaf = source.leaf().is_some();
        let Source { path, items, .. } = source;
        let sizes = items.iter().filter_map(Item::content);
        let bytes = sizes.map(|content| content.size).sum();
        let mut keyed = Vec::with_capacity(items.len());
        for item in items {
            let pack = match item.content() {
                Some(content) => recall.first_pack(content)?,
                None => None,
            };
            keyed.push((pack, item));
        }
        // Stable: what needs no pack comes first, in order.
        keyed.sort_by_key(|(pack, _)| *pack);
        Ok(Self {
            recall,
            left: keyed.into_iter().map(|(_, item)| item).collect(),
            path,
            is_leaf,
            partial,
            bytes,
            held: Vec::new(),
            missing: Vec::new(),
        })
    }

    /// It is a file or link: the only entry.
    pub const fn is_leaf(&self) -> bool {
        self.is_leaf
    }

    /// Bytes of all files.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What nobody reachable holds, as far as that was looked for.
    pub fn missing(&self) -> &[FolderPath] {
        &self.missing
    }

    /// The next part, nothing at the end; its content is here until the next call. Its packs that weren't here before come to about
    /// `limit` bytes, unless a single file has more.
    pub fn next_part(
        &mut self,
        limit: u64,
        progress: &mut dyn RecallProgress,
    ) -> Result<Option<Vec<RecalledEntry>>, EngineError> {
        self.let_go()?;
        let mut items = Vec::new();
        let mut packs = BTreeSet::new();
        let mut bytes = 0_u64;
        while let Some(item) = self.left.pop_front() {
            if let Some(content) = item.content() {
                for (pack, size) in self.recall.fetcher().lacks(content)? {
                    if packs.insert(pack) {
                        bytes = bytes.saturating_add(size.bytes());
                    }
                }
                if let FileData::Indirect(_) = content.data {
                    // Its packs aren't known before its list is here.
                    bytes = bytes.saturating_add(content.size);
                }
                if bytes > limit && !items.is_empty() {
                    self.left.push_front(item);
                    break;
                }
            }
            items.push(item);
        }
        if items.is_empty() {
            return Ok(None);
        }
        let mut source = Source {
            path: self.path.clone(),
            items,
            written: None,
            version: None,
        };
        let wanted: Vec<usize> = (0..source.items.len())
            .filter(|index| source.items[*index].content().is_some())
            .collect();
        let fetched = self.recall.fetch_items(
            &mut source,
            &wanted,
            self.partial,
            progress,
            &mut self.held,
        )?;
        self.missing.extend(fetched);
        Ok(Some(
            source.items.into_iter().map(Item::into_entry).collect(),
        ))
    }

    fn let_go(&mut self) -> Result<(), EngineError> {
        let packs = std::mem::take(&mut self.held);
        if packs.is_empty() {
            return Ok(());
        }
        on_folder(&self.recall.sender, move |folder| folder.let_go(&packs))
    }
}

impl Drop for RecalledParts {
    fn drop(&mut self) {
        if let Err(error) = self.let_go() {
            // They go as any that isn't needed.
            tracing::debug!(%error, "fetched packs stay");
        }
    }
}

impl Recall {
    /// A pack of content that isn't inline, to sort by.
    fn first_pack(&self, content: &FileContent) -> Result<Option<PackId>, EngineError> {
        let (FileData::Chunks(chunks) | FileData::Indirect(chunks)) = &content.data else {
            return Ok(None);
        };
        let Some(first) = chunks.first() else {
            return Ok(None);
        };
        let places = self.readable().index.places(&first.chunk)?;
        Ok(places.iter().map(|(pack, _)| *pack).min())
    }
}
