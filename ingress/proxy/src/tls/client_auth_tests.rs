//! Verdicts on chains, and what the rules make of them.

use std::{collections::BTreeMap, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use roadstead_model::{Metadata, ObjectName};
use roadstead_routes::{Case, Pattern};

use super::*;
use crate::tls::provider;

type Ca = CertifiedIssuer<'static, KeyPair>;

/// Made by OpenSSL 3.0, whose `x509 -req` makes version 1; rcgen cannot.
const OLD_CA: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUBum+rSQOHfjxvjoSwseToWkFwGQwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNb2xkIGF1dGhvcml0eTAgFw0yNjExMjUyMTQyMjVaGA8yMTI2
MTEwMTIxNDIyNVowGDEWMBQGA1UEAwwNb2xkIGF1dGhvcml0eTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABFCSgl/RK48Nmg8SqCGhK3VJg7sCXrkiCot99LdXUHG7
NkxJ2LDI1a8HT+VEUdlPIRK3a8U/BiP6IT0ZfCpV4jejUzBRMB0GA1UdDgQWBBQO
5F/PbAlpF7Z1RfdM7dzFDw3PyTAfBgNVHSMEGDAWgBQO5F/PbAlpF7Z1RfdM7dzF
Dw3PyTAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIAxl/9ItdzAi
E52vgTHLgq7ydB/JJvtuJJXj8ldI0mywAiEA7Mt9zznohrEQsbKcWGac8udeph1y
Oi468fP1JJA6VQI=
-----END CERTIFICATE-----
";

/// Signed by it.
const OLD_CLIENT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBJDCBzAIBAjAKBggqhkjOPQQDAjAYMRYwFAYDVQQDDA1vbGQgYXV0aG9yaXR5
MCAXDTI2MTEyNTIxNDIyNloYDzIxMjYxMTAxMjE0MjI2WjAkMQ0wCwYDVQQKDARB
Y21lMRMwEQYDVQQDDApvbGQgY2xpZW50MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD
QgAEQBCpRu+ruiV5BnoM8V93TUy3BWYHi0ebPXmBlM3uBZb8+D2p+bDMmoNGOSbv
yPTMIRUX7UzvybmiDt0mysciCDAKBggqhkjOPQQDAgNHADBEAiB3bjd/17OSq0BT
ywJ2R7rvgk+LxH9UvEiEn+MaCuYLbgIgEHlIIQW287nmrghZZIH/CFJCU5oITQsD
m73UUH4zlsQ=
-----END CERTIFICATE-----
";

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn root(name: &str) -> Ca {
    CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn below(issuer: &Ca, name: &str) -> Ca {
    CertifiedIssuer::signed_by(ca_params(name), KeyPair::generate().unwrap(), issuer).unwrap()
}

fn leaf(issuer: &Issuer<'_, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = params("client");
    params.serial_number = Some(SerialNumber::from(77));
    change(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

fn rules() -> ClientAuthRules {
    ClientAuthRules {
        secret: ObjectName::new("default", "ca"),
        need: ClientCertificate::Required,
        depth: 1,
        pass_certificate: false,
        match_cn: None,
        error_page: None,
    }
}

fn verifier(rules: &ClientAuthRules, data: &[(&str, String)]) -> Result<ClientVerifier, AuthorityError> {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into_bytes())).collect();
    let name = ObjectName::new("default", "ca");
    let meta = Metadata { name, labels: BTreeMap::new(), annotations: BTreeMap::new(), created: None };
    ClientVerifier::new(rules, &Secret { meta, kind: "Opaque".to_owned(), data }, &provider())
}

fn judge(data: &[(&str, String)], chain: &[CertificateDer<'static>]) -> Standing {
    verifier(&rules(), data).unwrap().judge(chain, UnixTime::now()).standing
}

fn bad(reason: &str) -> Standing {
    Standing::Bad(reason.to_owned())
}

#[test]
fn chains_are_judged() {
    let (ca, stranger) = (root("root"), root("stranger"));
    let trusted = [("ca.crt", ca.pem())];
    assert_eq!(judge(&trusted, &[]), Standing::Absent);
    assert_eq!(judge(&trusted, &[leaf(&ca, |_| {})]), Standing::Good);
    let unknown = Standing::Unverified("unable to verify the first certificate".to_owned());
    assert_eq!(judge(&trusted, &[leaf(&stranger, |_| {})]), unknown);
    let both = [("ca.crt", format!("{}{}", stranger.pem(), ca.pem()))];
    assert_eq!(judge(&both, &[leaf(&ca, |_| {})]), Standing::Good, "every certificate of ca.crt counts");
    let expired = leaf(&ca, |params| params.not_after = date_time_ymd(2020, 1, 1));
    assert_eq!(judge(&trusted, &[expired]), bad("certificate has expired"));
    let early = leaf(&ca, |params| params.not_before = date_time_ymd(2090, 1, 1));
    assert_eq!(judge(&trusted, &[early]), bad("certificate is not yet valid"));
    let server = leaf(&ca, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(matches!(judge(&trusted, &[server]), Standing::Bad(_)), "a certificate for servers alone");
    let garbage = CertificateDer::from(b"garbage".to_vec());
    assert_eq!(judge(&trusted, &[garbage]), bad("certificate cannot be read"));
}

#[test]
fn the_depth_counts_what_stands_between() {
    let ca = root("root");
    let (first, trusted) = (below(&ca, "first"), [("ca.crt", ca.pem())]);
    let second = below(&first, "second");
    let one = [leaf(&first, |_| {}), first.der().clone()];
    let two = [leaf(&second, |_| {}), second.der().clone(), first.der().clone()];
    for (depth, chain, good) in [(1, &one[..], true), (1, &two[..], false), (2, &two[..], true)] {
        let verifier = verifier(&ClientAuthRules { depth, ..rules() }, &trusted).unwrap();
        let standing = verifier.judge(chain, UnixTime::now()).standing;
        let expected = if good { Standing::Good } else { bad("certificate chain too long") };
        assert_eq!(standing, expected, "{depth}: {}", chain.len());
    }
}

/// As OpenSSL has it: who is in ca.crt needs nobody else, until it expires.
#[test]
fn a_certificate_of_ca_crt_itself_is_good() {
    let key = KeyPair::generate().unwrap();
    let own = params("own").self_signed(&key).unwrap();
    assert_eq!(judge(&[("ca.crt", own.pem())], &[own.der().clone()]), Standing::Good);
    let mut past = params("past");
    past.not_after = date_time_ymd(2020, 1, 1);
    let past = past.self_signed(&key).unwrap();
    assert_eq!(judge(&[("ca.crt", past.pem())], &[past.der().clone()]), bad("certificate has expired"));
}

#[test]
fn revoked_certificates_and_lists_that_are_over_are_refused() {
    let ca = root("root");
    let list = |serial: u64, next_update| {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&ca).unwrap().pem().unwrap()
    };
    let future = date_time_ymd(2090, 1, 1);
    let judge = |list: String| judge(&[("ca.crt", ca.pem()), ("ca.crl", list)], &[leaf(&ca, |_| {})]);
    assert_eq!(judge(list(77, future)), bad("certificate revoked"));
    assert_eq!(judge(list(78, future)), Standing::Good);
    assert_eq!(judge(list(78, date_time_ymd(2025, 1, 1))), bad("CRL has expired"));
}

#[test]
fn secrets_that_are_no_authority_are_told() {
    let good = root("root").pem();
    for (data, expected) in [
        (vec![], "the secret has no ca.crt"),
        (vec![("ca.crt", String::new())], "ca.crt holds no certificate"),
        (
            vec![("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned())],
            "ca.crt holds an entry",
        ),
        (
            vec![("ca.crt", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned())],
            "ca.crt is no valid PEM",
        ),
        (
            vec![("ca.crt", good), ("ca.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned())],
            "ca.crl holds an entry",
        ),
    ] {
        let error = verifier(&rules(), &data).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn the_rules_decide_what_a_standing_means() {
    use ClientCertificate::{Optional, OptionalUnverified, Required};
    let trusted = [("ca.crt", root("root").pem())];
    let check = |need, standing: &Standing, admitted: bool| {
        let verifier = verifier(&ClientAuthRules { need, ..rules() }, &trusted).unwrap();
        let verdict = ClientVerdict { standing: standing.clone(), ..ClientVerdict::absent() };
        assert_eq!(verifier.sentence(&verdict) == Sentence::Admit, admitted, "{need:?} {standing:?}");
    };
    let (unverified, expired) = (Standing::Unverified("x".to_owned()), bad("expired"));
    for (standing, admitted) in [
        (&Standing::Absent, [false, true, true]),
        (&Standing::Good, [true, true, true]),
        (&unverified, [false, false, true]),
        (&expired, [false, false, false]),
    ] {
        for (need, admitted) in [Required, Optional, OptionalUnverified].into_iter().zip(admitted) {
            check(need, standing, admitted);
        }
    }
    assert_eq!(ClientVerifier::nobody().sentence(&ClientVerdict::absent()), Sentence::Forbid);
}

#[test]
fn names_and_the_certificate_are_told_and_matched() {
    let ca = root("root");
    let certificate = leaf(&ca, |params| params.distinguished_name.push(DnType::OrganizationName, "Acme"));
    let check = |pattern: &str, expected: Sentence<'_>| {
        let match_cn = Pattern::new(pattern, Case::Sensitive).ok();
        let rules = ClientAuthRules { match_cn, pass_certificate: true, ..rules() };
        let verifier = verifier(&rules, &[("ca.crt", ca.pem())]).unwrap();
        let verdict = verifier.judge(std::slice::from_ref(&certificate), UnixTime::now());
        assert!(verdict.subject.contains("CN=client") && verdict.subject.contains("O=Acme"), "{verdict:?}");
        assert!(verdict.issuer.contains("CN=root"), "{verdict:?}");
        assert!(verdict.escaped_pem.starts_with("-----BEGIN%20CERTIFICATE-----%0A"), "{verdict:?}");
        assert!(verdict.escaped_pem.ends_with("%0A-----END%20CERTIFICATE-----%0A"), "{verdict:?}");
        assert_eq!(verifier.sentence(&verdict), expected, "{pattern}");
    };
    check("CN=client", Sentence::Admit);
    check("CN=cl.*$", Sentence::Admit);
    check("CN=other", Sentence::Forbid);
}

/// A verdict is of its moment: what expires while a connection is open is found out when it is judged again.
#[test]
fn time_is_part_of_a_verdict() {
    let ca = root("root");
    let verifier = verifier(&rules(), &[("ca.crt", ca.pem())]).unwrap();
    let chain = [leaf(&ca, |params| params.not_after = date_time_ymd(2050, 1, 1))];
    let later = UnixTime::since_unix_epoch(Duration::from_secs(2_600_000_000));
    assert_eq!(verifier.judge(&chain, UnixTime::now()).standing, Standing::Good);
    assert_eq!(verifier.judge(&chain, later).standing, bad("certificate has expired"));
}

#[test]
fn certificates_of_version_1_are_judged_too() {
    let old = [CertificateDer::from_pem_slice(OLD_CLIENT.as_bytes()).unwrap()];
    let (trusted, stranger) = ([("ca.crt", OLD_CA.to_owned())], [("ca.crt", root("old authority").pem())]);
    assert_eq!(judge(&trusted, &old), Standing::Good);
    let unknown = Standing::Unverified("unable to verify the first certificate".to_owned());
    assert_eq!(judge(&stranger, &old), unknown, "a name is not enough");
    assert_eq!(judge(&[("ca.crt", OLD_CLIENT.to_owned())], &old), Standing::Good, "it is its own authority");
    let verifier = verifier(&rules(), &trusted).unwrap();
    let much_later = UnixTime::since_unix_epoch(Duration::from_secs(6_000_000_000));
    assert_eq!(verifier.judge(&old, much_later).standing, bad("certificate has expired"));
    assert_eq!(verifier.judge(&old, UnixTime::now()).subject, "CN=old client,O=Acme");
    // Whoever changes a bit of it has changed what was signed.
    let mut forged = old[0].to_vec();
    let place = forged.windows(10).position(|bytes| bytes == b"old client").unwrap();
    forged[place] = b'O';
    assert_eq!(judge(&trusted, &[CertificateDer::from(forged)]), unknown);
    // It vouches for nobody.
    let below = leaf(&root("old client"), |_| {});
    assert!(matches!(judge(&trusted, &[below, old[0].clone()]), Standing::Unverified(_)));
}
