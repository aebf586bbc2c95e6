//! The MD5 schemes of `crypt`: `$apr1$` of Apache's htpasswd, and `$1$` of Unix. They differ in the magic alone.
//!
//! No kept crate has it: the algorithm is Poul-Henning Kamp's of 1994, as Apache documents it
//! (<https://httpd.apache.org/docs/2.4/misc/password_encryptions.html>). It is here because htpasswd writes it by default, not
//! because it is good.

use md5::{Digest, Md5};

const ROUNDS: usize = 1000;
/// crypt's own order of base-64 digits.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Which bytes of the digest stand together, most significant first, in one group of four digits.
const GROUPS: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];

/// The 22 digits that a password hashes to. `magic` is `$apr1$` or `$1$`; a salt has at most 8 bytes.
pub(super) fn md5_crypt(password: &[u8], salt: &[u8], magic: &[u8]) -> Vec<u8> {
    let mut digest = first(password, salt, magic);
    for round in 0..ROUNDS {
        let mut hash = Md5::new();
        let (begin, end) = if round % 2 == 1 { (password, &digest[..]) } else { (&digest[..], password) };
        hash.update(begin);
        if round % 3 != 0 {
            hash.update(salt);
        }
        if round % 7 != 0 {
            hash.update(password);
        }
        hash.update(end);
        digest = hash.finalize().into();
    }
    encode(&digest)
}

fn first(password: &[u8], salt: &[u8], magic: &[u8]) -> [u8; 16] {
    let mut inner = Md5::new();
    for part in [password, salt, password] {
        inner.update(part);
    }
    let inner: [u8; 16] = inner.finalize().into();
    let mut hash = Md5::new();
    for part in [password, magic, salt] {
        hash.update(part);
    }
    for chunk in password.chunks(16) {
        hash.update(inner.get(..chunk.len()).unwrap_or_default());
    }
    let mut bits = password.len();
    while bits > 0 {
        hash.update(if bits & 1 == 1 { &[0][..] } else { password.get(..1).unwrap_or_default() });
        bits >>= 1;
    }
    hash.finalize().into()
}

fn encode(digest: &[u8; 16]) -> Vec<u8> {
    let byte = |place: usize| digest.get(place).copied().map_or(0, u32::from);
    let mut text = Vec::with_capacity(22);
    let mut push = |mut value: u32, digits: usize| {
        for _ in 0..digits {
            text.push(DIGITS.get(usize::try_from(value & 63).unwrap_or(0)).copied().unwrap_or(b'.'));
            value >>= 6;
        }
    };
    for [high, middle, low] in GROUPS {
        push(byte(high) << 16 | byte(middle) << 8 | byte(low), 4);
    }
    push(byte(11), 2);
    text
}
