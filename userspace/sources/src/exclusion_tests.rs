//! The ConfigMap that excludes interfaces: read, checked, and kept in its last good version by whoever reads it again.

use crate::{LoadOptions, load};

#[test]
fn patterns_are_read_and_checked() {
    let cases: [(&str, &str, Option<&[&str]>, &str); 6] = [
        ("metallb-excludel2", "announcedInterfacesToExclude: ['^docker.*', ^veth]", Some(&["^docker.*", "^veth"]), ""),
        ("metallb-excludel2", "announcedInterfacesToExclude: []", Some(&[]), ""),
        ("metallb-excludel2", "announcedInterfacesToExclude: ['(']", None, "\"(\" is no regular expression"),
        ("metallb-excludel2", "announcedInterfaces: []", None, "announcedInterfaces"),
        ("metallb-excludel2", "[", None, "data[excludel2.yaml]"),
        ("other", "[", None, ""),
    ];
    for (name, text, patterns, told) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  excludel2.yaml: |\n    {text}\n"
        );
        std::fs::write(&path, &text).unwrap();
        let snapshot = load(&[path], &LoadOptions::default());
        let found = snapshot.excluded_interfaces();
        assert_eq!(
            found.as_deref(),
            patterns.map(|all| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>()).as_deref()
        );
        let problems: Vec<_> = snapshot.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.is_empty(), told.is_empty(), "{problems:?}");
        assert!(
            problems.iter().all(|problem| problem.contains(told) && problem.contains(":5: error: ConfigMap default/")),
            "{problems:?}"
        );
    }
}
