//! The table of endpoint categorisation (service-lb.md 2.2), a row a case.

use std::net::IpAddr;

use roadstead_abi::Be16;

use super::*;
use crate::addresses::{from_map, to_map};

const BOTH: Uses = Uses { cluster: true, local: true };
const CLUSTER: Uses = Uses { cluster: true, local: false };
const LOCAL: Uses = Uses { cluster: false, local: true };

const HERE: Place<'_> = Place { node: "here", zone: Some("a") };
const NOWHERE: Place<'_> = Place { node: "here", zone: None };

/// `address state node hints…`: the state is R(eady), S(erving and terminating), T(erminating, not serving), N(ot ready);
/// a hint is `n:NODE` or `z:ZONE`.
fn endpoint(text: &str) -> Endpoint {
    let words: Vec<&str> = text.split(' ').collect();
    let (ready, serving, terminating) = match words[1] {
        "R" => (true, true, false),
        "S" => (false, true, true),
        "T" => (false, false, true),
        "N" => (false, false, false),
        other => panic!("{other}"),
    };
    let hints = |prefix| words[3..].iter().filter_map(|hint| hint.strip_prefix(prefix)).map(str::to_owned).collect();
    Endpoint {
        ip: format!("10.1.0.{}", words[0]).parse().unwrap(),
        ready,
        serving,
        terminating,
        node: Some(words[2].to_owned()),
        zone: None,
        zone_hints: hints("z:"),
        node_hints: hints("n:"),
    }
}

fn last_bytes(set: &[EndpointAddress]) -> Vec<u8> {
    let last = |ip: IpAddr| if let IpAddr::V4(ip) = ip { ip.octets()[3] } else { 0 };
    set.iter().map(|(addr, _)| last(from_map(addr))).collect()
}

fn sets(endpoints: &[&str], uses: Uses, place: Place<'_>) -> EndpointSets {
    let endpoints: Vec<Endpoint> = endpoints.iter().map(|text| endpoint(text)).collect();
    let candidates: Vec<_> =
        endpoints.iter().map(|endpoint| (endpoint, (to_map(endpoint.ip), Be16::new(8_080)))).collect();
    EndpointSets::of(&candidates, uses, place)
}

/// Endpoints, the sets that are used, then the Cluster set, the Local set, and whether any is usable.
type Categorised = (&'static [&'static str], Uses, &'static [u8], &'static [u8], bool);

#[test]
fn endpoints_are_categorised_as_kube_proxy_does() {
    #[rustfmt::skip]
    let rows: &[Categorised] = &[
        // Endpoints                                  policies  Cluster   Local     any
        (&["1 R here", "2 R there"],                  BOTH,     &[1, 2],  &[1],     true),
        (&["1 R here", "2 S here", "3 R there"],      BOTH,     &[1, 3],  &[1],     true),
        (&["2 S here", "3 R there"],                  BOTH,     &[3],     &[2],     true),
        (&["2 S here", "3 S there"],                  BOTH,     &[2, 3],  &[2],     true),
        (&["3 S there"],                              BOTH,     &[3],     &[],      true),
        (&["3 R there"],                              BOTH,     &[3],     &[],      true),
        (&["3 T there", "1 N here"],                  BOTH,     &[],      &[],      false),
        (&[],                                         BOTH,     &[],      &[],      false),
        // A set that no policy asks for stays empty.
        (&["1 R here", "2 R there"],                  CLUSTER,  &[1, 2],  &[],      true),
        (&["1 R here", "2 R there"],                  LOCAL,    &[],      &[1],     true),
        (&["2 R there"],                              LOCAL,    &[],      &[],      true),
        (&["2 S there"],                              LOCAL,    &[],      &[],      true),
        (&["2 T there"],                              LOCAL,    &[],      &[],      false),
        // One endpoint in two slices is one endpoint.
        (&["1 R here", "1 R here"],                   BOTH,     &[1],     &[1],     true),
    ];
    for (endpoints, uses, cluster, local, any) in rows {
        let sets = sets(endpoints, *uses, HERE);
        assert_eq!(last_bytes(&sets.cluster), *cluster, "{endpoints:?} {uses:?}");
        assert_eq!(last_bytes(&sets.local), *local, "{endpoints:?} {uses:?}");
        assert_eq!(sets.any, *any, "{endpoints:?} {uses:?}");
    }
}

/// Endpoints, where the node is, then the Cluster set and the Local set.
type Narrowed = (&'static [&'static str], Place<'static>, &'static [u8], &'static [u8]);

#[test]
fn hints_narrow_the_cluster_set_only_if_every_ready_endpoint_has_one() {
    #[rustfmt::skip]
    let rows: &[Narrowed] = &[
        // Endpoints                                                      node     Cluster   Local
        (&["1 R here z:a", "2 R there z:b"],                              HERE,    &[1],     &[1]),
        (&["1 R here z:b", "2 R there z:a"],                              HERE,    &[2],     &[1]),
        (&["1 R here z:a z:b", "2 R there z:b"],                          HERE,    &[1],     &[1]),
        (&["1 R here z:b", "2 R there z:b"],                              HERE,    &[1, 2],  &[1]),
        (&["1 R here z:a", "2 R there"],                                  HERE,    &[1, 2],  &[1]),
        (&["1 R here z:a", "2 R there z:b"],                              NOWHERE, &[1, 2],  &[1]),
        // Hints of endpoints that are not ready count for nothing.
        (&["1 R here z:a", "2 N there", "3 S there"],                     HERE,    &[1],     &[1]),
        (&["1 S here z:b", "2 S there z:a"],                              HERE,    &[1, 2],  &[1]),
        // The node goes before the zone.
        (&["1 R here n:here z:a", "2 R there n:there z:a"],               HERE,    &[1],     &[1]),
        (&["1 R here n:other z:b", "2 R there n:there z:a"],              HERE,    &[2],     &[1]),
        (&["1 R here n:here z:b", "2 R there z:a"],                       HERE,    &[2],     &[1]),
        (&["1 R here n:here", "2 R there n:there"],                       NOWHERE, &[1],     &[1]),
        (&["1 R here n:other", "2 R there n:there"],                      HERE,    &[1, 2],  &[1]),
    ];
    for (endpoints, place, cluster, local) in rows {
        let sets = sets(endpoints, BOTH, *place);
        assert_eq!(last_bytes(&sets.cluster), *cluster, "{endpoints:?} {place:?}");
        assert_eq!(last_bytes(&sets.local), *local, "{endpoints:?} {place:?}");
    }
}

#[test]
fn endpoints_that_still_answer_are_told_apart_from_those_that_are_gone() {
    let sets = sets(&["1 R here", "2 S there", "3 T there", "4 N here"], CLUSTER, HERE);
    assert_eq!(last_bytes(&sets.serving), [1, 2]);
}
