//! Service accounts: tokens by the TokenRequest API in files that are replaced as a kubelet does, kubeconfigs that name
//! them, and what the audit log tells about who asked for what.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{ControlPlane, credentials};

/// The shortest life of a token that the API grants.
const SECONDS: u32 = 600;

/// A service account with a token in a file.
#[derive(Debug)]
pub struct Account {
    namespace: String,
    name: String,
    token: PathBuf,
    kubeconfig: PathBuf,
}

impl Account {
    /// The kubeconfig that names the file of the token.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `system:serviceaccount:NAMESPACE:NAME`, as the audit log names it.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl ControlPlane {
    /// A token for a service account, which must be there, and a kubeconfig with it.
    ///
    /// # Errors
    ///
    /// Where the API server refuses.
    pub fn account(&self, namespace: &str, name: &str) -> Result<Account> {
        let user = format!("{namespace}-{name}");
        let token = self.folder.join(format!("{user}.token"));
        let kubeconfig = self.authority.token_kubeconfig(self.address(), &user, &token)?;
        let account = Account { namespace: namespace.to_owned(), name: name.to_owned(), token, kubeconfig };
        self.rotate(&account)?;
        Ok(account)
    }

    /// Puts a new token into the account's file.
    ///
    /// # Errors
    ///
    /// Where the API server refuses.
    pub fn rotate(&self, account: &Account) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", account.namespace, account.name);
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": SECONDS},
        });
        let answer = self.create(&path, &request)?;
        let token = answer.pointer("/status/token").and_then(Value::as_str).context("no token in the answer")?;
        credentials::write(&account.token, token)
    }

    /// Every request of the service accounts of `roadstead-system` so far, as events of the kind `audit.k8s.io/v1 Event`.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.files.audit_log).context("could not read the audit log")?;
        events(&text)
    }
}

/// The events of a log, one a line. A server that was killed leaves a line torn off, to which its successor appends its
/// first one: of such a line what follows the tear counts.
fn events(log: &str) -> Result<Vec<Value>> {
    // The server may be writing the last line.
    let whole = log.rfind('\n').and_then(|end| log.get(..end)).unwrap_or_default();
    whole.lines().map(event).collect()
}

fn event(line: &str) -> Result<Value> {
    const BEGINNING: &str = r#"{"kind":"Event","#;
    let whole = serde_json::from_str(line);
    if let (Err(_), Some(last)) = (&whole, line.rfind(BEGINNING).filter(|at| *at > 0)) {
        return serde_json::from_str(line.get(last..).unwrap_or_default()).context("the audit log holds half an event");
    }
    whole.with_context(|| format!("the audit log holds a line that is no event: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_lines_are_read_from_their_tear_on() {
        let one = |verb: &str| format!(r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","verb":"{verb}"}}"#);
        let torn = |verb: &str| one(verb)[..40].to_owned();
        let log = format!("{}\n{}{}\n{}\n{}", one("get"), torn("list"), one("watch"), one("patch"), torn("update"));
        let verbs: Vec<String> = events(&log).unwrap().iter().map(|event| event["verb"].to_string()).collect();
        assert_eq!(verbs, [r#""get""#, r#""watch""#, r#""patch""#]);
        assert!(events("nonsense\n").is_err());
    }
}
