//! Which fields an object may have, for kinds whose unknown fields are named: a typo that nobody tells about costs an
//! evening, and an API server would drop it without a word.

use serde_yaml::Value;

use crate::findings::Findings;

/// The fields below a field.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Whatever it is: a scalar, or what another check looks at.
    Any,
    /// A mapping with these keys.
    Fields(&'static [(&'static str, Shape)]),
    /// A list of these.
    Each(&'static Shape),
}

impl Shape {
    /// Warns of each field that is not known. What is of the wrong type is left to the reading that follows.
    pub(crate) fn check(&self, tree: &Value, findings: &mut Findings) {
        self.walk("", tree, findings);
    }

    fn walk(&self, at: &str, tree: &Value, findings: &mut Findings) {
        match (self, tree) {
            (Self::Fields(fields), Value::Mapping(entries)) => {
                for (key, value) in entries {
                    let Some(key) = key.as_str() else { continue };
                    let path = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
                    match fields.iter().find(|(name, _)| *name == key) {
                        Some((_, shape)) => shape.walk(&path, value, findings),
                        None => findings.warn(path, unknown(key, fields.iter().map(|(name, _)| *name))),
                    }
                }
            }
            (Self::Each(shape), Value::Sequence(items)) => {
                for (index, item) in items.iter().enumerate() {
                    shape.walk(&format!("{at}[{index}]"), item, findings);
                }
            }
            _ => {}
        }
    }
}

/// What is said of a field that is not known: the one that is meant, where it differs by case and punctuation alone.
pub(crate) fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let meant = known.into_iter().find(|name| plain(name) == plain(key));
    match meant {
        Some(name) => format!("is not known, so it has no effect; the field is {name}"),
        None => "is not known, so it has no effect".to_owned(),
    }
}
