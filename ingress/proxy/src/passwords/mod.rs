//! Users and passwords for Basic authentication: from Secrets to what a request's credentials are held against.
//!
//! On the configuration's way this stands beside `certificates`: routes name a Secret, the store reads it once for as long as it
//! stays the same, and a change takes effect without a new table. `hash` and `md5_crypt` know the forms of htpasswd.

mod hash;
mod md5_crypt;
mod users;

use std::{collections::HashMap, sync::Arc};

use roadstead_model::{ObjectName, ObjectRef, Problem, Secret, Severity, Snapshot};
use roadstead_routes::{PasswordSecret, SecretForm};

pub use users::{Users, Verdict, fuzz_htpasswd};

/// The key of an htpasswd file in its Secret.
const FILE_KEY: &str = "auth";

/// The users of one moment, by the Secret that holds them.
#[derive(Default)]
pub struct Passwords(HashMap<PasswordSecret, Arc<Users>>);

impl Passwords {
    /// The users of a Secret; `None` where it is missing or was never any good: then nobody may be let in.
    #[must_use]
    pub fn users(&self, secret: &PasswordSecret) -> Option<&Arc<Users>> {
        self.0.get(secret)
    }
}

/// Makes [`Passwords`] of snapshots; remembers each Secret's last good users.
#[derive(Default)]
pub struct PasswordStore {
    known: HashMap<PasswordSecret, Known>,
}

struct Known {
    secret: Arc<Secret>,
    good: Option<Arc<Users>>,
    complaints: Vec<String>,
}

impl PasswordStore {
    /// The users that routes ask for, each with an Ingress to name. A Secret that is missing is a problem of the Ingress; one that
    /// lost its key keeps its last good users.
    pub fn update<'t>(
        &mut self,
        asked: impl Iterator<Item = (&'t ObjectName, &'t PasswordSecret)>,
        snapshot: &Snapshot,
        problems: &mut Vec<Problem>,
    ) -> Passwords {
        let mut passwords = Passwords::default();
        let mut before = std::mem::take(&mut self.known);
        for (ingress, wanted) in asked {
            if passwords.0.contains_key(wanted) {
                continue;
            }
            let Some(secret) = snapshot.secrets.get(&wanted.name) else {
                let reason = format!("secret {} does not exist; requests get 503", wanted.name);
                let field = Some("metadata.annotations[nginx.ingress.kubernetes.io/auth-secret]");
                problems.push(problem("Ingress", ingress, field, reason));
                continue;
            };
            let known = match self.known.remove(wanted).or_else(|| before.remove(wanted)) {
                Some(known) if Arc::ptr_eq(&known.secret, secret) => known,
                earlier => Known::read(secret, wanted.form, earlier.and_then(|known| known.good)),
            };
            for complaint in &known.complaints {
                problems.push(problem("Secret", &wanted.name, None, complaint.clone()));
            }
            if let Some(users) = &known.good {
                passwords.0.insert(wanted.clone(), Arc::clone(users));
            }
            self.known.insert(wanted.clone(), known);
        }
        passwords
    }
}

impl Known {
    fn read(secret: &Arc<Secret>, form: SecretForm, earlier: Option<Arc<Users>>) -> Self {
        let mut complaints = Vec::new();
        let users = match form {
            SecretForm::Map => Some(Users::of_map(secret.data.iter(), |text| complaints.push(text))),
            SecretForm::File => {
                let file = secret.data.get(FILE_KEY);
                file.map(|file| Users::of_file(file, |text| complaints.push(text)))
            }
        };
        let good = users.map(Arc::new).or_else(|| {
            let kept = if earlier.is_some() { "its last good users may come" } else { "requests get 503" };
            complaints.push(format!("the secret has no {FILE_KEY}; {kept}"));
            earlier
        });
        Self { secret: Arc::clone(secret), good, complaints }
    }
}

fn problem(kind: &str, name: &ObjectName, field: Option<&str>, reason: String) -> Problem {
    let object = Some(ObjectRef { kind: kind.to_owned(), name: name.clone() });
    Problem { severity: Severity::Error, place: None, object, field: field.map(str::to_owned), reason }
}
