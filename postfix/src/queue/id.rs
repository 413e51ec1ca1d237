//! Names of queue files (Postfix, `src/global/mail_queue.h`).
//!
//! Long: six characters or more of seconds and four of microseconds, base 52; then `z` and the inode, base 51. Short:
//! five hexadecimal digits or more of microseconds, then the inode. Knows nothing of the file behind a name.

/// Base 52: digits, then consonants. Without its last, `z`, it is base 51.
const DIGITS: &[u8; 52] = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";
/// The value of each byte as a digit; 52 for what is none. A scan reads a hundred thousand names.
const VALUES: [u8; 256] = {
    let mut values = [52; 256];
    let mut digit = 0_u8;
    while digit < 52 {
        #[expect(clippy::indexing_slicing, reason = "at build time; below 52 and below 256")]
        {
            values[DIGITS[digit as usize] as usize] = digit;
        }
        digit += 1;
    }
    values
};
/// Longest name that is taken for an id, in bytes.
const MAX_NAME: usize = 32;

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueId {
    /// When the message came, in milliseconds since 1970.
    Long(i64),
    /// Nothing of use.
    Short,
}

impl QueueId {
    /// `None` for a name that is no queue id.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        if name.len() > MAX_NAME {
            return None;
        }
        let is_long = |end: &usize| *end >= 10; // `z` is a digit of the time, too
        let Some(end) = name.iter().rposition(|byte| *byte == b'z').filter(is_long) else {
            let hex = |byte: &u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte);
            return (name.len() >= 6 && name.iter().all(hex)).then_some(Self::Short);
        };
        let (time, inode) = name.split_at_checked(end)?;
        let (seconds, micros) = time.split_at_checked(end.checked_sub(4)?)?;
        let (seconds, micros) = (base52(seconds)?, base52(micros)?);
        base52(inode.get(1..).filter(|inode| !inode.is_empty())?)?;
        if micros >= 1_000_000 {
            return None;
        }
        seconds.checked_mul(1000)?.checked_add(micros / 1000).map(Self::Long)
    }
}

fn base52(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |number, byte| {
        let digit = VALUES.get(usize::from(*byte)).filter(|digit| **digit < 52)?;
        number.checked_mul(52)?.checked_add(i64::from(*digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_id_tells_when_the_message_came() {
        // From a real queue, with the arrival_time that postqueue -j showed.
        let Some(QueueId::Long(time)) = QueueId::parse(b"4jXpG36ZJLz60DB") else { panic!("not a long id") };
        assert_eq!(time / 1000, 1_795_397_243);
    }

    #[test]
    fn a_short_id_tells_nothing_and_other_names_are_none() {
        for name in ["3F2A51234", "ABCDEF", "0000012345678"] {
            assert_eq!(QueueId::parse(name.as_bytes()), Some(QueueId::Short), "{name}");
        }
        let overflow = format!("{}z1", "z".repeat(20));
        for name in [
            "",
            "core",
            "A",
            "1795397243.1234",
            "abcdef",
            ".hidden",
            "4jXpG36ZJLz",
            "4jXpG3zzzzz60DB",
            "4jXpG36ZJLz60aB",
            "ABCDEFGH",
            "ABCDEF\u{e9}",
            "../../etc/passwd",
            &overflow,
            &"A".repeat(33),
        ] {
            assert_eq!(QueueId::parse(name.as_bytes()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_an_id_or_none(name in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = QueueId::parse(&name);
        }
    }
}
