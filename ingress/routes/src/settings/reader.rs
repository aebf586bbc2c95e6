//! Reading settings from annotations or a ConfigMap: by key, typed, and with a report of whatever is wrong or left over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use roadstead_model::{CONFLICTS_ANNOTATION, ConfigMap, Ingress, Metadata, ObjectName, ObjectRef, Problem, Severity};

use super::units;
use crate::Template;

/// Prefixes that address an Ingress controller's settings; ours goes before ingress-nginx's.
const PREFIXES: [&str; 2] = ["roadstead.dev/", "nginx.ingress.kubernetes.io/"];

/// Whether an annotation is for an Ingress controller at all, and not by one.
pub(super) fn is_setting(key: &str) -> bool {
    key != CONFLICTS_ANNOTATION && PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// What an Ingress's annotation says under each prefix.
pub(crate) fn annotation_values<'a>(ingress: &'a Ingress, key: &str) -> impl Iterator<Item = &'a str> {
    let written = PREFIXES.map(|prefix| ingress.meta.annotations.get(&format!("{prefix}{key}")));
    written.into_iter().flatten().map(String::as_str)
}

/// What follows from a wrong value.
const NO_EFFECT: &str = "it has no effect";
/// What follows from a wrong value that guards the Ingress.
const CLOSED: &str = "requests get 503";

/// One layer of settings: an Ingress's annotations, or a ConfigMap's data.
pub(crate) struct Reader<'a> {
    kind: &'static str,
    name: &'a ObjectName,
    layer: Layer,
    /// By the key without its prefix: the field to name in a problem, and the value.
    values: BTreeMap<&'a str, (String, &'a str)>,
    taken: BTreeSet<&'static str>,
    /// Where settings that stand in ConfigMaps of their own are looked for.
    config_maps: Option<&'a ConfigMaps>,
    pub(super) namespaces: Namespaces,
    problems: &'a mut Vec<Problem>,
}

/// The ConfigMaps of a snapshot.
pub(crate) type ConfigMaps = BTreeMap<ObjectName, Arc<ConfigMap>>;

/// `allow-cross-namespace-resources`: which objects an Ingress may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// Those of its own namespace: whoever may write an Ingress need not be allowed to read everybody's Secrets.
    #[default]
    Own,
    /// All.
    All,
}

/// Where a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Annotations,
    Options,
}

/// The value was there and made no sense; that has been reported. For settings that must not fall back to a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrong;

impl<'a> Reader<'a> {
    pub(crate) fn of_ingress(ingress: &'a Ingress, problems: &'a mut Vec<Problem>) -> Self {
        let Metadata { name, annotations, .. } = &ingress.meta;
        let mut values = BTreeMap::new();
        for prefix in PREFIXES {
            for (key, value) in annotations.iter().filter(|(key, _)| is_setting(key)) {
                if let Some(short) = key.strip_prefix(prefix) {
                    values.entry(short).or_insert_with(|| (format!("metadata.annotations[{key}]"), value.as_str()));
                }
            }
        }
        Self::new("Ingress", name, Layer::Annotations, values, problems)
    }

    pub(crate) fn of_config_map(config_map: &'a ConfigMap, problems: &'a mut Vec<Problem>) -> Self {
        let entries = config_map.data.iter();
        let values = entries.map(|(key, value)| (key.as_str(), (format!("data[{key}]"), value.as_str()))).collect();
        let name = &config_map.meta.name;
        Self::new("ConfigMap", name, Layer::Options, values, problems)
    }

    fn new(
        kind: &'static str,
        name: &'a ObjectName,
        layer: Layer,
        values: BTreeMap<&'a str, (String, &'a str)>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        let (taken, namespaces) = (BTreeSet::new(), Namespaces::default());
        Self { kind, name, layer, values, taken, config_maps: None, namespaces, problems }
    }

    /// Looks for ConfigMaps here.
    pub(crate) fn among(self, config_maps: &'a ConfigMaps) -> Self {
        Self { config_maps: Some(config_maps), ..self }
    }

    /// An annotation that names an object that the Ingress may use. It guards the Ingress, as all that name objects do.
    pub(crate) fn own_object(&mut self, key: &'static str) -> Result<Option<ObjectName>, Wrong> {
        let Some(object) = self.annotation(key).closing().object()? else { return Ok(None) };
        if self.namespaces == Namespaces::Own && object.namespace != self.name.namespace {
            self.complain(
                key,
                format!("{object} is in another namespace, and allow-cross-namespace-resources is not set; {CLOSED}"),
            );
            return Err(Wrong);
        }
        Ok(Some(object))
    }

    /// The ConfigMap that an annotation names.
    pub(crate) fn config_map(&mut self, key: &'static str) -> Result<Option<&'a ConfigMap>, Wrong> {
        match self.own_object(key)? {
            Some(object) => self.find(key, &object, CLOSED).map(Some).ok_or(Wrong),
            None => Ok(None),
        }
    }

    /// The ConfigMap that an option names.
    pub(crate) fn option_config_map(&mut self, key: &'static str) -> Option<&'a ConfigMap> {
        let object = self.option(key).object().ok().flatten()?;
        self.find(key, &object, "none of its fields is set")
    }

    fn find(&mut self, key: &'static str, object: &ObjectName, consequence: &str) -> Option<&'a ConfigMap> {
        let found = self.config_maps.and_then(|all| all.get(object)).map(Arc::as_ref);
        if found.is_none() {
            self.complain(key, format!("ConfigMap {object} does not exist; {consequence}"));
        }
        found
    }

    /// A key that means the same as an annotation and as an option of the ConfigMap.
    pub(crate) fn either(&mut self, key: &'static str) -> Value<'_, 'a> {
        self.taken.insert(key);
        Value { text: self.values.get(key).map(|(_, value)| *value), key, reader: self, consequence: NO_EFFECT }
    }

    /// A key that is an annotation alone.
    pub(crate) fn annotation(&mut self, key: &'static str) -> Value<'_, 'a> {
        self.in_layer(Layer::Annotations, key)
    }

    /// A key that is an option of the ConfigMap alone.
    pub(crate) fn option(&mut self, key: &'static str) -> Value<'_, 'a> {
        self.in_layer(Layer::Options, key)
    }

    fn in_layer(&mut self, layer: Layer, key: &'static str) -> Value<'_, 'a> {
        if self.layer == layer {
            self.either(key)
        } else {
            Value { text: None, key, reader: self, consequence: NO_EFFECT }
        }
    }

    /// The namespace of the object that is read.
    pub(crate) fn namespace(&self) -> &'a str {
        &self.name.namespace
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Reports a problem with a key that was read before, for what only the whole group shows.
    pub(crate) fn complain(&mut self, key: &str, reason: impl Into<String>) {
        let field =
            self.values.get(key).map_or_else(|| format!("metadata.annotations[{key}]"), |(field, _)| field.clone());
        let object = ObjectRef { kind: self.kind.to_owned(), name: self.name.clone() };
        let reason = reason.into();
        self.problems.push(Problem {
            severity: Severity::Warning,
            place: None,
            object: Some(object),
            field: Some(field),
            reason,
        });
    }

    /// The keys that were asked for.
    #[cfg(test)]
    pub(super) fn taken(&self) -> impl Iterator<Item = &'static str> {
        self.taken.iter().copied()
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn finish(mut self) {
        let left: Vec<&str> = self.values.keys().copied().filter(|key| !self.taken.contains(key)).collect();
        for key in left {
            self.complain(key, "is not honoured by this version");
        }
    }
}

/// One key's value, to be read as what it should be. Where it is not, that is reported and the layer below holds.
pub(crate) struct Value<'r, 'a> {
    reader: &'r mut Reader<'a>,
    key: &'static str,
    text: Option<&'a str>,
    /// What follows where the value makes no sense.
    consequence: &'static str,
}

impl<'a> Value<'_, 'a> {
    /// The value guards the Ingress: where it makes no sense, the reader lets nobody in, and says so.
    pub(crate) fn closing(self) -> Self {
        Self { consequence: CLOSED, ..self }
    }

    /// The text as it stands; an empty one counts as unset, as in ingress-nginx.
    pub(crate) fn text(self) -> Option<&'a str> {
        self.text.map(str::trim).filter(|text| !text.is_empty())
    }

    /// Reads by a function; `what` completes "must be …".
    ///
    /// # Errors
    /// [`Wrong`] where the value is there and the function knows no meaning for it; it has been reported.
    pub(crate) fn strict<T>(self, what: &str, read: impl FnOnce(&'a str) -> Option<T>) -> Result<Option<T>, Wrong> {
        let Some(text) = self.text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
        let value = read(text);
        if value.is_none() {
            self.reader.complain(self.key, format!("must be {what}, not {text:?}; {}", self.consequence));
        }
        value.map(Some).ok_or(Wrong)
    }

    /// As [`Value::strict`], for settings that may fall back.
    pub(crate) fn parse<T>(self, what: &str, read: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        self.strict(what, read).ok().flatten()
    }

    /// `true` or `false`.
    pub(crate) fn boolean(self) -> Option<bool> {
        self.parse("true or false", |text| text.parse().ok())
    }

    /// A whole number of at least `least`.
    pub(crate) fn number(self, least: u32) -> Option<u32> {
        let what = format!("a whole number of at least {least}");
        self.parse(&what, |text| text.parse().ok().filter(|number| *number >= least))
    }

    /// A time by nginx's rules: seconds, or with a unit.
    pub(crate) fn duration(self) -> Option<Duration> {
        self.parse("a time such as 60 or 60s", units::duration)
    }

    /// A size by nginx's rules: bytes, or with `k`, `m` or `g`.
    pub(crate) fn size(self) -> Option<u64> {
        self.parse("a size such as 8m", units::size)
    }

    /// One of some words, in whatever case.
    pub(crate) fn word<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let find = |text: &str| words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value);
        self.parse(&format!("one of {}", all.join(", ")), find)
    }

    /// A list with commas; empty parts are left out.
    pub(crate) fn list(self) -> Option<Vec<&'a str>> {
        self.text().map(|text| text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect())
    }

    /// A text with nginx's variables.
    ///
    /// # Errors
    /// [`Wrong`] where one of them is not known.
    pub(crate) fn template(self) -> Result<Option<Template>, Wrong> {
        let Some(text) = self.text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
        Template::parse(text).map(Some).map_err(|error| {
            self.reader.complain(self.key, format!("{text:?} {error}; {}", self.consequence));
            Wrong
        })
    }

    /// Addresses and CIDRs with commas; one wrong part makes the whole value wrong.
    ///
    /// # Errors
    /// [`Wrong`]: an allow list that is half a list must not be taken for the whole.
    pub(crate) fn networks(self) -> Result<Option<Vec<(IpAddr, u8)>>, Wrong> {
        self.strict("a list of CIDRs", |text| text.split(',').map(|part| units::network(part.trim())).collect())
    }

    /// An object of the Ingress's own namespace, or `namespace/name`.
    pub(crate) fn object(self) -> Result<Option<ObjectName>, Wrong> {
        let namespace = self.reader.namespace();
        self.strict("a name or namespace/name", |text| units::object(text, namespace))
    }
}

/// A warning about an annotation that shows to have no effect once all Ingresses are known.
pub(crate) fn annotation_warning(ingress: &Ingress, key: &str, reason: String) -> Problem {
    let written = PREFIXES.iter().map(|prefix| format!("{prefix}{key}"));
    let written = { written }.find(|key| ingress.meta.annotations.contains_key(key));
    warning(ingress, format!("metadata.annotations[{}]", written.as_deref().unwrap_or(key)), reason)
}

/// A warning about a field of an Ingress.
pub(crate) fn warning(ingress: &Ingress, field: String, reason: String) -> Problem {
    let object = ObjectRef { kind: "Ingress".to_owned(), name: ingress.meta.name.clone() };
    Problem { severity: Severity::Warning, place: None, object: Some(object), field: Some(field), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn check<T: PartialEq + std::fmt::Debug>(
        annotations: &[(&str, &str)],
        read: impl FnOnce(&mut Reader<'_>) -> T,
        expected: &T,
        reported: &[&str],
    ) {
        let mut ingress = fixture::ingress("default/web");
        for (key, value) in annotations {
            ingress.meta.annotations.insert((*key).to_owned(), (*value).to_owned());
        }
        let mut problems = Vec::new();
        let mut reader = Reader::of_ingress(&ingress, &mut problems);
        assert_eq!(&read(&mut reader), expected, "{annotations:?}");
        reader.finish();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.clone().unwrap()).collect();
        let reported: Vec<_> = reported.iter().map(|key| format!("metadata.annotations[{key}]")).collect();
        assert_eq!(fields, reported, "{annotations:?}");
    }

    #[test]
    fn values_are_read_or_reported() {
        let (ours, nginx) = ("roadstead.dev/x", "nginx.ingress.kubernetes.io/x");
        let boolean = |reader: &mut Reader<'_>| reader.either("x").boolean();
        check(&[], boolean, &None, &[]);
        check(&[(nginx, "false")], boolean, &Some(false), &[]);
        check(&[(ours, "true"), (nginx, "false")], boolean, &Some(true), &[]);
        check(&[(nginx, "no")], boolean, &None, &[nginx]);
        check(&[(nginx, " ")], boolean, &None, &[]);
        check(
            &[("nginx.ingress.kubernetes.io/y", "1"), ("example.com/team", "a")],
            boolean,
            &None,
            &["nginx.ingress.kubernetes.io/y"],
        );
        check(&[(nginx, "8m")], |reader| reader.annotation("x").size(), &Some(8 << 20), &[]);
        check(&[(nginx, "8m")], |reader| reader.option("x").size(), &None, &[nginx]);
        check(&[(nginx, "B")], |reader| reader.either("x").word(&[("a", 1), ("b", 2)]), &Some(2), &[]);
        check(&[(nginx, "0")], |reader| reader.either("x").number(1), &None, &[nginx]);
        check(&[(nginx, "10.0.0.0/8,oops")], |reader| reader.either("x").networks(), &Err(Wrong), &[nginx]);
        let no_template = Err(Wrong);
        check(&[(nginx, "$nothing")], |reader| reader.either("x").template(), &no_template, &[nginx]);
        let secret = Ok(Some(ObjectName::new("default", "s")));
        check(&[(nginx, "s")], |reader| reader.annotation("x").object(), &secret, &[]);
    }
}
