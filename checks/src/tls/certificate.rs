//! What a check wants to know of an X.509 certificate (RFC 5280 section 4.1): until when, and which key.
//!
//! Owns a walk over the first fields of a certificate in DER. Refuses to know trust: that is webpki's. Fails with
//! `None` at anything that is not DER of the expected shape; looks at no byte twice and copies none.

use crate::calendar::days;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, in which the version stands.
const VERSION: u8 = 0xa0;

/// What was found in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The end of its validity, in seconds since 1970.
    pub not_after: i64,
    /// The whole SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
}

/// Reads the facts of a certificate in DER.
#[must_use]
pub fn facts(certificate: &[u8]) -> Option<Facts<'_>> {
    let (certificate, _) = of(SEQUENCE, certificate)?;
    let (mut fields, _) = of(SEQUENCE, certificate.content)?;
    if fields.content.first() == Some(&VERSION) {
        fields.content = element(fields.content)?.1;
    }
    // Serial number, signature algorithm, issuer.
    let (_, rest) = of(INTEGER, fields.content)?;
    let (_, rest) = of(SEQUENCE, rest)?;
    let (_, rest) = of(SEQUENCE, rest)?;
    let (validity, rest) = of(SEQUENCE, rest)?;
    let (_, not_after) = element(validity.content)?;
    let (not_after, _) = element(not_after)?;
    let (_subject, rest) = of(SEQUENCE, rest)?;
    let (key, _) = of(SEQUENCE, rest)?;
    Some(Facts { not_after: time(&not_after)?, public_key: key.whole })
}

/// One element of DER.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// The first element of `bytes` and what follows it. Lengths of up to four bytes, in their shortest form.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = digits
                .iter()
                .try_fold(0_usize, |sum, &digit| sum.checked_mul(256)?.checked_add(usize::from(digit)))?;
            let shortest = digits.first() != Some(&0) && length > 0x7f;
            (shortest.then_some(length)?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let whole = bytes.get(..bytes.len() - rest.len())?;
    Some((Element { tag, content, whole }, rest))
}

fn of(tag: u8, bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    element(bytes).filter(|(element, _)| element.tag == tag)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that RFC 5280 section 4.1.2.5 allows.
fn time(element: &Element<'_>) -> Option<i64> {
    let digits = element.content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut pairs = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0')));
    let year = match (element.tag, digits.len()) {
        // Section 4.1.2.5.1: 50 to 99 are of the last century.
        (UTC_TIME, 12) => pairs.next().map(|year| if year < 50 { 2000 + year } else { 1900 + year })?,
        (GENERALIZED_TIME, 14) => pairs.next()? * 100 + pairs.next()?,
        _ => return None,
    };
    let [month, day, hour, minute, second] =
        [pairs.next()?, pairs.next()?, pairs.next()?, pairs.next()?, pairs.next()?];
    let possible = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..=23).contains(&hour)
        && (0..=59).contains(&minute)
        && (0..=60).contains(&second);
    possible.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, date_time_ymd};

    /// A certificate until the start of a day, and its key.
    fn certificate(year: i32, month: u8, day: u8) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["mail.example.com".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        (params.self_signed(&key).unwrap().der().to_vec(), key.subject_public_key_info())
    }

    #[test]
    fn the_end_and_the_key_of_a_certificate_are_found() {
        // From `date -u -d ... +%s`: both forms of time.
        for (year, month, day, seconds) in [
            (2026, 11, 23, 1_795_392_000),
            (1999, 12, 31, 946_598_400),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (4096, 1, 1, 67_090_118_400),
        ] {
            let (der, key) = certificate(year, month, day);
            let found = facts(&der).unwrap();
            assert_eq!((found.not_after, found.public_key), (seconds, key.as_slice()));
        }
    }

    #[test]
    fn impossible_times_and_lengths_are_refused() {
        for (tag, text) in [
            (UTC_TIME, "261323000000Z"),
            (UTC_TIME, "2611230000Z"),
            (UTC_TIME, "261123000000+0000"),
            (UTC_TIME, "20261123000000Z"),
            (GENERALIZED_TIME, "261123000000Z"),
            (GENERALIZED_TIME, "20261100000000Z"),
            (GENERALIZED_TIME, "20261123240000Z"),
            (INTEGER, "261123000000Z"),
        ] {
            assert_eq!(time(&Element { tag, content: text.as_bytes(), whole: b"" }), None, "{tag} {text}");
        }
        for bytes in [
            &b"\x30"[..],
            b"\x30\x80",
            b"\x30\x81\x05hello",
            b"\x30\x82\x00\x81",
            b"\x30\x85\0\0\0\0\0",
            b"\x30\x05x",
        ] {
            assert!(element(bytes).is_none(), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_damage_panics(place in 0usize..600, byte: u8, cut in 0usize..600) {
            let (mut der, _) = certificate(2026, 11, 23);
            if let Some(at) = der.get_mut(place) {
                *at = byte;
            }
            let _ = facts(&der);
            let _ = facts(der.get(..cut).unwrap_or(&der));
        }
    }
}
