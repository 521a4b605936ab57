//! The ordered map of bytes under the catalogue, thin enough to be replaced in tests.

use std::{collections::BTreeMap, fmt, ops::ControlFlow};

use crate::error::StoreError;

/// Changes that happen together: a value puts, `None` removes.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// An ordered map with atomic, ordered batches: after a crash a prefix of the batches is there, with at least all up to the
/// last durable one.
pub trait Records: Send + Sync + fmt::Debug {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the records with `from` ≤ key < `to` in order until told to stop.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Applies a batch; when `durable`, it and all before it survive a power cut once this returns.
    fn commit(&self, changes: Changes, durable: bool) -> Result<(), StoreError>;

    /// Makes all batches so far durable.
    fn persist(&self) -> Result<(), StoreError>;
}

/// What [`Records::scan`] calls with each key and value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;
