//! Green's target group stands in the rules at weight 0. Until it stands in one, ELB calls its targets `unused` and never
//! checks their health.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::model::ApiError;
use crate::model::elb::{
    Rule, TargetHealth, WeightedTargetGroup, controller_owned, short, short_rule,
};
use crate::route::ShiftSpec;
use crate::steps::traffic::health::{health, with_zones};
use crate::steps::traffic::shift::rules;
use crate::steps::workload_gate::Shortage;
use crate::steps::{PATIENCE, World};

/// Calls to AWS are no more often than this.
const RECHECK: Duration = crate::steps::updates::POLL;

/// How old what is known of the rules' owners may be; before a rule is written it is asked anew.
const OWNED: Duration = Duration::from_secs(60);

/// The tags of rules by ARN, which say who owns them.
type Tags = BTreeMap<String, BTreeMap<String, String>>;

/// Who owns the rules, asked now and then: weeks pass between changes of that, and seconds between looks.
#[derive(Default)]
pub struct Owners {
    known: Mutex<Option<(Instant, Tags)>>,
}

impl Owners {
    async fn of(&self, world: &World, rules: &[String]) -> Result<Tags, ApiError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, tags)) = &*known()
            && at.elapsed() < OWNED
        {
            return Ok(tags.clone());
        }
        let tags = world.aws.tags_of(rules).await?;
        *known() = Some((Instant::now(), tags.clone()));
        Ok(tags)
    }
}

/// What to say of a rule that a controller writes.
fn not_ours(rule: &str) -> String {
    format!(
        "listener rule {} belongs to a load balancer controller, which would write it back; set the weights in its Ingress or Service instead",
        short_rule(rule)
    )
}

/// A rule and what it forwards to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forward {
    pub rule: String,
    pub forward: Vec<WeightedTargetGroup>,
}

/// What a look at rules and green's targets sees; also the shift's.
pub struct Seen {
    pub rules: Vec<Rule>,
    pub green: Vec<TargetHealth>,
    pub blue: Vec<TargetHealth>,
    /// For the shift: the workloads that are short.
    pub short: Shortage,
    /// In a rollback: no target of blue has turned healthy for a while.
    pub blue_steady: bool,
}

impl Seen {
    /// Reads the rules and both target groups' health.
    pub async fn read(
        world: &World,
        spec: &ShiftSpec,
        owners: &Owners,
        zones: &InstanceZones,
    ) -> Result<Self, StepError> {
        let tags = owners.of(world, &spec.rules).await?;
        let (rules, mut green, blue) = tokio::try_join!(
            world.aws.rules_by_arn(&spec.rules, tags),
            world.aws.target_health(&spec.green),
            world.aws.target_health(&spec.blue)
        )?;
        let zones = zones.of(world, &green).await?;
        with_zones(&mut green, &zones);
        Ok(Self {
            rules,
            green,
            blue,
            short: Shortage::default(),
            blue_steady: false,
        })
    }

    /// Every rule and what it forwards to.
    pub fn forwards(&self) -> Vec<Forward> {
        self.rules
            .iter()
            .map(|r| Forward {
                rule: r.arn.clone(),
                forward: r.forward.clone(),
            })
            .collect()
    }

    /// Why these rules cannot be worked on, if so.
    pub fn refuse(&self, spec: &ShiftSpec) -> Option<String> {
        if let Some(gone) = spec
            .rules
            .iter()
            .find(|arn| !self.rules.iter().any(|r| r.arn == **arn))
        {
            return Some(format!("listener rule {} is gone", short_rule(gone)));
        }
        if let Some(rule) = self.rules.iter().find(|r| controller_owned(&r.tags)) {
            return Some(not_ours(&rule.arn));
        }
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
                    short(&spec.blue),
                    short(&spec.green)
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
    async fn of(
        &self,
        world: &World,
        targets: &[TargetHealth],
    ) -> Result<BTreeMap<String, String>, StepError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut zones = known().clone();
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
        let snapshot = world.cache.read(PATIENCE).await?;
        let nodes = snapshot.nodes.values();
        zones.extend(
            nodes.filter_map(|n| Some((n.instance_id()?.to_owned(), n.zone()?.to_owned()))),
        );
        let ids = unknown(&zones);
        if !ids.is_empty() {
            let instances = world.aws.instances(&ids).await?;
            zones.extend(instances.into_iter().map(|i| (i.id, i.zone)));
        }
        *known() = zones.clone();
        Ok(zones)
    }
}

/// Puts green into the rules.
pub struct AddToRules {
    green: String,
    spec: ShiftSpec,
    owners: Owners,
    zones: InstanceZones,
}

/// Writes rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Act {
    pub set: Vec<Forward>,
}

/// Writes each rule, unless a controller has made one its own; the look after it reads them back.
pub async fn write(world: &World, set: &[Forward]) -> Result<(), StepError> {
    let rules: Vec<String> = set.iter().map(|f| f.rule.clone()).collect();
    let tags = world.aws.tags_of(&rules).await?;
    if let Some((rule, _)) = tags.iter().find(|(_, tags)| controller_owned(tags)) {
        return Err(StepError::Broken(not_ours(rule)));
    }
    for Forward { rule, forward } in set {
        world.aws.set_forward(rule, forward).await?;
    }
    Ok(())
}

impl AddToRules {
    /// Puts the target group of `green` into the rules of `spec`.
    pub fn new(green: String, spec: ShiftSpec) -> Self {
        Self {
            green,
            spec,
            owners: Owners::default(),
            zones: InstanceZones::default(),
        }
    }
}

impl Step<World> for AddToRules {
    type Seen = Seen;
    type Before = Vec<Forward>;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        Seen::read(world, &self.spec, &self.owners, &self.zones).await
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        if let Some(why) = seen.refuse(&self.spec) {
            return Decision::Refuse(why);
        }
        let set: Vec<Forward> = seen
            .forwards()
            .into_iter()
            .filter(|f| !f.forward.iter().any(|t| t.arn == self.spec.green))
            .map(|mut f| {
                f.forward.push(WeightedTargetGroup {
                    arn: self.spec.green.clone(),
                    weight: 0,
                });
                f
            })
            .collect();
        if !set.is_empty() {
            return Decision::Act(Act { set });
        }
        let green = health(&seen.green);
        let starting = seen.green.iter().any(|t| t.state == "initial");
        if green.unused || starting || green.total == 0 {
            let since = past.last_act_at.or(past.started_at);
            let timeout =
                SignedDuration::try_from(self.spec.timeout).unwrap_or(SignedDuration::MAX);
            if since.is_some_and(|t| now.duration_since(t) > timeout) {
                return Decision::Refuse(format!(
                    "the load balancer has not judged green's targets within {}s: {}. Mend it, then run `eksup apply` again.",
                    timeout.as_secs(),
                    green.text()
                ));
            }
            return Decision::Wait {
                why: format!(
                    "the load balancer has not judged green's targets yet: {}",
                    green.text()
                ),
                recheck: RECHECK,
            };
        }
        Decision::Done(format!(
            "{} stands in {}, no weight of it changed: {}",
            short(&self.spec.green),
            rules(seen.rules.len()),
            green.text()
        ))
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
        _trail: &Trail,
        _now: Timestamp,
    ) -> Decision<Act> {
        let mut set = Vec::new();
        for mut now in seen.forwards() {
            let had = before
                .iter()
                .find(|b| b.rule == now.rule)
                .is_some_and(|b| b.forward.iter().any(|t| t.arn == self.spec.green));
            let Some(green) = now.forward.iter().find(|t| t.arn == self.spec.green) else {
                continue;
            };
            if had {
                continue;
            }
            if green.weight > 0 {
                return Decision::Refuse(format!(
                    "listener rule {} sends traffic to green again; shift it back first",
                    short_rule(&now.rule)
                ));
            }
            now.forward.retain(|t| t.arn != self.spec.green);
            set.push(now);
        }
        if set.is_empty() {
            return Decision::Done(format!(
                "{} stands in no rule it did not stand in before",
                short(&self.spec.green)
            ));
        }
        Decision::Act(Act { set })
    }

    fn describe(&self, act: &Act) -> String {
        let rules: Vec<String> = act.set.iter().map(|f| short_rule(&f.rule)).collect();
        format!(
            "{} at weight 0, for {}, into {}",
            short(&self.spec.green),
            self.green,
            rules.join(", ")
        )
    }
}
