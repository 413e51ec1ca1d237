//! The part of BER that LDAP has (RFC 4511 section 5.1): tags of one byte, definite lengths.
//!
//! Owns the bytes. Refuses to know what they mean. Fails with nothing where they are cut off or of another tag. Never
//! recursive: the crates for it take a message of nothing but openings, and overflow the stack.

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// A tag, a length and a content.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => bytes.push(short),
        _ => {
            bytes.push(0x84);
            bytes.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

/// A small number.
pub(super) fn integer(value: u8) -> Vec<u8> {
    tlv(INTEGER, &[value & 0x7f])
}

/// A number of at most four bytes that is not negative.
pub(super) fn number(content: &[u8]) -> Option<u32> {
    let plain = (1..=4).contains(&content.len()) && content.first().is_some_and(|byte| byte & 0x80 == 0);
    plain.then(|| content.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
}

/// The length of the message that `bytes` begin with, all of it; `None` while that cannot be said.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, ()> {
    match bytes {
        [] | [SEQUENCE] => Ok(None),
        [SEQUENCE, ..] => match header(bytes) {
            Some(Some((head, content))) => Ok(Some(head + content)),
            Some(None) => Ok(None),
            None => Err(()),
        },
        _ => Err(()),
    }
}

/// The length of tag and length, and that of the content; the inner `None` where that is cut off, the outer where no
/// length is like this.
fn header(bytes: &[u8]) -> Option<Option<(usize, usize)>> {
    let Some(&first) = bytes.get(1) else { return Some(None) };
    if first < 0x80 {
        return Some(Some((2, usize::from(first))));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return None;
    }
    let Some(digits) = bytes.get(2..2 + count) else { return Some(None) };
    let length = digits.iter().fold(0, |length: usize, &byte| length << 8 | usize::from(byte));
    Some(Some((2 + count, length)))
}

/// What was not read yet.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next tag and its content.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (head, length) = header(self.0)??;
        let (element, rest) = self.0.split_at_checked(head.checked_add(length)?)?;
        self.0 = rest;
        Some((*element.first()?, element.get(head..)?))
    }

    /// The content of the next element, which has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}
