//! `ingress/ANNOTATIONS.md` names every key that is read and no other.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_model::ConfigMap;

use super::{ConfigMaps, Options, Profile, Reader, Settings};
use crate::fixture;

const PAGE: &str = include_str!("../../../ANNOTATIONS.md");

/// The keys of the page's tables, by whether they are annotations and whether they are options.
fn documented() -> BTreeMap<&'static str, (bool, bool)> {
    let mut keys = BTreeMap::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (names, place) = (cells.next().unwrap(), cells.next().unwrap());
        let place = match place {
            "annotation" => (true, false),
            "option" => (false, true),
            "both" => (true, true),
            other => panic!("{other:?} in {line}"),
        };
        for name in names.split('`').skip(1).step_by(2) {
            assert!(keys.insert(name, place).is_none(), "{name} stands there twice");
        }
    }
    keys
}

/// Whether a key is reported as one that nobody reads.
fn is_unknown(key: &str, place: &str) -> bool {
    let mut problems = Vec::new();
    if place == "annotation" {
        let mut ingress = fixture::ingress("default/web");
        ingress.meta.annotations.insert(format!("roadstead.dev/{key}"), "?".to_owned());
        Settings::of_ingress(&ingress, Profile::Nginx, &Options::default(), &mut problems);
    } else {
        let data = BTreeMap::from([(key.to_owned(), "?".to_owned())]);
        Options::read(Some(&ConfigMap { meta: fixture::meta("n/options"), data }), &mut problems);
    }
    problems.iter().any(|problem| problem.reason.contains("is not honoured"))
}

#[test]
fn what_the_page_names_is_read() {
    let keys = documented();
    assert!(keys.len() > 100, "{}", keys.len());
    for (key, (annotation, option)) in keys {
        for (place, named) in [("annotation", annotation), ("option", option)] {
            assert!(!named || !is_unknown(key, place), "{key} is no {place}");
        }
    }
}

#[test]
fn what_is_read_stands_on_the_page() {
    let documented: BTreeSet<_> = documented().into_keys().collect();
    let (ingress, none) = (fixture::ingress("default/web"), ConfigMaps::new());
    let options = ConfigMap { meta: fixture::meta("n/options"), data: BTreeMap::new() };
    let (mut problems, mut more) = (Vec::new(), Vec::new());
    let mut annotations = Reader::of_ingress(&ingress, &mut problems).among(&none);
    Settings::read(&mut annotations, &Settings::default());
    let mut data = Reader::of_config_map(&options, &mut more).among(&none);
    Options::read_all(&mut data);
    let read: BTreeSet<_> = annotations.taken().chain(data.taken()).collect();
    let missing: Vec<_> = read.difference(&documented).filter(|key| !PAGE.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "ANNOTATIONS.md does not name {missing:?}");
}
