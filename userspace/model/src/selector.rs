//! Label selectors (`metav1.LabelSelector`).

use crate::Labels;

/// Pairs and expressions that labels must all satisfy; an empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// `matchLabels`.
    pub match_labels: Labels,
    /// `matchExpressions`.
    pub match_expressions: Vec<Requirement>,
}

/// One entry of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label has one of the values.
    In(String, Vec<String>),
    /// The label has none of the values, or is absent.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is absent.
    DoesNotExist(String),
}

impl LabelSelector {
    /// Whether the labels satisfy every part.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn requirements_follow_the_api_documentation() {
        let has = labels(&[("app", "web"), ("tier", "front")]);
        let cases = [
            (Requirement::In("app".into(), vec!["web".into(), "db".into()]), true),
            (Requirement::In("zone".into(), vec!["a".into()]), false),
            (Requirement::NotIn("zone".into(), vec!["a".into()]), true),
            (Requirement::NotIn("app".into(), vec!["web".into()]), false),
            (Requirement::Exists("tier".into()), true),
            (Requirement::DoesNotExist("tier".into()), false),
        ];
        for (requirement, expected) in cases {
            let selector = LabelSelector { match_expressions: vec![requirement.clone()], ..LabelSelector::default() };
            assert_eq!(selector.matches(&has), expected, "{requirement:?}");
        }
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(LabelSelector::default().matches(&Labels::new()));
    }
}
