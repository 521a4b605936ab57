//! Strict postcard: one value has one encoding, and nothing follows it.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Bytes are not the canonical encoding of the expected value.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Not an encoding of the value at all.
    #[error("malformed encoding")]
    Malformed(#[source] postcard::Error),
    /// Another encoding of a value that has a shorter or differently ordered one, or trailing bytes.
    #[error("encoding is not canonical")]
    NotCanonical,
}

/// Encodes a value of our own; our types have no unencodable values.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("values of this crate always encode")
}

/// Decodes the first value; gives it and the rest. Non-canonical varints are refused.
pub(crate) fn decode_prefix<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
) -> Result<(T, &[u8]), DecodeError> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).map_err(DecodeError::Malformed)?;
    if encode(&value) != bytes[..bytes.len() - rest.len()] {
        return Err(DecodeError::NotCanonical);
    }
    Ok((value, rest))
}

/// Decodes exactly one value.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match decode_prefix(bytes)? {
        (value, []) => Ok(value),
        _ => Err(DecodeError::NotCanonical),
    }
}

/// Whether the elements are in strictly ascending order (so sorted and distinct).
pub(crate) fn ascending<T: Ord>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] < pair[1])
}

/// `#[serde(with = "bytes")]`: a byte string in one piece; encoded as `Vec<u8>` is.
pub(crate) mod bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a byte string")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// `#[serde(with = "array64")]`: 64 bytes without a length.
pub(crate) mod array64 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        bytes: &[u8; 64],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut halves = [[0; 32]; 2];
        halves[0].copy_from_slice(&bytes[..32]);
        halves[1].copy_from_slice(&bytes[32..]);
        halves.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 64], D::Error> {
        let halves = <[[u8; 32]; 2]>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&halves[0]);
        bytes[32..].copy_from_slice(&halves[1]);
        Ok(bytes)
    }
}
