//! Weights from blue to green, in steps, each baked, each gated by green's health, each read back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::event::Progress;
use crate::model::elb::{WeightedTargetGroup, short_rule};
use crate::route::ShiftSpec;
use crate::steps::World;
use crate::steps::drain::timers::Timers;
use crate::steps::traffic::health::health;
use crate::steps::traffic::rules::{Forward, InstanceZones, Owners, Seen, write};
use crate::steps::traffic::weights::{percent, with_percent};
use crate::steps::workload_health::describe_short;

/// Calls to AWS are no more often than this.
const RECHECK: Duration = crate::steps::updates::POLL;
/// Clients pinned to blue by target-group stickiness stay there until their cookie ends; longer than this is not waited.
const MOST_STICKY: SignedDuration = SignedDuration::from_hours(1);

/// Shifts weights.
pub struct Shift {
    id: String,
    spec: ShiftSpec,
    owners: Owners,
    /// Since when workloads are short.
    short: Mutex<Timers>,
    zones: InstanceZones,
}

/// Writes weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Act {
    percent: u32,
    set: Vec<Forward>,
    /// Why the weights go back to blue, when they do.
    back: Option<String>,
}

impl Shift {
    /// Shifts as `spec` says.
    pub fn new(id: String, spec: ShiftSpec) -> Self {
        Self {
            id,
            spec,
            owners: Owners::default(),
            short: Mutex::default(),
            zones: InstanceZones::default(),
        }
    }

    fn percents(&self, seen: &Seen) -> Vec<(String, u32)> {
        seen.rules
            .iter()
            .map(|r| {
                (
                    r.arn.clone(),
                    percent(&r.forward, &self.spec.blue, &self.spec.green).unwrap_or(0),
                )
            })
            .collect()
    }

    fn to(&self, percent: u32, seen: &Seen, back: Option<String>) -> Act {
        let set = seen
            .rules
            .iter()
            .map(|r| Forward {
                rule: r.arn.clone(),
                forward: with_percent(&r.forward, &self.spec.blue, &self.spec.green, percent),
            })
            .filter(|f| {
                seen.rules
                    .iter()
                    .any(|r| r.arn == f.rule && r.forward != f.forward)
            })
            .collect();
        Act { percent, set, back }
    }
}

fn signed(d: Duration) -> SignedDuration {
    SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX)
}

impl Step<World> for Shift {
    type Seen = Seen;
    type Before = Vec<Forward>;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let mut seen = Seen::read(world, &self.spec, &self.owners, &self.zones).await?;
        seen.short = world.short_workloads().await?;
        let so_now = (!seen.short.is_empty()).then(|| "short".to_owned());
        let mut timers = self.short.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = timers.update(so_now).into_values().next();
        drop(timers);
        seen.short_for = elapsed.unwrap_or_default();
        if let Some(least) = self.percents(&seen).into_iter().map(|(_, p)| p).min() {
            world.progress(Progress {
                step: self.id.clone(),
                why: format!("green has {}", health(&seen.green).text()),
                done: Some(u64::from(least)),
                total: Some(100),
                unit: Some("percent".into()),
                part: None,
            });
        }
        Ok(seen)
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        if let Some(why) = seen.refuse(&self.spec) {
            return Decision::Refuse(why);
        }
        let last: Option<Act> = past
            .last_act
            .clone()
            .and_then(|a| serde_json::from_value(a).ok());
        let percents = self.percents(seen);
        let least = percents.iter().map(|(_, p)| *p).min().unwrap_or(0);
        let most = percents.iter().map(|(_, p)| *p).max().unwrap_or(0);
        let green = health(&seen.green);
        let since = past.watched_from().map(|t| now.duration_since(t));
        if let Some(Act {
            back: Some(why), ..
        }) = &last
        {
            if most == 0 {
                return Decision::Refuse(format!(
                    "traffic is back on blue: {why}. Mend green, then run `eksup apply` again to shift, or `eksup rollback`."
                ));
            }
            return Decision::Act(self.to(0, seen, Some(why.clone())));
        }
        if let Some(act) = &last {
            // What was written must read back; anything else was written by somebody else.
            let near = |p: u32| p.abs_diff(act.percent) <= 1;
            let mid_write = most.abs_diff(act.percent) <= 1;
            if !percents.iter().all(|(_, p)| near(*p)) && !mid_write {
                let shown: Vec<String> = percents
                    .iter()
                    .map(|(r, p)| format!("{} has {p}%", short_rule(r)))
                    .collect();
                return Decision::Refuse(format!(
                    "the weights were set to {}% on green, but now {}; somebody else changes them. Settle who does, then run `eksup apply` again.",
                    act.percent,
                    shown.join(", ")
                ));
            }
            if !percents.iter().all(|(_, p)| near(*p)) {
                return Decision::Act(self.to(act.percent, seen, None));
            }
        }
        // A share that rounding moved by one still counts as the step it was written for.
        let reached = last.as_ref().map_or(least, |a| a.percent);
        let enough = green.percent() >= self.spec.min_healthy_percent
            && green.healthy > 0
            && (green.dark_zones.is_empty() || !self.spec.every_zone);
        if !enough {
            return self.unwell(seen, reached, &green.text(), green.percent(), past, now);
        }
        let mut bake = signed(self.spec.bake);
        if reached >= 100 {
            let sticky = seen
                .rules
                .iter()
                .filter_map(|r| r.stickiness_seconds)
                .max()
                .unwrap_or(0);
            bake = bake.max(SignedDuration::from_secs(i64::from(sticky)).min(MOST_STICKY));
        }
        if let Some(since) = since
            && since < bake
        {
            let left = bake - since;
            return Decision::Wait {
                why: format!(
                    "{reached}% on green, baking {}s more, {}",
                    left.as_secs(),
                    green.text()
                ),
                recheck: Duration::try_from(left)
                    .unwrap_or(RECHECK)
                    .clamp(Duration::from_millis(200), Duration::from_secs(15)),
            };
        }
        // No share is raised while something is down; a shift is not over either.
        if !seen.short.is_empty() {
            return self.wait_for_workloads(reached, seen);
        }
        match self.spec.steps.iter().copied().find(|s| *s > reached) {
            Some(next) => Decision::Act(self.to(next, seen, None)),
            None if reached < 100 => Decision::Act(self.to(100, seen, None)),
            None => Decision::Done(format!(
                "the traffic of {} is all on green, {}",
                rules(seen.rules.len()),
                green.text()
            )),
        }
    }

    fn begins(&self, act: &Act) -> bool {
        act.back.is_none()
    }

    fn before(&self, seen: &Seen) -> Vec<Forward> {
        seen.forwards()
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        write(world, &act.set).await
    }

    fn undo(&self) -> Undo {
        Undo::Restore
    }

    fn restore(
        &self,
        before: &Vec<Forward>,
        seen: &Seen,
        trail: &Trail,
        now: Timestamp,
    ) -> Decision<Act> {
        if let Some(why) = seen.refuse(&self.spec) {
            return Decision::Refuse(why);
        }
        let set: Vec<Forward> = seen
            .rules
            .iter()
            .filter_map(|rule| {
                let was = before.iter().find(|b| b.rule == rule.arn)?;
                let forward = self.as_before(&rule.forward, &was.forward);
                (forward != rule.forward).then(|| Forward {
                    rule: rule.arn.clone(),
                    forward,
                })
            })
            .collect();
        let was = before
            .iter()
            .filter_map(|b| percent(&b.forward, &self.spec.blue, &self.spec.green))
            .max()
            .unwrap_or(0);
        if set.is_empty() {
            return Decision::Done(format!("{was}% of the traffic is on green, as before"));
        }
        // At weight 0 blue is still checked; but one that lost its targets cannot take the traffic back, and one that
        // has just got them again is not judged yet.
        let blue = health(&seen.blue);
        let judged = seen.blue.iter().all(|t| t.state != "initial");
        if was < 100 && !self.spec.blue_away && (blue.healthy == 0 || !judged) {
            let why = format!(
                "blue must be healthy before traffic goes back: {}",
                blue.text()
            );
            return if trail.late(now, self.spec.timeout) {
                Decision::Refuse(format!(
                    "{why}, {}s long. Traffic stays where it is; mend blue, then run `eksup rollback` again.",
                    self.spec.timeout.as_secs()
                ))
            } else {
                Decision::Wait {
                    why,
                    recheck: RECHECK,
                }
            };
        }
        Decision::Act(Act {
            percent: was,
            set,
            back: None,
        })
    }

    fn describe(&self, act: &Act) -> String {
        let back = act
            .back
            .as_ref()
            .map(|why| format!(", back to blue: {why}"))
            .unwrap_or_default();
        format!(
            "{}% on green in {}{back}",
            act.percent,
            rules(act.set.len())
        )
    }
}

pub(super) fn rules(n: usize) -> String {
    if n == 1 {
        "1 rule".to_owned()
    } else {
        format!("{n} rules")
    }
}

impl Shift {
    fn wait_for_workloads(&self, reached: u32, seen: &Seen) -> Decision<Act> {
        let why = format!(
            "{reached}% of the traffic is on green; no more is shifted while workloads have fewer Ready pods than when the run began: {}",
            describe_short(&seen.short)
        );
        if seen.short_for > self.spec.timeout {
            return Decision::Refuse(format!(
                "{why}, for {}s. Fix them, then run `eksup apply` again; `eksup rollback` brings the traffic back.",
                seen.short_for.as_secs()
            ));
        }
        Decision::Wait {
            why,
            recheck: RECHECK,
        }
    }

    /// The rule's target groups with the weights that blue and green had; others keep theirs.
    fn as_before(
        &self,
        now: &[WeightedTargetGroup],
        before: &[WeightedTargetGroup],
    ) -> Vec<WeightedTargetGroup> {
        let had = |arn: &str| before.iter().find(|t| t.arn == arn);
        let ours = |arn: &str| arn == self.spec.blue || arn == self.spec.green;
        let mut forward: Vec<WeightedTargetGroup> = now
            .iter()
            .map(|t| WeightedTargetGroup {
                arn: t.arn.clone(),
                weight: if ours(&t.arn) {
                    had(&t.arn).map_or(0, |b| b.weight)
                } else {
                    t.weight
                },
            })
            .collect();
        let there = |arn: &str| now.iter().any(|t| t.arn == arn);
        forward.extend(had(&self.spec.blue).filter(|b| !there(&b.arn)).cloned());
        forward
    }

    /// Green is not healthy enough: before it has traffic it is waited for; with traffic, a green that has lost more
    /// than half of what is asked for gives the traffic back at once, one that has lost less is held for a while.
    fn unwell(
        &self,
        seen: &Seen,
        reached: u32,
        text: &str,
        healthy: u32,
        past: &Past,
        now: Timestamp,
    ) -> Decision<Act> {
        let since = past.last_act_at.or(past.started_at);
        let late = since.is_some_and(|t| now.duration_since(t) > signed(self.spec.timeout));
        let wanted = self.spec.min_healthy_percent;
        let zones = if self.spec.every_zone {
            ", one at least in every zone"
        } else {
            ""
        };
        let why = format!("green has {text}, {wanted}% must be healthy{zones}");
        let lost = healthy < wanted.div_ceil(2);
        if reached > 0
            && self.spec.back_on_unhealthy
            && (lost || late)
            && health(&seen.blue).healthy > 0
        {
            return Decision::Act(self.to(0, seen, Some(why)));
        }
        if late {
            return Decision::Refuse(format!(
                "{why}, {}s long; {reached}% of the traffic is on green. Mend green, then run `eksup apply` again, or `eksup rollback`.",
                self.spec.timeout.as_secs()
            ));
        }
        Decision::Wait {
            why: format!("{reached}% on green: {why}"),
            recheck: RECHECK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::elb::{Rule, TargetHealth};

    fn shift() -> Shift {
        Shift::new(
            "shift".into(),
            ShiftSpec {
                rules: vec!["r".into()],
                blue: "b".into(),
                green: "g".into(),
                steps: vec![10, 50, 100],
                bake: Duration::from_secs(60),
                min_healthy_percent: 100,
                timeout: Duration::from_secs(600),
                back_on_unhealthy: true,
                blue_away: false,
                every_zone: true,
            },
        )
    }

    fn target(id: &str, state: &str) -> TargetHealth {
        TargetHealth {
            id: id.into(),
            port: None,
            zone: None,
            state: state.into(),
            reason: None,
        }
    }

    fn seen(blue: i32, green: i32, state: &str) -> Seen {
        let weigh = |arn: &str, weight| WeightedTargetGroup {
            arn: arn.into(),
            weight,
        };
        Seen {
            rules: vec![Rule {
                arn: "r".into(),
                listener: "l".into(),
                priority: "10".into(),
                is_default: false,
                conditions: vec![],
                forward: vec![weigh("b", blue), weigh("g", green)],
                stickiness_seconds: None,
                rest: serde_json::Value::Null,
                tags: Default::default(),
            }],
            green: vec![target("i-1", state)],
            blue: vec![target("i-2", "healthy")],
            short: vec![],
            short_for: Duration::ZERO,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn past(act: &Act) -> Past {
        Past {
            started_at: Some(at(0)),
            last_act_at: Some(at(0)),
            last_act: serde_json::to_value(act).ok(),
            acts: 1,
            ..Past::default()
        }
    }

    #[test]
    fn a_zone_without_a_healthy_target_stops_the_shift_but_not_behind_a_local_service() {
        let mut spec = shift().spec;
        spec.min_healthy_percent = 50;
        let mut dark = seen(100, 0, "healthy");
        dark.green.push(target("i-3", "unhealthy"));
        for (target, zone) in dark.green.iter_mut().zip(["a", "b"]) {
            target.zone = Some(zone.to_owned());
        }
        let decide = |spec: &ShiftSpec| {
            let shift = Shift::new("shift".into(), spec.clone());
            shift.decide(&dark, &Past::default(), at(0))
        };
        let Decision::Wait { why, .. } = decide(&spec) else {
            panic!("shifts onto a dark zone")
        };
        assert!(why.contains("none healthy in b"), "{why}");
        spec.every_zone = false;
        assert!(matches!(decide(&spec), Decision::Act(_)));
    }

    #[test]
    fn traffic_rises_step_by_step_and_bakes_between() {
        let shift = shift();
        let Decision::Act(first) = shift.decide(&seen(100, 0, "healthy"), &Past::default(), at(0))
        else {
            panic!()
        };
        assert_eq!(first.percent, 10);
        assert!(matches!(
            shift.decide(&seen(90, 10, "healthy"), &past(&first), at(59)),
            Decision::Wait { .. }
        ));
        let Decision::Act(second) = shift.decide(&seen(90, 10, "healthy"), &past(&first), at(60))
        else {
            panic!()
        };
        assert_eq!(second.percent, 50);
    }

    #[test]
    fn no_traffic_goes_to_a_green_that_is_not_healthy() {
        assert!(matches!(
            shift().decide(&seen(100, 0, "unhealthy"), &Past::default(), at(0)),
            Decision::Wait { .. }
        ));
    }

    #[test]
    fn a_green_that_falls_ill_gives_the_traffic_back_and_the_run_stops() {
        let shift = shift();
        let raised = shift.to(50, &seen(90, 10, "healthy"), None);
        let Decision::Act(back) = shift.decide(&seen(50, 50, "unhealthy"), &past(&raised), at(10))
        else {
            panic!()
        };
        assert_eq!(back.percent, 0);
        assert!(
            matches!(shift.decide(&seen(100, 0, "unhealthy"), &past(&back), at(20)), Decision::Refuse(why) if why.contains("back on blue"))
        );
    }

    #[test]
    fn weights_that_somebody_else_wrote_stop_the_shift() {
        let shift = shift();
        let raised = shift.to(10, &seen(100, 0, "healthy"), None);
        assert!(
            matches!(shift.decide(&seen(63, 37, "healthy"), &past(&raised), at(100)), Decision::Refuse(why) if why.contains("somebody else"))
        );
    }

    #[test]
    fn restoring_brings_the_first_weights_back_whatever_came_between() {
        let shift = shift();
        let before = shift.before(&seen(100, 0, "healthy"));
        let trail = Trail::default();
        let Decision::Act(act) = shift.restore(&before, &seen(50, 50, "healthy"), &trail, at(0))
        else {
            panic!()
        };
        assert_eq!(act.percent, 0);
        assert!(matches!(
            shift.restore(&before, &seen(100, 0, "healthy"), &trail, at(0)),
            Decision::Done(_)
        ));
    }

    #[test]
    fn weights_that_were_no_percents_come_back_as_they_were() {
        let shift = shift();
        let before = shift.before(&seen(1, 0, "healthy"));
        let Decision::Act(act) =
            shift.restore(&before, &seen(0, 100, "healthy"), &Trail::default(), at(0))
        else {
            panic!()
        };
        let weights: Vec<i32> = act.set[0].forward.iter().map(|t| t.weight).collect();
        assert_eq!(weights, [1, 0]);
    }

    #[test]
    fn a_blue_that_never_turns_healthy_again_is_stuck_and_not_waited_for_for_ever() {
        let shift = shift();
        let before = shift.before(&seen(100, 0, "healthy"));
        let mut now = seen(0, 100, "healthy");
        now.blue = vec![target("i-2", "unhealthy")];
        let trail = |started: i64| Trail {
            back: Past {
                started_at: Some(at(started)),
                ..Past::default()
            },
            ..Trail::default()
        };
        assert!(matches!(
            shift.restore(&before, &now, &trail(0), at(599)),
            Decision::Wait { .. }
        ));
        assert!(matches!(
            shift.restore(&before, &now, &trail(0), at(601)),
            Decision::Refuse(why) if why.contains("Traffic stays where it is")
        ));
    }

    #[test]
    fn no_weight_is_raised_while_a_workload_is_short() {
        let shift = shift();
        let mut short = seen(100, 0, "healthy");
        short.short = vec![crate::steps::workload_health::ShortWorkload {
            name: "Deployment shop/web".into(),
            ready: 1,
            needed: 2,
            why: "pod shop/web-x on g1: ImagePullBackOff".into(),
        }];
        let decide = |seen: &Seen| shift.decide(seen, &Past::default(), Timestamp::UNIX_EPOCH);
        assert!(matches!(decide(&short), Decision::Wait { why, .. } if why.contains("1 of 2")));
        short.short_for = shift.spec.timeout + Duration::from_secs(1);
        assert!(
            matches!(decide(&short), Decision::Refuse(why) if why.contains("ImagePullBackOff"))
        );
        short.short.clear();
        assert!(matches!(decide(&short), Decision::Act(_)));
    }
}
