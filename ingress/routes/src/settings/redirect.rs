//! Redirects that an Ingress asks for, before anything else happens to a request.
//!
//! What is read here, `crate::redirect` decides by. The host-wide ones, `app-root` and `from-to-www-redirect`, are put into the
//! table by `compile`.

use std::sync::Arc;

use super::{Reader, Template};

/// Whether and where requests are sent away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// `ssl-redirect`: plain requests for a TLS host are sent to https.
    pub ssl: bool,
    /// `force-ssl-redirect`: plain requests for any host are.
    pub force_ssl: bool,
    /// `preserve-trailing-slash`: the way to https keeps the slash that ingress-nginx drops at the end.
    pub preserve_trailing_slash: bool,
    /// `permanent-redirect` or `temporal-redirect`: all requests are sent there.
    pub moved: Option<Moved>,
    /// `app-root`: the root of the host is sent there; an absolute path.
    pub app_root: Option<Box<str>>,
    /// `from-to-www-redirect`: the host's sibling with or without `www.` is sent to it.
    pub from_to_www: bool,
    /// `relative-redirects`: a redirect within the host names no host.
    pub relative: bool,
    /// `http-redirect-code`: the status of redirects to https and to the sibling.
    pub code: u16,
    /// `no-tls-redirect-locations`: paths that are served in the clear whatever the rest says.
    pub clear_paths: Arc<[Box<str>]>,
}

/// Where all requests of an Ingress are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The status.
    pub code: u16,
    /// The Location: `http://` or `https://` and whatever.
    pub location: Template,
}

impl Default for Redirects {
    fn default() -> Self {
        Self {
            ssl: true,
            force_ssl: false,
            preserve_trailing_slash: false,
            moved: None,
            app_root: None,
            from_to_www: false,
            relative: false,
            code: 308,
            clear_paths: Arc::from(["/.well-known/acme-challenge".into()]),
        }
    }
}

impl Redirects {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        Self {
            ssl: reader.either("ssl-redirect").boolean().unwrap_or(base.ssl),
            force_ssl: reader.either("force-ssl-redirect").boolean().unwrap_or(base.force_ssl),
            preserve_trailing_slash: reader
                .either("preserve-trailing-slash")
                .boolean()
                .unwrap_or(base.preserve_trailing_slash),
            moved: moved(reader),
            app_root: app_root(reader),
            from_to_www: reader.annotation("from-to-www-redirect").boolean().unwrap_or(false),
            relative: reader.annotation("relative-redirects").boolean().unwrap_or(false),
            code: reader.option("http-redirect-code").parse("301, 302, 307 or 308", https_code).unwrap_or(base.code),
            clear_paths: clear_paths(reader).unwrap_or_else(|| Arc::clone(&base.clear_paths)),
        }
    }
}

fn https_code(text: &str) -> Option<u16> {
    text.parse().ok().filter(|code| matches!(code, 301 | 302 | 307 | 308))
}

fn clear_paths(reader: &mut Reader<'_>) -> Option<Arc<[Box<str>]>> {
    let paths = reader.option("no-tls-redirect-locations").list()?;
    Some(paths.into_iter().map(Box::from).collect())
}

/// The temporal one wins, as in ingress-nginx.
fn moved(reader: &mut Reader<'_>) -> Option<Moved> {
    let temporal = code(reader, "temporal-redirect-code", 307);
    let permanent = code(reader, "permanent-redirect-code", 308);
    let to = |location, code| Moved { location, code };
    let temporal = absolute_url(reader, "temporal-redirect").map(|url| to(url, temporal.unwrap_or(302)));
    let permanent = absolute_url(reader, "permanent-redirect").map(|url| to(url, permanent.unwrap_or(301)));
    if temporal.is_some() && permanent.is_some() {
        reader.complain("permanent-redirect", "has no effect beside temporal-redirect");
    }
    temporal.or(permanent)
}

fn code(reader: &mut Reader<'_>, key: &'static str, most: u16) -> Option<u16> {
    let what = format!("a status from 300 to {most}");
    reader.annotation(key).parse(&what, |text| text.parse().ok().filter(|code| (300..=most).contains(code)))
}

fn absolute_url(reader: &mut Reader<'_>, key: &'static str) -> Option<Template> {
    let Ok(Some(url)) = reader.annotation(key).template() else { return None };
    if is_absolute(&url) {
        return Some(url);
    }
    reader.complain(key, "must begin with http:// or https://; it has no effect");
    None
}

/// Whether a text leads to another host, as nginx tells it of a rewrite.
pub(crate) fn is_absolute(url: &Template) -> bool {
    let beginning = url.beginning();
    ["http://", "https://"].iter().any(|scheme| beginning.starts_with(scheme))
}

fn app_root(reader: &mut Reader<'_>) -> Option<Box<str>> {
    let what = "an absolute path without variables";
    let path = reader.annotation("app-root").strict(what, |text| {
        let plain =
            text.starts_with('/') && !text.starts_with("//") && text.bytes().all(|byte| byte.is_ascii_graphic());
        (plain && !text.contains('$')).then(|| Box::from(text))
    });
    path.unwrap_or(None)
}

#[cfg(test)]
mod tests {
    use super::Redirects;
    use crate::fixture;

    fn read(annotations: &[(&str, &str)]) -> (Redirects, Vec<String>) {
        fixture::read(annotations, |reader| Redirects::read(reader, &Redirects::default()))
    }

    fn moved_to(annotations: &[(&str, &str)]) -> Option<(u16, String)> {
        let moved = read(annotations).0.moved?;
        Some((moved.code, moved.location.constant().unwrap_or("<variable>").to_owned()))
    }

    #[test]
    fn the_temporal_redirect_wins() {
        let there = |code| Some((code, "https://b.example/".to_owned()));
        let (temporal, permanent) = ("temporal-redirect", "permanent-redirect");
        let url = "https://b.example/";
        assert_eq!(moved_to(&[(permanent, url)]), there(301));
        assert_eq!(moved_to(&[(permanent, url), ("permanent-redirect-code", "308")]), there(308));
        assert_eq!(moved_to(&[(temporal, url)]), there(302));
        assert_eq!(moved_to(&[(temporal, url), ("temporal-redirect-code", "307")]), there(307));
        assert_eq!(moved_to(&[(temporal, url), (permanent, "http://c.example")]), there(302));
        assert_eq!(moved_to(&[(permanent, "https://b.example$request_uri")]), Some((301, "<variable>".to_owned())));
    }

    #[test]
    fn wrong_values_are_named_and_have_no_effect() {
        for (key, value, reason) in [
            ("ssl-redirect", "yes", "must be true or false"),
            ("force-ssl-redirect", "1", "must be true or false"),
            ("preserve-trailing-slash", "x", "must be true or false"),
            ("permanent-redirect", "/elsewhere", "must begin with http:// or https://"),
            ("permanent-redirect", "https://$nowhere/", "knows no variable $nowhere"),
            ("temporal-redirect", "ftp://a.example", "must begin with http:// or https://"),
            ("temporal-redirect-code", "308", "a status from 300 to 307"),
            ("permanent-redirect-code", "200", "a status from 300 to 308"),
            ("app-root", "relative", "an absolute path"),
            ("app-root", "//b.example/", "an absolute path"),
            ("from-to-www-redirect", "www", "must be true or false"),
            ("relative-redirects", "www", "must be true or false"),
        ] {
            let (redirects, problems) = read(&[(key, value)]);
            assert_eq!(redirects, Redirects::default(), "{key}: {value}");
            let named = problems.iter().filter(|problem| problem.contains(key) && problem.contains(reason)).count();
            assert_eq!((named, problems.len()), (1, 1), "{key}: {value}: {problems:?}");
        }
    }
}
