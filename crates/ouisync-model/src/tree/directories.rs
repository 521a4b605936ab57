//! Directory placements.
