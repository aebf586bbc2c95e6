//! One check for the tests of every group: annotations in, settings and reports out.

use roadstead_model::ConfigMap;

use super::Reader;
use crate::fixture;

/// Reads annotations of ingress-nginx's prefix; `reported` are the keys that problems name, in order.
pub(crate) fn check<T: PartialEq + std::fmt::Debug>(
    annotations: &[(&str, &str)],
    read: impl FnOnce(&mut Reader<'_>) -> T,
    expected: &T,
    reported: &[&str],
) {
    let key = |short: &str| format!("nginx.ingress.kubernetes.io/{short}");
    let mut ingress = fixture::ingress("default/web");
    for (short, value) in annotations {
        ingress.meta.annotations.insert(key(short), (*value).to_owned());
    }
    let mut problems = Vec::new();
    let mut reader = Reader::of_ingress(&ingress, &mut problems);
    assert_eq!(&read(&mut reader), expected, "{annotations:?}");
    reader.finish();
    let fields: Vec<_> = problems.iter().filter_map(|problem| problem.field.clone()).collect();
    let reported: Vec<_> = reported.iter().map(|short| format!("metadata.annotations[{}]", key(short))).collect();
    assert_eq!(fields, reported, "{annotations:?}");
}

/// The same for options of the ConfigMap.
pub(crate) fn check_options<T: PartialEq + std::fmt::Debug>(
    options: &[(&str, &str)],
    read: impl FnOnce(&mut Reader<'_>) -> T,
    expected: &T,
    reported: &[&str],
) {
    let data = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let config_map = ConfigMap { meta: fixture::meta("default/options"), data };
    let mut problems = Vec::new();
    let mut reader = Reader::of_config_map(&config_map, &mut problems);
    assert_eq!(&read(&mut reader), expected, "{options:?}");
    reader.finish();
    let fields: Vec<_> = problems.iter().filter_map(|problem| problem.field.clone()).collect();
    let reported: Vec<_> = reported.iter().map(|key| format!("data[{key}]")).collect();
    assert_eq!(fields, reported, "{options:?}");
}
