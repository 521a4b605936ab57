//! A folder as a plain directory: scan, watch, record local changes, apply remote ones.
