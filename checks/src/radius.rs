//! The RADIUS check: a user is authenticated (RFC 2865), or the server asked for its status (RFC 5997).
//!
//! Owns what is asked ([`RadiusSpec`]), the packets, and their signatures (RFC 2869 section 5.14, RFC 3579 section
//! 3.2). Refuses to know sockets. An answer that is not signed with the shared secret is none: a server with another
//! secret is silent or ends as a timeout that says so.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};

use crate::credential::Credential;
use crate::credential::{Login, Secret};
use crate::datagram::{Ask, Heard};
use crate::smtp::reply::printable;
use crate::talk::{Passed, Trouble};
use crate::{Reason, Stage};

/// Codes of packets (RFC 2865 section 3, RFC 5997 section 3).
const ACCESS_REQUEST: u8 = 1;
const ACCESS_ACCEPT: u8 = 2;
const ACCESS_REJECT: u8 = 3;
const ACCESS_CHALLENGE: u8 = 11;
const STATUS_SERVER: u8 = 12;
/// Types of attributes (RFC 2865 section 5, RFC 2869 section 5).
const USER_NAME: u8 = 1;
const USER_PASSWORD: u8 = 2;
const REPLY_MESSAGE: u8 = 18;
const NAS_IDENTIFIER: u8 = 32;
const MESSAGE_AUTHENTICATOR: u8 = 80;

/// Bytes before the attributes: code, identifier, length, authenticator.
const HEADER: usize = 20;
/// Largest packet (RFC 2865 section 3).
const MAX_PACKET: usize = 4096;
/// Most bytes of a password (RFC 2865 section 5.2), and of a user's name.
const MAX_PASSWORD: usize = 128;
const MAX_NAME: usize = 253;
/// What calls itself the client.
const NAS: &[u8] = b"smtp-director";

/// Access-Request (RFC 2865) for a user, or Status-Server (RFC 5997) without one. Well is an Access-Accept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RadiusSpec {
    /// A user.
    pub login: Option<Login>,
    /// The secret that we share with the server.
    pub secret: Secret,
}

/// One request, ready to be sent.
pub struct Request {
    secret: String,
    credential: Option<Credential>,
    packet: Vec<u8>,
}

impl Request {
    /// Signed with `secret`; `chance` is the authenticator and the identifier, which nobody can guess.
    ///
    /// # Errors
    /// The user or the password is longer than RADIUS can say.
    pub fn new(secret: String, credential: Option<Credential>, chance: [u8; 17]) -> Result<Self, Trouble> {
        let [identifier, authenticator @ ..] = chance;
        let code = if credential.is_some() { ACCESS_REQUEST } else { STATUS_SERVER };
        let mut packet = vec![code, identifier, 0, 0];
        packet.extend(authenticator);
        // First, where it ends forgeries soonest (CVE-2024-3596); of zeros while it is computed.
        attribute(&mut packet, MESSAGE_AUTHENTICATOR, &[0; 16]);
        if let Some(credential) = &credential {
            let (user, password) = credential.pair();
            if password.len() > MAX_PASSWORD || user.len() > MAX_NAME {
                let text = "the user or the password is longer than RADIUS can say";
                return Err(Trouble::new(Reason::Local, text));
            }
            attribute(&mut packet, USER_NAME, user.as_bytes());
            attribute(&mut packet, USER_PASSWORD, &hide(password, &secret, authenticator));
        }
        attribute(&mut packet, NAS_IDENTIFIER, NAS);
        let length = u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes();
        if let Some(field) = packet.get_mut(2..4) {
            field.copy_from_slice(&length);
        }
        let signature = sign(&secret, &[&packet])?.finalize().into_bytes();
        if let Some(field) = packet.get_mut(HEADER + 2..HEADER + 18) {
            field.copy_from_slice(&signature);
        }
        Ok(Self { secret, credential, packet })
    }

    fn authenticator(&self) -> &[u8] {
        self.packet.get(4..HEADER).unwrap_or_default()
    }

    /// Whether what signs `answer`, a whole packet, is our secret (RFC 2865 section 3, RFC 2869 section 5.14).
    fn is_signed(&self, answer: &[u8], attributes: &[(u8, usize, &[u8])]) -> bool {
        let (Some(head), Some(theirs), Some(rest)) =
            (answer.get(..4), answer.get(4..HEADER), answer.get(HEADER..))
        else {
            return false;
        };
        let digest = Md5::new()
            .chain_update(head)
            .chain_update(self.authenticator())
            .chain_update(rest)
            .chain_update(&self.secret)
            .finalize();
        let signed = attributes.iter().filter(|(kind, ..)| *kind == MESSAGE_AUTHENTICATOR).all(
            |&(_, place, value)| {
                let (before, after) = (answer.get(HEADER..place), answer.get(place + 16..));
                let (Some(before), Some(after)) = (before, after) else { return false };
                sign(&self.secret, &[head, self.authenticator(), before, &[0; 16], after])
                    .is_ok_and(|mac| mac.verify_slice(value).is_ok())
            },
        );
        digest.as_slice() == theirs && signed
    }
}

impl Ask for Request {
    fn packet(&self) -> &[u8] {
        &self.packet
    }

    fn hear(&self, datagram: &[u8]) -> Heard {
        let Some(&[code, identifier, high, low]) = datagram.first_chunk() else {
            return Heard::Foreign("too short for RADIUS");
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        // Bytes after the length are padding.
        let Some(answer) = datagram.get(..length).filter(|_| (HEADER..=MAX_PACKET).contains(&length)) else {
            return Heard::Foreign("not a packet of RADIUS");
        };
        if self.packet.get(1) != Some(&identifier) {
            return Heard::Foreign("an answer with another identifier");
        }
        let Some(attributes) = attributes(answer) else {
            return Heard::Foreign("attributes that are cut off");
        };
        if !self.is_signed(answer, &attributes) {
            return Heard::Foreign("an answer that is not signed with our secret");
        }
        let messages = attributes.iter().filter(|(kind, ..)| *kind == REPLY_MESSAGE);
        let said: Vec<u8> = messages.flat_map(|&(_, _, value)| value).copied().collect();
        let number = u16::from(code);
        let name = match code {
            ACCESS_ACCEPT => {
                let sent = if self.credential.is_some() { "Access-Request" } else { "Status-Server" };
                return Heard::Answer(Ok(Passed {
                    stage: Stage::Request,
                    code: Some(number),
                    sent: sent.to_owned(),
                    received: vec![printable([b"Access-Accept ", said.as_slice()].concat().trim_ascii_end())],
                }));
            }
            ACCESS_REJECT => "Access-Reject ",
            ACCESS_CHALLENGE => "Access-Challenge ",
            _ => "an answer of another kind ",
        };
        let reason = if code == ACCESS_REJECT { Reason::Permfail } else { Reason::Unexpected };
        let text = [name.as_bytes(), &said].concat();
        Heard::Answer(Err(Trouble::new(reason, text.trim_ascii_end()).coded(number)))
    }

    fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }
}

/// Appends a short attribute.
fn attribute(packet: &mut Vec<u8>, kind: u8, value: &[u8]) {
    packet.extend([kind, u8::try_from(value.len() + 2).unwrap_or(u8::MAX)]);
    packet.extend(value);
}

/// The type of each attribute of a packet, where its value begins, and the value; `None` if one is cut off.
fn attributes(packet: &[u8]) -> Option<Vec<(u8, usize, &[u8])>> {
    let (mut found, mut place) = (Vec::new(), HEADER);
    while place < packet.len() {
        let &[kind, length] = packet.get(place..)?.first_chunk()?;
        let end = place + usize::from(length);
        found.push((kind, place + 2, packet.get(place + 2..end)?));
        place = end;
    }
    Some(found)
}

/// A password as only who has the secret can read it (RFC 2865 section 5.2).
fn hide(password: &str, secret: &str, authenticator: [u8; 16]) -> Vec<u8> {
    let (mut hidden, mut before) = (Vec::new(), authenticator);
    for piece in password.as_bytes().chunks(16) {
        let mut block: [u8; 16] = Md5::new().chain_update(secret).chain_update(before).finalize().into();
        for (byte, plain) in block.iter_mut().zip(piece) {
            *byte ^= plain;
        }
        hidden.extend(block);
        before = block;
    }
    hidden
}

fn sign(secret: &str, parts: &[&[u8]]) -> Result<Hmac<Md5>, Trouble> {
    let mac = Hmac::<Md5>::new_from_slice(secret.as_bytes());
    let mut mac = mac.map_err(|error| Trouble::new(Reason::Local, error.to_string()))?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of RFC 2865 section 7.1: nemo logs in, and may.
    const AUTHENTICATOR: u128 = 0x0f40_3f94_7397_8057_bd83_d5cb_98f4_227a;
    const ACCEPT: [u8; 38] = [
        0x02, 0x00, 0x00, 0x26, 0x86, 0xfe, 0x22, 0x0e, 0x76, 0x24, 0xba, 0x2a, 0x10, 0x05, 0xf6, 0xbf, 0x9b,
        0x55, 0xe0, 0xb2, 0x06, 0x06, 0x00, 0x00, 0x00, 0x01, 0x0f, 0x06, 0x00, 0x00, 0x00, 0x00, 0x0e, 0x06,
        0xc0, 0xa8, 0x01, 0x03,
    ];

    fn request(secret: &str) -> Request {
        let credential = Credential::parse("nemo:arctangent");
        let mut chance = [0; 17];
        chance[1..].copy_from_slice(&AUTHENTICATOR.to_be_bytes());
        Request::new(secret.to_owned(), credential, chance).unwrap()
    }

    /// An answer that whoever has the secret would give, with a Message-Authenticator or not.
    fn signed(code: u8, to: &Request, mac: bool) -> Vec<u8> {
        let mut answer = vec![code, 0, 0, 0];
        answer.extend(to.authenticator());
        if mac {
            attribute(&mut answer, MESSAGE_AUTHENTICATOR, &[0; 16]);
        }
        attribute(&mut answer, REPLY_MESSAGE, b"hello\x07");
        answer[3] = u8::try_from(answer.len()).unwrap();
        if mac {
            let field = sign(&to.secret, &[&answer]).unwrap().finalize().into_bytes();
            answer[HEADER + 2..HEADER + 18].copy_from_slice(&field);
        }
        let digest = Md5::new().chain_update(&answer).chain_update(&to.secret).finalize();
        answer[4..HEADER].copy_from_slice(&digest);
        answer
    }

    #[test]
    fn a_password_is_hidden_and_an_answer_signed_as_in_the_rfc() {
        let hidden = hide("arctangent", "xyzzy5461", AUTHENTICATOR.to_be_bytes());
        let expected = 0x0dbe_708d_93d4_13ce_3196_e43f_782a_0aee_u128;
        assert_eq!(hidden, expected.to_be_bytes());
        assert!(matches!(request("xyzzy5461").hear(&ACCEPT), Heard::Answer(Ok(_))));
        assert!(matches!(request("xyzzy5462").hear(&ACCEPT), Heard::Foreign(_)));
        let mut forged = ACCEPT;
        forged[0] = ACCESS_REJECT;
        assert!(matches!(request("xyzzy5461").hear(&forged), Heard::Foreign(_)));
    }

    #[test]
    fn an_answer_means_what_its_code_says_if_it_is_signed() {
        let request = request("secret");
        for mac in [true, false] {
            for (code, reason) in [(3, Reason::Permfail), (11, Reason::Unexpected), (5, Reason::Unexpected)] {
                let Heard::Answer(Err(trouble)) = request.hear(&signed(code, &request, mac)) else {
                    panic!()
                };
                assert_eq!((trouble.reason, trouble.code), (reason, Some(code.into())));
                assert!(trouble.text.ends_with("hello\\u{7}"), "{}", trouble.text);
            }
        }
        // The digest holds, the Message-Authenticator does not.
        let mut answer = signed(ACCESS_ACCEPT, &request, true);
        answer[HEADER + 2] ^= 1;
        answer[4..HEADER].copy_from_slice(request.authenticator());
        let digest = Md5::new().chain_update(&answer).chain_update("secret").finalize();
        answer[4..HEADER].copy_from_slice(&digest);
        assert!(matches!(request.hear(&answer), Heard::Foreign(_)));
    }

    #[test]
    fn who_cannot_be_said_is_not_asked() {
        let long = Credential::parse(&format!("nemo:{}", "p".repeat(129)));
        assert_eq!(Request::new(String::new(), long, [0; 17]).err().unwrap().reason, Reason::Local);
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_odd(mut bytes: Vec<u8>) {
            let request = request("secret");
            let _ = request.hear(&bytes);
            if let Some(head) = bytes.get_mut(..4) {
                head.copy_from_slice(&[2, 0, 0, 40]);
            }
            let heard = request.hear(&bytes);
            prop_assert!(matches!(heard, Heard::Foreign(_)));
        }
    }
}
