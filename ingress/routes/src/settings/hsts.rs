//! HTTP Strict Transport Security (RFC 6797): ingress-nginx's `hsts` options, for hosts with a certificate, over TLS.

use super::Reader;

/// What Strict-Transport-Security says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HstsOptions {
    /// `hsts`: it is said at all.
    pub enabled: bool,
    /// `hsts-max-age`, in seconds.
    pub max_age: u32,
    /// `hsts-include-subdomains`.
    pub subdomains: bool,
    /// `hsts-preload`.
    pub preload: bool,
}

impl Default for HstsOptions {
    fn default() -> Self {
        Self { enabled: true, max_age: 31_536_000, subdomains: true, preload: false }
    }
}

impl HstsOptions {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let base = Self::default();
        Self {
            enabled: reader.option("hsts").boolean().unwrap_or(base.enabled),
            max_age: reader.option("hsts-max-age").number(0).unwrap_or(base.max_age),
            subdomains: reader.option("hsts-include-subdomains").boolean().unwrap_or(base.subdomains),
            preload: reader.option("hsts-preload").boolean().unwrap_or(base.preload),
        }
    }

    /// The field's value; `None` where it is not sent.
    #[must_use]
    pub fn value(&self) -> Option<String> {
        let part = |wanted: bool, text| if wanted { text } else { "" };
        let (subdomains, preload) = (part(self.subdomains, "; includeSubDomains"), part(self.preload, "; preload"));
        self.enabled.then(|| format!("max-age={}{subdomains}{preload}", self.max_age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_says_what_is_asked() {
        let base = HstsOptions::default();
        for (options, expected) in [
            (base.clone(), Some("max-age=31536000; includeSubDomains")),
            (HstsOptions { subdomains: false, max_age: 60, ..base.clone() }, Some("max-age=60")),
            (HstsOptions { preload: true, ..base.clone() }, Some("max-age=31536000; includeSubDomains; preload")),
            (HstsOptions { enabled: false, ..base }, None),
        ] {
            assert_eq!(options.value().as_deref(), expected);
        }
    }
}
