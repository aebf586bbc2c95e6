//! What an Ingress changes of heads on their way: the host and the connection that endpoints see, and Location, Refresh and
//! Set-Cookie of their answers.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{CONNECTION, HOST, LOCATION, REFRESH, SET_COOKIE, UPGRADE},
};
use roadstead_routes::{Facts, Passing, Substitution};

use super::{RequestFacts, Visit, forward::FromEndpoint};

/// Decides the fields that the endpoint gets.
pub(super) fn set_upstream_fields<B>(visit: &mut Visit<'_>, request: &Request<B>) {
    let passing = &visit.route.settings.passing;
    if let Some(vhost) = &passing.vhost
        && let Ok(host) = HeaderValue::from_bytes(&vhost.render(&RequestFacts::of(visit, request)))
        && crate::head::is_authority(host.as_bytes())
    {
        visit.upstream_fields.push((HOST, host));
    }
    if let Some(connection) = passing.connection.filter(|_| !request.headers().contains_key(UPGRADE)) {
        visit.upstream_fields.push((CONNECTION, HeaderValue::from_static(connection)));
    }
}

/// Changes an endpoint's answer.
pub(super) fn change_answer<B>(visit: &Visit<'_>, kept: &Request<()>, response: &mut Response<B>) {
    if response.extensions().get::<FromEndpoint>().is_none() {
        return;
    }
    let headers = response.headers_mut();
    let passing = &visit.route.settings.passing;
    let facts = RequestFacts::of(visit, kept);
    if let Some(redirect) = &passing.redirect {
        replace(headers, &LOCATION, |value| redirect.of_beginning(value, &facts));
        replace(headers, &REFRESH, |value| refreshed(redirect, value, &facts));
    }
    if passing.cookie_domain.is_some() || passing.cookie_path.is_some() {
        let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().map(|value| cookie(passing, value, &facts)).collect();
        headers.remove(SET_COOKIE);
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

fn replace(headers: &mut HeaderMap, name: &HeaderName, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
    let changed = headers.get(name).and_then(|value| change(value.as_bytes()));
    if let Some(value) = changed.and_then(|value| HeaderValue::from_bytes(&value).ok()) {
        headers.insert(name.clone(), value);
    }
}

/// `5; url=http://…`: the part behind `url=` is a Location too.
fn refreshed(redirect: &Substitution, value: &[u8], facts: &dyn Facts) -> Option<Vec<u8>> {
    let at = value.windows(4).position(|window| window.eq_ignore_ascii_case(b"url="))? + 4;
    let (before, url) = value.split_at_checked(at)?;
    Some([before, &redirect.of_beginning(url, facts)?].concat())
}

fn cookie(passing: &Passing, value: &HeaderValue, facts: &dyn Facts) -> HeaderValue {
    let parts = value.as_bytes().split(|byte| *byte == b';').enumerate().map(|(index, part)| {
        let changed = if index == 0 { None } else { attribute(passing, part, facts) };
        changed.unwrap_or_else(|| part.to_vec())
    });
    let changed = parts.collect::<Vec<_>>().join(&b';');
    HeaderValue::from_bytes(&changed).unwrap_or_else(|_| value.clone())
}

fn attribute(passing: &Passing, part: &[u8], facts: &dyn Facts) -> Option<Vec<u8>> {
    let equals = part.iter().position(|byte| *byte == b'=')?;
    let (name, value) = part.split_at_checked(equals + 1)?;
    let changed = match name.trim_ascii().to_ascii_lowercase().as_slice() {
        b"domain=" => passing.cookie_domain.as_ref()?.of_domain(value.trim_ascii(), facts)?,
        b"path=" => passing.cookie_path.as_ref()?.of_beginning(value.trim_ascii(), facts)?,
        _ => return None,
    };
    Some([name, &changed].concat())
}
