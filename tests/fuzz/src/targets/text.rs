//! Text that comes from requests and annotations: paths and hosts, templates with nginx's variables.

use roadstead_routes::{fuzz_template, normalise, request_host};

use super::{Target, owned, way};

/// Normalising paths and hosts.
pub(super) const PATH: Target = Target {
    name: "path",
    what: "request paths and hosts, normalised for matching",
    seeds: || {
        owned(&[b"/", b"/a/b/../c?d=e", b"/%61%2f%2e%2e/x", b"//a//./b/", b"a.example:80", b"[::1]:80", b"A.Example."])
    },
    words: &[b"/", b"//", b"/.", b"/..", b"/../", b"%2e", b"%2f", b"%00", b"%25", b"%", b".", b":80", b"[", b"]"],
    longest: 500,
    run: path,
};

/// Templates of annotations.
pub(super) const TEMPLATE: Target = Target {
    name: "template",
    what: "text of annotations with nginx's variables",
    seeds: || owned(&[b"plain", b"https://$host$request_uri", b"${scheme}://${http_x_forwarded_for}$1", b"$", b"${"]),
    words: &[b"$", b"${", b"}", b"$1", b"$host", b"$http_", b"$arg_x", b"$cookie_y", b"\r\n", b"\\"],
    longest: 500,
    run: |bytes| {
        let rendered = fuzz_template(&String::from_utf8_lossy(bytes));
        if let Some(rendered) = &rendered {
            let breaks = rendered.iter().any(|byte| matches!(byte, 0..0x20 | 0x7f) && *byte != b'\t');
            assert!(!breaks, "what is rendered breaks a header field: {}", rendered.escape_ascii());
        }
        way(rendered.map(|text| text.len().min(256)))
    },
};

fn path(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let host = request_host(&text);
    assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase()), "{host}");
    let normal = match normalise(&text) {
        Ok(normal) => normal,
        Err(bad) => return way(bad.to_string()),
    };
    assert_eq!(normal.first(), Some(&b'/'));
    // The head checks keep a raw NUL away; a written one must not come out of an escape.
    assert!(!normal.contains(&0) || text.contains('\0'));
    for element in normal.split(|byte| *byte == b'/').skip(1).take_while(|element| !element.is_empty()) {
        assert!(!matches!(element, b"." | b".."), "{}", normal.escape_ascii());
    }
    assert!(!normal.windows(2).any(|pair| pair == b"//"), "{}", normal.escape_ascii());
    // Written with every byte escaped it means the same.
    let escaped: String =
        normal.iter().map(|byte| if *byte == b'/' { "/".to_owned() } else { format!("%{byte:02X}") }).collect();
    assert!(text.contains('\0') || normalise(&escaped).as_deref() == Ok(&*normal), "{escaped}");
    way((normal.len().min(32), normal.iter().filter(|byte| **byte == b'/').count().min(8)))
}
