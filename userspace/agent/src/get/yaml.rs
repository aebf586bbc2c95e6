//! Plain data as YAML. Only `sources` may name a YAML parser; writing the plain half of the language takes a page.

use serde_json::Value;

/// The value as a YAML document.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        plain => {
            out.push_str(&scalar(plain));
            out.push('\n');
        }
    }
    out
}

/// A mapping or sequence that is not empty, each entry on lines of its own.
fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (index, (key, value)) in map.iter().enumerate() {
                // The first key follows the dash of a sequence's entry, or begins the document.
                if index > 0 {
                    out.push_str(&indent);
                }
                out.push_str(&string(key));
                out.push(':');
                entry(value, depth, out);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(&indent);
                }
                out.push('-');
                match value {
                    nested if is_block(nested) => {
                        out.push(' ');
                        block(nested, depth + 1, out);
                    }
                    plain => {
                        out.push(' ');
                        out.push_str(&scalar(plain));
                        out.push('\n');
                    }
                }
            }
        }
        plain => out.push_str(&scalar(plain)),
    }
}

/// What follows a key's colon.
fn entry(value: &Value, depth: usize, out: &mut String) {
    if !is_block(value) {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
        return;
    }
    // A sequence stands as deep as its key, as kubectl writes it.
    let depth = if value.is_array() { depth } else { depth + 1 };
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
    block(value, depth, out);
}

fn is_block(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|list| !list.is_empty())
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        // Empty collections, numbers, booleans and null are the same in JSON.
        other => other.to_string(),
    }
}

/// Bare where no reader can take it for something else, else in JSON's quotes, which YAML shares.
fn string(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let lower = text.to_ascii_lowercase();
    let word = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"].contains(&lower.as_str());
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    // Addresses are bare as well: neither several dots nor a double colon within makes a number.
    let address = text.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv4());
    if address || starts && !word && text.bytes().all(plain) {
        return text.to_owned();
    }
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_data_is_written() {
        let value = json!({
            "kind": "List", "count": 1, "none": {}, "empty": [],
            "items": [{"a": "yes", "b": ["x", "10.0.0.1", "::1"]}, "-", [1]],
            "m": {"k: v": {"deep": true}},
        });
        let expected = "kind: List\ncount: 1\nnone: {}\nempty: []\nitems:\n- a: \"yes\"\n  b:\n  - x\n  - 10.0.0.1\n  \
                        - \"::1\"\n- \"-\"\n- - 1\nm:\n  \"k: v\":\n    deep: true\n";
        assert_eq!(text(&value), expected);
    }
}
