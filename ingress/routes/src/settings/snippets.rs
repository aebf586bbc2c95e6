//! `configuration-snippet`, `server-snippet`: which snippets an Ingress has, and whether any may be.
//!
//! The safe subset is allowed unless the ConfigMap says `allow-snippet-annotations: "false"`. A snippet that is refused closes
//! its Ingress (503): what it asked for may have been to keep somebody out. ingress-nginx, told to allow none, takes such an
//! Ingress not even in.

use std::sync::Arc;

use super::{Guard, Reader};
use crate::Program;

/// The snippets of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snippets {
    /// `configuration-snippet`: for the Ingress's own paths.
    pub location: Guard<Arc<Program>>,
    /// `server-snippet`: for all paths of its hosts, where it is the oldest one.
    pub server: Guard<Arc<Program>>,
    /// `allow-snippet-annotations: "false"`.
    pub forbidden: bool,
}

impl Snippets {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let allowed = reader.option("allow-snippet-annotations").boolean();
        let forbidden = allowed.map_or(base.forbidden, |allowed| !allowed);
        Self {
            location: program(reader, "configuration-snippet", forbidden),
            server: program(reader, "server-snippet", forbidden),
            forbidden,
        }
    }

    /// Whether one of them was refused, so that nobody may pass.
    #[must_use]
    pub fn close(&self) -> bool {
        self.location == Guard::Wrong || self.server == Guard::Wrong
    }
}

fn program(reader: &mut Reader<'_>, key: &'static str, forbidden: bool) -> Guard<Arc<Program>> {
    let Some(text) = reader.annotation(key).text() else { return Guard::Unset };
    if forbidden {
        reader.complain(key, "snippets are not allowed by allow-snippet-annotations; requests get 503");
        return Guard::Wrong;
    }
    let mut told = Vec::new();
    let program = Program::parse(text, &mut |reason| told.push(reason));
    for reason in told {
        reader.complain(key, reason);
    }
    match program {
        Ok(program) => Guard::Set(Arc::new(program)),
        Err(reason) => {
            reader.complain(key, format!("{reason}; requests get 503"));
            Guard::Wrong
        }
    }
}
