//! Who must say who they are: Basic and external authentication, and how they go together with source ranges.

use super::{BasicAuth, ExternalAuth, Guard, Reader};

/// What authentication an Ingress asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Users and passwords.
    pub basic: Guard<BasicAuth>,
    /// Another service.
    pub external: Guard<ExternalAuth>,
    /// Whether one check is enough.
    pub satisfy: Satisfy,
    /// `no-auth-locations`: rules whose path begins so are left alone.
    pub open_paths: Vec<String>,
}

/// `satisfy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Satisfy {
    /// Source range, Basic and external authentication must all let a request on.
    #[default]
    All,
    /// One of them is enough.
    Any,
}

impl Default for Auth {
    /// ingress-nginx leaves the answers to ACME challenges open.
    fn default() -> Self {
        Self {
            basic: Guard::Unset,
            external: Guard::Unset,
            satisfy: Satisfy::All,
            open_paths: vec!["/.well-known/acme-challenge".to_owned()],
        }
    }
}

impl Auth {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let open_paths = reader.option("no-auth-locations").list();
        let satisfy = reader.annotation("satisfy").word(&[("all", Satisfy::All), ("any", Satisfy::Any)]);
        Self {
            basic: BasicAuth::read(reader),
            external: ExternalAuth::read(reader, &base.external),
            satisfy: satisfy.unwrap_or(base.satisfy),
            open_paths: open_paths
                .map_or_else(|| base.open_paths.clone(), |paths| paths.into_iter().map(str::to_owned).collect()),
        }
    }

    /// Whether requests of a rule with this path are asked for anything.
    #[must_use]
    pub fn guards(&self, path: &str) -> bool {
        let asks = !self.basic.is_unset() || !self.external.is_unset();
        asks && !self.open_paths.iter().any(|open| path.starts_with(open.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        settings::{Options, Profile, Settings},
    };

    fn read(options: &[(&str, &str)], annotations: &[(&str, &str)]) -> Auth {
        let mut problems = Vec::new();
        let options = Options::read(Some(&fixture::config_map("x/options", options)), &mut problems);
        let ingress = fixture::annotated("default/web", annotations);
        Settings::of_ingress(&ingress, Profile::Nginx, &options, &mut problems).auth
    }

    #[test]
    fn the_global_service_is_asked_unless_the_ingress_has_its_own_or_wants_none() {
        let global = ("global-auth-url", "http://global.example/");
        let host = |auth: &Auth| auth.external.set().map(|auth| auth.url.beginning().to_owned());
        assert_eq!(host(&read(&[global], &[])), Some("http://global.example/".to_owned()));
        assert_eq!(host(&read(&[global], &[("enable-global-auth", "false")])), None);
        let own = ("auth-url", "http://own.example/");
        assert_eq!(host(&read(&[global], &[own])), Some("http://own.example/".to_owned()));
        assert_eq!(host(&read(&[global], &[own, ("enable-global-auth", "false")])), Some(own.1.to_owned()));
        assert_eq!(read(&[global], &[("auth-url", "x")]).external, Guard::Wrong);
        assert_eq!(read(&[("global-auth-url", "x")], &[]).external, Guard::Wrong);
    }

    #[test]
    fn challenges_are_answered_without_credentials() {
        let auth = read(&[], &[("auth-url", "http://own.example/")]);
        assert!(auth.guards("/") && !auth.guards("/.well-known/acme-challenge/x"));
        let auth = read(&[("no-auth-locations", "/public, /open")], &[("auth-type", "basic")]);
        assert!(auth.guards("/.well-known/acme-challenge") && !auth.guards("/public/x") && !auth.guards("/open"));
        assert!(!read(&[], &[]).guards("/"));
        assert_eq!(read(&[], &[("satisfy", "any")]).satisfy, Satisfy::Any);
        assert_eq!(read(&[], &[("satisfy", "some")]).satisfy, Satisfy::All);
    }
}
