//! Who is who in the test cluster: one authority, a certificate for each part, and the kubeconfigs that hold them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The authority of a cluster and the folder of everything that it signs.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    /// A new authority, its certificate in `ca.crt`, and the keys that tokens are signed and verified with.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        parameters.distinguished_name.push(DnType::CommonName, "roadstead-lab");
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        let authority = Self { issuer, folder: folder.to_owned() };
        write(&authority.certificate(), &authority.issuer.pem())?;
        let tokens = KeyPair::generate()?;
        write(&authority.token_key(), &tokens.serialize_pem())?;
        write(&authority.token_public_key(), &tokens.public_key_pem())?;
        Ok(authority)
    }

    /// The file of its certificate.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The file of the key that signs the tokens of service accounts.
    pub(super) fn token_key(&self) -> PathBuf {
        self.folder.join("tokens.key")
    }

    /// The file of the key that verifies them.
    pub(super) fn token_public_key(&self) -> PathBuf {
        self.folder.join("tokens.pub")
    }

    /// A certificate for a user and his group, or for a server at these names.
    pub(super) fn issue(&self, user: &str, group: &str, names: &[String]) -> Result<Pair> {
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name.push(DnType::CommonName, user);
        if !group.is_empty() {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        let file = |ending: &str| self.folder.join(format!("{}.{ending}", user.replace(':', "-")));
        let pair = Pair { certificate: file("crt"), key: file("key") };
        write(&pair.certificate, &certificate.pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }

    /// A kubeconfig for a user with a certificate.
    pub(super) fn kubeconfig(&self, server: SocketAddr, user: &str, group: &str) -> Result<PathBuf> {
        let pair = self.issue(user, group, &[])?;
        let how = format!(
            "client-certificate: {:?}, client-key: {:?}",
            pair.certificate.display().to_string(),
            pair.key.display().to_string()
        );
        self.write_kubeconfig(server, user, &how)
    }

    /// A kubeconfig for a service account, whose token is read from a file anew as clients see fit.
    pub(super) fn token_kubeconfig(&self, server: SocketAddr, user: &str, token: &Path) -> Result<PathBuf> {
        self.write_kubeconfig(server, user, &format!("tokenFile: {:?}", token.display().to_string()))
    }

    fn write_kubeconfig(&self, server: SocketAddr, user: &str, how: &str) -> Result<PathBuf> {
        let authority = self.certificate().display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters: [{{name: lab, cluster: {{server: \"https://{server}\", certificate-authority: {authority:?}}}}}]\n\
             users: [{{name: lab, user: {{{how}}}}}]\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n"
        );
        let file = self.folder.join(format!("{}.kubeconfig", user.replace(':', "-")));
        write(&file, &text)?;
        Ok(file)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authority").field(&self.folder).finish()
    }
}

/// Whole or not at all: a token may be read while it is replaced.
pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    let fresh = file.with_extension("new");
    let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, file));
    written.with_context(|| format!("could not write {}", file.display()))
}
