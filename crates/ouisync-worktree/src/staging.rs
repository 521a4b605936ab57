//! The staging directory, there only while something is in it or on its way, and the mark that tells the root.

use std::{io, os::fd::OwnedFd};

use crate::{
    directories::STAGING,
    disk::{self, Root},
    runner::{Runner, staging_as_name},
};

impl Runner {
    /// Opens the staging directory, making it if need be.
    pub(crate) fn staging(&mut self, root: &Root) -> io::Result<OwnedFd> {
        self.staging_used = true;
        match self.existing_staging(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk::make_directory(root.directory(&[])?, &self.meta.staging, 0o700)?;
                self.existing_staging(root)
            }
            opened => opened,
        }
    }

    /// Opens the staging directory if it is there.
    pub(crate) fn existing_staging(&self, root: &Root) -> io::Result<OwnedFd> {
        root.directory(&[staging_as_name(&self.meta)])
    }

    /// Removes the staging directory when nothing is in it or on its way.
    pub(crate) fn remove_staging(&mut self) {
        if !self.staging_used
            || self.keep_staging
            || self.held.is_some()
            || self.transfer.is_some()
            || !self.drafts.is_empty()
            || !self.durable.is_idle()
            || !self
                .records(STAGING)
                .is_ok_and(|records| records.is_empty())
        {
            return;
        }
        let Ok(root) = Root::open(&self.path) else {
            return;
        };
        // Another one may have come to the path since the last look.
        if root.stat.fingerprint.identity != self.meta.root {
            return;
        }
        let removed = root
            .directory(&[])
            .and_then(|handle| disk::remove_directory(handle, &self.meta.staging));
        // What could not be removed from it before is looked at again at the next start.
        self.staging_used = false;
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "the staging directory stays");
        }
    }

    /// Marks the root as this folder's: its numbers may change with the next mount.
    pub(crate) fn mark_root(&mut self, root: &Root) {
        if self.root_marked {
            return;
        }
        self.root_marked = true;
        self.keep_staging = false;
        if let Err(error) = root.set_mark(&self.meta.staging) {
            // No extended attributes here: the directory itself is the mark.
            tracing::debug!(%error, "the staging directory stays as the root's mark");
            self.keep_staging = true;
            let made = self.staging(root);
            if let Err(error) = made {
                // Reported where something is to be applied; recording local changes needs no staging.
                tracing::debug!(%error, "no staging directory");
            }
        }
    }

    /// Whether the root carries this folder's mark.
    pub(crate) fn is_marked(&self, root: &Root) -> bool {
        root.mark().is_ok_and(|mark| mark == self.meta.staging)
            || self.existing_staging(root).is_ok()
    }
}
