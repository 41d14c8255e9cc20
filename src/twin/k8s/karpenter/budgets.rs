//! Disruption budgets of node pools: how many nodes may be disrupted now, for a reason (KARP-2).

use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{list_at, parse_duration, scale_int_or_percent, text_at, value_at};
use super::super::pool_state::DisruptionReason;
use super::conditions::is_true;
use super::events::{PoolEvent, publish};
use super::objects::{self, ActiveProviders, StateNode, name_of, pool_of};

/// No budget limits a reason.
const UNLIMITED: i64 = i64::MAX;

/// By pool: how many more nodes may be disrupted for a reason.
pub fn allowed_disruptions(
    cluster: &mut SimCluster,
    active: ActiveProviders,
    nodes: &[StateNode],
    reason: DisruptionReason,
) -> BTreeMap<String, i64> {
    let mut counts: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for node in nodes {
        let (Some(claim), Some(object)) = (&node.claim, &node.node) else {
            continue;
        };
        if !node.initialized || is_true(claim, "InstanceTerminating") {
            continue;
        }
        let (all, busy) = counts.entry(pool_of(object).to_owned()).or_default();
        *all += 1;
        *busy += i64::from(!node.view.ready || node.deleting);
    }
    let mut allowed = BTreeMap::new();
    for pool in objects::managed_pools(cluster, active) {
        let name = name_of(&pool).to_owned();
        let (all, busy) = counts.get(&name).copied().unwrap_or_default();
        let most = budget_of(&pool, cluster.now, all, reason);
        if all > 0 && most == 0 {
            let message = format!(
                "No allowed disruptions for disruption reason {} due to blocking budget",
                reason.as_str()
            );
            let event = PoolEvent {
                about: &pool,
                kind: "Normal",
                reason: "DisruptionBlocked",
                message,
            };
            publish(cluster, event);
        }
        allowed.insert(name, most.saturating_sub(busy).max(0));
    }
    allowed
}

/// How many of a pool's nodes may be disrupted for a reason: the least that an active budget says.
fn budget_of(pool: &Value, now: Timestamp, nodes: i64, reason: DisruptionReason) -> i64 {
    let mut budgets = list_at(pool, "spec.disruption.budgets").to_vec();
    if value_at(pool, "spec.disruption.budgets").is_none() {
        budgets.push(json!({"nodes": "10%"}));
    }
    // A schedule that cannot be read allows nothing, whatever the budget's reasons are.
    let unreadable = |budget: &Value| {
        let schedule = text_at(budget, "schedule");
        !schedule.is_empty() && is_active(schedule, text_at(budget, "duration"), now).is_none()
    };
    if budgets.iter().any(unreadable) {
        return 0;
    }
    let of_reason = budgets.iter().filter(|b| {
        let reasons = value_at(b, "reasons").and_then(Value::as_array);
        reasons.is_none_or(|r| r.iter().any(|r| r == reason.as_str()))
    });
    let values = of_reason.map(|budget| {
        let active = match text_at(budget, "schedule") {
            "" => Some(true),
            schedule => is_active(schedule, text_at(budget, "duration"), now),
        };
        match active {
            Some(false) => UNLIMITED,
            None => 0,
            Some(true) => {
                let text = text_at(budget, "nodes");
                let number = text
                    .parse::<i64>()
                    .map_or_else(|_| json!(text), Value::from);
                scale_int_or_percent(Some(&number), nodes, true).unwrap_or(0)
            }
        }
    });
    values.min().unwrap_or(UNLIMITED)
}

/// Whether a schedule has hit within its duration; `None` for one that cannot be read.
fn is_active(schedule: &str, duration: &str, now: Timestamp) -> Option<bool> {
    let schedule = CronSchedule::parse(schedule)?;
    let lasts = SignedDuration::try_from(parse_duration(duration)?).ok()?;
    let from = now.checked_sub(lasts).ok()?;
    let next = schedule.next_after(from)?;
    Some(next <= now)
}

/// A cron schedule of five fields, in UTC.
struct CronSchedule {
    minutes: Vec<i8>,
    hours: Vec<i8>,
    days: Vec<i8>,
    months: Vec<i8>,
    weekdays: Vec<i8>,
    /// Days of the month and of the week are both named: one of them is enough.
    either_day: bool,
}

impl CronSchedule {
    fn parse(text: &str) -> Option<Self> {
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return None;
        };
        const MONTHS: &[&str] = &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ];
        const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let any = |field: &str| field.starts_with('*') || field == "?";
        Some(Self {
            minutes: parse_field(minute, 0, 59, &[], 0)?,
            hours: parse_field(hour, 0, 23, &[], 0)?,
            days: parse_field(day, 1, 31, &[], 0)?,
            months: parse_field(month, 1, 12, MONTHS, 1)?,
            weekdays: parse_field(weekday, 0, 6, DAYS, 0)?,
            either_day: !any(day) && !any(weekday),
        })
    }

    fn has_day(&self, date: Date) -> bool {
        let by_month = self.days.contains(&date.day());
        let by_week = self.weekdays.contains(&weekday_number(date.weekday()));
        let day = match self.either_day {
            true => by_month || by_week,
            false => by_month && by_week,
        };
        self.months.contains(&date.month()) && day
    }

    /// The first hit after a time, within five years.
    fn next_after(&self, from: Timestamp) -> Option<Timestamp> {
        let start: DateTime = from.to_zoned(TimeZone::UTC).datetime();
        let mut date = start.date();
        for _ in 0..(5 * 366) {
            if self.has_day(date) {
                let times = self
                    .hours
                    .iter()
                    .flat_map(|h| self.minutes.iter().map(move |m| (*h, *m)));
                for (hour, minute) in times {
                    let hit = date.at(hour, minute, 0, 0);
                    if hit > start {
                        let zoned = hit.to_zoned(TimeZone::UTC).ok()?;
                        return Some(zoned.timestamp());
                    }
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }
}

fn weekday_number(day: Weekday) -> i8 {
    day.to_sunday_zero_offset()
}

/// The numbers of a field: lists, ranges and steps, in order.
fn parse_field(text: &str, from: i8, to: i8, names: &[&str], first: i8) -> Option<Vec<i8>> {
    let number = |text: &str| {
        let named = names.iter().position(|n| text.eq_ignore_ascii_case(n));
        let named = named.map(|at| at as i8 + first);
        named.or_else(|| text.parse().ok())
    };
    let mut found = Vec::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<i8>().ok().filter(|s| *s > 0)?)),
            None => (part, None),
        };
        let (low, high) = match range {
            "*" | "?" => (from, to),
            range => match range.split_once('-') {
                Some((low, high)) => (number(low)?, number(high)?),
                None if step.is_some() => (number(range)?, to),
                None => (number(range)?, number(range)?),
            },
        };
        if low < from || high > to || low > high {
            return None;
        }
        found.extend((low..=high).step_by(step.unwrap_or(1) as usize));
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_budget_holds_from_each_hit_of_its_schedule_for_its_duration() {
        let active = |now: &str| is_active("0 9 * * mon-fri", "8h", at(now)).unwrap();
        assert!(!active("2026-11-27T08:59:00Z"));
        assert!(active("2026-11-27T09:00:00Z"));
        assert!(active("2026-11-27T16:59:00Z"));
        assert!(!active("2026-11-27T17:00:00Z"));
        // A Saturday.
        assert!(!active("2026-11-28T12:00:00Z"));
        assert_eq!(
            is_active("@daily", "10m", at("2026-11-28T00:05:00Z")),
            Some(true)
        );
        assert_eq!(
            is_active("*/15 * * * *", "1m", at("2026-11-28T00:20:00Z")),
            Some(false)
        );
        assert_eq!(
            is_active("61 * * * *", "1m", at("2026-11-28T00:20:00Z")),
            None
        );
    }

    #[test]
    fn the_least_budget_of_a_reason_counts_and_percents_are_rounded_up() {
        let now = at("2026-11-28T12:00:00Z");
        let pool = |budgets: Value| json!({"spec": {"disruption": {"budgets": budgets}}});
        let drifted =
            |budgets, nodes| budget_of(&pool(budgets), now, nodes, DisruptionReason::Drifted);
        assert_eq!(drifted(json!([{"nodes": "10%"}]), 3), 1);
        assert_eq!(drifted(json!([{"nodes": "50%"}, {"nodes": "2"}]), 10), 2);
        assert_eq!(
            drifted(
                json!([{"nodes": "0", "reasons": ["Empty"]}, {"nodes": "3"}]),
                10
            ),
            3
        );
        assert_eq!(
            drifted(json!([{"nodes": "0", "reasons": ["Empty"]}]), 10),
            UNLIMITED
        );
        assert_eq!(budget_of(&json!({}), now, 11, DisruptionReason::Empty), 2);
        let closed =
            json!([{"nodes": "0", "schedule": "0 11 * * *", "duration": "2h"}, {"nodes": "4"}]);
        assert_eq!(drifted(closed, 10), 0);
        let of_another_reason = json!([{"nodes": "4"}, {"nodes": "9", "reasons": ["Empty"], "schedule": "a b c d e", "duration": "1h"}]);
        assert_eq!(drifted(of_another_reason, 10), 0);
    }
}
