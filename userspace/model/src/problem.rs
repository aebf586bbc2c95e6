//! What is wrong with the configuration, and where: one form for `check`, logs, metrics and status.

use std::{fmt, path::PathBuf};

use crate::ObjectName;

/// One finding about the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the object is left out (or kept in its last good version), or only told about.
    pub severity: Severity,
    /// File and line, where the source is a file.
    pub place: Option<Place>,
    /// The object, where it could be named.
    pub object: Option<ObjectRef>,
    /// The field's path, such as `spec.ports[0].port`.
    pub field: Option<String>,
    /// What is wrong, lower case, without a full stop.
    pub reason: String,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The object serves; a part of it is not honoured.
    Warning,
    /// The object does not serve in this version.
    Error,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// As given on the command line, joined with the file's name.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

/// Kind and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// `kind`, such as `Service`.
    pub kind: String,
    /// Namespace and name; the namespace is empty for cluster-wide objects.
    pub name: ObjectName,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.namespace.is_empty() {
            return write!(f, "{} {}", self.kind, self.name.name);
        }
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl fmt::Display for Problem {
    /// `file:line: error: Service default/web: spec.ports[0].port: reason`, leaving out what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}: ", place.file.display(), place.line)?;
        }
        write!(f, "{}: ", self.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.reason)
    }
}
