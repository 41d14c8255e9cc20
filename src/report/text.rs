//! How durations and colours are written.

use std::time::Duration;

use jiff::Timestamp;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Painter {
    pub on: bool,
}

impl Painter {
    /// Good.
    pub fn green(self, text: &str) -> String {
        self.paint_with("32", text)
    }

    /// Bad.
    pub fn red(self, text: &str) -> String {
        self.paint_with("31", text)
    }

    /// Worth a look.
    pub fn yellow(self, text: &str) -> String {
        self.paint_with("33", text)
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint_with("1", text)
    }

    /// Of less weight.
    pub fn dim(self, text: &str) -> String {
        self.paint_with("2", text)
    }

    fn paint_with(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A duration as people say it: `45s`, `4m10s`, `15m`, `1h02m`, `2d03h`. A smaller unit that is zero is left out.
pub fn format_duration(time: Duration) -> String {
    let s = time.as_secs();
    let (large, small) = match s {
        0..60 => return format!("{s}s"),
        60..3600 => ((s / 60, "m"), (s % 60, "s")),
        3600..86400 => ((s / 3600, "h"), (s % 3600 / 60, "m")),
        86400.. => ((s / 86400, "d"), (s % 86400 / 3600, "h")),
    };
    match small.0 {
        0 => format!("{}{}", large.0, large.1),
        _ => format!("{}{}{:02}{}", large.0, large.1, small.0, small.1),
    }
}

/// An estimate, no more exact than it is: to five seconds below a minute, to the minute below an hour, else to five
/// minutes.
pub fn format_estimate(time: Duration) -> String {
    let s = time.as_secs();
    let unit = match s {
        0..60 => 5,
        60..3600 => 60,
        3600.. => 300,
    };
    format_duration(Duration::from_secs(s.div_ceil(unit) * unit))
}

/// The time from one moment to a later one.
pub fn time_between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The time of day, in UTC.
pub fn time_of_day(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// The day, in UTC.
pub fn day_of(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}
