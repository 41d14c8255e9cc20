//! A node group's instances become targets, or cease to be, through its Auto Scaling group: an instance that joins later
//! is registered too, and one that ends is drained first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::model::asg::Asg;
use crate::model::elb::{RegisteredTarget, Rule, TargetHealth, short, short_rule};
use crate::steps::traffic::hand_registered::detached_just_now;
use crate::steps::traffic::health::{RemainingTargets, Serving, health, serving};
use crate::steps::traffic::remaining_targets::{
    instance_ids, left_empty, may_deregister, may_detach,
};
use crate::steps::{BACK_PATIENCE, World, absent_is_none};

/// Calls to AWS are no more often than this.
const RECHECK: Duration = crate::steps::updates::POLL;
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

/// The same on the way back.
fn wait_back(why: String, trail: &Trail, now: Timestamp) -> Decision<Act> {
    if trail.late(now, BACK_PATIENCE) {
        return Decision::Refuse(format!(
            "{why}, for more than {} minutes. Mend it, then run `eksup rollback` again.",
            BACK_PATIENCE.as_secs() / 60
        ));
    }
    Decision::Wait {
        why,
        recheck: RECHECK,
    }
}

/// What a look sees.
pub struct Seen {
    /// Whether the node group is there.
    there: bool,
    asgs: Vec<Asg>,
    targets: Vec<TargetHealth>,
    /// Rules that still give the target group weight, of those that must not.
    weighing: Vec<String>,
    /// Why the target group would answer nobody once this group's instances have left it.
    left_empty: Option<String>,
    /// In a rollback: whether the target groups that have the traffic in those rules serve.
    elsewhere: Option<Serving>,
}

impl Seen {
    async fn read(world: &World, group: &str, target_group: &str) -> Result<Self, StepError> {
        let group = absent_is_none(world.aws.describe_nodegroup(&world.cluster, group)).await?;
        let asgs = match &group {
            Some(group) => world.aws.asgs(&group.asgs).await?.into_values().collect(),
            None => Vec::new(),
        };
        let targets = world.aws.targets_of(target_group).await?;
        Ok(Self {
            there: group.is_some(),
            asgs,
            targets,
            weighing: Vec::new(),
            left_empty: None,
            elsewhere: None,
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

    /// Those of the group's instances that are still targets.
    fn remaining(&self) -> RemainingTargets {
        RemainingTargets::of(&self.targets, &self.ids())
    }

    /// What somebody registered one by one: targets whose Auto Scaling group does not fill the target group.
    fn registered_by_hand(&self, target_group: &str) -> Vec<RegisteredTarget> {
        let filled = |id: &String| {
            let mut asgs = self.asgs.iter();
            asgs.any(|a| a.fills(target_group) && a.instances.iter().any(|i| i.id == *id))
        };
        let registered = self.remaining().registered.into_iter();
        registered.filter(|t| !filled(&t.instance)).collect()
    }

    /// The group's own targets, and those of others that are judged or will be.
    fn own_and_others(&self) -> (Vec<TargetHealth>, Vec<TargetHealth>) {
        let ids = self.ids();
        let serving = self
            .targets
            .iter()
            .filter(|t| t.state != "unused" && !t.state.contains("draining"));
        serving.cloned().partition(|t| ids.contains(&t.id))
    }

    fn with(&self, target_group: &str) -> Vec<String> {
        self.asgs
            .iter()
            .filter(|a| a.fills(target_group))
            .map(|a| a.name.clone())
            .collect()
    }

    fn without(&self, target_group: &str) -> Vec<String> {
        self.asgs
            .iter()
            .filter(|a| !a.fills(target_group))
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
    Attach {
        asgs: Vec<String>,
    },
    Detach {
        asgs: Vec<String>,
    },
    /// Takes out what was registered one by one.
    Deregister {
        targets: Vec<RegisteredTarget>,
    },
    /// On the way back: registers the same again.
    Register {
        targets: Vec<RegisteredTarget>,
    },
}

async fn carry_out(world: &World, act: &Act, target_group: &str) -> Result<(), StepError> {
    let arns = [target_group.to_owned()];
    match act {
        Act::Attach { asgs } => {
            for asg in asgs {
                world.aws.attach_served(asg, &arns).await?;
            }
        }
        Act::Detach { asgs } => {
            for asg in asgs {
                world.aws.detach_served(asg, &arns).await?;
            }
        }
        Act::Deregister { targets } => world.aws.deregister_at(target_group, targets).await?,
        Act::Register { targets } => world.aws.register_at(target_group, targets).await?,
    }
    Ok(())
}

fn describe(act: &Act, target_group: &str) -> String {
    match act {
        Act::Attach { asgs } => format!("attach {} to {}", short(target_group), asgs.join(", ")),
        Act::Detach { asgs } => format!("detach {} from {}", short(target_group), asgs.join(", ")),
        Act::Deregister { targets } => {
            format!("deregister {} from {}", names(targets), short(target_group))
        }
        Act::Register { targets } => {
            format!("register {} in {}", names(targets), short(target_group))
        }
    }
}

/// The instances, for people.
pub fn names(targets: &[RegisteredTarget]) -> String {
    let names: Vec<&str> = targets.iter().map(|t| t.instance.as_str()).collect();
    names.join(", ")
}

fn gone(group: &str) -> String {
    format!("node group {group} is gone; somebody else deleted it")
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
        if !seen.there {
            return Decision::Refuse(gone(&self.green));
        }
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

    fn restore(
        &self,
        before: &Vec<String>,
        seen: &Seen,
        trail: &Trail,
        now: Timestamp,
    ) -> Decision<Act> {
        if !seen.there {
            return Decision::Done(format!("node group {} is gone already", self.green));
        }
        let ours: Vec<String> = seen
            .with(&self.target_group)
            .into_iter()
            .filter(|a| !before.contains(a))
            .collect();
        // Where blue is in the same target group, green leaves it only when blue serves; where it is not, green has had
        // no traffic since the weights went back.
        // A green that serves nothing leaves at once.
        let (own, others) = seen.own_and_others();
        let others_health = health(&others);
        let serves = serving(&own) != Serving::No;
        if !ours.is_empty() && !others.is_empty() && others_health.healthy == 0 && serves {
            let why = format!(
                "{} must have other healthy targets before {} leaves it: {}",
                short(&self.target_group),
                self.green,
                others_health.text()
            );
            return wait_back(why, trail, now);
        }
        if !ours.is_empty() {
            return Decision::Act(Act::Detach { asgs: ours });
        }
        if before.is_empty()
            && let Some(why) = seen.remaining().waiting_text()
        {
            return wait_or_refuse(why, &trail.back, now);
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
    /// Rules that must give the target group no weight. Whatever else sends it traffic needs others in it that are healthy.
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

    async fn rules(&self, world: &World) -> Result<Vec<Rule>, StepError> {
        let rules = world.aws.rules_by_arn(&self.idle_in, BTreeMap::new());
        Ok(rules.await?)
    }
}

/// What blue had to do with the target group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DetachBefore {
    /// Auto Scaling groups of blue that fill it.
    asgs: Vec<String>,
    /// Instances of blue that somebody registered one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    registered: Vec<RegisteredTarget>,
}

/// The target groups that have traffic in a rule.
fn weighed(rule: &Rule) -> impl Iterator<Item = &str> {
    let weighed = rule.forward.iter().filter(|t| t.weight > 0);
    weighed.map(|t| t.arn.as_str())
}

impl Step<World> for Detach {
    type Seen = Seen;
    type Before = DetachBefore;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let mut seen = Seen::read(world, &self.blue, &self.target_group).await?;
        let leaving = instance_ids(&seen.asgs);
        seen.left_empty =
            left_empty(&world.aws, &self.target_group, &seen.targets, &leaving).await?;
        if !self.idle_in.is_empty() {
            let rules = self.rules(world).await?;
            let weighs = |r: &&Rule| weighed(r).any(|arn| arn == self.target_group);
            seen.weighing = rules
                .iter()
                .filter(weighs)
                .map(|r| short_rule(&r.arn))
                .collect();
        }
        Ok(seen)
    }

    async fn observe_back(&self, world: &World) -> Result<Seen, StepError> {
        let mut seen = self.observe(world).await?;
        if self.idle_in.is_empty() {
            return Ok(seen);
        }
        let rules = self.rules(world).await?;
        let elsewhere: BTreeSet<&str> = rules
            .iter()
            .flat_map(weighed)
            .filter(|arn| *arn != self.target_group)
            .collect();
        let mut targets = Vec::new();
        for arn in elsewhere {
            targets.extend(world.aws.target_health(arn).await?);
        }
        seen.elsewhere = Some(serving(&targets));
        Ok(seen)
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        if !seen.there {
            return Decision::Refuse(gone(&self.blue));
        }
        let with = seen.with(&self.target_group);
        let remaining = seen.remaining();
        if with.is_empty() && remaining.registered.is_empty() {
            return match remaining.waiting_text() {
                Some(why) => wait_or_refuse(why, past, now),
                None => Decision::Done(format!(
                    "no instance of {} is a target of {}",
                    self.blue,
                    short(&self.target_group)
                )),
            };
        }
        if with.is_empty() && detached_just_now(past, now) {
            let names = remaining.registered_text.join(", ");
            let why = format!("the Auto Scaling group deregisters its instances: {names}");
            return wait_or_refuse(why, past, now);
        }
        // Instances are about to leave: nobody may be lost by that.
        if !seen.weighing.is_empty() {
            let why = format!(
                "{} still has traffic in {}",
                short(&self.target_group),
                seen.weighing.join(", ")
            );
            return wait_or_refuse(why, past, now);
        }
        if let Some(left_empty) = &seen.left_empty {
            let ids = seen.ids();
            let others = seen.targets.iter().filter(|t| !ids.contains(&t.id));
            let others: Vec<TargetHealth> = others.cloned().collect();
            let why = format!(
                "{} must have other healthy targets first ({left_empty}): {}",
                short(&self.target_group),
                health(&others).text()
            );
            return wait_or_refuse(why, past, now);
        }
        Decision::Act(if with.is_empty() {
            Act::Deregister {
                targets: remaining.registered,
            }
        } else {
            Act::Detach { asgs: with }
        })
    }

    fn before(&self, seen: &Seen) -> DetachBefore {
        DetachBefore {
            asgs: seen.with(&self.target_group),
            registered: seen.registered_by_hand(&self.target_group),
        }
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        // What was seen is a moment old, and somebody may have fallen ill since: the next look says so.
        let may = match act {
            Act::Detach { asgs } => {
                let groups = std::slice::from_ref(&self.target_group);
                may_detach(world, asgs, groups).await?
            }
            Act::Deregister { targets } => {
                let leaving = targets.iter().map(|t| t.instance.clone()).collect();
                may_deregister(world, &self.target_group, &leaving).await?
            }
            Act::Attach { .. } | Act::Register { .. } => true,
        };
        match may {
            true => carry_out(world, act, &self.target_group).await,
            false => Ok(()),
        }
    }

    fn undo(&self) -> Undo {
        Undo::Restore
    }

    fn restore(
        &self,
        before: &DetachBefore,
        seen: &Seen,
        trail: &Trail,
        now: Timestamp,
    ) -> Decision<Act> {
        if !seen.there {
            return Decision::Refuse(gone(&self.blue));
        }
        let missing: Vec<String> = seen
            .without(&self.target_group)
            .into_iter()
            .filter(|a| before.asgs.contains(a))
            .collect();
        if !missing.is_empty() {
            return Decision::Act(Act::Attach { asgs: missing });
        }
        let (here, ids) = (seen.remaining().registered, seen.ids());
        let absent = |t: &&RegisteredTarget| ids.contains(&t.instance) && !here.contains(t);
        let absent: Vec<RegisteredTarget> =
            before.registered.iter().filter(absent).cloned().collect();
        if !absent.is_empty() {
            return Decision::Act(Act::Register { targets: absent });
        }
        // Those that were targets: all where the Auto Scaling group fills the target group, else those of before.
        let expected: BTreeSet<String> = match before.asgs.is_empty() {
            true => before
                .registered
                .iter()
                .map(|t| t.instance.clone())
                .collect(),
            false => ids.clone(),
        };
        let expected = expected.intersection(&ids).count();
        // Behind a Local service blue's nodes are healthy only once pods are back: it is enough that they are judged,
        // and that somebody in the target group serves.
        let (own, others) = seen.own_and_others();
        let judged = own.iter().filter(|t| t.state != "initial").count();
        let unused = seen.targets.iter().any(|t| t.state == "unused");
        let served = health(&own).healthy + health(&others).healthy > 0;
        if expected > 0 && !unused && (judged < expected || !served) {
            let why = format!(
                "instances of {} must be targets of {} again: {}",
                self.blue,
                short(&self.target_group),
                health(&own).text()
            );
            // Where nothing serves, here and where the traffic is, there is nothing that the rest of the rollback could
            // take away: it goes on, and its pods are what makes these targets healthy.
            let all: Vec<TargetHealth> = own.iter().chain(&others).cloned().collect();
            let nothing_serves = match seen.elsewhere {
                Some(elsewhere) => elsewhere == Serving::No && !served,
                None => serving(&all) == Serving::No,
            };
            return if nothing_serves {
                let overdue = trail.late(now, BACK_PATIENCE);
                Decision::Yield {
                    why,
                    recheck: RECHECK,
                    overdue,
                }
            } else {
                wait_back(why, trail, now)
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
