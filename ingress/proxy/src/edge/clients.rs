//! How many connections one client has at once, over all threads and listeners.
//!
//! A listener's own limit protects the process; this one protects the other clients. An IPv6 client is its /64, since it may
//! choose among all addresses of it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const SHARDS: usize = 16;

/// The counts of all clients that are connected now.
#[derive(Debug)]
pub struct Clients {
    limit: u32,
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// One connection of a client, counted until it is dropped.
#[derive(Debug)]
pub struct ClientPlace {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// So many connections for each.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { limit, hasher: RandomState::new(), shards: Default::default() })
    }

    /// A place for one more connection; `None` where the client has as many as it may.
    #[must_use]
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ClientPlace> {
        let client = client(address);
        let mut counts = self.shard(client)?;
        let count = counts.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(ClientPlace { clients: Arc::clone(self), client })
    }

    fn shard(&self, client: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, u32>>> {
        let place = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or(0);
        Some(self.shards.get(place)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let Some(mut counts) = self.clients.shard(self.client) else { return };
        if let Some(count) = counts.get_mut(&self.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_number_of_places_and_gets_them_back() {
        let clients = Clients::new(2);
        let admit = |text: &str| clients.admit(text.parse().unwrap());
        let (first, second) = (admit("192.0.2.1"), admit("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some(), "another client");
        drop(first);
        assert!(admit("192.0.2.1").is_some());
        drop(second);
        let six = (admit("2001:db8::1"), admit("2001:db8::2:0:0:1"));
        assert!(six.0.is_some() && six.1.is_some());
        assert!(admit("2001:db8::3").is_none(), "one network is one client");
        assert!(admit("2001:db8:0:1::1").is_some());
        drop(six);
        let left: usize = clients.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(left, 0, "nobody is remembered who is gone");
    }
}
