//! The users of one Secret, and the check of a password against them.
//!
//! A password that was right once is remembered as a keyed hash until the Secret changes, so that its slow hash is paid once
//! and not per request. Nothing is remembered of wrong ones.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::OnceLock,
};

use super::hash::Hash;

/// A password is not looked at beyond this: the hashes' cost grows with its length.
const MAX_PASSWORD: usize = 512;
/// Users of one Secret; the others are reported.
const MAX_USERS: usize = 10_000;

/// Names and hashed passwords.
pub struct Users {
    by_name: HashMap<Vec<u8>, User>,
    keys: (RandomState, RandomState),
}

struct User {
    hash: Hash,
    /// The keyed hash of the password that was found right.
    verified: OnceLock<(u64, u64)>,
}

/// What can be said of credentials without any cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are right.
    Right,
    /// They are wrong.
    Wrong,
    /// Only [`Users::verify`] can tell, which takes its time.
    Costly,
}

impl Users {
    /// Reads the lines of an htpasswd file, `name:hash` with an optional `:comment`. What is wrong with a line goes to
    /// `complain`, and takes away that user alone.
    pub(super) fn of_file(text: &[u8], mut complain: impl FnMut(String)) -> Self {
        let mut users = Self::default();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let mut parts = line.splitn(3, |byte| *byte == b':');
            match (parts.next(), parts.next()) {
                (Some(name), Some(hash)) if !name.is_empty() => users.add(name, hash, &mut complain),
                _ => complain(format!("line {} is not name:hash; it lets nobody in", index + 1)),
            }
        }
        users
    }

    /// Reads one user from each key.
    pub(super) fn of_map<'a>(
        entries: impl Iterator<Item = (&'a String, &'a Vec<u8>)>,
        mut complain: impl FnMut(String),
    ) -> Self {
        let mut users = Self::default();
        for (name, hash) in entries {
            users.add(name.as_bytes(), hash.trim_ascii(), &mut complain);
        }
        users
    }

    /// The first line of a name holds, as in nginx.
    fn add(&mut self, name: &[u8], hash: &[u8], complain: &mut impl FnMut(String)) {
        let shown = String::from_utf8_lossy(name);
        if self.by_name.contains_key(name) {
            return complain(format!("user {shown:?} is given twice, the first one holds"));
        }
        if self.by_name.len() == MAX_USERS {
            return complain(format!("user {shown:?} is one too many: {MAX_USERS} are read"));
        }
        match std::str::from_utf8(hash).map_err(|_| super::hash::HashError::Broken).and_then(Hash::parse) {
            Ok(hash) => drop(self.by_name.insert(name.to_vec(), User { hash, verified: OnceLock::new() })),
            Err(error) => complain(format!("the password of user {shown:?} {error}; that user cannot log in")),
        }
    }

    /// What can be said at once.
    #[must_use]
    pub fn glance(&self, name: &[u8], password: &[u8]) -> Verdict {
        let Some(user) = self.by_name.get(name).filter(|_| password.len() <= MAX_PASSWORD) else {
            return Verdict::Wrong;
        };
        if user.hash.is_cheap() {
            return if user.hash.verify(password) { Verdict::Right } else { Verdict::Wrong };
        }
        if user.verified.get() == Some(&self.keyed(password)) { Verdict::Right } else { Verdict::Costly }
    }

    /// Hashes the password, and remembers it when it is right.
    #[must_use]
    pub fn verify(&self, name: &[u8], password: &[u8]) -> bool {
        let Some(user) = self.by_name.get(name).filter(|_| password.len() <= MAX_PASSWORD) else { return false };
        let right = user.hash.verify(password);
        if right {
            let _first_one_stays = user.verified.set(self.keyed(password));
        }
        right
    }

    fn keyed(&self, password: &[u8]) -> (u64, u64) {
        (self.keys.0.hash_one(password), self.keys.1.hash_one(password))
    }
}

impl Default for Users {
    fn default() -> Self {
        Self { by_name: HashMap::new(), keys: (RandomState::new(), RandomState::new()) }
    }
}

/// Reads whatever bytes come as an htpasswd file, and asks it for a password; for fuzzing. Costly hashes are not paid.
#[must_use]
pub fn fuzz_htpasswd(bytes: &[u8]) -> usize {
    let users = Users::of_file(bytes, |_| {});
    users.by_name.keys().filter(|name| users.glance(name, b"secret") == Verdict::Right).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n\nalice:{PLAIN}secret:in the office\r\nbob:$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0\n\
        bob:{PLAIN}other\nnobody\n:x\ncarol:rqXexS6ZhobKA\n";

    #[test]
    fn lines_are_users_or_complaints() {
        let mut complaints = Vec::new();
        let users = Users::of_file(FILE.as_bytes(), |text| complaints.push(text));
        let starts =
            ["user \"bob\" is given twice", "line 6 is not", "line 7 is not", "the password of user \"carol\""];
        assert_eq!(complaints.len(), starts.len(), "{complaints:?}");
        for (complaint, start) in complaints.iter().zip(starts) {
            assert!(complaint.starts_with(start), "{complaint}");
        }
        for (name, password, verdict, right) in [
            ("alice", "secret", Verdict::Right, true),
            ("alice", "secret:in the office", Verdict::Wrong, false),
            ("bob", "secret", Verdict::Costly, true),
            ("bob", "secret", Verdict::Right, true),
            ("bob", "other", Verdict::Costly, false),
            ("bob", "other", Verdict::Costly, false),
            ("carol", "secret", Verdict::Wrong, false),
            ("dave", "secret", Verdict::Wrong, false),
            ("", "", Verdict::Wrong, false),
        ] {
            assert_eq!(users.glance(name.as_bytes(), password.as_bytes()), verdict, "{name} {password}");
            assert_eq!(users.verify(name.as_bytes(), password.as_bytes()), right, "{name} {password}");
        }
        assert_eq!(users.glance(b"bob", &[b'x'; MAX_PASSWORD + 1]), Verdict::Wrong);
    }

    #[test]
    fn a_map_has_a_user_in_each_key() {
        let data = [("alice".to_owned(), b"{PLAIN}secret\n".to_vec()), ("bob".to_owned(), b"\xff".to_vec())];
        let mut complaints = 0;
        let users = Users::of_map(data.iter().map(|(name, hash)| (name, hash)), |_| complaints += 1);
        assert_eq!(
            (users.glance(b"alice", b"secret"), users.glance(b"bob", b"\xff")),
            (Verdict::Right, Verdict::Wrong)
        );
        assert_eq!(complaints, 1);
    }

    #[test]
    fn fuzzed_files_are_read_to_their_end() {
        assert_eq!(fuzz_htpasswd(FILE.as_bytes()), 1);
        assert_eq!(fuzz_htpasswd(b"a:{PLAIN}secret\nb:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n\xff:\xff"), 2);
        for bytes in [&b""[..], b":", b"\n\n", b"a:$6$rounds=$$", b"a:$2y$", &[b':'; 4096]] {
            assert_eq!(fuzz_htpasswd(bytes), 0);
        }
    }
}
