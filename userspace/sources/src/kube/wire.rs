//! What comes over the wire: lines of a watch, pages of a list, and of each object a tree without what nobody reads.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use serde_yaml::Value;

use super::failure::{Failure, Refusal};
use crate::{document::Document, object::Kind, parse::parse_object};

/// Largest object, in bytes: ten times what etcd takes by default.
const LINE: usize = 16 << 20;
/// Largest page of a list, in bytes.
const PAGE: usize = 256 << 20;
/// Of the body of a refusal that many bytes are read.
const REFUSAL: usize = 64 << 10;

/// Ends the first part of a streaming list (KEP-3157).
const LISTED: &str = "k8s.io/initial-events-end";
/// The whole object once more, for `kubectl apply`.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One line of a watch.
#[derive(Debug)]
pub(crate) enum Line {
    /// Added or modified.
    Put(Item),
    Gone(Item),
    /// Nothing happened up to this version.
    Bookmark {
        version: String,
        /// All that was there at the beginning has come.
        is_listed: bool,
    },
}

/// One object.
#[derive(Debug)]
pub(crate) struct Item {
    /// Empty for cluster-wide kinds.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) uid: String,
    pub(crate) tree: Value,
}

#[derive(Deserialize)]
struct WireLine {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) version: String,
    /// Asks for the next page; empty on the last one.
    pub(crate) token: String,
    pub(crate) items: Vec<Item>,
}

#[derive(Deserialize)]
struct WirePage {
    metadata: PageMetadata,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct PageMetadata {
    resource_version: String,
    r#continue: String,
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no event, or the server's word that the watch is over.
    pub(crate) fn read(line: &[u8]) -> Result<Self, Failure> {
        let WireLine { kind, object } = serde_json::from_slice(line).map_err(Failure::Garbage)?;
        match &*kind {
            "ADDED" | "MODIFIED" => Item::read(object).map(Self::Put),
            "DELETED" => Item::read(object).map(Self::Gone),
            "BOOKMARK" => {
                let version = text(&object, &["metadata", "resourceVersion"]);
                let is_listed = text(&object, &["metadata", "annotations", LISTED]) == Some("true");
                Ok(Self::Bookmark { version: version.ok_or(Failure::NoVersion)?.to_owned(), is_listed })
            }
            "ERROR" => {
                let refusal = Refusal::deserialize(&object).unwrap_or_default();
                Err(Failure::Refused(refusal))
            }
            other => Err(garbage(format!("{other:?} is no event of a watch"))),
        }
    }
}

impl Page {
    /// Reads a list.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Failure> {
        let WirePage { metadata, items } = serde_json::from_slice(body).map_err(Failure::Garbage)?;
        if metadata.resource_version.is_empty() {
            return Err(Failure::NoVersion);
        }
        let items = items.unwrap_or_default().into_iter().map(Item::read).collect::<Result<_, _>>()?;
        Ok(Self { version: metadata.resource_version, token: metadata.r#continue, items })
    }
}

impl Item {
    /// Takes an object apart.
    ///
    /// # Errors
    /// It has no name.
    pub(crate) fn read(mut tree: Value) -> Result<Self, Failure> {
        strip(&mut tree);
        let field = |name: &str| text(&tree, &["metadata", name]).unwrap_or_default().to_owned();
        let (namespace, name, version) = (field("namespace"), field("name"), field("resourceVersion"));
        let uid = field("uid");
        if name.is_empty() {
            return Err(garbage("an object without metadata.name".to_owned()));
        }
        Ok(Self { namespace, name, version, uid, tree })
    }
}

/// Takes away what nobody reads. Kind and version go too: metadata alone comes under another kind, items of a list under none.
fn strip(tree: &mut Value) {
    let Value::Mapping(fields) = tree else { return };
    fields.remove("kind");
    fields.remove("apiVersion");
    let Some(Value::Mapping(metadata)) = fields.get_mut("metadata") else { return };
    metadata.remove("managedFields");
    metadata.remove("ownerReferences");
    metadata.remove("finalizers");
    if let Some(Value::Mapping(annotations)) = metadata.get_mut("annotations") {
        annotations.remove(LAST_APPLIED);
    }
}

fn text<'a>(tree: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(tree, |tree, key| tree.get(*key))?.as_str()
}

fn garbage(reason: String) -> Failure {
    Failure::Garbage(serde_json::Error::io(io::Error::other(reason)))
}

/// The lines of a body as they come.
pub(crate) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Up to here the buffer holds no end of a line.
    searched: usize,
}

impl Lines {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line, `None` where the server has ended the watch in order.
    ///
    /// # Errors
    /// The connection broke, nothing came for as long as that, or a line is longer than any object.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE {
                return Err(Failure::TooLarge(LINE));
            }
            match frame(&mut self.body, patience).await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                // What is left of a line was cut off with the connection.
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(Failure::unreachable("the connection ended inside of an event")),
            }
        }
    }
}

/// A page's body as a whole.
pub(crate) async fn whole(mut body: Body, patience: Duration) -> Result<Vec<u8>, Failure> {
    let mut whole = Vec::new();
    while let Some(data) = frame(&mut body, patience).await? {
        if whole.len() + data.len() > PAGE {
            return Err(Failure::TooLarge(PAGE));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// The beginning of a refusal's body; what cannot be read of it is left out.
pub(crate) async fn beginning(mut body: Body, patience: Duration) -> Vec<u8> {
    let mut beginning = Vec::new();
    while let Ok(Some(data)) = frame(&mut body, patience).await {
        beginning.extend_from_slice(data.get(..data.len().min(REFUSAL - beginning.len())).unwrap_or_default());
        if beginning.len() == REFUSAL {
            break;
        }
    }
    beginning
}

async fn frame(body: &mut Body, patience: Duration) -> Result<Option<Bytes>, Failure> {
    loop {
        let next = tokio::time::timeout(patience, body.frame()).await.map_err(|_| Failure::Silent(patience))?;
        match next {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => return Err(Failure::unreachable(error)),
        }
    }
}

/// Reads arbitrary bytes as the lines of a watch and as a page, and what is in them as objects of every kind: the entry of the
/// fuzz target. How much of it was read.
#[doc(hidden)]
pub fn fuzz_wire(bytes: &[u8]) -> usize {
    let nowhere = Arc::new(Document::nowhere());
    let kinds = ["Service", "EndpointSlice", "Node", "Namespace", "Ingress", "Secret", "ConfigMap", "IPAddressPool"];
    let convert = |item: &Item| {
        let kinds = kinds.iter().filter_map(|kind| Kind::named(kind));
        kinds.map(|(kind, _)| parse_object(kind, &item.tree, &nowhere).objects.len()).sum::<usize>()
    };
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| Line::read(line).ok());
    let read = lines.map(|line| match line {
        Line::Put(item) | Line::Gone(item) => 1 + convert(&item),
        Line::Bookmark { .. } => 1,
    });
    let paged = Page::read(bytes).map_or(0, |page| page.items.iter().map(convert).sum());
    read.sum::<usize>() + paged
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
