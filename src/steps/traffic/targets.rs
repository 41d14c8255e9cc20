//! A node group's instances become targets, or cease to be, through its Auto Scaling group: an instance that joins later
//! is registered too, and one that ends is drained first.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Undo};
use crate::model::asg::Asg;
use crate::model::elb::{Rule, TargetHealth, short, short_rule};
use crate::steps::World;
use crate::steps::traffic::health::{health, still_targets};

const RECHECK: Duration = Duration::from_secs(5);
/// A deregistration delay is an hour at most; nothing else here takes longer than minutes.
const LONGEST: SignedDuration = SignedDuration::from_mins(75);

/// Waits, but not for ever.
fn wait_or_refuse(why: String, past: &Past, now: Timestamp) -> Decision<Act> {
    let since = past.last_act_at.or(past.started_at);
    if since.is_some_and(|t| now.duration_since(t) > LONGEST) {
        return Decision::Refuse(format!(
            "{why}, for more than {} minutes. Mend it, then run `eksup apply` again.",
            LONGEST.as_mins()
        ));
    }
    Decision::Wait {
        why,
        recheck: RECHECK,
    }
}

/// What a look sees.
pub struct Seen {
    asgs: Vec<Asg>,
    targets: Vec<TargetHealth>,
    /// Rules that still give the target group weight, of those that must not.
    weighing: Vec<String>,
}

impl Seen {
    async fn read(world: &World, group: &str, target_group: &str) -> Result<Self, StepError> {
        let group = world.aws.describe_nodegroup(&world.cluster, group).await?;
        let asgs = world.aws.asgs(&group.asgs).await?.into_values().collect();
        let targets = world.aws.target_health(target_group).await?;
        Ok(Self {
            asgs,
            targets,
            weighing: Vec::new(),
        })
    }

    fn ids(&self) -> BTreeSet<String> {
        self.asgs
            .iter()
            .flat_map(|a| &a.instances)
            .filter(|i| i.lifecycle == "InService")
            .map(|i| i.id.clone())
            .collect()
    }

    fn with(&self, target_group: &str) -> Vec<String> {
        self.asgs
            .iter()
            .filter(|a| a.target_groups.iter().any(|t| t == target_group))
            .map(|a| a.name.clone())
            .collect()
    }

    fn without(&self, target_group: &str) -> Vec<String> {
        self.asgs
            .iter()
            .filter(|a| !a.target_groups.iter().any(|t| t == target_group))
            .map(|a| a.name.clone())
            .collect()
    }
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Act {
    Attach { asgs: Vec<String> },
    Detach { asgs: Vec<String> },
}

async fn carry_out(world: &World, act: &Act, target_group: &str) -> Result<(), StepError> {
    let arns = [target_group.to_owned()];
    match act {
        Act::Attach { asgs } => {
            for asg in asgs {
                world.aws.attach_target_groups(asg, &arns).await?;
            }
        }
        Act::Detach { asgs } => {
            for asg in asgs {
                world.aws.detach_target_groups(asg, &arns).await?;
            }
        }
    }
    Ok(())
}

fn describe(act: &Act, target_group: &str) -> String {
    match act {
        Act::Attach { asgs } => format!("attach {} to {}", short(target_group), asgs.join(", ")),
        Act::Detach { asgs } => format!("detach {} from {}", short(target_group), asgs.join(", ")),
    }
}

/// Makes green's instances targets.
pub struct Attach {
    green: String,
    target_group: String,
}

impl Attach {
    /// Makes `green`'s instances targets of `target_group`.
    pub fn new(green: String, target_group: String) -> Self {
        Self {
            green,
            target_group,
        }
    }
}

impl Step<World> for Attach {
    type Seen = Seen;
    type Before = Vec<String>;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        Seen::read(world, &self.green, &self.target_group).await
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        if seen.asgs.is_empty() {
            return Decision::Refuse(format!(
                "node group {} has no Auto Scaling group to attach",
                self.green
            ));
        }
        let without = seen.without(&self.target_group);
        if !without.is_empty() {
            return Decision::Act(Act::Attach { asgs: without });
        }
        let missing: Vec<String> = seen
            .ids()
            .into_iter()
            .filter(|id| !seen.targets.iter().any(|t| t.id == *id))
            .collect();
        if !missing.is_empty() {
            let why = format!(
                "{} are not targets of {} yet",
                missing.join(", "),
                short(&self.target_group)
            );
            return wait_or_refuse(why, past, now);
        }
        Decision::Done(format!(
            "{} instances of {} are targets of {}",
            seen.ids().len(),
            self.green,
            short(&self.target_group)
        ))
    }

    fn before(&self, seen: &Seen) -> Vec<String> {
        seen.with(&self.target_group)
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        carry_out(world, act, &self.target_group).await
    }

    fn undo(&self) -> Undo {
        Undo::Restore
    }

    fn restore(&self, before: &Vec<String>, seen: &Seen, _now: Timestamp) -> Decision<Act> {
        let ours: Vec<String> = seen
            .with(&self.target_group)
            .into_iter()
            .filter(|a| !before.contains(a))
            .collect();
        if !ours.is_empty() {
            return Decision::Act(Act::Detach { asgs: ours });
        }
        let left = still_targets(&seen.targets, &seen.ids());
        if before.is_empty() && !left.is_empty() {
            return Decision::Wait {
                why: format!("targets are draining: {}", left.join(", ")),
                recheck: RECHECK,
            };
        }
        Decision::Done(format!(
            "{} has no target in {}",
            self.green,
            short(&self.target_group)
        ))
    }

    fn describe(&self, act: &Act) -> String {
        describe(act, &self.target_group)
    }
}

/// Takes blue's instances out of a target group they share with green, once green's are healthy there.
pub struct Detach {
    blue: String,
    target_group: String,
    /// Rules that must give the target group no weight; empty: others in it must be healthy.
    idle_in: Vec<String>,
}

impl Detach {
    /// Takes `blue`'s instances out of `target_group`.
    pub fn new(blue: String, target_group: String, idle_in: Vec<String>) -> Self {
        Self {
            blue,
            target_group,
            idle_in,
        }
    }
}

impl Step<World> for Detach {
    type Seen = Seen;
    type Before = Vec<String>;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let mut seen = Seen::read(world, &self.blue, &self.target_group).await?;
        if !self.idle_in.is_empty() {
            let rules = world.aws.rules_by_arn(&self.idle_in).await?;
            let weighs = |r: &&Rule| {
                r.forward
                    .iter()
                    .any(|t| t.arn == self.target_group && t.weight > 0)
            };
            seen.weighing = rules
                .iter()
                .filter(weighs)
                .map(|r| short_rule(&r.arn))
                .collect();
        }
        Ok(seen)
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        let ids = seen.ids();
        let with = seen.with(&self.target_group);
        if !with.is_empty() {
            let others: Vec<TargetHealth> = seen
                .targets
                .iter()
                .filter(|t| !ids.contains(&t.id))
                .cloned()
                .collect();
            let others = health(&others);
            if !seen.weighing.is_empty() {
                let why = format!(
                    "{} still has traffic in {}",
                    short(&self.target_group),
                    seen.weighing.join(", ")
                );
                return wait_or_refuse(why, past, now);
            }
            if self.idle_in.is_empty() && others.healthy == 0 {
                let why = format!(
                    "{} must have other healthy targets first: {}",
                    short(&self.target_group),
                    others.text()
                );
                return wait_or_refuse(why, past, now);
            }
            return Decision::Act(Act::Detach { asgs: with });
        }
        let left = still_targets(&seen.targets, &ids);
        if !left.is_empty() {
            let why = format!("connections are draining: {}", left.join(", "));
            return wait_or_refuse(why, past, now);
        }
        Decision::Done(format!(
            "no instance of {} is a target of {}",
            self.blue,
            short(&self.target_group)
        ))
    }

    fn before(&self, seen: &Seen) -> Vec<String> {
        seen.with(&self.target_group)
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        carry_out(world, act, &self.target_group).await
    }

    fn undo(&self) -> Undo {
        Undo::Restore
    }

    fn restore(&self, before: &Vec<String>, seen: &Seen, _now: Timestamp) -> Decision<Act> {
        let missing: Vec<String> = seen
            .without(&self.target_group)
            .into_iter()
            .filter(|a| before.contains(a))
            .collect();
        if !missing.is_empty() {
            return Decision::Act(Act::Attach { asgs: missing });
        }
        let ids = seen.ids();
        let own: Vec<TargetHealth> = seen
            .targets
            .iter()
            .filter(|t| ids.contains(&t.id))
            .cloned()
            .collect();
        let own = health(&own);
        if !before.is_empty() && own.healthy < ids.len() {
            return Decision::Wait {
                why: format!(
                    "blue's instances must be healthy targets again: {}",
                    own.text()
                ),
                recheck: RECHECK,
            };
        }
        Decision::Done(format!(
            "{}'s instances are targets of {} again",
            self.blue,
            short(&self.target_group)
        ))
    }

    fn describe(&self, act: &Act) -> String {
        describe(act, &self.target_group)
    }
}
