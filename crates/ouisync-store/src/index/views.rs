//! What views keep here: which directories they must look at, and records of their own that nobody else understands.

use std::collections::BTreeMap;

use ouisync_model::id::NodeId;
use serde::{Deserialize, Serialize};

use super::{Index, IndexError, IndexSnapshot, Records, batch::IndexBatch, table};
use crate::sealed_map::SealedMapError;

/// Tells one marking of a directory from another, so that clearing what was seen spares what was marked since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirtyMark(u64);

/// Item and value of a view's record.
pub type ViewRecord = (Vec<u8>, Vec<u8>);

#[derive(Serialize, Deserialize)]
struct DirtyRecord {
    directory: NodeId,
    mark: DirtyMark,
}

/// Bytes as they are: item and value of a view's record.
fn join(item: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(item.len()).expect("an item is a name");
    [&length.to_le_bytes(), item, value].concat()
}

fn split(record: &[u8]) -> Result<ViewRecord, IndexError> {
    let split = record
        .split_first_chunk()
        .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
    let (item, value) = split.ok_or(SealedMapError::Damaged)?;
    Ok((item.to_vec(), value.to_vec()))
}

fn dirty<R: Records>(records: &R, limit: usize) -> Result<BTreeMap<NodeId, DirtyMark>, IndexError> {
    let marks: Vec<DirtyRecord> = records.list(table::DIRTY, &[], limit)?;
    Ok(marks
        .into_iter()
        .map(|record| (record.directory, record.mark))
        .collect())
}

fn view_record<R: Records>(
    records: &R,
    group: &[u8; 16],
    item: &[u8],
) -> Result<Option<Vec<u8>>, IndexError> {
    let record = records.value(&records.key(table::VIEW, group, item))?;
    record.map(|record| Ok(split(&record)?.1)).transpose()
}

fn view_records<R: Records>(records: &R, group: &[u8; 16]) -> Result<Vec<ViewRecord>, IndexError> {
    let (first, last) = records.group(table::VIEW, group).range();
    let values = records.values(first, last, usize::MAX)?;
    values
        .into_iter()
        .map(|(_, record)| split(&record))
        .collect()
}

macro_rules! view_reader {
    ($type:ty) => {
        impl $type {
            /// At most `limit` directories that are marked, with their marks.
            pub fn dirty(&self, limit: usize) -> Result<BTreeMap<NodeId, DirtyMark>, IndexError> {
                dirty(self, limit)
            }

            /// The value of a view's record.
            pub fn view_record(
                &self,
                group: &[u8; 16],
                item: &[u8],
            ) -> Result<Option<Vec<u8>>, IndexError> {
                view_record(self, group, item)
            }

            /// All records of a view's group as (item, value), in no order.
            pub fn view_records(&self, group: &[u8; 16]) -> Result<Vec<ViewRecord>, IndexError> {
                view_records(self, group)
            }

            /// A setting.
            pub fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError> {
                Ok(self.value(&self.key(table::SETTING, name.as_bytes(), &[]))?)
            }
        }
    };
}

view_reader!(Index);
view_reader!(IndexSnapshot);
view_reader!(IndexBatch);

impl IndexBatch {
    /// Marks a directory: its listing may have changed.
    pub fn mark_dirty(&mut self, directory: NodeId) {
        let mark = DirtyMark(self.meta.next_mark);
        self.meta.next_mark += 1;
        self.put(
            table::DIRTY,
            &[],
            directory.as_bytes(),
            &DirtyRecord { directory, mark },
        );
    }

    /// Takes a mark away, unless the directory was marked again since. Returns whether it was taken away.
    pub fn clear_dirty(&mut self, directory: NodeId, mark: DirtyMark) -> Result<bool, IndexError> {
        let record: Option<DirtyRecord> = self.get(table::DIRTY, &[], directory.as_bytes())?;
        let same = record.is_some_and(|record| record.mark == mark);
        if same {
            self.remove(table::DIRTY, &[], directory.as_bytes());
        }
        Ok(same)
    }

    /// Sets or removes a view's record.
    pub fn put_view_record(&mut self, group: &[u8; 16], item: &[u8], value: Option<&[u8]>) {
        let key = self.key(table::VIEW, group, item);
        match value {
            Some(value) => self.put_at(key, join(item, value)),
            None => self.remove_at(key),
        }
    }

    /// Sets or removes a setting.
    pub fn put_setting(&mut self, name: &str, value: Option<&[u8]>) {
        let key = self.key(table::SETTING, name.as_bytes(), &[]);
        match value {
            Some(value) => self.put_at(key, value.to_vec()),
            None => self.remove_at(key),
        }
    }
}
