//! How many bytes heads take on the wire, as HTTP/1.1 writes them; HTTP/2 compresses, and is counted the same so that figures of
//! the two compare.

use http::{HeaderMap, Method, StatusCode, Uri, header::HOST};

/// ` HTTP/1.1` and two line ends, one of them behind the last field.
const AROUND: usize = 9 + 2 + 2;

/// Request line and fields; HTTP/2's `:authority` counts as `Host`.
pub(super) fn request_bytes(method: &Method, uri: &Uri, headers: &HeaderMap) -> u64 {
    let target = uri.path_and_query().map_or(1, |target| target.as_str().len());
    let host = match uri.authority() {
        Some(authority) if !headers.contains_key(HOST) => "host: \r\n".len() + authority.as_str().len(),
        _ => 0,
    };
    (method.as_str().len() + 1 + target + AROUND + host + fields(headers)) as u64
}

/// Status line and fields.
pub(super) fn response_bytes(status: StatusCode, headers: &HeaderMap) -> u64 {
    let reason = status.canonical_reason().map_or(0, str::len);
    ("HTTP/1.1 200 ".len() + reason + 4 + fields(headers)) as u64
}

fn fields(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + 2 + value.len() + 2).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_as_they_are_written() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "a.example".parse().unwrap());
        let request = "GET /x?y HTTP/1.1\r\nhost: a.example\r\n\r\n";
        assert_eq!(request_bytes(&Method::GET, &"/x?y".parse().unwrap(), &headers), request.len() as u64);
        let same = request_bytes(&Method::GET, &"https://a.example/x?y".parse().unwrap(), &HeaderMap::new());
        assert_eq!(same, request.len() as u64, "HTTP/2");
        let response = "HTTP/1.1 404 Not Found\r\nhost: a.example\r\n\r\n";
        assert_eq!(response_bytes(StatusCode::NOT_FOUND, &headers), response.len() as u64);
    }
}
