//! Weights from blue to green, in steps, each baked, each gated by green's health, each read back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::event::facts::{ColourTraffic, TrafficReading};
use crate::event::{EventKind, StepProgress};
use crate::model::clock::signed_duration;
use crate::model::elb::{ListenerRule, TargetHealth, WeightedTargetGroup, short_name, short_rule};
use crate::route::ShiftSpec;
use crate::steps::StepWorld;
use crate::steps::attempts::unchanged_since;
use crate::steps::traffic::health::{ServingState, count_health, judge_serving};
use crate::steps::traffic::rules::{
    InstanceZones, RuleForward, RuleOwners, RuleWrite, TrafficObservation, write_rules,
};
use crate::steps::traffic::weight_return::{BlueShare, BlueWatch, judge_blue_share};
use crate::steps::traffic::weights::{green_percent, set_green_percent};
use crate::steps::workload_gate::WorkloadGate;

/// A rule that was written shows it at once, or after a retry of the reading.
const WRITE_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// Calls to AWS are no more often than this.
const SHIFT_RECHECK_INTERVAL: Duration = crate::steps::updates::EKS_POLL_INTERVAL;
/// In a rollback with nothing healthy, blue's first healthy target is waited for with closer looks.
const OUTAGE_RECHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Clients pinned to blue by target-group stickiness stay there until their cookie ends; longer than this is not waited.
const MAX_STICKINESS_BAKE: SignedDuration = SignedDuration::from_hours(1);

/// A step that moves weights from blue's target group to green's, share by share.
pub struct ShiftStep {
    id: String,
    spec: ShiftSpec,
    owners: RuleOwners,
    gate: WorkloadGate,
    zones: InstanceZones,
    blue_watch: BlueWatch,
    /// What was said last of targets and weights, for the report.
    said: Mutex<Option<TrafficReading>>,
}

/// Writes weights, whole lists of target groups, to the rules whose lists differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShiftAct {
    percent: u32,
    set: Vec<RuleWrite>,
    /// Why the weights go back to blue, when they do.
    back: Option<String>,
}

impl ShiftStep {
    /// Returns the shift of the rules in `spec`, by the steps and bakes in it.
    pub fn new(id: String, spec: ShiftSpec) -> Self {
        Self {
            id,
            spec,
            owners: RuleOwners::default(),
            gate: WorkloadGate::default(),
            zones: InstanceZones::default(),
            blue_watch: BlueWatch::default(),
            said: Mutex::default(),
        }
    }

    fn rule_percents(&self, seen: &TrafficObservation) -> Vec<(String, u32)> {
        seen.rules
            .iter()
            .map(|r| {
                (
                    r.arn.clone(),
                    green_percent(&r.forward, &self.spec.blue, &self.spec.green).unwrap_or(0),
                )
            })
            .collect()
    }

    /// Whether a write of the last act has not taken: the process died before it, it failed, or somebody changed the rule
    /// just then. Blue and green have the weights of before it. Once this process has written, and that was long enough ago
    /// to show, the same weights are somebody's revert.
    fn is_unwritten(
        &self,
        rule: &ListenerRule,
        last: &ShiftAct,
        past: &StepHistory,
        now: Timestamp,
    ) -> bool {
        // Only an act that this very process ended says when its write should show.
        let own = past
            .acted_at
            .filter(|end| past.last_act_at.is_none_or(|began| *end >= began));
        if own.is_some_and(|end| now.duration_since(end) > WRITE_VISIBLE_WITHIN) {
            return false;
        }
        // Weights of third target groups are not the step's, so they are not compared.
        let pair = |forward: &[WeightedTargetGroup]| {
            let weight = |arn: &str| forward.iter().find(|t| t.arn == arn).map(|t| t.weight);
            (weight(&self.spec.blue), weight(&self.spec.green))
        };
        let write = last.set.iter().find(|w| w.rule == rule.arn);
        write.is_some_and(|w| pair(&rule.forward) == pair(&w.was))
    }

    fn shift_to(&self, percent: u32, seen: &TrafficObservation, back: Option<String>) -> ShiftAct {
        let set = seen
            .rules
            .iter()
            .filter_map(|r| {
                let (blue, green) = (&self.spec.blue, &self.spec.green);
                RuleWrite::to_forward(r, set_green_percent(&r.forward, blue, green, percent))
            })
            .collect();
        ShiftAct { percent, set, back }
    }
}

impl Step<StepWorld> for ShiftStep {
    type Observation = TrafficObservation;
    type BeforeImage = Vec<RuleForward>;
    type Act = ShiftAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<TrafficObservation, StepError> {
        let mut seen =
            TrafficObservation::read_traffic(world, &self.spec, &self.owners, &self.zones).await?;
        seen.short = self.gate.read_shortage(world).await?;
        self.emit_share(world, &seen);
        Ok(seen)
    }

    fn decide_next(
        &self,
        seen: &TrafficObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<ShiftAct> {
        if let Some(why) = seen.find_refusal(&self.spec) {
            return Decision::Refuse(StepRefusal::new(why));
        }
        // Where the shift stands is what it last wrote, not what the rules show: rounding moves a share by one.
        let last: Option<ShiftAct> = past
            .last_act
            .clone()
            .and_then(|a| serde_json::from_value(a).ok());
        let percents = self.rule_percents(seen);
        let least = percents.iter().map(|(_, p)| *p).min().unwrap_or(0);
        let most = percents.iter().map(|(_, p)| *p).max().unwrap_or(0);
        let green = count_health(&seen.green);
        // A new attempt bakes the share that it finds on green. Where green has none there is nothing to watch.
        let since = match &last {
            Some(_) => past.watched_from(),
            None => unchanged_since(past).filter(|_| least > 0),
        };
        let since = since.map(|t| now.duration_since(t));
        // A shift that took the traffic back ends with a person. It is finished first, in case the process died between
        // two rules.
        if let Some(ShiftAct {
            back: Some(why), ..
        }) = &last
        {
            if most == 0 {
                return Decision::Refuse(
                    StepRefusal::new(format!("traffic is back on blue: {why}"))
                        .with_fix("Fix green"),
                );
            }
            return Decision::Act(self.shift_to(0, seen, Some(why.clone())));
        }
        // What was written must read back, or have been left as it was; anything else was written by somebody else.
        let mut unwritten = None;
        if let Some(act) = &last {
            let mut foreign = false;
            for (rule, (_, percent)) in seen.rules.iter().zip(&percents) {
                if percent.abs_diff(act.percent) <= 1 {
                    continue;
                }
                match self.is_unwritten(rule, act, past, now) {
                    true => unwritten = Some(act.percent),
                    false => foreign = true,
                }
            }
            if foreign {
                let shown: Vec<String> = percents
                    .iter()
                    .map(|(r, p)| format!("{} has {p}%", short_rule(r)))
                    .collect();
                return Decision::Refuse(StepRefusal::new(format!(
                    "the weights were set to {}% on green, but now {}; somebody else changes them",
                    act.percent,
                    shown.join(", ")
                )).with_fix("Find out who changes it, and stop that"));
            }
        }
        // A share that rounding moved by one still counts as the step it was written for.
        let reached = match (&last, unwritten) {
            (Some(act), None) => act.percent,
            (None, _) => least,
            (Some(_), Some(_)) => most,
        };
        // Green is judged before time is: an unhealthy green gives the traffic back in the middle of a bake.
        let enough = green.healthy_percent() >= self.spec.min_healthy_percent
            && green.healthy > 0
            && (green.zones_without_healthy.is_empty() || !self.spec.every_zone);
        if !enough {
            return self.decide_green_unhealthy(
                seen,
                reached,
                &green.health_text(),
                green.healthy_percent(),
                past,
                now,
            );
        }
        // Where some rules have the old share still, the rest is written now, as green is as healthy as it was then.
        if let Some(percent) = unwritten {
            return Decision::Act(self.shift_to(percent, seen, None));
        }
        // At the end the bake lasts as long as a stickiness cookie, because its clients reach green only then (ELB-11).
        let mut bake = signed_duration(self.spec.bake);
        if reached >= 100 {
            let sticky = seen
                .rules
                .iter()
                .filter_map(|r| r.stickiness_seconds)
                .max()
                .unwrap_or(0);
            bake = bake.max(SignedDuration::from_secs(i64::from(sticky)).min(MAX_STICKINESS_BAKE));
        }
        if let Some(since) = since
            && since < bake
        {
            let left = bake - since;
            return Decision::Wait {
                why: format!(
                    "{reached}% on green, baking {}s more, {}",
                    left.as_secs(),
                    green.health_text()
                ),
                recheck: Duration::try_from(left)
                    .unwrap_or(SHIFT_RECHECK_INTERVAL)
                    .clamp(Duration::from_millis(200), Duration::from_secs(15)),
            };
        }
        // No share is raised while something is down; a shift is not over either.
        let meanwhile = format!("{reached}% of the traffic is on green, and no more is shifted");
        if let Some(decision) = seen.short.hold_back(self.spec.timeout, &meanwhile) {
            return decision;
        }
        // A plan need not end at 100; the shift does.
        match self.spec.steps.iter().copied().find(|s| *s > reached) {
            Some(next) => Decision::Act(self.shift_to(next, seen, None)),
            None if reached < 100 => Decision::Act(self.shift_to(100, seen, None)),
            None => Decision::Done(format!(
                "the traffic of {} is all on green, {}",
                rule_count_text(seen.rules.len()),
                green.health_text()
            )),
        }
    }

    fn begins_new_part(&self, act: &ShiftAct) -> bool {
        act.back.is_none()
    }

    fn before_image(&self, seen: &TrafficObservation) -> Vec<RuleForward> {
        seen.rule_forwards()
    }

    async fn perform_act(&self, world: &StepWorld, act: &ShiftAct) -> Result<(), StepError> {
        write_rules(world, &act.set).await
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &Vec<RuleForward>,
        seen: &TrafficObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<ShiftAct> {
        if let Some(why) = seen.find_refusal(&self.spec) {
            return Decision::Refuse(StepRefusal::new(why));
        }
        // Only rules that differ are written, so a rollback that died goes on with those that are left.
        let set: Vec<RuleWrite> = seen
            .rules
            .iter()
            .filter_map(|rule| {
                let was = before.iter().find(|b| b.rule == rule.arn)?;
                let forward = self.restored_forward(&rule.forward, &was.forward);
                RuleWrite::to_forward(rule, forward)
            })
            .collect();
        let was = before
            .iter()
            .filter_map(|b| green_percent(&b.forward, &self.spec.blue, &self.spec.green))
            .max()
            .unwrap_or(0);
        if set.is_empty() {
            return Decision::Done(format!("{was}% of the traffic is on green, as before"));
        }
        let all = Decision::Act(ShiftAct {
            percent: was,
            set,
            back: None,
        });
        // Nothing is asked of blue where it gets no more traffic than it has.
        if was >= 100 || self.spec.blue_away {
            return all;
        }
        // At weight 0 blue is still checked; but one that lost its targets cannot take the traffic back, and one that
        // has just got them again is not judged yet.
        let share = judge_blue_share(
            &seen.blue,
            &seen.green,
            self.spec.min_healthy_percent,
            seen.blue_steady,
        );
        match share {
            BlueShare::All => all,
            BlueShare::None | BlueShare::Unjudged => self.wait_for_blue(seen, trail, now),
            BlueShare::Part(share) => {
                // Weights only fall in a rollback: blue gets the share that its healthy targets can carry, and the rest
                // follows.
                let on_green = was.max(100 - share.min(100));
                let part = self.lower_to(on_green, seen);
                if part.set.is_empty() {
                    self.wait_for_blue(seen, trail, now)
                } else {
                    Decision::Act(part)
                }
            }
        }
    }

    async fn observe_for_undo(&self, world: &StepWorld) -> Result<TrafficObservation, StepError> {
        let mut seen =
            TrafficObservation::read_traffic(world, &self.spec, &self.owners, &self.zones).await?;
        self.emit_share(world, &seen);
        seen.blue_steady = self.blue_watch.is_steady(&seen.blue);
        Ok(seen)
    }

    fn describe_act(&self, act: &ShiftAct) -> String {
        let back = act
            .back
            .as_ref()
            .map(|why| format!(", back to blue: {why}"))
            .unwrap_or_default();
        format!(
            "{}% on green in {}{back}",
            act.percent,
            rule_count_text(act.set.len())
        )
    }
}

pub(super) fn rule_count_text(n: usize) -> String {
    if n == 1 {
        "1 rule".to_owned()
    } else {
        format!("{n} rules")
    }
}

impl ShiftStep {
    /// Says what share of the traffic green has.
    fn emit_share(&self, world: &StepWorld, seen: &TrafficObservation) {
        self.emit_reading(world, seen);
        if let Some(least) = self.rule_percents(seen).into_iter().map(|(_, p)| p).min() {
            world.emit_progress(StepProgress {
                step: self.id.clone(),
                why: format!("green has {}", count_health(&seen.green).health_text()),
                done: Some(u64::from(least)),
                total: Some(100),
                unit: Some("percent".into()),
                part: None,
            });
        }
    }

    /// Says how both colours stand, when that has changed.
    fn emit_reading(&self, world: &StepWorld, seen: &TrafficObservation) {
        let colour = |target_group: &str, targets: &[TargetHealth]| {
            let counts = count_health(targets);
            ColourTraffic {
                target_group: short_name(target_group).to_owned(),
                healthy: Some(counts.healthy as u64),
                targets: Some(counts.total as u64),
                requests: None,
            }
        };
        // Of several rules the one with the least on green, since that is what is reached everywhere.
        let least = self.rule_percents(seen).into_iter().map(|(_, p)| p).min();
        let reading = TrafficReading {
            step: self.id.clone(),
            green_percent: least.map(u64::from),
            blue: colour(&self.spec.blue, &seen.blue),
            green: colour(&self.spec.green, &seen.green),
        };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref() != Some(&reading) {
            *said = Some(reading.clone());
            world.emit_kind(EventKind::TrafficRead(Box::new(reading)));
        }
    }

    /// The rules that give green more than `percent`, with so much.
    fn lower_to(&self, percent: u32, seen: &TrafficObservation) -> ShiftAct {
        let above: Vec<String> = self
            .rule_percents(seen)
            .into_iter()
            .filter(|(_, on_green)| *on_green > percent)
            .map(|(rule, _)| rule)
            .collect();
        let mut act = self.shift_to(percent, seen, None);
        act.set.retain(|forward| above.contains(&forward.rule));
        act
    }

    /// Blue cannot take (more of) the traffic yet. While green serves, nothing else of the rollback begins; a green that
    /// serves nothing is no reason to wait: blue is opened and gets its pods, which is what makes it healthy.
    fn wait_for_blue(
        &self,
        seen: &TrafficObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<ShiftAct> {
        let (blue, green) = (count_health(&seen.blue), count_health(&seen.green));
        let why = format!(
            "blue must be healthy before traffic returns to it: {}",
            blue.health_text()
        );
        // Overdue only where no target of blue is healthy: with some, the weights go on as more of them turn healthy.
        let late = trail.is_late(now, self.spec.timeout);
        let too_late = StepRefusal::new(format!(
            "{why}, for {}s; traffic stays where it is",
            self.spec.timeout.as_secs()
        ))
        .with_fix("Make the targets of blue healthy");
        // While green serves too, waiting costs nobody anything, and at the deadline a person decides. Where green
        // serves nothing, the steps after this one open blue's nodes and bring pods back, which is what makes blue
        // healthy: they must not wait for this step.
        match (judge_serving(&seen.green), late) {
            (ServingState::No, _) => Decision::Yield {
                refusal: if late {
                    too_late
                } else {
                    format!("{why}; green serves nothing ({})", green.health_text()).into()
                },
                recheck: OUTAGE_RECHECK_INTERVAL,
                overdue: late && blue.healthy == 0,
            },
            (ServingState::Yes | ServingState::Unknown, true) => Decision::Refuse(too_late),
            (ServingState::Yes | ServingState::Unknown, false) => Decision::Wait {
                why,
                recheck: SHIFT_RECHECK_INTERVAL,
            },
        }
    }

    /// The rule's target groups with the weights that blue and green had; others keep theirs.
    fn restored_forward(
        &self,
        now: &[WeightedTargetGroup],
        before: &[WeightedTargetGroup],
    ) -> Vec<WeightedTargetGroup> {
        let had = |arn: &str| before.iter().find(|t| t.arn == arn);
        // Only the pair's weights are this run's. Whatever else somebody added to the rule meanwhile stays.
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
    fn decide_green_unhealthy(
        &self,
        seen: &TrafficObservation,
        reached: u32,
        text: &str,
        healthy: u32,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<ShiftAct> {
        // Counted from the last change of weights, so that each share has the whole time.
        let since = past.wait_counts_from();
        let late =
            since.is_some_and(|t| now.duration_since(t) > signed_duration(self.spec.timeout));
        let wanted = self.spec.min_healthy_percent;
        let zones = if self.spec.every_zone {
            ", one at least in every zone"
        } else {
            ""
        };
        let why = format!("green has {text}, {wanted}% must be healthy{zones}");
        // Traffic returns only where blue can take it. To a blue without a healthy target it would be lost for
        // certain.
        let lost = healthy < wanted.div_ceil(2);
        if reached > 0
            && self.spec.back_on_unhealthy
            && (lost || late)
            && count_health(&seen.blue).healthy > 0
        {
            return Decision::Act(self.shift_to(0, seen, Some(why)));
        }
        if late {
            return Decision::Refuse(
                StepRefusal::new(format!(
                    "{why}, for {}s; {reached}% of the traffic is on green",
                    self.spec.timeout.as_secs()
                ))
                .with_fix("Fix green"),
            );
        }
        Decision::Wait {
            why: format!("{reached}% on green: {why}"),
            recheck: SHIFT_RECHECK_INTERVAL,
        }
    }
}

#[cfg(test)]
#[path = "shift_tests.rs"]
mod tests;
