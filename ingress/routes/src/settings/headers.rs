//! Header fields that the configuration sets or hides: `custom-headers`, and the ConfigMap's `add-headers`,
//! `proxy-set-headers`, `hide-headers` and `global-allowed-response-headers`.
//!
//! The fields stand in ConfigMaps of their own. Names are held in lower case, values as templates.

use std::collections::BTreeMap;

use super::{Guard, Reader, Wrong};
use crate::Template;

/// Fields that are set or hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `custom-headers`: set on answers, whatever the endpoint says.
    pub custom: Guard<Vec<(String, String)>>,
    /// `proxy-set-headers`: set on requests to endpoints; an empty value removes the field.
    pub to_upstream: Vec<(String, Template)>,
    /// `hide-headers`: taken out of endpoints' answers.
    pub hidden: Vec<String>,
    /// `global-allowed-response-headers`: what `custom-headers` may set.
    pub allowed: Vec<String>,
}

impl Headers {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let allowed = reader.option("global-allowed-response-headers").list();
        let allowed = allowed
            .map_or_else(|| base.allowed.clone(), |names| names.iter().map(|name| name.to_ascii_lowercase()).collect());
        let hidden = reader.option("hide-headers").parse("names of headers", |text| {
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(header_name).collect()
        });
        Self {
            custom: custom(reader, &allowed),
            to_upstream: option_headers(reader, "proxy-set-headers").unwrap_or_else(|| base.to_upstream.clone()),
            hidden: hidden.unwrap_or_else(|| base.hidden.clone()),
            allowed,
        }
    }
}

/// The fields of a ConfigMap that an option names; a wrong one leaves its fields out.
pub(super) fn option_headers(reader: &mut Reader<'_>, key: &'static str) -> Option<Vec<(String, Template)>> {
    let config_map = reader.option_config_map(key)?;
    match header_templates(&config_map.data) {
        Ok(headers) => Some(headers),
        Err(reason) => {
            reader.complain(key, format!("ConfigMap {}: {reason}; none of its fields is set", config_map.meta.name));
            None
        }
    }
}

fn custom(reader: &mut Reader<'_>, allowed: &[String]) -> Guard<Vec<(String, String)>> {
    let config_map = match reader.config_map("custom-headers") {
        Ok(None) => return Guard::Unset,
        Ok(Some(config_map)) => config_map,
        Err(Wrong) => return Guard::Wrong,
    };
    let mut headers = Vec::new();
    for (name, value) in &config_map.data {
        let entry = header_name(name).filter(|_| header_value(value));
        let reason = match entry {
            None => format!("{name:?} is no header field that can be set"),
            Some(name) if !allowed.contains(&name) => {
                format!("{name} is not among global-allowed-response-headers")
            }
            Some(name) => {
                headers.push((name, value.clone()));
                continue;
            }
        };
        reader.complain("custom-headers", format!("ConfigMap {}: {reason}: requests get 503", config_map.meta.name));
        return Guard::Wrong;
    }
    Guard::Set(headers)
}

/// Fields with templates for values.
pub(super) fn header_templates(data: &BTreeMap<String, String>) -> Result<Vec<(String, Template)>, String> {
    let entry = |(name, value): (&String, &String)| {
        let lower = header_name(name).ok_or_else(|| format!("{name:?} is no name of a header field"))?;
        let template = Template::parse(value.trim()).map_err(|error| format!("{name}: the value {error}"))?;
        Ok((lower, template))
    };
    data.iter().map(entry).collect()
}

/// A field's name in lower case.
pub(super) fn header_name(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (!text.is_empty() && text.bytes().all(fits)).then(|| text.to_ascii_lowercase())
}

fn header_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        fixture,
        settings::{Options, Profile, Settings},
    };

    fn check(options: &[(&str, &str)], annotations: &[(&str, &str)], reported: usize) -> Headers {
        let mut config_maps = BTreeMap::new();
        for (name, data) in [
            ("default/good", &[("X-Frame-Options", "DENY")][..]),
            ("default/forbidden", &[("Set-Cookie", "a=b")]),
            ("default/broken", &[("a b", "c")]),
            ("other/up", &[("X-Start", "t=$request_id"), ("X-Gone", "")]),
        ] {
            let config_map = fixture::config_map(name, data);
            config_maps.insert(config_map.meta.name.clone(), Arc::new(config_map));
        }
        let mut problems = Vec::new();
        let options = Options::resolve(Some(&fixture::config_map("x/options", options)), &config_maps, &mut problems);
        let ingress = fixture::annotated("default/web", annotations);
        let settings = Settings::resolve(&ingress, Profile::Nginx, &options, &config_maps, &mut problems);
        assert_eq!(problems.len(), reported, "{annotations:?} {problems:?}");
        settings.headers
    }

    #[test]
    fn fields_come_from_config_maps() {
        let allow = ("global-allowed-response-headers", "X-Frame-Options,x-other");
        assert_eq!(check(&[], &[], 0), Headers::default());
        let frame = ("x-frame-options".to_owned(), "DENY".to_owned());
        assert_eq!(check(&[allow], &[("custom-headers", "good")], 0).custom, Guard::Set(vec![frame.clone()]));
        assert_eq!(check(&[allow], &[("custom-headers", "default/good")], 0).custom, Guard::Set(vec![frame]));
        assert_eq!(check(&[], &[("custom-headers", "good")], 1).custom, Guard::Wrong);
        assert_eq!(check(&[allow], &[("custom-headers", "forbidden")], 1).custom, Guard::Wrong);
        assert_eq!(check(&[allow], &[("custom-headers", "broken")], 1).custom, Guard::Wrong);
        assert_eq!(check(&[allow], &[("custom-headers", "gone")], 1).custom, Guard::Wrong);
        assert_eq!(check(&[allow], &[("custom-headers", "other/up")], 1).custom, Guard::Wrong);
        let up = check(&[("proxy-set-headers", "other/up")], &[], 0).to_upstream;
        assert_eq!(up.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-gone", "x-start"]);
        assert_eq!(check(&[("proxy-set-headers", "default/broken")], &[], 1).to_upstream, []);
        assert_eq!(check(&[("proxy-set-headers", "default/gone")], &[], 1).to_upstream, []);
        assert_eq!(check(&[("hide-headers", "X-Powered-By, etag")], &[], 0).hidden, ["x-powered-by", "etag"]);
        assert_eq!(check(&[("hide-headers", "a b")], &[], 1).hidden, Vec::<String>::new());
    }
}
