//! Annotations as users write them: whatever they hold, nothing that a client or an endpoint gets to see breaks a line.

use roadstead_routes::{fuzz_annotations, fuzz_rewrite};

use super::{Target, owned, way};

/// A path, annotations a line each, a request's target and a value of its headers, between line feeds of their own.
pub(super) const ANNOTATIONS: Target = Target {
    name: "annotations",
    what: "annotations of an Ingress of class nginx, compiled, and a request that meets them",
    seeds: || {
        owned(&[
            b"/\0use-regex: true\nrewrite-target: /x/$1\0/a/b?c\0value",
            b"/(.*)\0permanent-redirect: https://b.example/$1$http_x\0/a%0d%0ab\0/a\r\nSet-Cookie: a=b",
            b"/\0temporal-redirect: https://b.example\ntemporal-redirect-code: 307\0/\0x",
            b"/\0force-ssl-redirect: true\nssl-redirect: no\0/x?y=%00\0x",
            b"/app\0app-root: /app\nfrom-to-www-redirect: true\0/\0x",
            b"/\0proxy-body-size: 8m\nproxy-read-timeout: 60\nwhitelist-source-range: 10.0.0.0/8,::1\0/\0x",
            b"/\0affinity: cookie\nsession-cookie-name: a\nsession-cookie-max-age: 60\0/\0x",
            b"/\0enable-cors: true\ncors-allow-origin: https://*.b.example, *\0/\0x",
            b"/\0canary: true\ncanary-weight: 20\ncanary-by-header: x\0/\0x",
            b"/\0limit-rps: 5\nlimit-burst-multiplier: 3\nlimit-whitelist: 10.0.0.0/8\0/\0x",
            b"/\0auth-url: http://auth.example/check\nauth-signin: https://b.example/?rd=$escaped_request_uri\0/\0x",
            b"/\0configuration-snippet: more_set_headers \"X-A: b\";\0/\0x",
        ])
    },
    words: &[
        b"\0",
        b"\n",
        b"\r\n",
        b": ",
        b"true",
        b"false",
        b"$1",
        b"$host",
        b"${request_uri}",
        b"(.*)",
        b"(a|b)*",
        b"[^/]+",
        b"\\d{1,9}",
        b"https://",
        b"-1",
        b"0",
        b"99999999999",
        b"1k",
        b"8m",
        b"10.0.0.0/33",
        b"*",
        b"%0d%0a",
        b"\x7f",
        b"\xc3\xa9",
    ],
    longest: 2_000,
    run: annotations,
};

/// A pattern, a target and a path.
pub(super) const REWRITE: Target = Target {
    name: "rewrite",
    what: "rewrite rules: a pattern, a target with captures, a path",
    seeds: || {
        owned(&[
            b"/old(/|$)(.*)\0/new/$2\0/old/a/b",
            b"/(a+)+b\0/$1\0/aaaaaaaaaaaaaaaaaaaaaaaaaaaaac",
            b"/[a-z]{1,9}/(\\d+)\0$1\0/abc/123",
            b"/(?i)x\0/y\0/X",
        ])
    },
    words: &[
        b"\0",
        b"(",
        b")",
        b"(.*)",
        b"*",
        b"+",
        b"{1,1000}",
        b"[",
        b"]",
        b"\\",
        b"$",
        b"$1",
        b"$9",
        b"(?:",
        b"(?=a)",
        b"\\1",
        b"^",
        b"/",
    ],
    longest: 1_000,
    run: rewrite,
};

/// The pieces between NUL bytes.
fn pieces(bytes: &[u8]) -> [&[u8]; 4] {
    let mut pieces = bytes.splitn(4, |byte| *byte == 0);
    [(); 4].map(|()| pieces.next().unwrap_or_default())
}

fn annotations(bytes: &[u8]) -> u64 {
    let [path, annotations, target, value] = pieces(bytes);
    let text = |bytes| String::from_utf8_lossy(bytes);
    let shown = fuzz_annotations(&text(path), &text(annotations), &text(target), value);
    for line in &shown {
        assert!(!line.bytes().any(|byte| byte < 0x20 || byte == 0x7f), "{line:?} breaks a line");
    }
    way((
        shown.len(),
        shown.iter().map(|line| line.len().min(64) / 4).collect::<Vec<_>>(),
        annotations.len().min(512) / 16,
    ))
}

fn rewrite(bytes: &[u8]) -> u64 {
    let [pattern, target, path, _] = pieces(bytes);
    let rewritten = fuzz_rewrite(&String::from_utf8_lossy(pattern), &String::from_utf8_lossy(target), path);
    if let Some(rewritten) = &rewritten {
        let breaks = rewritten.iter().any(|byte| *byte < 0x20 && *byte != b'\t' || *byte == 0x7f);
        assert!(!breaks, "{} breaks a line", rewritten.escape_ascii());
    }
    way((rewritten.map(|text| text.len().min(64)), pattern.len().min(64) / 4))
}
