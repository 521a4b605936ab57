//! The tree's merge rules, by example and by property, through the public interface only.
#![allow(clippy::unwrap_used, missing_docs)]

mod devices;
mod past;
mod properties;
mod rows;
mod rules;
mod scale;
