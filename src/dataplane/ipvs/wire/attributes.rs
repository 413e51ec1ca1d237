//! Netlink attributes: `struct nlattr` (u16 length, u16 type, payload, padding to 4 bytes), written and read.
//!
//! Owns the layout. Refuses to know what an attribute means; byte order shows where a value is used. Fails with a
//! [`WireError`] on a length that leaves its container or on a payload of another size than asked for.

use super::names::Attribute;
use super::{WireError, aligned};

const HEADER: usize = 4;

/// Attributes in the making.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Appends a payload of at most 65,531 bytes; all of ours are below 200.
    pub(super) fn put(&mut self, attribute: Attribute, payload: &[u8]) -> &mut Self {
        self.append(attribute.id, payload)
    }

    /// Appends attributes within an attribute.
    pub(super) fn nest(&mut self, attribute: Attribute, inner: &Self) -> &mut Self {
        // The kernel accepts a nest without this bit; ipvsadm sets it and strict parsers ask for it.
        self.append(attribute.id | NESTED, &inner.0)
    }

    fn append(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let length = u16::try_from(payload.len() + HEADER).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `NLA_F_NESTED`, and `NLA_TYPE_MASK`: what is left of a type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

/// More than the highest attribute that we know; what a later kernel adds above is skipped.
const SLOTS: usize = 16;

/// The attributes of one container by number; of two with the same number the later counts, as in the kernel.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    payloads: [Option<&'a [u8]>; SLOTS],
}

impl<'a> Attributes<'a> {
    /// Finds the attributes in `bytes`, the payload of `container`.
    pub(super) fn parse(mut bytes: &'a [u8], container: &'static str) -> Result<Self, WireError> {
        let mut payloads = [None; SLOTS];
        while !bytes.is_empty() {
            let cut = WireError::Truncated(container);
            let Some(&[l0, l1, t0, t1]) = bytes.first_chunk::<HEADER>() else { return Err(cut) };
            let length = usize::from(u16::from_ne_bytes([l0, l1]));
            let kind = usize::from(u16::from_ne_bytes([t0, t1]) & TYPE_MASK);
            // A length below the header's would never advance: get() of an inverted range is None.
            let payload = bytes.get(HEADER..length).ok_or(cut)?;
            if let Some(slot) = payloads.get_mut(kind) {
                *slot = Some(payload);
            }
            bytes = bytes.get(aligned(length)..).unwrap_or_default();
        }
        Ok(Self { payloads })
    }

    pub(super) fn maybe(&self, attribute: Attribute) -> Option<&'a [u8]> {
        self.payloads.get(usize::from(attribute.id)).copied().flatten()
    }

    /// A payload of exactly `N` bytes, if the attribute is there.
    pub(super) fn maybe_array<const N: usize>(
        &self,
        attribute: Attribute,
    ) -> Result<Option<[u8; N]>, WireError> {
        let Some(payload) = self.maybe(attribute) else { return Ok(None) };
        let size = WireError::Size { name: attribute.name, size: payload.len() };
        payload.try_into().map(Some).map_err(|_| size)
    }

    /// A payload of exactly `N` bytes.
    pub(super) fn array<const N: usize>(&self, attribute: Attribute) -> Result<[u8; N], WireError> {
        self.maybe_array(attribute)?.ok_or(WireError::Missing(attribute.name))
    }

    /// An unsigned number of the host's order.
    pub(super) fn u16(&self, attribute: Attribute) -> Result<u16, WireError> {
        self.array(attribute).map(u16::from_ne_bytes)
    }

    /// An unsigned number of the host's order.
    pub(super) fn u32(&self, attribute: Attribute) -> Result<u32, WireError> {
        self.array(attribute).map(u32::from_ne_bytes)
    }

    /// A number of the host's order that the kernel sends in 4 or in 8 bytes.
    pub(super) fn counter(&self, attribute: Attribute) -> Result<u64, WireError> {
        match self.maybe(attribute) {
            Some(payload) if payload.len() == 4 => self.u32(attribute).map(u64::from),
            _ => self.array(attribute).map(u64::from_ne_bytes),
        }
    }

    /// A text that ends at its first NUL.
    pub(super) fn text(&self, attribute: Attribute) -> Result<Option<&'a str>, WireError> {
        let Some(payload) = self.maybe(attribute) else { return Ok(None) };
        let text = payload.split(|byte| *byte == 0).next().unwrap_or_default();
        let invalid = || WireError::Value { name: attribute.name, value: format!("{}", text.escape_ascii()) };
        std::str::from_utf8(text).map(Some).map_err(|_| invalid())
    }

    /// The attributes within an attribute.
    pub(super) fn nest(&self, attribute: Attribute) -> Result<Option<Self>, WireError> {
        self.maybe(attribute).map(|inner| Self::parse(inner, attribute.name)).transpose()
    }
}
