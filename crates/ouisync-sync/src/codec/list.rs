//! Deserialization of lists with a limit: a short hostile message can't make a long list in memory.

use std::{fmt, marker::PhantomData};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{MAX_ADDRESS, MAX_ADDRESSES};

/// At most `MAX` elements.
pub(super) fn bounded<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct ListVisitor<const MAX: usize, T>(PhantomData<T>);

    impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for ListVisitor<MAX, T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            if sequence.size_hint().is_some_and(|length| length > MAX) {
                return Err(A::Error::custom("list above its limit"));
            }
            let mut list = Vec::new();
            while let Some(element) = sequence.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::custom("list above its limit"));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(ListVisitor::<MAX, T>(PhantomData))
}

/// At most `MAX` bytes of UTF-8.
pub(super) fn bounded_text<'de, const MAX: usize, D>(deserializer: D) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
{
    let text = <&str>::deserialize(deserializer)?;
    if text.len() > MAX {
        Err(D::Error::custom("text above its limit"))
    } else {
        Ok(text.to_owned())
    }
}

/// Addresses of a contact.
pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let list = bounded::<MAX_ADDRESSES, &str, D>(deserializer)?;
    if list.iter().any(|text| text.len() > MAX_ADDRESS) {
        return Err(D::Error::custom("address above its limit"));
    }
    Ok(list.into_iter().map(str::to_owned).collect())
}

/// Bytes with a length prefix.
pub(super) fn blob<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    struct BlobVisitor;

    impl Visitor<'_> for BlobVisitor {
        type Value = Bytes;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }
    }

    deserializer.deserialize_bytes(BlobVisitor)
}
