//! How a sink is made ill.
//!
//! Owns the rules: at which stage, what, how often. Refuses to know sessions and dice. Fails with a text at a rule that
//! cannot be read.

use std::time::Duration;

/// Where an illness shows: in the answer to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The greeting.
    Banner,
    /// EHLO, HELO, LHLO.
    Ehlo,
    /// STARTTLS.
    Starttls,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The end of the content.
    Body,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
}

/// What is done to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// This is said instead; 421 ends the session.
    Reject(String),
    /// It comes later.
    Delay(Duration),
    /// It does not come: the connection is closed.
    Drop,
    /// It does not come: the connection is reset.
    Reset,
    /// Half of it comes, then the connection is closed.
    Half,
    /// It comes byte by byte, with this between.
    Dribble(Duration),
    /// It does not come, nor does any other; the connection stays.
    Silence,
    /// Something comes that is no SMTP.
    Garbage,
}

/// An illness with its odds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where.
    pub stage: Stage,
    /// What.
    pub act: Act,
    /// How often, in a million.
    pub odds: u32,
}

/// Certain.
pub const ALWAYS: u32 = 1_000_000;

impl Rule {
    /// Reads `STAGE:ACT[:PERCENT%]`: `rcpt:reject=550 5.1.1 No such user:10%`, `data:delay=50ms`, `body:drop:1%`,
    /// `banner:421`, `mail:half`, `ehlo:dribble=10ms`, `quit:reset`, `mail:silence`, `rcpt:garbage`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "\"{}\": {why}; it is STAGE:ACT[:PERCENT%] with a stage of banner ehlo starttls auth mail rcpt data body \
                 rset quit and an act of reject=CODE TEXT, 421, delay=TIME, dribble=TIME, drop, reset, half, silence, garbage",
                text.escape_debug()
            )
        };
        let (stage, rest) = text.split_once(':').ok_or_else(|| wrong("there is no :"))?;
        let stage = match stage {
            "banner" => Stage::Banner,
            "ehlo" => Stage::Ehlo,
            "starttls" => Stage::Starttls,
            "auth" => Stage::Auth,
            "mail" => Stage::Mail,
            "rcpt" => Stage::Rcpt,
            "data" => Stage::Data,
            "body" => Stage::Body,
            "rset" => Stage::Rset,
            "quit" => Stage::Quit,
            _ => return Err(wrong("unknown stage")),
        };
        let (act, odds) = match rest.rsplit_once(':') {
            Some((act, odds)) if odds.ends_with('%') => {
                let percent =
                    odds.trim_end_matches('%').parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
                let percent = percent.ok_or_else(|| wrong("the odds are not 0% to 100%"))?;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
                (act, (percent * 10_000.0) as u32)
            }
            _ => (rest, ALWAYS),
        };
        let time = |text: &str| crate::plan::time(text).map_err(|error| wrong(&error));
        let act = match act.split_once('=').unwrap_or((act, "")) {
            ("reject", reply) => {
                let code = reply.get(..3).and_then(|code| code.parse::<u16>().ok());
                let good = code.is_some_and(|code| (400..600).contains(&code))
                    && matches!(reply.as_bytes().get(3), None | Some(b' '))
                    && !reply.chars().any(char::is_control);
                if !good {
                    return Err(wrong("reject needs a code from 400 to 599 and a text"));
                }
                Act::Reject(reply.to_owned())
            }
            ("421", "") => Act::Reject("421 4.3.2 Service not available".to_owned()),
            ("delay", text) => Act::Delay(time(text)?),
            ("dribble", text) => Act::Dribble(time(text)?),
            ("drop", "") => Act::Drop,
            ("reset", "") => Act::Reset,
            ("half", "") => Act::Half,
            ("silence", "") => Act::Silence,
            ("garbage", "") => Act::Garbage,
            _ => return Err(wrong("unknown act")),
        };
        Ok(Self { stage, act, odds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_or_named() {
        for (text, stage, act, odds) in [
            (
                "rcpt:reject=550 5.1.1 No: such user:10%",
                Stage::Rcpt,
                Act::Reject("550 5.1.1 No: such user".into()),
                100_000,
            ),
            ("data:delay=50ms", Stage::Data, Act::Delay(Duration::from_millis(50)), ALWAYS),
            ("body:drop:0.5%", Stage::Body, Act::Drop, 5000),
            ("banner:421", Stage::Banner, Act::Reject("421 4.3.2 Service not available".into()), ALWAYS),
        ] {
            assert_eq!(Rule::parse(text), Ok(Rule { stage, act, odds }), "{text}");
        }
        for text in [
            "",
            "rcpt",
            "foo:drop",
            "rcpt:reject=250 ok",
            "rcpt:reject=x",
            "rcpt:delay",
            "rcpt:drop=1",
            "rcpt:drop:101%",
        ] {
            assert!(Rule::parse(text).is_err(), "{text}");
        }
    }
}
