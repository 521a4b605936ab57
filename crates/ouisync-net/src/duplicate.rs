//! Which of two connections between the same devices stays.
//!
//! When both dial at once, two connections come up and each side must drop the same one without talking about it.
//! The rule: **the connection dialled by the smaller [`DeviceId`] stays.** It holds only while the older one is young:
//! a device dials only while it believes itself unconnected, so a new connection beside an old one means that the
//! peer has lost the old one (restarted, changed network), and then, as for two connections dialled by the same
//! side, the newer stays. A peer that restarted at once may have lost a young one, too: it dials again after its first try was refused, which
//! nobody does who has the other connection, so the second newcomer stays.

use std::time::Duration;

use ouisync_model::id::DeviceId;

/// Two connections that came up within this time of each other count as dialled at once. Longer than a dial
/// takes, shorter than the idle time-out.
pub const SIMULTANEOUS: Duration = Duration::from_secs(10);

/// Which connection stays; the other is closed with [`crate::connection::CloseCode::Duplicate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The one that was there before.
    Existing,
    /// The one that just came up.
    New,
}

/// Decides between an existing connection of age `existing_age` and a new one to the same `peer`. `refused_before`: another new one was closed
/// in favour of the existing one.
pub fn keep(
    local: DeviceId,
    peer: DeviceId,
    existing_is_dialer: bool,
    existing_age: Duration,
    new_is_dialer: bool,
    refused_before: bool,
) -> Keep {
    if existing_is_dialer == new_is_dialer || existing_age >= SIMULTANEOUS || refused_before {
        return Keep::New;
    }
    let smaller_is_local = local < peer;
    if new_is_dialer == smaller_is_local {
        Keep::New
    } else {
        Keep::Existing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(first: u8) -> DeviceId {
        DeviceId::from_bytes([first; 32])
    }

    #[test]
    fn both_sides_keep_the_connection_of_the_smaller_device_in_any_order() {
        let (small, large) = (device(1), device(2));
        let young = Duration::from_millis(5);
        // For each side and each order of arrival: is the connection that stays dialled by `small`?
        for new_is_dialer in [true, false] {
            for (local, peer) in [(small, large), (large, small)] {
                let kept = keep(local, peer, !new_is_dialer, young, new_is_dialer, false);
                let kept_is_dialer = (kept == Keep::New) == new_is_dialer;
                assert_eq!(kept_is_dialer, local == small);
            }
        }
    }

    #[test]
    fn an_old_connection_yields_to_a_new_one() {
        for new_is_dialer in [true, false] {
            for (local, peer) in [(device(1), device(2)), (device(2), device(1))] {
                assert_eq!(
                    keep(
                        local,
                        peer,
                        !new_is_dialer,
                        SIMULTANEOUS,
                        new_is_dialer,
                        false
                    ),
                    Keep::New
                );
            }
        }
    }

    #[test]
    fn a_peer_that_dials_again_has_lost_the_young_one() {
        for new_is_dialer in [true, false] {
            for (local, peer) in [(device(1), device(2)), (device(2), device(1))] {
                assert_eq!(
                    keep(
                        local,
                        peer,
                        !new_is_dialer,
                        Duration::ZERO,
                        new_is_dialer,
                        true
                    ),
                    Keep::New
                );
            }
        }
    }

    #[test]
    fn a_second_dial_of_the_same_side_replaces_the_first() {
        for dialer in [true, false] {
            assert_eq!(
                keep(device(1), device(2), dialer, Duration::ZERO, dialer, false),
                Keep::New
            );
        }
    }
}
