//! What a `check` table can say of the steps, what they come to, and what is wrong with them.

use checks::Kind;
use checks::smtp::Dialect;

use super::super::lower;
use super::*;
use crate::config::{Config, Diagnostic, Tier};
use crate::verdict::{Cell, Row, Verdicts};

/// A farm whose virtual has these lines.
fn farm(top: &str, lines: &str) -> Result<Config, Vec<Diagnostic>> {
    let real = "[[virtual.real]]\naddress = \"10.0.0.11-10.0.0.12\"\n";
    lower(&format!("{top}\n[[virtual]]\naddress = \"192.0.2.25:25\"\n{lines}\n{real}"), &[], "d.example.com")
}

/// What the checks of the first of two equal servers say, one a tier.
fn tiers(top: &str, lines: &str) -> Vec<(Tier, SmtpSpec, Duration)> {
    let config = farm(top, lines).unwrap_or_else(|problems| panic!("{lines}\n{problems:#?}"));
    let [one, other] = &config.virtuals[0].reals[..] else { panic!("two servers") };
    let of = |real: &crate::config::RealConfig| -> Vec<_> {
        let plans = real.checks.iter().cloned();
        plans.map(|plan| (plan.tier, plan.spec.kind, plan.interval)).collect()
    };
    assert_eq!(of(one), of(other));
    let spec = |kind| if let Kind::Smtp(spec) = kind { spec } else { panic!("{kind:?}") };
    of(one).into_iter().map(|(tier, kind, interval)| (tier, spec(kind), interval)).collect()
}

fn spec(top: &str, lines: &str, tier: Tier) -> SmtpSpec {
    let mut found = tiers(top, lines).into_iter().filter(|(found, ..)| *found == tier);
    found.next().unwrap_or_else(|| panic!("{lines} has no {tier:?}")).1
}

fn problem(lines: &str) -> Vec<String> {
    let problems = farm("", lines).err().unwrap_or_default();
    problems.into_iter().map(|problem| problem.message).collect()
}

#[test]
fn without_a_word_of_it_a_check_has_no_more_steps() {
    let only = SmtpSpec { ehlo_name: "d.example.com".into(), ..SmtpSpec::default() };
    assert_eq!(tiers("", ""), [(Tier::Base, only, Duration::from_secs(10))]);
}

#[test]
fn every_step_can_be_written() {
    let digits = "AB:".repeat(31) + "cd";
    let lines = format!(
        "check = {{ type = \"lmtp\", banner = \"^220 m\", banner_name = \"m.example\", require = [\"SIZE 5\", \"dsn\"], \
         proxy_header = \"v2-local\", \
         tls = {{ mode = \"implicit\", verify = \"pinned\", name = \"m.example\", pins = [\"{digits}\"], min_version = \"1.3\", timeout = \"1s\" }}, \
         auth = {{ file = \"/a\", mechanism = \"login\", timeout = \"2s\" }}, \
         mail = {{ from = \"a@b\", accept = \"c@d\", refuse = \"e@f\", interval = \"5s\", timeout = \"3s\" }}, \
         data = {{ from = \"\", to = \"g@h\", timeout = \"4s\" }} }}"
    );
    let mut pin = [0xab; 32];
    pin[31] = 0xcd;
    let second = Duration::from_secs(1);
    let base = SmtpSpec {
        dialect: Dialect::Lmtp,
        ehlo_name: "d.example.com".into(),
        proxy: Some(ProxyHeader::Local),
        banner: Some(Pattern::new("^220 m").unwrap()),
        banner_name: Some("m.example".into()),
        require: vec![Requirement::Size(5), Requirement::Keyword("DSN".into())],
        tls: Some(Box::new(TlsSpec {
            mode: TlsMode::Implicit,
            minimum: TlsVersion::V13,
            verify: Verify::Pinned(vec![pin]),
            name: Some("m.example".into()),
            timeout: second,
            ..TlsSpec::default()
        })),
        ..SmtpSpec::default()
    };
    let auth = Some(Box::new(AuthSpec {
        from: "/a".into(),
        mechanism: Some(Mechanism::Login),
        over: AuthOver::Tls,
        timeout: 2 * second,
    }));
    let mail = Some(Box::new(MailSpec {
        from: "a@b".into(),
        accept: Some("c@d".into()),
        refuse: Some("e@f".into()),
        timeout: 3 * second,
    }));
    let data =
        Some(Box::new(DataSpec { from: String::new(), to: "g@h".into(), timeout: 4 * second, text: None }));
    let later = SmtpSpec { banner: None, banner_name: None, auth, ..base.clone() };
    assert_eq!(
        tiers("", &lines),
        [
            (Tier::Base, base, 10 * second),
            (Tier::Mail, SmtpSpec { mail, ..later.clone() }, 5 * second),
            (Tier::Data, SmtpSpec { data, require: vec![], ..later }, 60 * second),
        ]
    );
}

#[test]
fn each_tier_asks_what_it_is_for_at_its_own_pace() {
    let mail = "mail = { accept = \"a@b\" }";
    let shown = |lines: &str| {
        let show = |(tier, spec, interval): (Tier, SmtpSpec, Duration)| {
            let steps = [
                (spec.tls.is_some(), " tls"),
                (spec.auth.is_some(), " auth"),
                (spec.mail.is_some(), " mail"),
                (spec.data.is_some(), " data"),
            ];
            let steps: String = steps.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
            let words: Vec<String> = spec.require.iter().map(|one| format!(" {one:?}")).collect();
            format!("{} {}{steps}{}", tier.name(), interval.as_secs(), words.concat())
        };
        tiers("", lines).into_iter().map(show).collect::<Vec<_>>().join("; ")
    };
    for (lines, expected) in [
        (format!("check = {{ {mail} }}"), "base 10; mail 30 mail"),
        (format!("check = {{ interval = \"40s\", {mail} }}"), "base 40; mail 40 mail"),
        ("check.tls.mode = \"opportunistic\"".into(), "base 10; tls 60 tls"),
        (format!("check = {{ tls = {{ mode = \"opportunistic\" }}, {mail} }}"), "base 10; mail 30 mail; tls 60 tls"),
        // A server that must be spoken to in TLS takes no mail outside of it.
        (format!("check = {{ tls = {{ mode = \"required\" }}, {mail} }}"), "base 10; mail 30 tls mail"),
        (format!("check = {{ tls = {{ mode = \"implicit\" }}, {mail} }}"), "base 10 tls; mail 30 tls mail"),
        (
            "check = { auth = { file = \"/a\" }, tls = { mode = \"opportunistic\", interval = \"2m\" } }".into(),
            "base 10; mail 30 tls auth",
        ),
        (
            "check = { auth = { file = \"/a\", without_tls = true }, data = { to = \"a@b\", interval = \"5m\" } }".into(),
            "base 10; data 300 auth data",
        ),
        (
            "check = { tls = { mode = \"required\" }, require = [\"STARTTLS\", \"SIZE 5\"] }".into(),
            "base 10 Keyword(\"STARTTLS\"); tls 60 tls Size(5)",
        ),
        ("check.require = [\"SIZE 5\"]".into(), "base 10 Size(5)"),
    ] {
        assert_eq!(shown(&lines), expected, "{lines}");
    }
}

#[test]
fn the_table_of_verdicts_is_laid_over_row_by_row() {
    let config = farm(
        "[check.verdict]\nopen_relay = \"up\"\n\"tempfail at rcpt\" = \"degraded\"",
        "check.verdict.\"tempfail at rcpt\" = \"down after 5\"",
    );
    let mut expected = Verdicts::default();
    for (row, cell) in [("open_relay", "up"), ("tempfail at rcpt", "down after 5")] {
        expected.set(Row::parse(row).unwrap(), Cell::parse(cell).unwrap());
    }
    assert_eq!(*config.unwrap().virtuals[0].reals[0].checks[0].verdicts, expected);
    for (lines, expected) in [
        (
            "check.verdict.\"tempfail at male\" = \"up\"",
            "verdict: \"male\" is no stage; known are connect, tls",
        ),
        ("check.verdict.tempfial = \"up\"", "verdict: \"tempfial\" is no reason; known are refused"),
        ("check.verdict.local = \"down\"", "verdict: local says nothing of a server"),
        ("check.verdict.refused = \"out\"", "verdict: \"out\" is no verdict; \"up\", \"degraded\""),
        ("check.verdict.refused = 0", "verdict: 0 is a number; a verdict such as"),
        ("check.verdict = \"up\"", "verdict: \"up\" is a string; a table"),
    ] {
        let problems = problem(lines);
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{lines}: {problems:?}");
    }
}

#[test]
fn nested_tables_are_laid_over_each_other_key_by_key() {
    let top = "check.tls = { mode = \"required\", ca_file = \"/ca\" }\ncheck.mail = { accept = \"a@b\", refuse = \"c@d\" }";
    let lines = "check.tls = { name = \"m.example\", verify = \"name\" }\ncheck.mail.accept = \"e@f\"";
    let whole = spec(top, lines, Tier::Mail);
    let tls = whole.tls.unwrap();
    assert_eq!(
        (tls.mode, &tls.verify, tls.name.as_deref()),
        (TlsMode::Required, &Verify::Name, Some("m.example"))
    );
    assert_eq!(tls.ca_file, PathBuf::from("/ca"));
    let mail = whole.mail.unwrap();
    assert_eq!((mail.accept.as_deref(), mail.refuse.as_deref()), (Some("e@f"), Some("c@d")));
    assert!(spec(top, "check.tls.mode = \"off\"", Tier::Mail).tls.is_none());
}

#[test]
fn every_mistake_is_named() {
    for (lines, expected) in [
        ("check.banner = \"(\"", "banner: \"(\" is no regular expression: unclosed group"),
        (
            "check.banner_name = \"a b\"",
            "banner_name: \"a b\" is not a host name; a host name such as \"mail.example.com\"",
        ),
        (
            "check.require = [\"SIZE x\"]",
            "require: \"SIZE x\" is not a capability such as \"STARTTLS\", \"SIZE 10240000\" or \"AUTH PLAIN LOGIN\"",
        ),
        (
            "check.proxy_header = \"v3\"",
            "proxy_header: \"v3\" is unknown; \"v1\", \"v2\" or \"v2-local\"; did you mean \"v1\"?",
        ),
        (
            "check.tls = \"required\"",
            "tls: \"required\" is a string; a table of \"mode\", \"verify\", \"name\", \"pins\", \"ca_file\", \"min_version\", \"warn_days\", \"interval\", \"timeout\"",
        ),
        ("check.tls = { verify = \"none\" }", "tls: mode is missing; mode = \"required\", for example"),
        (
            "check.tls = { mode = \"on\" }",
            "mode: \"on\" is unknown; \"off\", \"opportunistic\", \"required\" or \"implicit\"",
        ),
        ("check.tls = { mode = \"required\", mod = 1 }", "mod: unknown key in tls; did you mean \"mode\"?"),
        ("check.tls = { mode = \"required\", pins = [] }", "pins: is for verify = \"pinned\" only"),
        (
            "check.tls = { mode = \"required\", verify = \"pinned\" }",
            "tls: verify = \"pinned\" needs pins = [\"…\"]; see openssl x509 -fingerprint -sha256",
        ),
        (
            "check.tls = { mode = \"required\", verify = \"pinned\", pins = [\"ab\"] }",
            "pins: \"ab\" is not the SHA-256 of a certificate or of its public key, 64 hexadecimal digits",
        ),
        (
            "check.tls = { mode = \"required\", verify = \"none\", ca_file = \"/a\" }",
            "ca_file: is not looked at with verify = \"none\"",
        ),
        (
            "check.tls = { mode = \"required\", ca_file = \"a\" }",
            "ca_file: \"a\" is not an absolute path such as \"/etc/smtp-director/file\"",
        ),
        (
            "check.tls = { mode = \"required\", min_version = \"1.1\" }",
            "min_version: \"1.1\" is unknown; \"1.2\" or \"1.3\"; did you mean \"1.2\"?",
        ),
        (
            "check.auth = { file = \"/a\" }",
            "auth: a password is not said without TLS; write tls = { mode = \"required\" }, or auth.without_tls = true",
        ),
        (
            "check.auth = { without_tls = true }",
            "auth: file is missing; it holds one line user:password; or write user and password",
        ),
        (
            "check.mail = { from = \"a@b\" }",
            "mail: accept is missing: a recipient of the farm, such as \"postmaster@example.com\"",
        ),
        (
            "check.mail = { accept = \"a@b> X\" }",
            "accept: \"a@b> X\" is not an address such as \"postmaster@example.com\"",
        ),
        (
            "check.mail = { from = \"a\", accept = \"a@b\" }",
            "from: \"a\" is not an address such as \"check@example.com\", or \"\" for the null sender",
        ),
        ("check.data = { from = \"a@b\" }", "data: to is missing: a recipient whose mail the farm discards"),
        (
            "check = { type = \"connect\", mail = { accept = \"a@b\" } }",
            "mail: is for checks of type \"smtp\", \"submission\", \"smtps\" and \"lmtp\" only",
        ),
    ] {
        assert_eq!(problem(lines), [expected], "{lines}");
    }
    // A password may be overheard where somebody says so.
    assert!(problem("check.auth = { file = \"/a\", without_tls = true }").is_empty());
    assert!(problem("check.auth.file = \"/a\"\ncheck.tls.mode = \"opportunistic\"").is_empty());
}

#[test]
fn servers_of_one_table_share_what_is_prepared_for_it() {
    // All caches are equal; only their addresses tell whether they are one.
    let config = farm("", "check.tls.mode = \"required\"").unwrap();
    let plans = config.virtuals[0].reals.iter().flat_map(|real| &real.checks);
    let tls = plans
        .filter_map(|plan| if let Kind::Smtp(spec) = &plan.spec.kind { spec.tls.as_ref() } else { None });
    let shown: Vec<_> = tls.map(|tls| tls.prepared.clone()).collect();
    assert!(shown[0].is_same(&shown[1]));
    assert!(!shown[0].is_same(&TlsSpec::default().prepared));
}
