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
        // The server may be writing the last line.
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        whole
            .lines()
            .map(|line| serde_json::from_str(line).context("the audit log holds a line that is no event"))
            .collect()
    }
}
