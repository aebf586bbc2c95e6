//! Basic authentication (RFC 7617) against the users of a Secret.

use std::{sync::Arc, time::Duration};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use roadstead_routes::BasicAuth;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    Visit,
    who::{Refusal, refuse},
};
use crate::passwords::{Users, Verdict};

/// Passwords that are hashed at once: one core's worth, so that strangers with wrong ones leave the other cores to requests.
static HASHING: Semaphore = Semaphore::const_new(1);
/// How long credentials wait for their turn to be hashed.
const HASHING_WAIT: Duration = Duration::from_secs(5);

/// Padding may be missing, as in nginx.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether the request's credentials are those of a user.
///
/// # Errors
/// The answer that sends it away: 401 with a challenge, or 503 where the users cannot be known.
pub(super) async fn admit_user(auth: &BasicAuth, visit: &mut Visit<'_>, headers: &HeaderMap) -> Result<(), Refusal> {
    let users = visit.live.policy.passwords.load().users(&auth.secret).cloned();
    let Some(users) = users else { return Err(refuse(StatusCode::SERVICE_UNAVAILABLE)) };
    let given = headers.get(AUTHORIZATION).and_then(|value| credentials(value.as_bytes()));
    let Some((name, password)) = given else { return Err(challenge(auth)) };
    let user = String::from_utf8_lossy(&name).into_owned();
    let right = match users.glance(&name, &password) {
        Verdict::Right => true,
        Verdict::Wrong => false,
        Verdict::Costly => {
            hashed(users, name, password).await.ok_or_else(|| refuse(StatusCode::SERVICE_UNAVAILABLE))?
        }
    };
    visit.record.user = Some(user.into());
    if right { Ok(()) } else { Err(challenge(auth)) }
}

/// Hashes away from the threads that serve; `None` when too many wait for the same.
async fn hashed(users: Arc<Users>, name: Vec<u8>, password: Vec<u8>) -> Option<bool> {
    let turn = timeout(HASHING_WAIT, HASHING.acquire()).await.ok()?.ok()?;
    if users.glance(&name, &password) == Verdict::Right {
        return Some(true);
    }
    let right = tokio::task::spawn_blocking(move || {
        // The turn ends with the work, even when the client does not wait for it.
        let _turn = turn;
        users.verify(&name, &password)
    });
    right.await.ok()
}

fn challenge(auth: &BasicAuth) -> Refusal {
    let mut response = refuse(StatusCode::UNAUTHORIZED);
    if let Ok(value) = HeaderValue::from_str(&format!("Basic realm=\"{}\"", auth.realm)) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

/// Name and password of a value of Authorization.
fn credentials(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(b"basic".len())?;
    if !scheme.eq_ignore_ascii_case(b"basic") || !rest.starts_with(b" ") {
        return None;
    }
    let mut name = BASE64.decode(rest.trim_ascii()).ok()?;
    let colon = name.iter().position(|byte| *byte == b':')?;
    let password = name.split_off(colon);
    Some((name, password.get(1..)?.to_vec()))
}

/// Reads whatever bytes come as a value of Authorization; for fuzzing. The lengths of name and password.
#[must_use]
pub fn fuzz_authorization(bytes: &[u8]) -> Option<(usize, usize)> {
    credentials(bytes).map(|(name, password)| (name.len(), password.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_or_refused() {
        for (value, expected) in [
            ("Basic YWxpY2U6c2VjcmV0", Some(("alice", "secret"))),
            ("basic  YWxpY2U6c2VjcmV0 ", Some(("alice", "secret"))),
            ("Basic YTpiOmM=", Some(("a", "b:c"))),
            ("Basic YTpiOmM", Some(("a", "b:c"))),
            ("Basic Og==", Some(("", ""))),
            ("Basic YWxpY2U=", None),
            ("Basic", None),
            ("Basic ", None),
            ("BasicYWxpY2U6c2VjcmV0", None),
            ("Bearer YWxpY2U6c2VjcmV0", None),
            ("Basic YWxp Y2U6c2VjcmV0", None),
            ("Basic \u{e9}", None),
        ] {
            let expected = expected.map(|(name, password)| (name.as_bytes().to_vec(), password.as_bytes().to_vec()));
            assert_eq!(credentials(value.as_bytes()), expected, "{value}");
            assert_eq!(fuzz_authorization(value.as_bytes()).is_some(), expected.is_some());
        }
    }
}
