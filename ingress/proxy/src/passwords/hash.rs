//! Hashed passwords as an htpasswd file holds them, in the forms that nginx takes on Linux.
//!
//! What a hash costs is bounded here: whoever writes a Secret may not decide how long a stranger's wrong password keeps a core.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha_crypt::{PasswordVerifier, ShaCrypt};
use sha1::{Digest, Sha1};

use super::md5_crypt::md5_crypt;

/// 2^14 rounds of bcrypt are about a second.
const MAX_BCRYPT_COST: u32 = 14;
/// About half a second.
const MAX_SHA_ROUNDS: u32 = 500_000;
const MAX_MD5_SALT: usize = 8;
const SHA1_BYTES: usize = 20;

/// One password, hashed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Hash {
    /// `{PLAIN}`: the password itself.
    Plain(Vec<u8>),
    /// `{SHA}` and `{SSHA}`: SHA-1 of password and salt.
    Sha1 { digest: Vec<u8>, salt: Vec<u8> },
    /// `$apr1$` and `$1$`.
    Md5 { magic: &'static str, salt: Vec<u8>, digits: Vec<u8> },
    /// `$5$` and `$6$`, whole.
    ShaCrypt(String),
    /// `$2a$`, `$2b$`, `$2y$`, whole.
    Bcrypt(String),
}

/// Why a hash is of no use; completes "the password of user …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HashError {
    Unknown,
    Broken,
    Costly,
}

impl std::fmt::Display for HashError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "is in no known form (apr1, SHA, SSHA, bcrypt, SHA-crypt, PLAIN)",
            Self::Broken => "is not what its form should look like",
            Self::Costly => "asks for more rounds than are spent on a request",
        })
    }
}

impl Hash {
    pub(super) fn parse(text: &str) -> Result<Self, HashError> {
        if let Some(password) = text.strip_prefix("{PLAIN}") {
            return Ok(Self::Plain(password.as_bytes().to_vec()));
        }
        if let Some(rest) = text.strip_prefix("{SHA}").or_else(|| text.strip_prefix("{SSHA}")) {
            return sha1(rest, text.starts_with("{SSHA}"));
        }
        for magic in ["$apr1$", "$1$"] {
            if let Some(rest) = text.strip_prefix(magic) {
                return md5(magic, rest);
            }
        }
        if text.starts_with("$5$") || text.starts_with("$6$") {
            return sha_crypt(text);
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            return bcrypt(text);
        }
        Err(HashError::Unknown)
    }

    /// Whether a check takes microseconds; the others belong on a thread of their own.
    pub(super) fn is_cheap(&self) -> bool {
        matches!(self, Self::Plain(_) | Self::Sha1 { .. })
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Plain(expected) => same(expected, password),
            Self::Sha1 { digest, salt } => {
                let mut hash = Sha1::new();
                hash.update(password);
                hash.update(salt);
                same(digest, &hash.finalize())
            }
            Self::Md5 { magic, salt, digits } => same(digits, &md5_crypt(password, salt, magic.as_bytes())),
            Self::ShaCrypt(text) => ShaCrypt::SHA512.verify_password(password, text.as_str()).is_ok(),
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
        }
    }
}

fn sha1(rest: &str, salted: bool) -> Result<Hash, HashError> {
    let mut digest = STANDARD.decode(rest).map_err(|_| HashError::Broken)?;
    if digest.len() < SHA1_BYTES || (!salted && digest.len() > SHA1_BYTES) {
        return Err(HashError::Broken);
    }
    let salt = digest.split_off(SHA1_BYTES);
    Ok(Hash::Sha1 { digest, salt })
}

fn md5(magic: &'static str, rest: &str) -> Result<Hash, HashError> {
    let (salt, digits) = rest.split_once('$').ok_or(HashError::Broken)?;
    if salt.len() > MAX_MD5_SALT || digits.len() != 22 {
        return Err(HashError::Broken);
    }
    Ok(Hash::Md5 { magic, salt: salt.as_bytes().to_vec(), digits: digits.as_bytes().to_vec() })
}

fn sha_crypt(text: &str) -> Result<Hash, HashError> {
    let digits = if text.starts_with("$5$") { 43 } else { 86 };
    let rest = text.get(3..).unwrap_or_default();
    let (rounds, rest) = match rest.strip_prefix("rounds=").and_then(|rest| rest.split_once('$')) {
        Some((rounds, rest)) => (rounds.parse().map_err(|_| HashError::Broken)?, rest),
        None => (5_000, rest),
    };
    let (salt, hash) = rest.split_once('$').ok_or(HashError::Broken)?;
    if rounds > MAX_SHA_ROUNDS {
        return Err(HashError::Costly);
    }
    if salt.len() > 16 || hash.len() != digits {
        return Err(HashError::Broken);
    }
    Ok(Hash::ShaCrypt(text.to_owned()))
}

fn bcrypt(text: &str) -> Result<Hash, HashError> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| HashError::Broken)?;
    if parts.get_cost() > MAX_BCRYPT_COST {
        return Err(HashError::Costly);
    }
    Ok(Hash::Bcrypt(text.to_owned()))
}

/// Compares without telling by its time how much was right.
fn same(expected: &[u8], given: &[u8]) -> bool {
    let differences = expected.iter().zip(given).fold(0, |all, (left, right)| all | (left ^ right));
    std::hint::black_box(differences) == 0 && expected.len() == given.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of `secret` by openssl passwd and htpasswd.
    #[test]
    fn passwords_are_known_by_their_hashes() {
        for text in [
            "$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0",
            "$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
            "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
            "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
            "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
            "{PLAIN}secret",
        ] {
            let hash = Hash::parse(text).unwrap_or_else(|error| panic!("{text} {error}"));
            assert!(hash.verify(b"secret"), "{text}");
            assert!(!hash.verify(b"Secret") && !hash.verify(b"") && !hash.verify(b"secret1"), "{text}");
        }
        for prefix in ["2a", "2b", "2y"] {
            let made = bcrypt::hash_with_salt("secret", 4, [7; 16]).expect("a hash");
            let hash = Hash::parse(&made.to_string().replace("$2b$", &format!("${prefix}$"))).expect("known");
            assert!(hash.verify(b"secret") && !hash.verify(b"other"), "{prefix}");
        }
        let salted = [&Sha1::digest(b"secretsalt")[..], b"salt"].concat();
        let hash = Hash::parse(&format!("{{SSHA}}{}", STANDARD.encode(salted))).expect("known");
        assert!(hash.verify(b"secret") && !hash.verify(b"secre"));
    }

    #[test]
    fn a_long_password_is_hashed_as_apache_does() {
        // openssl passwd -apr1 -salt ab, of 33 bytes: more than two digests.
        let hash = Hash::parse("$apr1$ab$49IF7t9zqvMNTTcW7KAe0.").expect("known");
        assert!(hash.verify(b"0123456789abcdef0123456789abcdefX"));
    }

    #[test]
    fn hashes_without_a_meaning_are_told() {
        for (text, error) in [
            ("", HashError::Unknown),
            ("secret", HashError::Unknown),
            ("rqXexS6ZhobKA", HashError::Unknown),
            ("$2x$04$abc", HashError::Unknown),
            ("{SHA}", HashError::Broken),
            ("{SHA}****", HashError::Broken),
            ("$apr1$salt", HashError::Broken),
            ("$apr1$saltsaltsalt$LrttParrLPdxvgutaSXWJ0", HashError::Broken),
            ("$6$rounds=x$s$h", HashError::Broken),
            ("$6$salt$short", HashError::Broken),
            ("$5$rounds=900000000$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA", HashError::Costly),
            ("$2y$04$", HashError::Broken),
            ("$2y$31$L6Bc/AlTQHyd9liGgGEZyOFLPHNgyxeEPfgYfBCVxJ7JIlwxyVU3u", HashError::Costly),
        ] {
            assert_eq!(Hash::parse(text).err(), Some(error), "{text}");
        }
    }
}
