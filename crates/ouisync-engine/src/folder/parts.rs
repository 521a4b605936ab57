//! Cutting what is to be committed into parts that each fit one commit.

use ouisync_crypto::commit::{CheckpointDigest, Dot};
use ouisync_model::{
    id::PackId,
    operation::{CheckpointState, DraftPart, FileData, Operation, PackSize, PackTable, Value},
};

/// Most operations of one commit.
const MAX_OPERATIONS: usize = 8192;
/// Most packs that one commit adds.
const MAX_PACKS: usize = 1024;
/// Rough limit of the encoded body of one commit before compression, in bytes.
const MAX_BODY: usize = 2 << 20;

/// What goes into one commit, or into several when it is too much for one.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) operations: Vec<Operation>,
    pub(crate) packs: Vec<(PackTable, PackSize)>,
    pub(crate) released: Vec<Dot>,
    pub(crate) forgotten: Vec<PackId>,
    /// Makes the commit a checkpoint. It is not cut.
    pub(crate) checkpoint: Option<(CheckpointDigest, CheckpointState)>,
    /// Goes along with what else there is; by itself it makes no commit.
    pub(crate) draft: Option<DraftPart>,
}

/// Cuts what is to be committed so that every part fits one commit; packs come before the operations that need them, releases
/// before what is forgotten.
pub(super) fn parts(all: Part) -> Vec<Part> {
    if all.checkpoint.is_some() {
        return vec![all];
    }
    let Part {
        operations,
        packs,
        released,
        forgotten,
        checkpoint: _,
        draft,
    } = all;
    let mut parts = vec![Part::default()];
    let mut size = 0;
    let mut room = |parts: &mut Vec<Part>, cost: usize, count: fn(&Part) -> usize, most: usize| {
        let full = parts
            .last()
            .is_none_or(|part| count(part) >= most || size + cost > MAX_BODY);
        if full {
            parts.push(Part::default());
            size = 0;
        }
        size += cost;
    };
    for (table, pack_size) in packs {
        room(
            &mut parts,
            40 + 45 * table.chunks.len(),
            |part| part.packs.len(),
            MAX_PACKS,
        );
        if let Some(part) = parts.last_mut() {
            part.packs.push((table, pack_size));
        }
    }
    for operation in operations {
        room(
            &mut parts,
            cost_of(&operation),
            |part| part.operations.len(),
            MAX_OPERATIONS,
        );
        if let Some(part) = parts.last_mut() {
            part.operations.push(operation);
        }
    }
    for dot in released {
        room(
            &mut parts,
            0,
            |part| part.released.len(),
            ouisync_crypto::commit::MAX_RELEASED,
        );
        if let Some(part) = parts.last_mut() {
            part.released.push(dot);
        }
    }
    for pack in forgotten {
        room(
            &mut parts,
            0,
            |part| part.forgotten.len(),
            ouisync_crypto::commit::MAX_FORGOTTEN,
        );
        if let Some(part) = parts.last_mut() {
            part.forgotten.push(pack);
        }
    }
    parts.retain(|part| {
        !(part.operations.is_empty()
            && part.packs.is_empty()
            && part.released.is_empty()
            && part.forgotten.is_empty())
    });
    if let Some(last) = parts.last_mut() {
        last.draft = draft;
    }
    parts
}

/// About the encoded length of an operation in bytes.
fn cost_of(operation: &Operation) -> usize {
    match operation {
        Operation::Place { name, .. } => 40 + name.as_bytes().len(),
        Operation::SetMetadata { .. } => 32,
        Operation::Write {
            value, replaces, ..
        } => {
            let value = match value {
                Value::Deleted | Value::Directory => 0,
                Value::Symlink(target) => target.len(),
                Value::File(content) => match &content.data {
                    FileData::Inline(_, bytes) => 40 + bytes.len(),
                    FileData::Chunks(chunks) | FileData::Indirect(chunks) => 37 * chunks.len(),
                },
            };
            40 + value + 37 * replaces.len()
        }
    }
}
