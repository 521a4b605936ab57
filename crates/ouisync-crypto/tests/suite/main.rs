//! Tests of the public interface of `ouisync-crypto`; everything random comes from seeds.
#![allow(clippy::unwrap_used)]

mod commit;
mod keystore;
mod pack;
mod policy;
mod roster;
mod roster_convergence;
mod seeded;
mod session;
mod vectors;
