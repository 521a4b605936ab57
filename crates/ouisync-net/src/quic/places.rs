//! The places of newcomers between their first packet and an open control stream: so many in all, and so many of one address, so
//! that one host keeps nobody else out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Newcomers in the handshake at a time.
const MAX: usize = 64;
/// The same of one address.
const MAX_OF_ADDRESS: usize = 16;

/// Who has a place; clones share them.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<Option<IpAddr>, usize>>>);

/// A place, as long as it is kept.
pub(super) struct Place {
    places: Places,
    network: Option<IpAddr>,
}

/// What becomes of a newcomer.
pub(super) enum Admission {
    /// It gets a place.
    Admitted(Place),
    /// It is to prove its address first, as whoever is in the way may have come under false ones.
    Prove,
    /// All are taken.
    Refused,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer from `network` (see [`crate::address::network_of`]), who may have `proven` that it is there.
    pub(super) fn admit(&self, network: Option<IpAddr>, proven: bool) -> Admission {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let near = taken.get(&network).copied().unwrap_or_default();
        if all >= MAX || near >= MAX_OF_ADDRESS {
            return Admission::Refused;
        }
        if !proven && (all >= MAX / 2 || near >= MAX_OF_ADDRESS / 2) {
            return Admission::Prove;
        }
        *taken.entry(network).or_default() += 1;
        Admission::Admitted(Place {
            places: self.clone(),
            network,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(near) = taken.get_mut(&self.network) {
            *near -= 1;
            if *near == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fill(places: &Places, network: &str, count: usize) -> Vec<Place> {
        let network = Some(network.parse().unwrap());
        let place = |_| match places.admit(network, true) {
            Admission::Admitted(place) => Some(place),
            _ => None,
        };
        (0..count).map_while(place).collect()
    }

    #[test]
    fn one_address_leaves_places_to_others() {
        let places = Places::default();
        let near = fill(&places, "192.0.2.1", 100);
        assert_eq!(near.len(), MAX_OF_ADDRESS);
        let other = fill(&places, "192.0.2.2", 1);
        assert_eq!(other.len(), 1);
        drop((near, other));
        assert_eq!(fill(&places, "192.0.2.1", 100).len(), MAX_OF_ADDRESS);
        assert!(places.taken().is_empty());
    }

    #[test]
    fn all_addresses_together_have_so_many() {
        let places = Places::default();
        let all: Vec<_> = (0..10)
            .flat_map(|host| fill(&places, &format!("192.0.2.{host}"), 10))
            .collect();
        assert_eq!(all.len(), MAX);
    }

    #[test]
    fn false_addresses_take_half_of_the_places() {
        let places = Places::default();
        let network = Some("192.0.2.1".parse().unwrap());
        let unproven = || match places.admit(network, false) {
            Admission::Admitted(place) => Some(place),
            _ => None,
        };
        let false_ones: Vec<_> = std::iter::from_fn(unproven).collect();
        assert_eq!(false_ones.len(), MAX_OF_ADDRESS / 2);
        assert!(matches!(places.admit(network, false), Admission::Prove));
        assert!(matches!(
            places.admit(network, true),
            Admission::Admitted(_)
        ));
    }
}
