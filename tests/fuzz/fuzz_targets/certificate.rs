//! Any bytes for a certificate: no panic, and what is found lies within them and within the calendar.
#![no_main]

use checks::calendar::rfc3339;
use checks::tls::certificate::facts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(facts) = facts(data) {
        assert!(facts.public_key.len() <= data.len());
        // Years 0 to 9999.
        assert!((-62_200_000_000..253_500_000_000).contains(&facts.not_after));
        assert!(rfc3339(facts.not_after).len() >= 20);
    }
});
