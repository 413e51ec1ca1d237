use proptest::prelude::*;

use super::*;

fn full() -> QueueReport {
    let mut report = QueueReport::default();
    for field in &FIELDS {
        match (field.slot)(&mut report) {
            Slot::Count(slot) => *slot = Some(field.most),
            Slot::Flag(slot) => *slot = Some(true),
            Slot::Hundredths(slot) => *slot = Some(Hundredths(field.most)),
        }
    }
    report.source = Some(Source::Postqueue);
    report.trouble = Some(Trouble::Permission);
    report.postfix = Version::parse(&"9".repeat(crate::report::MAX_VERSION));
    report
}

#[test]
fn the_longest_line_fits_and_is_read_as_it_was_written() {
    let line = render(&full());
    assert!(line.len() <= MAX_LINE, "{}", line.len());
    let read = parse(line.as_bytes()).unwrap();
    assert_eq!(read.report, Some(full()));
    assert_eq!(read.health, Some(Health::Up));
}

#[test]
fn what_haproxy_understands_is_understood() {
    let words = |text: &str| parse(text.as_bytes()).unwrap();
    assert_eq!(words("75%\n").percent, Some(75));
    assert_eq!(words("up,75%\tmaxconn:30\r\n").max_connections, Some(30));
    assert_eq!(words("UP Ready\n").admin, Some(Admin::Ready));
    assert_eq!(words("drain 0%\r").percent, Some(0));
    assert_eq!(words("down # out of order\n"), Line { health: Some(Health::Down), ..Line::default() });
    // The last of a kind wins.
    assert_eq!(words("up fail stopped\n").health, Some(Health::Stopped));
}

#[test]
fn a_line_with_anything_wrong_is_no_data() {
    use LineError::{Absurd, Cut, Garbage, TooLong, Twice, Version};
    for (line, error) in [
        ("", Cut),
        ("up 75", Cut),
        ("up 75% # v1 active=1", Cut),
        ("\n", Garbage),
        ("hello\n", Garbage),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", Garbage),
        ("HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", Garbage),
        ("up\ndown\n", Garbage),
        ("up\r\n\n", Garbage),
        ("up \u{7}\n", Garbage),
        ("up \u{e9}\n", Garbage),
        ("-1%\n", Absurd),
        ("99999999999999999999%\n", Absurd),
        ("%\n", Absurd),
        ("maxconn:x\n", Absurd),
        ("# v2 active=1\n", Version),
        ("# v1 active=-1\n", Absurd),
        ("# v1 active=1000000001\n", Absurd),
        ("# v1 oldest=99999999999\n", Absurd),
        ("# v1 active=\n", Absurd),
        ("# v1 qmgr=2\n", Absurd),
        ("# v1 load=-0.5\n", Absurd),
        ("# v1 load=1e5\n", Absurd),
        ("# v1 active=1 active=1\n", Twice),
        ("# v1 active\n", Garbage),
        ("# v1 =1\n", Garbage),
        ("# v1 source=gossip\n", Garbage),
        ("# v1 postfix=3.7\"x\n", Garbage),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(error), "{line:?}");
    }
    assert_eq!(parse(&[b'u'; MAX_LINE + 1]), Err(TooLong));
}

#[test]
fn figures_of_a_later_program_are_skipped_and_missing_ones_are_unknown() {
    let report = parse(b"up # v1 active=5 next_thing=\"x\"\n").unwrap().report.unwrap();
    assert_eq!(report, QueueReport { active: Some(5), ..QueueReport::default() });
}

#[test]
fn haproxy_is_told_down_only_of_what_is_known_to_be_down() {
    let unknown = QueueReport::default();
    assert!(render(&unknown).starts_with("up # v1"));
    for dead in [
        QueueReport { master: Some(false), ..unknown.clone() },
        QueueReport { qmgr: Some(false), incoming: Some(0), active: Some(0), ..unknown.clone() },
    ] {
        assert!(render(&dead).starts_with("down # v1"), "{}", render(&dead));
    }
    // A queue that cannot be read is no empty queue.
    let blind = QueueReport { trouble: Some(Trouble::Permission), master: Some(true), ..unknown };
    assert!(render(&blind).starts_with("up # v1 trouble=permission"));
}

#[test]
fn the_weight_for_haproxy_falls_with_the_wait() {
    let queue = |backlog, waiting, rate| {
        percent(&QueueReport {
            incoming: Some(backlog),
            active: Some(0),
            waiting,
            rate,
            ..QueueReport::default()
        })
    };
    for (backlog, waiting, rate, expected) in [
        (19, Some(5000), None, Some(100)),
        (20, Some(10), None, Some(100)),
        (1000, Some(65), None, Some(55)),
        (1000, Some(5000), None, Some(10)),
        // One old message in a queue that flows.
        (1000, Some(5000), Some(100), Some(10)),
        (1000, Some(5000), Some(10_000), Some(100)),
        (1000, Some(5000), Some(0), Some(10)),
        (1000, None, None, None),
    ] {
        assert_eq!(queue(backlog, waiting, rate.map(Hundredths)), expected, "{backlog} {waiting:?} {rate:?}");
    }
    assert_eq!(percent(&QueueReport { active: Some(3), ..QueueReport::default() }), None);
}

proptest! {
    #[test]
    fn any_bytes_are_a_line_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn every_report_survives_its_line(numbers in prop::collection::vec(prop::option::of(any::<u64>()), FIELDS.len())) {
        let mut report = QueueReport::default();
        for (field, number) in FIELDS.iter().zip(numbers) {
            let number = number.map(|number| number % (field.most + 1));
            match (field.slot)(&mut report) {
                Slot::Count(slot) => *slot = number,
                Slot::Flag(slot) => *slot = number.map(|number| number == 1),
                Slot::Hundredths(slot) => *slot = number.map(Hundredths),
            }
        }
        let line = render(&report);
        prop_assert!(line.len() <= MAX_LINE);
        prop_assert_eq!(parse(line.as_bytes()).unwrap().report, Some(report.clone()));
        // Cut anywhere, it is no data.
        for end in 0..line.len() {
            prop_assert!(parse(&line.as_bytes()[..end]).is_err());
        }
    }

    #[test]
    fn more_waiting_never_means_more_weight(backlog in 0..10_000_u64, waiting in 0..1000_u64, more in 0..1000_u64) {
        let weight = |waiting| percent(&QueueReport {
            incoming: Some(0), active: Some(backlog), waiting: Some(waiting), ..QueueReport::default()
        }).unwrap();
        prop_assert!(weight(waiting + more) <= weight(waiting));
        prop_assert!((FLOOR..=100).contains(&weight(waiting)));
    }
}
