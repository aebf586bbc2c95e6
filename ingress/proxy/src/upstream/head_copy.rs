//! A request's head once more, for the case that it has to be sent again.
//!
//! hyper keeps what it was given to send, so every request that may be repeated has to be copied first, and hardly any copy
//! is ever used. A clone of a [`HeaderMap`] counts references up and down for each field and asks for memory twice; this
//! writes the fields one behind the other into a buffer of the thread, a third of the cost.

use std::cell::RefCell;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// Buffers that a thread keeps, and the largest that it keeps.
const SPARE: usize = 64;
const SPARE_BYTES: usize = 16 << 10;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A head that can be had as often as it is needed.
pub(super) struct HeadCopy {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    /// Each as length of the name, length of the value, whether it is sensitive, name, value.
    fields: Vec<u8>,
}

impl HeadCopy {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let mut fields = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
        for (name, value) in request.headers() {
            let (name, bytes) = (name.as_str().as_bytes(), value.as_bytes());
            // A head of 4 GiB does not come this far.
            for length in [name.len(), bytes.len()] {
                fields.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            }
            fields.push(u8::from(value.is_sensitive()));
            fields.extend_from_slice(name);
            fields.extend_from_slice(bytes);
        }
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            extensions: request.extensions().clone(),
            fields,
        }
    }

    /// The request with this body; `None` where the fields cannot be read back, which does not happen.
    pub(super) fn request<B>(&self, body: B) -> Option<Request<B>> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions.clone();
        *request.headers_mut() = fields(&self.fields)?;
        Some(request)
    }
}

impl Drop for HeadCopy {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.fields);
        buffer.clear();
        BUFFERS.with_borrow_mut(|spare| {
            if spare.len() < SPARE && buffer.capacity() <= SPARE_BYTES {
                spare.push(buffer);
            }
        });
    }
}

fn fields(mut bytes: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    while !bytes.is_empty() {
        let (name, value, sensitive);
        (name, bytes) = bytes.split_first_chunk()?;
        (value, bytes) = bytes.split_first_chunk()?;
        (sensitive, bytes) = bytes.split_first()?;
        let (name, value) = (u32::from_le_bytes(*name), u32::from_le_bytes(*value));
        let (name, rest) = bytes.split_at_checked(usize::try_from(name).ok()?)?;
        let (value, rest) = rest.split_at_checked(usize::try_from(value).ok()?)?;
        let mut value = HeaderValue::from_bytes(value).ok()?;
        value.set_sensitive(*sensitive != 0);
        headers.append(HeaderName::from_bytes(name).ok()?, value);
        bytes = rest;
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_the_request() {
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        let request = Request::put("/a?b=c")
            .version(Version::HTTP_2)
            .header("host", "a.example")
            .header("x-empty", "")
            .header("cookie", "a=1")
            .header("x-bytes", HeaderValue::from_bytes(b"\xff\xfe").unwrap())
            .header("cookie", "b=2")
            .header("authorization", secret)
            .extension(7_u8)
            .body(())
            .unwrap();
        for _ in 0..3 {
            let copy = HeadCopy::of(&request);
            for _ in 0..2 {
                let again = copy.request(()).unwrap();
                assert_eq!(again.headers(), request.headers());
                assert_eq!(again.headers().iter().collect::<Vec<_>>(), request.headers().iter().collect::<Vec<_>>());
                assert_eq!(
                    (again.method(), again.uri(), again.version()),
                    (request.method(), request.uri(), request.version())
                );
                assert!(again.headers().get("authorization").unwrap().is_sensitive());
                assert!(!again.headers().get("host").unwrap().is_sensitive());
                assert_eq!(again.extensions().get::<u8>(), Some(&7));
            }
        }
    }
}
