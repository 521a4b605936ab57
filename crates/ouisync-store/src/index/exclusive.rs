//! Which packs nothing in the tree needs but some contents.

use std::collections::{BTreeSet, HashMap};

use ouisync_model::{
    id::{ChunkId, PackId},
    operation::{ChunkRef, FileContent, FileData},
};

use super::{
    Index, IndexError, Records,
    contents::{ChunkRecord, ListId, ListRecord, PackUse},
    encode, lock, table,
};

/// How often some contents use each chunk: compared with how often the whole tree does.
#[derive(Debug, Default)]
pub struct ContentUses {
    chunks: HashMap<ChunkId, u64>,
    lists: HashMap<ListId, u64>,
}

impl Index {
    /// Counts a content that is in the tree. Each is to be counted as often as the tree has it, at most.
    pub fn count_content(&self, uses: &mut ContentUses, content: &FileContent) {
        let chunks = match &content.data {
            FileData::Inline(..) => return,
            FileData::Chunks(chunks) => chunks,
            FileData::Indirect(parts) => {
                *uses.lists.entry(self.list_id(parts)).or_default() += 1;
                parts
            }
        };
        for chunk in chunks {
            *uses.chunks.entry(chunk.chunk).or_default() += 1;
        }
    }

    /// The chunks of long lists that nothing but the counted contents has: once all contents are counted.
    pub fn count_lists(&self, uses: &mut ContentUses) -> Result<(), IndexError> {
        for (list, count) in std::mem::take(&mut uses.lists) {
            let record: Option<ListRecord> = self.get(table::LIST, &[], &list.0)?;
            // The tree counts what a list lists once for all that have the list.
            if record.is_some_and(|record| record.supplied && record.values == count) {
                for chunk in self.listed(list)? {
                    *uses.chunks.entry(chunk.chunk).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// The packs that hold chunks of a content.
    pub fn packs_with(&self, content: &FileContent) -> Result<BTreeSet<PackId>, IndexError> {
        let mut packs = BTreeSet::new();
        let mut add = |chunks: &[ChunkRef]| -> Result<(), IndexError> {
            for chunk in chunks {
                let record: Option<ChunkRecord> =
                    self.get(table::CHUNK, chunk.chunk.as_bytes(), &[])?;
                packs.extend(record.iter().flat_map(|record| record.packs()));
            }
            Ok(())
        };
        match &content.data {
            FileData::Inline(..) => {}
            FileData::Chunks(chunks) => add(chunks)?,
            FileData::Indirect(parts) => {
                add(parts)?;
                add(&self.listed(self.list_id(parts))?)?;
            }
        }
        Ok(packs)
    }

    /// How much of a pack the tree uses, if all of that is by the counted contents and the tree's use of chunks is fully known;
    /// `None` if something else needs it.
    pub fn exclusive_use(
        &self,
        uses: &ContentUses,
        pack: &PackId,
    ) -> Result<Option<PackUse>, IndexError> {
        // What a long list lists that isn't read yet may need any pack.
        if !self.pending_lists(1)?.is_empty() {
            return Ok(None);
        }
        let generation = lock(&self.shared.meta).generation;
        for chunk in self.pack_chunks(pack)? {
            let record: Option<ChunkRecord> = self.get(table::CHUNK, chunk.as_bytes(), &[])?;
            let used = record.map_or(0, |record| record.uses_in(generation));
            if used > uses.chunks.get(&chunk).copied().unwrap_or(0) {
                return Ok(None);
            }
        }
        self.pack_use(pack)
    }

    fn list_id(&self, parts: &[ChunkRef]) -> ListId {
        ListId(self.map().name(table::LIST, &encode(parts)))
    }

    /// What a long list lists, if it was read; else nothing.
    fn listed(&self, list: ListId) -> Result<Vec<ChunkRef>, IndexError> {
        let parts: Vec<Vec<ChunkRef>> = self.list(table::LIST_CHUNKS, &list.0, usize::MAX)?;
        Ok(parts.concat())
    }
}
