//! Random files that the original takes and means something by.

use std::fmt::Write as _;

use fastrand::Rng;

/// The file of a seed: globals, and up to six virtuals whose checks end at once.
pub(super) fn file(seed: u64) -> String {
    let mut rng = Rng::with_seed(seed);
    let mut text = String::new();
    let mut line = |rng: &mut Rng, odds: u32, text_of: &dyn Fn(&mut Rng) -> String| {
        if rng.u32(0..100) < odds {
            let comment = if rng.u8(0..8) == 0 { "# a remark\n" } else { "" };
            let said = text_of(rng);
            let _ = writeln!(text, "{comment}{said}");
        }
    };
    let yes = |rng: &mut Rng| if rng.bool() { "yes" } else { "no" };
    for name in ["quiescent", "readdquiescent", "cleanstop", "autoreload"] {
        line(&mut rng, 40, &|rng| format!("{name}={}", yes(rng)));
    }
    for name in ["checktimeout", "negotiatetimeout", "checkinterval", "emailalertfreq"] {
        line(&mut rng, 40, &|rng| format!("{name} = {}", rng.u8(1..60)));
    }
    // The original makes nonsense of a fallback for all below a mark.
    let marks = rng.bool();
    let odds = if marks { 0 } else { 30 };
    line(&mut rng, odds, &|rng| format!("fallback=127.0.0.200:{} masq", rng.u16(1..9999)));
    line(&mut rng, odds, &|_| "fallback6=[::1]".to_owned());
    line(&mut rng, 20, &|_| "emailalert=root@localhost".to_owned());
    for index in 0..rng.u8(1..=6) {
        let six = rng.u8(0..5) == 0;
        let port = rng.u16(1..60_000);
        let forward = |rng: &mut Rng| ["gate", "masq", "ipip"][rng.usize(0..3)];
        match (six, rng.u8(0..4)) {
            (false, 0) if marks => line(&mut rng, 100, &|_| format!("virtual={}", u32::from(index) + 7)),
            (true, 0) if marks => line(&mut rng, 100, &|_| format!("virtual6={}", u32::from(index) + 7)),
            (false, _) => line(&mut rng, 100, &|_| format!("virtual = 192.0.2.{index}:{port}")),
            (true, _) => line(&mut rng, 100, &|_| format!("virtual6=[2001:db8::{index}]:{port}")),
        }
        for host in 1..=rng.u8(1..5) {
            line(&mut rng, 100, &|rng| {
                let (word, address) = if six {
                    ("real6", format!("[2001:db8::1:{host}]"))
                } else {
                    ("real", format!("127.0.1.{host}"))
                };
                let mut said = format!("{word}={address}:{port} {}", forward(rng));
                if rng.bool() {
                    let _ = write!(said, " {}", rng.u16(0..900));
                }
                if rng.u8(0..4) == 0 {
                    let lower = rng.u16(0..100);
                    let _ = write!(said, " l:{lower} u:{}", lower + rng.u16(1..100));
                }
                let tab = rng.bool();
                format!("{}{said}", if tab { "\t" } else { "    " })
            });
        }
        line(&mut rng, 100, &|rng| {
            [
                "    checktype=on",
                "\tchecktype=external",
                "    checktype=external\n    checkcommand=/bin/false",
            ][rng.usize(0..3)]
            .to_owned()
        });
        line(&mut rng, 60, &|rng| {
            format!("    scheduler={}", ["rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq"][rng.usize(0..8)])
        });
        line(&mut rng, 30, &|rng| format!("    persistent={}", rng.u16(1..3600)));
        line(&mut rng, 20, &|rng| {
            if six {
                format!("    netmask={}", rng.u8(1..=127))
            } else {
                "    netmask=255.255.255.0".to_owned()
            }
        });
        line(&mut rng, 30, &|rng| format!("    quiescent={}", yes(rng)));
        line(&mut rng, 30, &|rng| {
            let (word, address) = if six { ("fallback6", "[::1]") } else { ("fallback", "127.0.0.201") };
            format!("    {word}={address}:{port} {}", forward(rng))
        });
        line(&mut rng, 20, &|_| "    servicename=a name   # behind".to_owned());
    }
    text
}
