//! Key hierarchy, sealing, signatures, commits, invitations and roster rules.
//!
//! The only importer of cipher crates. No I/O and no clocks; randomness is passed in. Byte formats: `docs/format/keys-commits-roster.md`.

pub mod commit;
mod encoding;
pub mod envelope;
pub mod frame_hash;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod identity;
pub mod invitation;
pub mod keys;
pub mod keystore;
pub mod pack;
pub mod possession;
pub mod proof;
pub mod recovery_kit;
pub mod roster;
mod seal;
pub mod secret;
