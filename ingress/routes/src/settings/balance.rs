//! Which endpoint takes a request, and which endpoints there are to choose from.

use std::{num::NonZeroUsize, time::Duration};

use super::{Reader, units::duration};
use crate::Template;

/// ingress-nginx's upstream-hash-by-subset-size.
const DEFAULT_SUBSET: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// The balancing of one Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// `load-balance`.
    pub policy: Policy,
    /// `upstream-hash-by`, which goes before the policy.
    pub hash_by: Option<HashBy>,
    /// `service-upstream`.
    pub reach: Reach,
    /// `upstream-max-fails`: connections that fail one after the other until an endpoint is left alone; 0 never.
    pub max_fails: u32,
    /// `upstream-fail-timeout`: for how long it is left alone the first time; each time after that doubles it.
    pub fail_timeout: Duration,
}

/// How an endpoint is chosen where nothing binds a request to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The faster of two taken at random, by a moving average of their times.
    Ewma,
    /// The one with the fewest requests under way.
    LeastConnections,
    /// Any, each as likely as the others.
    Random,
}

/// Requests with the same key go to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashBy {
    /// The key, of the request's variables.
    pub key: Template,
    /// How many endpoints share a key, any of them at random; `None` is one, chosen by the key alone.
    pub subset: Option<NonZeroUsize>,
}

/// What stands for a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reach {
    /// Its endpoints.
    #[default]
    Endpoints,
    /// Its cluster address: whoever serves that chooses.
    ClusterIp,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            hash_by: None,
            reach: Reach::default(),
            max_fails: 3,
            // nginx's fail_timeout.
            fail_timeout: Duration::from_secs(10),
        }
    }
}

impl Balance {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let policies = [
            ("round_robin", Policy::RoundRobin),
            ("ewma", Policy::Ewma),
            ("least_conn", Policy::LeastConnections),
            ("random", Policy::Random),
        ];
        let reach = |is_on| if is_on { Reach::ClusterIp } else { Reach::Endpoints };
        Self {
            policy: reader.either("load-balance").word(&policies).unwrap_or(base.policy),
            hash_by: HashBy::read(reader),
            reach: reader.either("service-upstream").boolean().map_or(base.reach, reach),
            max_fails: reader.either("upstream-max-fails").number(0).unwrap_or(base.max_fails),
            fail_timeout: reader
                .either("upstream-fail-timeout")
                .parse("a time such as 10s, and not 0", |text| duration(text).filter(|time| !time.is_zero()))
                .unwrap_or(base.fail_timeout),
        }
    }
}

impl HashBy {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let by_subset = reader.annotation("upstream-hash-by-subset").boolean().unwrap_or_default();
        let size = reader.annotation("upstream-hash-by-subset-size").number(1);
        let key = reader.annotation("upstream-hash-by").text().map(Template::parse);
        let key = match key? {
            Ok(key) => key,
            Err(error) => {
                reader.complain("upstream-hash-by", format!("{error}; requests are balanced without it"));
                return None;
            }
        };
        if key.constant().is_some() {
            reader.complain("upstream-hash-by", "names no variable: every request goes to one endpoint");
        }
        let size = size.and_then(|size| NonZeroUsize::new(usize::try_from(size).ok()?));
        Some(Self { key, subset: by_subset.then(|| size.unwrap_or(DEFAULT_SUBSET)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::fixture::check;

    fn read(reader: &mut Reader<'_>) -> Balance {
        Balance::read(reader, &Balance::default())
    }

    #[test]
    fn policies_are_known_by_name() {
        for (word, policy) in [
            ("round_robin", Policy::RoundRobin),
            ("ewma", Policy::Ewma),
            ("least_conn", Policy::LeastConnections),
            ("random", Policy::Random),
        ] {
            check(&[("load-balance", word)], read, &Balance { policy, ..Balance::default() }, &[]);
        }
        // What ingress-nginx lets an Ingress say and does not heed either: hashing and affinity have keys of their own.
        for word in ["chash", "ip_hash", "sticky_balanced"] {
            check(&[("load-balance", word)], read, &Balance::default(), &["load-balance"]);
        }
    }

    #[test]
    fn hashing_needs_a_key() {
        let by = |text: &str, subset| Balance {
            hash_by: Some(HashBy { key: Template::parse(text).unwrap(), subset: NonZeroUsize::new(subset) }),
            ..Balance::default()
        };
        let (key, subset, size) = ("upstream-hash-by", "upstream-hash-by-subset", "upstream-hash-by-subset-size");
        check(&[(key, "$request_uri")], read, &by("$request_uri", 0), &[]);
        check(&[(key, "${host}-x"), (subset, "true")], read, &by("${host}-x", 3), &[]);
        check(&[(key, "$host"), (subset, "true"), (size, "5")], read, &by("$host", 5), &[]);
        check(&[(key, "$host"), (size, "5")], read, &by("$host", 0), &[]);
        check(&[(key, "$host"), (subset, "true"), (size, "0")], read, &by("$host", 3), &[size]);
        check(&[(key, "$nonsense")], read, &Balance::default(), &[key]);
        check(&[(key, "constant")], read, &by("constant", 0), &[key]);
        check(&[(subset, "true")], read, &Balance::default(), &[]);
    }

    #[test]
    fn services_and_failures() {
        let cluster_ip = Balance { reach: Reach::ClusterIp, ..Balance::default() };
        check(&[("service-upstream", "true")], read, &cluster_ip, &[]);
        check(&[("service-upstream", "on")], read, &Balance::default(), &["service-upstream"]);
        let patient = Balance { max_fails: 0, fail_timeout: Duration::from_secs(30), ..Balance::default() };
        check(&[("upstream-max-fails", "0"), ("upstream-fail-timeout", "30s")], read, &patient, &[]);
        let keys = ["upstream-max-fails", "upstream-fail-timeout"];
        check(&[(keys[0], "many"), (keys[1], "long")], read, &Balance::default(), &keys);
        check(&[(keys[1], "0")], read, &Balance::default(), &keys[1..]);
    }
}
