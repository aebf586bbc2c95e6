//! The environment of a container: literal values, the downward API, ConfigMaps and Secrets, and `$(NAME)` in what follows.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Shared;
use super::spec::{Pod, list};
use crate::cluster::{API_SERVICE, refused};

/// Where pods find the API server by default: its Service.
const API: [(&str, &str); 2] = [("KUBERNETES_SERVICE_HOST", API_SERVICE), ("KUBERNETES_SERVICE_PORT", "443")];

/// What runtimes give to a container whose image says nothing else.
const PATH: (&str, &str) = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");

/// All variables of a container.
pub(super) async fn variables(shared: &Shared, pod: &Pod, container: &Value) -> Result<BTreeMap<String, String>> {
    let mut all: BTreeMap<String, String> =
        API.iter().chain([&PATH]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.insert("HOSTNAME".to_owned(), shared.node.name().to_owned());
    for from in list(container, "envFrom") {
        let prefix = from.get("prefix").and_then(Value::as_str).unwrap_or_default();
        for (kind, field) in [("configmaps", "configMapRef"), ("secrets", "secretRef")] {
            let Some(reference) = from.get(field) else { continue };
            for (name, value) in data(shared, pod, kind, reference).await?.unwrap_or_default() {
                all.insert(format!("{prefix}{name}"), String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    for variable in list(container, "env") {
        let name = variable.get("name").and_then(Value::as_str).context("a variable without a name")?;
        let value = match variable.get("valueFrom") {
            None => Some(expand(variable.get("value").and_then(Value::as_str).unwrap_or_default(), &all)),
            Some(from) => referred(shared, pod, from).await.with_context(|| format!("variable {name}"))?,
        };
        all.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(all)
}

async fn referred(shared: &Shared, pod: &Pod, from: &Value) -> Result<Option<String>> {
    if let Some(field) = from.pointer("/fieldRef/fieldPath").and_then(Value::as_str) {
        return downward(shared, pod, field).map(Some);
    }
    for (kind, field) in [("configmaps", "configMapKeyRef"), ("secrets", "secretKeyRef")] {
        let Some(reference) = from.get(field) else { continue };
        let key = reference.get("key").and_then(Value::as_str).unwrap_or_default();
        let value = data(shared, pod, kind, reference).await?.and_then(|mut data| data.remove(key));
        return Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()));
    }
    bail!("the lab's kubelet does not know {from}")
}

/// A field of the pod.
pub(super) fn downward(shared: &Shared, pod: &Pod, field: &str) -> Result<String> {
    Ok(match field {
        "status.podIP" | "status.podIPs" if !pod.is_on_the_nodes_network() => {
            bail!("the lab's kubelet tells no pod's own address")
        }
        "status.podIP" | "status.hostIP" => shared.node.host().v4().to_string(),
        "status.podIPs" | "status.hostIPs" => format!("{},{}", shared.node.host().v4(), shared.node.host().v6()),
        "spec.nodeName" => shared.node.name().to_owned(),
        "metadata.name" | "metadata.namespace" | "metadata.uid" | "spec.serviceAccountName" => {
            pod.text(&format!("/{}", field.replace('.', "/"))).to_owned()
        }
        _ => bail!("the lab's kubelet does not know {field}"),
    })
}

/// The entries of a ConfigMap or Secret that a pod names; `None` where it is not there and need not be.
pub(super) async fn data(
    shared: &Shared,
    pod: &Pod,
    kind: &str,
    reference: &Value,
) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let named = reference.get("name").or_else(|| reference.get("secretName")).and_then(Value::as_str);
    let name = named.context("a reference without a name")?;
    let object = match shared.api.get(&format!("/api/v1/namespaces/{}/{kind}/{name}", pod.namespace())).await {
        Err(error) if refused(&error) == Some(404) && reference.get("optional") == Some(&true.into()) => {
            return Ok(None);
        }
        object => object?,
    };
    let entries = object.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut data = BTreeMap::new();
    for (key, value) in entries {
        let text = value.as_str().unwrap_or_default();
        let bytes = if kind == "secrets" { base64(text).context("a Secret that is no base64")? } else { text.into() };
        data.insert(key, bytes);
    }
    Ok(Some(data))
}

/// Puts variables into a text: `$(NAME)`, and `$$` for a dollar. What is not known stays as it is.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        done += before;
        let named = after.strip_prefix('(').and_then(|named| named.split_once(')'));
        rest = match (after.strip_prefix('$'), named) {
            (Some(after), _) => {
                done.push('$');
                after
            }
            (None, Some((name, after))) if variables.contains_key(name) => {
                done += variables.get(name).map(String::as_str).unwrap_or_default();
                after
            }
            (None, _) => {
                done.push('$');
                after
            }
        };
    }
    done + rest
}

/// RFC 4648, section 4, with its padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.as_bytes().chunks(4) {
        let digits: Vec<u32> =
            group.iter().filter(|byte| **byte != b'=').map(|byte| digit(*byte)).collect::<Option<_>>()?;
        if group.len() != 4 || digits.len() < 2 {
            return None;
        }
        let bits = digits.iter().enumerate().fold(0, |bits, (at, digit)| bits | digit << (18 - 6 * at));
        bytes.extend(bits.to_be_bytes().iter().skip(1).take(digits.len() - 1));
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        let cases = [
            ("--x=$(A)", "--x=1"),
            ("$(A)$(B)$", "1$(A)$"),
            ("$$(A) $(NONE) $A", "$(A) $(NONE) $A"),
            ("plain", "plain"),
            ("$(A", "$(A"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn secrets_are_decoded() {
        let cases = [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Zm9vYg==", Some("foob")),
        ];
        for (text, expected) in cases {
            assert_eq!(base64(text), expected.map(|text| text.as_bytes().to_vec()), "{text}");
        }
        for broken in ["Zg", "Z===", "Zm9-", "Z"] {
            assert_eq!(base64(broken), None, "{broken}");
        }
    }
}
