//! `custom-http-errors`, `default-backend`: which answers another Service gives in place of the endpoints.

use std::sync::Arc;

use roadstead_model::ObjectName;

use super::Reader;

/// Who answers for errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// `custom-http-errors`: statuses that the default backend answers in place of whoever had them.
    pub codes: Arc<[u16]>,
    /// `disable-proxy-intercept-errors`: an endpoint's own answers stay as they are.
    pub keep_endpoints: bool,
    /// `default-backend`: a Service of the Ingress's namespace; its first port.
    pub backend: Option<ObjectName>,
}

impl Errors {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let codes = reader.either("custom-http-errors").parse("statuses from 300 to 599, with commas", codes);
        let disabled = reader.either("disable-proxy-intercept-errors").boolean();
        let namespace = reader.namespace();
        let backend = reader.annotation("default-backend").parse("the name of a Service of this namespace", |text| {
            let name = super::units::object(text, namespace)?;
            (!text.contains('/')).then_some(name)
        });
        Self {
            codes: codes.unwrap_or_else(|| Arc::clone(&base.codes)),
            keep_endpoints: disabled.unwrap_or(base.keep_endpoints),
            backend,
        }
    }

    /// Whether a status is another Service's to answer.
    #[must_use]
    pub fn covers(&self, status: u16) -> bool {
        self.codes.contains(&status)
    }
}

fn codes(text: &str) -> Option<Arc<[u16]>> {
    let code = |text: &str| text.trim().parse().ok().filter(|code| (300..=599).contains(code));
    text.split(',').map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn wrong_values_are_named_and_have_no_effect() {
        let read = |annotations: &[(&str, &str)]| {
            fixture::read(annotations, |reader| Errors::read(reader, &Errors::default()))
        };
        let (errors, problems) = read(&[("custom-http-errors", "404, 503"), ("default-backend", "pages")]);
        assert_eq!(
            (&*errors.codes, errors.backend, problems),
            (&[404, 503][..], Some(fixture::name("default/pages")), vec![])
        );
        for (key, value) in [
            ("custom-http-errors", "404,abc"),
            ("custom-http-errors", "200"),
            ("custom-http-errors", "404;503"),
            ("disable-proxy-intercept-errors", "x"),
            ("default-backend", "other/pages"),
            ("default-backend", "No Name"),
        ] {
            let (errors, problems) = read(&[(key, value)]);
            assert_eq!(errors, Errors::default(), "{key}: {value}");
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(key), "{problems:?}");
        }
    }
}
