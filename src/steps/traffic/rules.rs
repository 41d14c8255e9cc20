//! Green's target group stands in the rules at weight 0. Until it stands in one, ELB calls its targets `unused` and never
//! checks their health.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::aws::elb::RuleWritten;
use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::ApiError;
use crate::model::aws_status::TargetState;
use crate::model::clock::signed_duration;
use crate::model::elb::{
    ListenerRule, TargetHealth, WeightedTargetGroup, controller_owned, short_name, short_rule,
};
use crate::route::ShiftSpec;
use crate::steps::StepWorld;
use crate::steps::traffic::health::{count_health, fill_in_zones};
use crate::steps::traffic::shift::rule_count_text;
use crate::steps::workload_gate::Shortage;

/// Calls to AWS are no more often than this.
const RULES_RECHECK_INTERVAL: Duration = crate::steps::updates::EKS_POLL_INTERVAL;

/// How old what is known of the rules' owners may be; before a rule is written it is asked again.
const RULE_OWNERS_MAX_AGE: Duration = Duration::from_secs(60);

/// The tags of rules by ARN, which say who owns them.
type RuleTags = BTreeMap<String, BTreeMap<String, String>>;

/// Who owns the rules, asked now and then: weeks pass between changes of that, and seconds between looks.
#[derive(Default)]
pub struct RuleOwners {
    known: Mutex<Option<(Instant, RuleTags)>>,
}

impl RuleOwners {
    async fn owner_tags_of(
        &self,
        world: &StepWorld,
        rules: &[String],
    ) -> Result<RuleTags, ApiError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, tags)) = &*known()
            && at.elapsed() < RULE_OWNERS_MAX_AGE
        {
            return Ok(tags.clone());
        }
        let tags = world.aws.describe_tags(rules).await?;
        *known() = Some((Instant::now(), tags.clone()));
        Ok(tags)
    }
}

/// What to say of a rule that a controller writes.
fn foreign_rule_text(rule: &str) -> String {
    format!(
        "listener rule {} belongs to a load balancer controller, which would write it back; set the weights in its Ingress or Service instead",
        short_rule(rule)
    )
}

/// A rule and what it forwards to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleForward {
    pub rule: String,
    pub forward: Vec<WeightedTargetGroup>,
}

/// A write of the whole list of a rule's target groups, with what was looked at: a list that somebody has changed since is
/// not overwritten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleWrite {
    pub rule: String,
    pub was: Vec<WeightedTargetGroup>,
    pub forward: Vec<WeightedTargetGroup>,
}

impl RuleWrite {
    /// What makes `rule` forward to `forward`; nothing where it does.
    pub fn to_forward(rule: &ListenerRule, forward: Vec<WeightedTargetGroup>) -> Option<Self> {
        (rule.forward != forward).then(|| Self {
            rule: rule.arn.clone(),
            was: rule.forward.clone(),
            forward,
        })
    }
}

/// What a look at rules and green's targets sees; also the shift's.
pub struct TrafficObservation {
    pub rules: Vec<ListenerRule>,
    pub green: Vec<TargetHealth>,
    pub blue: Vec<TargetHealth>,
    /// For the shift: the workloads that are short.
    pub short: Shortage,
    /// In a rollback: no target of blue has turned healthy for a while.
    pub blue_steady: bool,
}

impl TrafficObservation {
    /// Reads the rules and both target groups' health.
    pub async fn read_traffic(
        world: &StepWorld,
        spec: &ShiftSpec,
        owners: &RuleOwners,
        zones: &InstanceZones,
    ) -> Result<Self, StepError> {
        let tags = owners.owner_tags_of(world, &spec.rules).await?;
        let (rules, mut green, blue) = tokio::try_join!(
            world.aws.describe_rules_by_arn(&spec.rules, tags),
            world.aws.describe_target_health(&spec.green),
            world.aws.describe_target_health(&spec.blue)
        )?;
        let zones = zones.zones_of(world, &green).await?;
        fill_in_zones(&mut green, &zones);
        Ok(Self {
            rules,
            green,
            blue,
            short: Shortage::default(),
            blue_steady: false,
        })
    }

    /// Every rule and what it forwards to.
    pub fn rule_forwards(&self) -> Vec<RuleForward> {
        self.rules
            .iter()
            .map(|r| RuleForward {
                rule: r.arn.clone(),
                forward: r.forward.clone(),
            })
            .collect()
    }

    /// Why these rules cannot be worked on, if so.
    pub fn find_refusal(&self, spec: &ShiftSpec) -> Option<String> {
        // The order tells the most certain reason first. A rule that a controller owns would be written back within
        // moments (LBC-2).
        if let Some(gone) = spec
            .rules
            .iter()
            .find(|arn| !self.rules.iter().any(|r| r.arn == **arn))
        {
            return Some(format!("listener rule {} is gone", short_rule(gone)));
        }
        if let Some(rule) = self.rules.iter().find(|r| controller_owned(&r.tags)) {
            return Some(foreign_rule_text(&rule.arn));
        }
        // Somebody has sent the rule elsewhere since the plan was made, and to write it back would undo that.
        self.rules
            .iter()
            .find(|r| {
                !r.forward
                    .iter()
                    .any(|t| t.arn == spec.blue || t.arn == spec.green)
            })
            .map(|r| {
                format!(
                    "listener rule {} forwards to neither {} nor {}",
                    short_rule(&r.arn),
                    short_name(&spec.blue),
                    short_name(&spec.green)
                )
            })
    }
}

/// The zones of instances, which never change: each is asked for once.
#[derive(Default)]
pub struct InstanceZones {
    known: Mutex<BTreeMap<String, String>>,
}

impl InstanceZones {
    /// The zone of each target that is an instance: its node's label says it, and where it has no node, EC2.
    async fn zones_of(
        &self,
        world: &StepWorld,
        targets: &[TargetHealth],
    ) -> Result<BTreeMap<String, String>, StepError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut zones = known().clone();
        // ELB gives no zone for targets that are instances (ELB-10). Nodes tell it for free; EC2 is asked for the rest.
        let unknown = |zones: &BTreeMap<String, String>| -> Vec<String> {
            let instances = targets
                .iter()
                .filter(|t| t.zone.is_none() && t.id.starts_with("i-"));
            instances
                .filter(|t| !zones.contains_key(&t.id))
                .map(|t| t.id.clone())
                .collect()
        };
        if unknown(&zones).is_empty() {
            return Ok(zones);
        }
        let snapshot = world.read_snapshot().await?;
        let nodes = snapshot.nodes.values();
        zones.extend(
            nodes.filter_map(|n| Some((n.instance_id()?.to_owned(), n.zone()?.to_owned()))),
        );
        // An instance may be a target before its node has joined, or after the node object has gone.
        let ids = unknown(&zones);
        if !ids.is_empty() {
            let instances = world.aws.describe_instances(&ids).await?;
            zones.extend(instances.into_iter().map(|i| (i.id, i.zone)));
        }
        // An instance never changes its zone, so what is known once is not asked again at each look.
        *known() = zones.clone();
        Ok(zones)
    }
}

/// The step that puts green's target group into the rules, at a weight of 0 that takes no traffic yet.
pub struct AddToRulesStep {
    green: String,
    spec: ShiftSpec,
    owners: RuleOwners,
    zones: InstanceZones,
}

/// Writes the whole list of target groups of each of these rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddToRulesAct {
    pub set: Vec<RuleWrite>,
}

/// Writes each rule, unless a controller has made one its own, or somebody has changed one since it was looked at; the
/// look after it reads them back, and decides again.
pub async fn write_rules(world: &StepWorld, set: &[RuleWrite]) -> Result<(), StepError> {
    let rules: Vec<String> = set.iter().map(|f| f.rule.clone()).collect();
    // The look's tags may be a minute old. A rule that became a controller's since must not be written.
    let tags = world.aws.describe_tags(&rules).await?;
    if let Some((rule, _)) = tags.iter().find(|(_, tags)| controller_owned(tags)) {
        return Err(StepError::Broken(foreign_rule_text(rule)));
    }
    for RuleWrite { rule, was, forward } in set {
        match world.aws.set_forward_weights(rule, was, forward).await? {
            RuleWritten::AsAsked => {}
            // The rules that are left rest on the same look.
            RuleWritten::ChangedMeanwhile => break,
        }
    }
    Ok(())
}

impl AddToRulesStep {
    /// Puts the target group of `green` into the rules of `spec`.
    pub fn new(green: String, spec: ShiftSpec) -> Self {
        Self {
            green,
            spec,
            owners: RuleOwners::default(),
            zones: InstanceZones::default(),
        }
    }
}

impl Step<StepWorld> for AddToRulesStep {
    type Observation = TrafficObservation;
    type BeforeImage = Vec<RuleForward>;
    type Act = AddToRulesAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<TrafficObservation, StepError> {
        TrafficObservation::read_traffic(world, &self.spec, &self.owners, &self.zones).await
    }

    fn decide_next(
        &self,
        seen: &TrafficObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<AddToRulesAct> {
        if let Some(why) = seen.find_refusal(&self.spec) {
            return Decision::Refuse(StepRefusal::new(why));
        }
        // Weight 0 changes nobody's traffic, and makes ELB check green's health at all (ELB-2).
        let green_at_zero = WeightedTargetGroup {
            arn: self.spec.green.clone(),
            weight: 0,
        };
        // Only rules without green are written, so that a repeated act writes nothing twice.
        let set: Vec<RuleWrite> = seen
            .rules
            .iter()
            .filter(|r| !r.forward.iter().any(|t| t.arn == self.spec.green))
            .filter_map(|r| {
                let mut forward = r.forward.clone();
                forward.push(green_at_zero.clone());
                RuleWrite::to_forward(r, forward)
            })
            .collect();
        if !set.is_empty() {
            return Decision::Act(AddToRulesAct { set });
        }
        // Judged is enough here, healthy is not asked for: the shift, or with Local services the drain, waits for that.
        let green = count_health(&seen.green);
        let starting = seen.green.iter().any(|t| t.state == TargetState::Initial);
        // Not judged yet: ELB has just begun to check, or Auto Scaling to register.
        if green.unused || starting || green.total == 0 {
            let since = past.wait_counts_from();
            let timeout = signed_duration(self.spec.timeout);
            if since.is_some_and(|t| now.duration_since(t) > timeout) {
                return Decision::Refuse(StepRefusal::new(format!(
                    "the load balancer has not judged green's targets within {}s: {}",
                    timeout.as_secs(),
                    green.health_text()
                )));
            }
            return Decision::Wait {
                why: format!(
                    "the load balancer has not judged green's targets yet: {}",
                    green.health_text()
                ),
                recheck: RULES_RECHECK_INTERVAL,
            };
        }
        Decision::Done(format!(
            "{} is in {} with its weight unchanged: {}",
            short_name(&self.spec.green),
            rule_count_text(seen.rules.len()),
            green.health_text()
        ))
    }

    fn before_image(&self, seen: &TrafficObservation) -> Vec<RuleForward> {
        seen.rule_forwards()
    }

    async fn perform_act(&self, world: &StepWorld, act: &AddToRulesAct) -> Result<(), StepError> {
        write_rules(world, &act.set).await
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &Vec<RuleForward>,
        seen: &TrafficObservation,
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<AddToRulesAct> {
        let mut set = Vec::new();
        for now in &seen.rules {
            let had = before
                .iter()
                .find(|b| b.rule == now.arn)
                .is_some_and(|b| b.forward.iter().any(|t| t.arn == self.spec.green));
            // A rule that had green before the run keeps it.
            let Some(green) = now.forward.iter().find(|t| t.arn == self.spec.green) else {
                continue;
            };
            if had {
                continue;
            }
            // Taken out at a weight, green would lose requests that it gets now. The shift is rolled back before this
            // step, so such a weight is somebody else's.
            if green.weight > 0 {
                return Decision::Refuse(StepRefusal::new(format!(
                    "listener rule {} sends traffic to green again; shift it back first",
                    short_rule(&now.arn)
                )));
            }
            let mut forward = now.forward.clone();
            forward.retain(|t| t.arn != self.spec.green);
            set.extend(RuleWrite::to_forward(now, forward));
        }
        if set.is_empty() {
            return Decision::Done(format!(
                "{} is in no rule that did not have it before",
                short_name(&self.spec.green)
            ));
        }
        Decision::Act(AddToRulesAct { set })
    }

    fn describe_act(&self, act: &AddToRulesAct) -> String {
        let rules: Vec<String> = act.set.iter().map(|f| short_rule(&f.rule)).collect();
        format!(
            "{} at weight 0, for {}, into {}",
            short_name(&self.spec.green),
            self.green,
            rules.join(", ")
        )
    }
}
