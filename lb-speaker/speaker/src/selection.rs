//! Which interfaces are used: those that flags name, or all in a subnet but the excluded ones.
//!
//! The patterns are `MetalLB`'s: expressions that are searched in the interface's name, by default for the devices of
//! container networks and hypervisors, in the ConfigMap `metallb-excludel2` for whatever a cluster has.

use regex::bytes::RegexSet;
use tracing::error;

use crate::links::Link;

/// What `MetalLB` excludes by default.
const USUAL: [&str; 14] = [
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo$",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    "^nodelocaldns.*",
    "^lxc.*",
];

/// The choice of interfaces.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// By `--interface`; a name goes before the patterns of the ConfigMap and the usual ones.
    named: Vec<String>,
    /// By `--exclude-interface`, which goes before everything.
    refused: RegexSet,
    /// The ConfigMap's, or the usual ones.
    excluded: RegexSet,
    patterns: Option<Vec<String>>,
}

impl Selection {
    /// The choice that the flags make.
    ///
    /// # Errors
    /// When a pattern is no regular expression.
    pub(crate) fn new(named: Vec<String>, refused: &[String]) -> Result<Self, regex::Error> {
        Ok(Self { named, refused: set(refused)?, excluded: set(&USUAL)?, patterns: None })
    }

    /// Takes the ConfigMap's patterns in the place of the usual ones; true if that may change the choice.
    pub(crate) fn exclude(&mut self, patterns: Option<&[String]>) -> bool {
        if self.patterns.as_deref() == patterns {
            return false;
        }
        self.patterns = patterns.map(<[String]>::to_vec);
        let wanted = match patterns {
            Some(patterns) => set(patterns),
            None => set(&USUAL),
        };
        match wanted {
            Ok(excluded) => self.excluded = excluded,
            // To announce where it was forbidden would be worse than to go on as before.
            Err(error) => error!(%error, "the patterns of excluded interfaces are not used"),
        }
        true
    }

    /// The interfaces that flags name.
    pub(crate) fn named(&self) -> &[String] {
        &self.named
    }

    /// Whether addresses are to be announced on the link.
    pub(crate) fn selects(&self, link: &Link) -> bool {
        let name = link.name.as_bytes();
        if link.lack.is_some() || self.refused.is_match(name) {
            return false;
        }
        match self.named.is_empty() {
            true => link.is_in_a_subnet() && !self.excluded.is_match(name),
            false => self.named.contains(&link.name),
        }
    }
}

/// Interface names are bytes, so no pattern needs the tables of Unicode.
fn set<T: AsRef<str>>(patterns: &[T]) -> Result<RegexSet, regex::Error> {
    regex::bytes::RegexSetBuilder::new(patterns).unicode(false).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::tests::working;

    const ETH: &str = "eth0";

    fn selected(selection: &Selection) -> Vec<&'static str> {
        let names = [ETH, "eth1", "docker0", "veth7", "cni0", "xveth", "lxc9", "dummy0"];
        let selects = |name: &&str| selection.selects(&working(name, &["192.0.2.1"]));
        names.into_iter().filter(selects).collect()
    }

    #[test]
    fn flags_go_before_the_configmap_and_that_before_the_usual_patterns() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (none, usual): (&[&str], Option<&[&str]>) = (&[], None);
        let cases = [
            (none, none, usual, &[ETH, "eth1", "xveth"][..]),
            (&[ETH, "docker0"], none, usual, &[ETH, "docker0"]),
            (none, &["^eth1$"], usual, &[ETH, "xveth"]),
            (&[ETH, "eth1"], &["eth0"], usual, &["eth1"]),
            (none, none, Some(&["^eth.*", "veth"]), &["docker0", "cni0", "lxc9", "dummy0"]),
            (&[ETH], none, Some(&["^eth.*"]), &[ETH]),
            (none, none, Some(&[]), &[ETH, "eth1", "docker0", "veth7", "cni0", "xveth", "lxc9", "dummy0"]),
        ];
        for (named, refused, patterns, expected) in cases {
            let mut selection = Selection::new(strings(named), &strings(refused)).unwrap();
            assert_eq!(selection.exclude(patterns.map(strings).as_deref()), patterns.is_some());
            assert_eq!(selected(&selection), expected, "{named:?} {refused:?} {patterns:?}");
        }
    }

    #[test]
    fn a_link_that_lacks_something_or_stands_in_no_subnet_is_not_selected() {
        let selection = Selection::new(Vec::new(), &[]).unwrap();
        assert!(!selection.selects(&working(ETH, &["fe80::1"])));
        let mut down = working(ETH, &["192.0.2.1"]);
        down.lack = Some(crate::links::Lack::Down);
        assert!(!selection.selects(&down));
    }

    #[test]
    fn wrong_patterns_change_nothing() {
        assert!(Selection::new(Vec::new(), &["(".to_owned()]).is_err());
        let mut selection = Selection::new(Vec::new(), &[]).unwrap();
        let usual = selected(&selection);
        selection.exclude(Some(&["(".to_owned()]));
        assert_eq!(selected(&selection), usual);
        assert!(selection.exclude(None));
        assert_eq!(selected(&selection), usual);
    }
}
