//! The device's transport key: an Ed25519 secret whose public half is the [`DeviceId`].
//!
//! Must not be used for anything but authenticating connections.

use std::fmt;

use ouisync_model::id::DeviceId;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Secret Ed25519 seed of a device, 32 bytes; wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DeviceKey([u8; 32]);

impl DeviceKey {
    /// Wraps 32 random or stored bytes; every value is a valid key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for the key store.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The device that this key belongs to.
    pub fn device(&self) -> DeviceId {
        DeviceId::from_bytes(*self.secret().public().as_bytes())
    }

    pub(crate) fn secret(&self) -> iroh::SecretKey {
        iroh::SecretKey::from_bytes(&self.0)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DeviceKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(
            format!("{:?}", DeviceKey::from_bytes([7; 32])),
            "DeviceKey(..)"
        );
    }

    #[test]
    fn device_is_the_ed25519_public_key() {
        // RFC 8032, section 7.1, test 1.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        assert_eq!(
            DeviceKey::from_bytes(seed).device().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }
}
