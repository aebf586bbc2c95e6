//! Cookie affinity: which client stays with which endpoint, and the cookie that says so.

use super::Reader;

/// ingress-nginx's session-cookie-name.
const DEFAULT_NAME: &str = "INGRESSCOOKIE";

/// `affinity: cookie` of one Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// What becomes of clients when endpoints change.
    pub mode: AffinityMode,
    /// `affinity-canary-behavior: legacy`: canaries are chosen as if there were no affinity.
    pub ignores_canaries: bool,
    /// `session-cookie-change-on-failure`: a client whose endpoint fails gets another one, and keeps that.
    pub change_on_failure: bool,
    /// The cookie.
    pub cookie: SessionCookie,
}

/// `affinity-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffinityMode {
    /// A hash of the cookie chooses the endpoint, so that new endpoints get their share of the clients.
    #[default]
    Balanced,
    /// The cookie names the endpoint: a client stays as long as that lives.
    Persistent,
}

/// How the cookie is set. It is `HttpOnly` always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name.
    pub name: String,
    /// `Max-Age` in seconds.
    pub max_age: Option<i64>,
    /// Seconds from now for `Expires`, which browsers older than Max-Age read.
    pub expires: Option<i64>,
    /// `Path`; `None` is the path of the rule.
    pub path: Option<String>,
    /// `Domain`; `None` is the host alone.
    pub domain: Option<String>,
    /// `Secure` on plain requests too; those over TLS get it anyway.
    pub always_secure: bool,
    /// `SameSite`.
    pub same_site: Option<SameSite>,
    /// Leaves `SameSite=None` out for browsers that refuse it.
    pub same_site_none_by_browser: bool,
}

/// `session-cookie-samesite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent with every request.
    None,
    /// Sent with requests of the same site, and when a link leads here.
    Lax,
    /// Sent with requests of the same site alone.
    Strict,
}

impl SameSite {
    /// As in the cookie.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Lax => "Lax",
            Self::Strict => "Strict",
        }
    }
}

impl Affinity {
    /// What an Ingress asks for. All keys are looked at even where there is no affinity: they are then of no effect, and
    /// no less known for it.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let wanted = reader.annotation("affinity").word(&[("cookie", ())]);
        let modes = [("balanced", AffinityMode::Balanced), ("persistent", AffinityMode::Persistent)];
        let affinity = Self {
            mode: reader.annotation("affinity-mode").word(&modes).unwrap_or_default(),
            ignores_canaries: reader
                .annotation("affinity-canary-behavior")
                .word(&[("sticky", false), ("legacy", true)])
                .unwrap_or_default(),
            change_on_failure: reader.annotation("session-cookie-change-on-failure").boolean().unwrap_or_default(),
            cookie: SessionCookie::read(reader),
        };
        wanted.map(|()| affinity)
    }
}

impl SessionCookie {
    fn read(reader: &mut Reader<'_>) -> Self {
        let seconds = |text: &str| text.parse().ok();
        let owned = |text: &str| Some(text.to_owned());
        let what = "a name of letters, digits and !#$%&'*+-.^_`|~";
        let name =
            reader.annotation("session-cookie-name").parse(what, |text| owned(text).filter(|name| is_token(name)));
        let max_age = reader.annotation("session-cookie-max-age").parse("a number of seconds", seconds);
        let expires = reader.annotation("session-cookie-expires").parse("a number of seconds", seconds);
        let path = reader
            .annotation("session-cookie-path")
            .parse("a path without spaces and semicolons", |text| owned(text).filter(|path| is_path(path)));
        let domain = reader
            .annotation("session-cookie-domain")
            .parse("a domain", |text| owned(text).filter(|domain| is_domain(domain)));
        let words = [("None", SameSite::None), ("Lax", SameSite::Lax), ("Strict", SameSite::Strict)];
        Self {
            name: name.unwrap_or_else(|| DEFAULT_NAME.to_owned()),
            max_age,
            expires,
            path,
            domain,
            always_secure: reader.annotation("session-cookie-secure").boolean().unwrap_or_default(),
            same_site: reader.annotation("session-cookie-samesite").word(&words),
            same_site_none_by_browser: reader
                .annotation("session-cookie-conditional-samesite-none")
                .boolean()
                .unwrap_or_default(),
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// RFC 6265, section 4.1.1: anything but controls and semicolons; a browser ignores a path without its slash.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';')
}

fn is_domain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::fixture::check;

    fn plain() -> Affinity {
        check(&[], |reader| SessionCookie::read(reader).name, &DEFAULT_NAME.to_owned(), &[]);
        Affinity {
            mode: AffinityMode::Balanced,
            ignores_canaries: false,
            change_on_failure: false,
            cookie: SessionCookie {
                name: DEFAULT_NAME.to_owned(),
                max_age: None,
                expires: None,
                path: None,
                domain: None,
                always_secure: false,
                same_site: None,
                same_site_none_by_browser: false,
            },
        }
    }

    #[test]
    fn there_is_no_affinity_unless_it_is_asked_for() {
        check(&[], Affinity::read, &None, &[]);
        check(&[("affinity-mode", "persistent"), ("session-cookie-name", "x")], Affinity::read, &None, &[]);
        check(&[("affinity", "ip")], Affinity::read, &None, &["affinity"]);
        check(&[("affinity", "cookie")], Affinity::read, &Some(plain()), &[]);
    }

    #[test]
    fn every_key_has_its_effect() {
        let all = [
            ("affinity", "cookie"),
            ("affinity-mode", "persistent"),
            ("affinity-canary-behavior", "legacy"),
            ("session-cookie-change-on-failure", "true"),
            ("session-cookie-name", "route"),
            ("session-cookie-max-age", "172800"),
            ("session-cookie-expires", "-1"),
            ("session-cookie-path", "/app"),
            ("session-cookie-domain", "example.com"),
            ("session-cookie-secure", "true"),
            ("session-cookie-samesite", "none"),
            ("session-cookie-conditional-samesite-none", "true"),
        ];
        let expected = Affinity {
            mode: AffinityMode::Persistent,
            ignores_canaries: true,
            change_on_failure: true,
            cookie: SessionCookie {
                name: "route".to_owned(),
                max_age: Some(172_800),
                expires: Some(-1),
                path: Some("/app".to_owned()),
                domain: Some("example.com".to_owned()),
                always_secure: true,
                same_site: Some(SameSite::None),
                same_site_none_by_browser: true,
            },
        };
        check(&all, Affinity::read, &Some(expected), &[]);
    }

    #[test]
    fn a_wrong_value_costs_only_itself() {
        for (key, value) in [
            ("affinity-mode", "sticky"),
            ("affinity-canary-behavior", "none"),
            ("session-cookie-change-on-failure", "yes"),
            ("session-cookie-name", "a=b; Path=/"),
            ("session-cookie-max-age", "1h"),
            ("session-cookie-expires", "soon"),
            ("session-cookie-path", "app"),
            ("session-cookie-path", "/;Secure"),
            ("session-cookie-domain", "a b"),
            ("session-cookie-secure", "1"),
            ("session-cookie-samesite", "off"),
            ("session-cookie-conditional-samesite-none", "1"),
        ] {
            check(&[("affinity", "cookie"), (key, value)], Affinity::read, &Some(plain()), &[key]);
        }
    }
}
