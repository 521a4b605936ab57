//! Merging what the tree only shows side by side: texts by lines, by rules that travel with the folder.
//!
//! The tree never merges contents by itself: it keeps all values. A device that may write settles them with an ordinary write,
//! and this module says how, so that every device would write the same bytes. Pure functions over bytes; it must not read
//! contents, decide when to merge, or write.

pub mod ancestry;
pub mod attributes;
pub mod text;
