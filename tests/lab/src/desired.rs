//! Where a lab keeps what its daemons shall do: files in a directory, or objects in an API server.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::node::Source;
use crate::served::Served;

/// Both take manifests under the names of files.
#[derive(Debug)]
pub(crate) enum Desired {
    /// In this directory, which is there.
    Files(PathBuf),
    /// In this server.
    Server(Served),
}

impl Desired {
    /// Writes a manifest as editors and ConfigMap mounts do: whole, by a rename. In a server its objects become what it says.
    pub(crate) fn apply(&self, file: &str, text: &str) -> Result<()> {
        match self {
            Self::Files(folder) => {
                let (temporary, path) = (folder.join(format!(".{file}.new")), folder.join(file));
                let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path));
                written.with_context(|| format!("could not write {}", path.display()))
            }
            Self::Server(server) => server.apply(file, text),
        }
    }

    /// Removes a manifest.
    pub(crate) fn delete(&self, file: &str) -> Result<()> {
        match self {
            Self::Files(folder) => {
                fs::remove_file(folder.join(file)).with_context(|| format!("could not remove {file}"))
            }
            Self::Server(server) => server.delete(file),
        }
    }

    /// A manifest as it was written last.
    pub(crate) fn text(&self, file: &str) -> Option<String> {
        match self {
            Self::Files(folder) => fs::read_to_string(folder.join(file)).ok(),
            Self::Server(server) => server.text(file),
        }
    }

    /// The same for daemons.
    pub(crate) fn source(&self) -> Result<Source<'_>> {
        Ok(match self {
            Self::Files(folder) => Source::Manifests(folder),
            Self::Server(server) => Source::Kubeconfig(server.kubeconfig()?),
        })
    }
}
