//! Distinguished names as text (RFC 2253), the way nginx writes `$ssl_client_s_dn`: the last part first, everything that is not
//! plain ASCII escaped, so that the text is fit for a header field.

use std::fmt::Write as _;

use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Short names of attribute types; others are written as numbers.
const TYPES: [(&str, &str); 17] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for part in parts.iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        for (place, attribute) in part.iter().enumerate() {
            if place > 0 {
                text.push('+');
            }
            push_attribute(&mut text, attribute);
        }
    }
    text
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let short = TYPES.iter().find(|(number, _)| *number == oid).map(|(_, short)| *short);
    text.push_str(short.unwrap_or(&oid));
    text.push('=');
    match attribute.as_str() {
        Ok(value) if short.is_some() => push_escaped(text, value),
        _ => {
            text.push('#');
            push_hex(text, attribute.as_slice());
        }
    }
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (place, byte) in value.bytes().enumerate() {
        let at_an_end = (place == 0 && matches!(byte, b' ' | b'#')) || (place == last && byte == b' ');
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => text.extend(['\\', char::from(byte)]),
            _ if at_an_end => text.extend(['\\', char::from(byte)]),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => {
                text.push('\\');
                push_hex(text, &[byte]);
            }
        }
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use x509_parser::parse_x509_certificate;

    use super::*;

    fn check(parts: &[(DnType, &str)], expected: &str) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, parsed) = parse_x509_certificate(certificate.der()).unwrap();
        assert_eq!(rfc2253(parsed.subject()), expected);
    }

    #[test]
    fn names_are_written_last_part_first() {
        let (country, organisation, common) = (DnType::CountryName, DnType::OrganizationName, DnType::CommonName);
        check(&[], "");
        check(
            &[(country, "DE"), (organisation.clone(), "Acme, Inc."), (common.clone(), "client 1")],
            "CN=client 1,O=Acme\\, Inc.,C=DE",
        );
        check(&[(common.clone(), " a+b<c> ")], "CN=\\ a\\+b\\<c\\>\\ ");
        check(&[(common.clone(), "#Jürgen")], "CN=\\#J\\C3\\BCrgen");
        check(&[(common, "a\r\nX: y")], "CN=a\\0D\\0AX: y");
        check(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "x")], "1.2.3.4=#78");
    }
}
