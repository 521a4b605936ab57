//! Secrets of an epoch, and the shape that every secret of this crate has: wiped when dropped, redacted when printed.
//!
//! Must not know what is sealed with them; that is `keys`, `pack`, `commit` and `roster`.

use rand_core::CryptoRng;

/// BLAKE3 key derivation: `context` names the purpose, `material` is hashed as one string.
pub(crate) fn derive(context: &str, material: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in material {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// 32 random bytes.
pub(crate) fn random(rng: &mut impl CryptoRng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Equality in constant time.
pub(crate) fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let mut difference = 0;
    for (a, b) in left.iter().zip(right) {
        difference |= a ^ b;
    }
    std::hint::black_box(difference) == 0
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the secret's bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes. They must not reach a log or leave the process unsealed.
            pub const fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }

        impl PartialEq for $name {
            /// In constant time.
            fn eq(&self, other: &Self) -> bool {
                $crate::secret::equal(&self.0, &other.0)
            }
        }

        impl Eq for $name {}
    };
}
pub(crate) use secret;

secret! {
    /// What owners, writers and readers share in one epoch.
    ReadSecret
}
secret! {
    /// What safes share, too: enough to find each other and to synchronise blind.
    StoreSecret
}

impl ReadSecret {
    /// A fresh secret.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(random(rng))
    }

    /// The blind secret of the same epoch.
    pub fn store_secret(&self) -> StoreSecret {
        StoreSecret(derive("ouisync v1 store secret", &[&self.0]))
    }
}

/// The secret of one epoch as far as a role is entitled to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EpochSecret {
    /// Of owners, writers and readers.
    Read(ReadSecret),
    /// Of safes, and of locked folders.
    Store(StoreSecret),
}

impl EpochSecret {
    /// The blind secret, derived when this is the reading one.
    pub fn store_secret(&self) -> StoreSecret {
        match self {
            Self::Read(secret) => secret.store_secret(),
            Self::Store(secret) => secret.clone(),
        }
    }

    /// The reading secret, if this is one.
    pub fn read_secret(&self) -> Option<&ReadSecret> {
        match self {
            Self::Read(secret) => Some(secret),
            Self::Store(_) => None,
        }
    }
}
