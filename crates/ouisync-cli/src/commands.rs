//! The commands: one file each, named like the command.

pub mod demo;

pub(crate) mod brake;
pub(crate) mod browse;
pub(crate) mod completions;
pub(crate) mod connect;
pub(crate) mod deleted;
pub(crate) mod device;
pub(crate) mod diff;
pub(crate) mod folder;
pub(crate) mod forget_versions;
pub(crate) mod history;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod keyring;
pub(crate) mod lock;
pub(crate) mod member;
pub(crate) mod members;
pub(crate) mod offload;
pub(crate) mod passphrase;
pub(crate) mod pause;
pub(crate) mod quota;
pub(crate) mod recovery_kit;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod resume;
pub(crate) mod retention;
pub(crate) mod revoke;
pub(crate) mod serve;
pub(crate) mod service;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod unlock;
pub(crate) mod verify;
pub(crate) mod wait;
