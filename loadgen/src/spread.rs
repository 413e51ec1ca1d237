//! Is the spread over the servers what was expected, or chance?
//!
//! Owns the chi-square test of goodness of fit and its p-value. Refuses to know servers. Cannot fail: where nothing can be
//! said, nothing is.

/// What a comparison of counts with expected weights says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The statistic.
    pub chi_square: f64,
    /// Degrees of freedom: categories less one.
    pub degrees: u32,
    /// How likely a spread at least this far off is by chance; small is suspicious.
    pub p_value: f64,
    /// The largest distance of a share from its expected share, in percent of the latter.
    pub skew: f64,
}

/// Compares counts with weights, pair by pair. `None` with fewer than two weights above 0, or no counts.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn fit(rows: &[(u64, f64)]) -> Option<Fit> {
    let total: u64 = rows.iter().map(|(count, _)| count).sum();
    let weights: f64 = rows.iter().map(|(_, weight)| weight).sum();
    let expected = rows.iter().filter(|(_, weight)| *weight > 0.0).count();
    if total == 0 || expected < 2 || !weights.is_finite() {
        return None;
    }
    let (mut chi_square, mut skew) = (0.0, 0.0_f64);
    for &(count, weight) in rows {
        let wanted = weight / weights * total as f64;
        if wanted > 0.0 {
            let off = count as f64 - wanted;
            chi_square += off * off / wanted;
            skew = skew.max(off.abs() / wanted * 100.0);
        } else if count > 0 {
            // Somebody answered who must not: no chance at all.
            return Some(Fit {
                chi_square: f64::MAX,
                degrees: degrees(expected),
                p_value: 0.0,
                skew: f64::MAX,
            });
        }
    }
    let degrees = degrees(expected);
    Some(Fit { chi_square, degrees, p_value: upper_gamma(f64::from(degrees) / 2.0, chi_square / 2.0), skew })
}

fn degrees(expected: usize) -> u32 {
    u32::try_from(expected.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// The regularised upper incomplete gamma function Q(a, x): the series below a + 1, Lentz's continued fraction above.
fn upper_gamma(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    if x <= 0.0 {
        return 1.0;
    }
    let front = a.mul_add(x.ln(), -x) - ln_gamma(a);
    if x < a + 1.0 {
        let (mut sum, mut term, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..10_000 {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term < sum * 1e-15 {
                break;
            }
        }
        return (1.0 - sum * front.exp()).clamp(0.0, 1.0);
    }
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut h = d;
    for i in 1..10_000 {
        let i = f64::from(i);
        let an = -i * (i - a);
        b += 2.0;
        d = an.mul_add(d, b);
        d = if d.abs() < TINY { TINY } else { d };
        c = b + an / c;
        c = if c.abs() < TINY { TINY } else { c };
        d = 1.0 / d;
        let step = d * c;
        h *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (front.exp() * h).clamp(0.0, 1.0)
}

/// Lanczos, g = 7; good to 15 digits for positive arguments.
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let mut sum = 0.0;
    for (n, coefficient) in (0_u32..).zip(COEFFICIENTS) {
        sum += if n == 0 { coefficient } else { coefficient / (x + f64::from(n)) };
    }
    let t = x + 7.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_are_those_of_the_tables() {
        // R: pchisq(x, df, lower.tail = FALSE)
        for (x, df, p) in [
            (3.841_458_8, 1.0, 0.05),
            (6.634_896_6, 1.0, 0.01),
            (5.991_464_5, 2.0, 0.05),
            (18.307_038, 10.0, 0.05),
            (0.0, 1.0, 1.0),
            (40.0, 4.0, 4.328_4e-8),
        ] {
            let got = upper_gamma(df / 2.0, x / 2.0);
            assert!((got - p).abs() <= p * 1e-4, "{x} {df}: {got}");
        }
    }

    #[test]
    fn chance_is_told_from_a_wrong_weight() {
        let fair = fit(&[(510, 1.0), (490, 1.0)]).unwrap();
        assert!(fair.p_value > 0.5 && (fair.skew - 2.0).abs() < 1e-9, "{fair:?}");
        let wrong = fit(&[(600, 1.0), (400, 1.0)]).unwrap();
        assert!(wrong.p_value < 1e-9);
        // Six of six on one of two is chance more often than one would think.
        assert!(fit(&[(6, 1.0), (0, 1.0)]).unwrap().p_value > 0.01);
        assert!(fit(&[(750, 3.0), (250, 1.0)]).unwrap().p_value > 0.99);
        assert_eq!(fit(&[(750, 3.0), (250, 1.0), (1, 0.0)]).unwrap().p_value, 0.0);
        assert_eq!((fit(&[]), fit(&[(5, 1.0)]), fit(&[(0, 1.0), (0, 1.0)])), (None, None, None));
    }
}
