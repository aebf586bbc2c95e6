//! Which client addresses may come: `denylist-source-range` and `allowlist-source-range` (also `whitelist-source-range`).
//!
//! A list that makes no sense must not open the door: what it guards is then closed, as ingress-nginx closes such a location.

use super::{Guard, Reader, Wrong};
use crate::Networks;

/// Who may come by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// These may not; asked first.
    pub deny: Guard<Networks>,
    /// Where there is a list, only these may.
    pub allow: Guard<Networks>,
}

impl Access {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        Self {
            deny: sources(reader, &["denylist-source-range"], &base.deny),
            allow: sources(reader, &["allowlist-source-range", "whitelist-source-range"], &base.allow),
        }
    }

    /// Whether every client may come, so that nobody need be asked.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.deny.is_unset() && self.allow.is_unset()
    }
}

/// The first key that is there holds; the others are its older names.
fn sources(reader: &mut Reader<'_>, keys: &[&'static str], base: &Guard<Networks>) -> Guard<Networks> {
    let mut found = None;
    for key in keys {
        let sources = match reader.either(key).closing().networks() {
            Ok(None) => continue,
            Ok(Some(networks)) => Guard::Set(Networks::new(networks)),
            Err(Wrong) => Guard::Wrong,
        };
        found.get_or_insert(sources);
    }
    found.unwrap_or_else(|| base.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        settings::{Options, Profile, Settings},
    };

    fn listed(networks: &[&str]) -> Guard<Networks> {
        Guard::Set(Networks::new(networks.iter().map(|text| crate::settings::network(text).unwrap())))
    }

    fn check(
        options: &[(&str, &str)],
        annotations: &[(&str, &str)],
        deny: &Guard<Networks>,
        allow: &Guard<Networks>,
        reported: usize,
    ) {
        let ingress = fixture::annotated("default/web", annotations);
        let config_map = fixture::config_map("default/options", options);
        let mut problems = Vec::new();
        let options = Options::read(Some(&config_map), &mut problems);
        let settings = Settings::of_ingress(&ingress, Profile::Nginx, &options, &mut problems);
        assert_eq!((&settings.access.deny, &settings.access.allow), (deny, allow), "{annotations:?}");
        assert_eq!(problems.len(), reported, "{problems:?}");
    }

    #[test]
    fn lists_are_read_and_wrong_ones_close() {
        let (unset, ten) = (Guard::Unset, listed(&["10.0.0.0/8"]));
        check(&[], &[], &unset, &unset, 0);
        check(&[], &[("whitelist-source-range", "10.0.0.0/8")], &unset, &ten, 0);
        check(&[], &[("allowlist-source-range", "10.0.0.0/8")], &unset, &ten, 0);
        let both = [("allowlist-source-range", "10.0.0.0/8"), ("whitelist-source-range", "11.0.0.0/8")];
        check(&[], &both, &unset, &ten, 0);
        check(&[], &[("denylist-source-range", "10.0.0.0/8")], &ten, &unset, 0);
        check(&[("whitelist-source-range", "10.0.0.0/8")], &[], &unset, &ten, 0);
        check(&[("whitelist-source-range", "11.0.0.0/8")], &both, &unset, &ten, 0);
        check(&[], &[("whitelist-source-range", "10.0.0.0/8,oops")], &unset, &Guard::Wrong, 1);
        check(&[], &[("denylist-source-range", "10.0.0.0/33")], &Guard::Wrong, &unset, 1);
        check(&[("denylist-source-range", "x")], &[("denylist-source-range", "10.0.0.0/8")], &ten, &unset, 1);
    }
}
