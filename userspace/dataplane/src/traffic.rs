//! What Services and backends have carried: the programs' counters by id, summed over the CPUs.
//!
//! Ids are dense and the lowest come first, so a range from 0 holds all that are in use; ten thousand Services are read
//! in milliseconds.

use std::os::fd::AsFd as _;

use aya::{
    maps::{MapData, PerCpuArray},
    util::nr_cpus,
};
use roadstead_abi::{Counters, limits, map_names};

use crate::{
    maps::{MapError, open},
    pins::Pins,
    syscall,
};

/// The pinned counters.
pub struct TrafficMaps {
    services: MapData,
    backends: MapData,
    cpus: usize,
}

impl TrafficMaps {
    /// Opens them.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(pins: &Pins) -> Result<Self, MapError> {
        let data = |name| {
            // The kernel copies values of the size that it has: a map of another layout must not be read.
            open::<PerCpuArray<MapData, Counters>>(pins, name)?;
            MapData::from_pin(pins.maps().join(name)).map_err(|source| failed(name, "find", source))
        };
        let cpus = nr_cpus().map_err(|(_, source)| failed(map_names::SERVICE_COUNTERS, "size", source))?;
        Ok(Self { services: data(map_names::SERVICE_COUNTERS)?, backends: data(map_names::BACKEND_COUNTERS)?, cpus })
    }

    /// Counters of the Service ports with the ids from 0 to this one, which is left out. Those of id 0 are of all whose
    /// ids have no counters of their own.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn services(&self, end: u32) -> Result<Vec<Counters>, MapError> {
        self.read(&self.services, map_names::SERVICE_COUNTERS, end)
    }

    /// The same of backends.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn backends(&self, end: u32) -> Result<Vec<Counters>, MapError> {
        self.read(&self.backends, map_names::BACKEND_COUNTERS, end)
    }

    fn read(&self, map: &MapData, name: &'static str, end: u32) -> Result<Vec<Counters>, MapError> {
        let end = end.min(limits::COUNTERS);
        let mut counters = Vec::with_capacity(end as usize);
        let size = self.cpus * size_of::<Counters>();
        syscall::read_percpu_batch(map.fd().as_fd(), end, size, |bytes| counters.push(sum(bytes)))
            .map_err(|source| failed(name, "read", source))?;
        Ok(counters)
    }
}

fn failed(
    map: &'static str,
    operation: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> MapError {
    MapError { map, operation, source: Box::new(source) }
}

/// The sum of the counters of all CPUs, which stand one behind the other.
fn sum(bytes: &[u8]) -> Counters {
    let mut sum = Counters::default();
    for one in bytes.chunks_exact(size_of::<Counters>()) {
        let mut numbers = one.chunks_exact(8).map(|number| number.try_into().map_or(0, u64::from_ne_bytes));
        let mut next = || numbers.next().unwrap_or(0);
        sum.connections += next();
        sum.in_packets += next();
        sum.in_bytes += next();
        sum.out_packets += next();
        sum.out_bytes += next();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_all_cpus_are_added() {
        let bytes: Vec<u8> =
            [1_u64, 2, 3, 4, 5, 10, 20, 30, 40, 50].iter().flat_map(|number| number.to_ne_bytes()).collect();
        let expected = Counters { connections: 11, in_packets: 22, in_bytes: 33, out_packets: 44, out_bytes: 55 };
        assert_eq!(sum(&bytes), expected);
        assert_eq!(sum(&[]), Counters::default());
    }
}
