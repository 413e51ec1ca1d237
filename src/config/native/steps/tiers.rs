//! One conversation with all its steps as several, each with what it needs and a pace of its own.
//!
//! Owns which step goes to which tier. Refuses to know how steps are written in a file. Cannot fail.

use std::time::Duration;

use checks::smtp::SmtpSpec;
use checks::smtp::ehlo::Requirement;
use checks::tls::TlsMode;

use super::super::fields::Setting;
use super::StepsLayer;
use crate::config::Tier;

/// A certificate that lasts 90 days is renewed when 30 are left.
const WARN_DAYS: u32 = 14;

impl StepsLayer {
    /// Below how many days left of a certificate a warning is due.
    pub(in super::super) fn warn_days(&self) -> u32 {
        self.tls.warn_days.or(WARN_DAYS)
    }

    /// A conversation with all its steps as several, each with what it needs and a pace of its own. `interval` is that of
    /// the first one, and none goes faster unless told.
    ///
    /// Where mail cannot be asked for outside TLS, asking for mail shows what TLS is worth, and more often.
    pub(in super::super) fn tiers(
        &self,
        whole: SmtpSpec,
        interval: Duration,
    ) -> Vec<(Tier, SmtpSpec, Duration)> {
        let mode = whole.tls.as_ref().map(|tls| tls.mode);
        let from_the_start = mode == Some(TlsMode::Implicit);
        let mail_in_tls = mode == Some(TlsMode::Required) || whole.auth.is_some();
        let starttls = Requirement::Keyword("STARTTLS".to_owned());
        let (before_tls, in_tls): (Vec<_>, Vec<_>) =
            whole.require.iter().cloned().partition(|one| mode.is_none() || *one == starttls);

        let base = SmtpSpec { auth: None, mail: None, data: None, ..whole.clone() };
        let mail_tls = whole.tls.clone().filter(|_| from_the_start || mail_in_tls);
        let mail_require = if mail_tls.is_some() { in_tls.clone() } else { Vec::new() };
        let later = SmtpSpec { banner: None, banner_name: None, ..whole };
        let asks = later.mail.is_some() || later.auth.is_some() && later.data.is_none();
        let mail = SmtpSpec { tls: mail_tls.clone(), require: mail_require, data: None, ..later.clone() };
        let data = SmtpSpec { tls: mail_tls, require: Vec::new(), mail: None, ..later.clone() };
        let tls = SmtpSpec { auth: None, mail: None, data: None, require: in_tls, ..later };
        let tls_alone = tls.tls.is_some() && !from_the_start && !(asks && mail.tls.is_some());

        let slower = |setting: &Setting<Duration>, usual| setting.or(interval.max(usual));
        let mail_pace = slower(&self.mail.interval, Duration::from_secs(30));
        let has_data = data.data.is_some();
        let mut tiers = vec![if from_the_start {
            (Tier::Base, base, interval)
        } else {
            (Tier::Base, SmtpSpec { tls: None, require: before_tls, ..base }, interval)
        }];
        tiers.extend(asks.then_some((Tier::Mail, mail, mail_pace)));
        let minute = Duration::from_secs(60);
        tiers.extend(tls_alone.then(|| (Tier::Tls, tls, slower(&self.tls.interval, minute))));
        tiers.extend(has_data.then(|| (Tier::Data, data, slower(&self.data.interval, minute))));
        tiers
    }
}
