//! A line chart as SVG.
//!
//! Owns axes, ticks and lines. Refuses to know what is drawn. Cannot fail: what is no number is left out.

use std::fmt::Write as _;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;
/// The smallest value that a logarithmic axis shows.
const LEAST: f64 = 0.01;

/// One line.
pub struct Line {
    /// A CSS variable.
    pub color: &'static str,
    /// In the key.
    pub name: String,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
pub struct Chart<'a> {
    /// Its lines.
    pub lines: Vec<Line>,
    /// What the x axis shows.
    pub x: &'a str,
    /// What the y axis shows.
    pub y: &'a str,
    /// Which axes are logarithmic.
    pub log: Scale,
    /// Parts of the x axis that are marked, from and to.
    pub bands: Vec<(f64, f64)>,
}

/// Which axes are logarithmic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Percentiles, each nine as wide as the one before.
    nines: bool,
    y: bool,
}

/// Says which axes are logarithmic; that of x then shows percentiles.
#[must_use]
pub const fn scale(nines: bool, y: bool) -> Scale {
    Scale { nines, y }
}

impl Chart<'_> {
    /// The chart.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        // Writing to memory does not fail.
        let _ = self.draw(&mut out);
        out.push_str("</svg>");
        out
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        let all = || {
            self.lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite())
        };
        let (mut low_x, mut high_x) = (f64::MAX, f64::MIN);
        let (mut low_y, mut high_y) = (f64::MAX, 0.0_f64);
        for &(x, y) in all() {
            (low_x, high_x) = (low_x.min(x), high_x.max(x));
            (low_y, high_y) = (low_y.min(y.max(LEAST)), high_y.max(y));
        }
        if low_x > high_x {
            return Ok(());
        }
        let high_x = if high_x > low_x { high_x } else { low_x + 1.0 };
        let ticks =
            if self.log.y { decades(low_y, high_y.max(low_y * 10.0)) } else { nice(high_y.max(1e-9)) };
        let (bottom, top) = match (ticks.first(), ticks.last()) {
            (Some(&bottom), Some(&top)) if top > bottom => (bottom, top),
            _ => (0.0, 1.0),
        };
        let x = |value: f64| {
            let share = if self.log.nines {
                (value / low_x).ln() / (high_x / low_x).ln()
            } else {
                (value - low_x) / (high_x - low_x)
            };
            LEFT + share * (WIDTH - LEFT - RIGHT)
        };
        let y = |value: f64| {
            let share = if self.log.y {
                (value.max(bottom) / bottom).ln() / (top / bottom).ln()
            } else {
                (value - bottom) / (top - bottom)
            };
            HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        };
        for &(from, to) in &self.bands {
            let (from, to) = (x(from.clamp(low_x, high_x)), x(to.clamp(low_x, high_x)));
            write!(
                out,
                "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\" fill=\"var(--bad)\" opacity=\".12\"/>",
                (to - from).max(2.0),
                HEIGHT - TOP - BOTTOM
            )?;
        }
        for &tick in &ticks {
            let at = y(tick);
            write!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var(--rule)\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                number(tick)
            )?;
        }
        for (value, label) in self.x_ticks(low_x, high_x) {
            write!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                x(value),
                HEIGHT - 16.0
            )?;
        }
        write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><text x=\"{LEFT}\" y=\"{}\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 2.0,
            self.x,
            HEIGHT - 2.0,
            self.y
        )?;
        for line in &self.lines {
            let points: Vec<_> = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
            if let [(px, py)] = points.as_slice() {
                write!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"var({})\"/>",
                    x(*px),
                    y(*py),
                    line.color
                )?;
                continue;
            }
            write!(
                out,
                "<polyline fill=\"none\" stroke-width=\"1.8\" stroke=\"var({})\" points=\"",
                line.color
            )?;
            for &&(px, py) in &points {
                write!(out, "{:.1},{:.1} ", x(px), y(py))?;
            }
            out.push_str("\"/>");
        }
        Ok(())
    }

    fn x_ticks(&self, low: f64, high: f64) -> Vec<(f64, String)> {
        if self.log.nines {
            let nines = [
                (2.0, "50 %"),
                (10.0, "90 %"),
                (100.0, "99 %"),
                (1e3, "99.9 %"),
                (1e4, "99.99 %"),
                (1e5, "99.999 %"),
            ];
            return nines
                .into_iter()
                .filter(|(x, _)| *x <= high)
                .map(|(x, label)| (x, label.to_owned()))
                .collect();
        }
        let step = nice((high - low) / 2.0).get(1).copied().unwrap_or(1.0).max(1.0);
        let mut ticks = Vec::new();
        let mut tick = (low / step).ceil() * step;
        while tick <= high && ticks.len() < 20 {
            ticks.push((tick, number(tick)));
            tick += step;
        }
        ticks
    }
}

/// Round values from 0 to at least `high`, about five.
fn nice(high: f64) -> Vec<f64> {
    let rough = high / 5.0;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough).unwrap_or(rough);
    let mut ticks = vec![0.0];
    while ticks.last().is_some_and(|last| *last < high) && ticks.len() < 12 {
        ticks.push(ticks.last().unwrap_or(&0.0) + step);
    }
    ticks
}

/// Powers of ten around both.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let mut tick = 10.0_f64.powf(low.max(LEAST).log10().floor());
    let mut ticks = vec![tick];
    while tick < high && ticks.len() < 12 {
        tick *= 10.0;
        ticks.push(tick);
    }
    ticks
}

fn number(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{}k", value / 1e3)
    } else {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_no_nonsense_in_it() {
        for points in [
            vec![],
            vec![(0.0, 0.0)],
            vec![(0.0, f64::NAN), (1.0, 5.0)],
            vec![(0.0, 0.0), (1.0, 1e9)],
            vec![(3.0, 7.0), (3.0, 7.0)],
        ] {
            for log in [scale(false, false), scale(false, true)] {
                let line = Line { color: "--a", name: String::new(), points: points.clone() };
                let svg = Chart { lines: vec![line], x: "x", y: "y", log, bands: vec![(0.5, 9.0)] }.render();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
