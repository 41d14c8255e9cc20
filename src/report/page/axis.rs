//! Time as a place on the page, in percent. Long times without a process are drawn short, and said so.

use jiff::{SignedDuration, Timestamp};

use super::RunGap;
use crate::report::text::time_between;

/// A gap that is longer than this part of the running time is cut to it.
const MAX_GAP_SHARE: f64 = 0.08;
/// How many ticks are drawn at most.
const MAX_TICKS: f64 = 8.0;
/// Steps between ticks, in seconds.
const TICK_STEPS: [i64; 13] = [
    10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 86_400,
];

/// A stretch of time and the part of the axis that shows it.
#[derive(Clone, Debug)]
struct Stretch {
    from: Timestamp,
    to: Timestamp,
    /// In seconds of drawn time.
    drawn: f64,
    is_gap: bool,
}

/// A time axis.
#[derive(Clone, Debug)]
pub struct TimeAxis {
    stretches: Vec<Stretch>,
    total: f64,
}

/// A label on the axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    pub percent: f64,
    pub label: String,
}

impl TimeAxis {
    /// An axis from `from` to `to`, in which those of `gaps` that are long are cut.
    pub fn new(from: Timestamp, to: Timestamp, gaps: &[RunGap]) -> Self {
        let seconds = |a, b| time_between(a, b).as_secs_f64();
        // Gaps are cut to the axis; those outside of it do not count.
        let inside = gaps
            .iter()
            .map(|g| (g.from.max(from), g.to.min(to)))
            .filter(|(a, b)| a < b);
        // The axis is divided at the gaps. Gaps may overlap, so each begins where the last one ended at the earliest.
        let mut stretches = Vec::new();
        let mut at = from;
        for (a, b) in inside {
            let push = |list: &mut Vec<Stretch>, from, to, is_gap| {
                list.push(Stretch {
                    from,
                    to,
                    drawn: seconds(from, to),
                    is_gap,
                });
            };
            if at < a {
                push(&mut stretches, at, a, false);
            }
            push(&mut stretches, a.max(at), b, true);
            at = at.max(b);
        }
        if at < to || stretches.is_empty() {
            stretches.push(Stretch {
                from: at,
                to,
                drawn: seconds(at, to),
                is_gap: false,
            });
        }
        // A long gap gets a share of the running time at most: a night's pause would leave no room for the run.
        let running: f64 = stretches
            .iter()
            .filter(|s| !s.is_gap)
            .map(|s| s.drawn)
            .sum();
        for gap in stretches.iter_mut().filter(|s| s.is_gap) {
            if running > 0.0 {
                gap.drawn = gap.drawn.min(running * MAX_GAP_SHARE);
            }
        }
        // An axis without length would divide by zero.
        let total: f64 = stretches.iter().map(|s| s.drawn).sum();
        Self {
            stretches,
            total: total.max(1.0),
        }
    }

    /// The place of a moment, in percent.
    pub fn percent(&self, at: Timestamp) -> f64 {
        let mut drawn = 0.0;
        for stretch in &self.stretches {
            if at <= stretch.from {
                break;
            }
            if at >= stretch.to {
                drawn += stretch.drawn;
                continue;
            }
            let whole = time_between(stretch.from, stretch.to).as_secs_f64();
            let part = time_between(stretch.from, at).as_secs_f64();
            drawn += stretch.drawn * part / whole.max(0.001);
            break;
        }
        (drawn / self.total * 100.0).clamp(0.0, 100.0)
    }

    /// Whether a gap is drawn shorter than it was.
    pub fn has_cuts(&self) -> bool {
        self.stretches
            .iter()
            .any(|s| s.is_gap && s.drawn + 1.0 < time_between(s.from, s.to).as_secs_f64())
    }

    /// Labels at round times, none inside a gap and none so near the end that it would not fit.
    pub fn ticks(&self) -> Vec<Tick> {
        // The finest round interval that does not crowd the axis; beyond the list it is a week.
        let step = TICK_STEPS
            .into_iter()
            .find(|s| self.total / *s as f64 <= MAX_TICKS)
            .unwrap_or(7 * 86_400);
        let mut ticks: Vec<Tick> = Vec::new();
        for stretch in self.stretches.iter().filter(|s| !s.is_gap) {
            // Ticks stand at multiples of the interval, so that labels are round times.
            let first = stretch.from.as_second().div_euclid(step) * step;
            let mut at = Timestamp::from_second(first).unwrap_or(stretch.from);
            while at <= stretch.to {
                let percent = self.percent(at);
                // After a gap that is drawn short two ticks may fall on the same place.
                let apart = ticks
                    .last()
                    .is_none_or(|last| percent - last.percent > 60.0 / MAX_TICKS);
                if at >= stretch.from && percent < 95.0 && apart {
                    ticks.push(Tick {
                        percent,
                        label: at.strftime("%H:%M").to_string(),
                    });
                }
                let Ok(next) = at.checked_add(SignedDuration::from_secs(step)) else {
                    break;
                };
                at = next;
            }
        }
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_248_000 + seconds).unwrap()
    }

    #[test]
    fn a_night_without_a_process_does_not_squeeze_the_run() {
        let night = RunGap {
            from: at(3600),
            to: at(12 * 3600),
            why: None,
        };
        let axis = TimeAxis::new(at(0), at(13 * 3600), &[night]);
        assert!(axis.has_cuts());
        let width = axis.percent(at(12 * 3600)) - axis.percent(at(3600));
        assert!((5.0..10.0).contains(&width), "{width}");
        assert!((axis.percent(at(13 * 3600)) - 100.0).abs() < 0.01);
        let plain = TimeAxis::new(at(0), at(100), &[]);
        assert!((plain.percent(at(25)) - 25.0).abs() < 0.01 && !plain.has_cuts());
    }
}
