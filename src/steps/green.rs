//! The green node group: created beside blue, ready only when its nodes are.
//!
//! Its rollback empties it first, as the plan's drain would (see `drain/rollback.rs`).

mod acts;
mod group;
mod machines;
mod pool_removal;
mod settings;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use acts::GreenAct;

use crate::engine::{
    Decision, NextStep, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::asg::{Asg, AsgTag};
use crate::model::aws_status::NodegroupStatus;
use crate::model::clock::signed_duration;
use crate::model::eks::{LaunchTemplateRef, NewNodegroup, Nodegroup, NodegroupChange, Scaling};
use crate::model::kube::{Node, Taint};
use crate::model::node_source::NodeSource;
use crate::model::{Minor, marks};
use crate::route::DrainSpec;
use crate::steps::StepWorld;
use crate::steps::attempts::{CallAttempt, NodegroupRequest};
use crate::steps::drain::{GreenDrain, GreenDrainObservation};
use crate::steps::empty_proof::prove_group_empty;
use crate::steps::green_baseline::{is_ready_on, issues_beyond_blue};
use crate::steps::green_daemons::missing_daemon_pods;
use crate::steps::green_launches::failed_launches;
use crate::steps::launch_template::TemplateSource;
use crate::steps::nodes;
use crate::steps::pool_source::PoolMachines;
use crate::steps::updates::{EKS_POLL_INTERVAL, health_issues_text};
use crate::steps::warm_pool::WarmPoolObservation;

/// How long EKS may take to delete a group: where its kubelets are dead, its lifecycle hook alone waits half an hour.
const GREEN_DELETE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What the group is to be.
#[derive(Clone, Debug)]
pub struct GreenGroupSpec {
    pub blue: String,
    pub source: NodeSource,
    pub group: NewNodegroup,
    pub kubelet: Option<Minor>,
    pub zones: Vec<String>,
    pub copy_asg_tags: bool,
    /// The launch template version that this run made and that is to be used.
    pub template_from: Option<TemplateSource>,
    /// Taints that its nodes keep although the group does not name them.
    pub lasting_taints: Vec<Taint>,
    /// Green starts with this many nodes, and the drain grows it.
    pub surge: Option<u32>,
    /// Of a NodePool: the image for a node class of its own.
    pub class_image: Option<String>,
    pub timeout: Duration,
}

/// A step that creates green and waits until its nodes can carry blue's pods.
pub struct CreateGreenStep {
    id: String,
    run: String,
    group_spec: GreenGroupSpec,
    /// Empties green on rollback.
    green_drain: GreenDrain,
}

/// The group of green's name before the run: none, or a rollback leaves it alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GreenBeforeImage {
    /// Absent when there was no group of that name.
    status: Option<NodegroupStatus>,
    size: Option<Scaling>,
    nodes: usize,
}

/// One look at green beside blue.
pub struct GreenObservation {
    green: Option<Nodegroup>,
    asg: Option<Asg>,
    blue_desired: Option<i32>,
    /// Codes of the issues that EKS reports of blue.
    blue_health: Vec<String>,
    blue_tags: Vec<AsgTag>,
    blue_suspended: Vec<String>,
    blue_metrics: Vec<String>,
    /// The template version to use, when it had to be looked up.
    made_template: Option<LaunchTemplateRef>,
    /// The warm pool of a self-managed green, which is removed before green is.
    warm_pool: WarmPoolObservation,
    nodes: Vec<std::sync::Arc<Node>>,
    /// What is not ready on green's nodes though they are.
    missing_daemon_pods: Vec<String>,
    /// Why nodes are missing, in Auto Scaling's words.
    failed_launches: Vec<String>,
    /// Of a NodePool: what is known of its machines.
    machines: PoolMachines,
    /// In a rollback, and where the group could not be created: who is still on green.
    drain_observation: Option<GreenDrainObservation>,
}

impl CreateGreenStep {
    /// Creates the group of `group_spec` in run `run`; on rollback it is emptied as `drain` says.
    pub fn new(id: String, run: String, group_spec: GreenGroupSpec, drain: &DrainSpec) -> Self {
        let green_drain = GreenDrain::new(&id, &group_spec.group.name, &group_spec.blue, drain);
        Self {
            id,
            run,
            group_spec,
            green_drain,
        }
    }

    fn green_name(&self) -> &str {
        &self.group_spec.group.name
    }

    /// Green with what it is, as text.
    fn green_words(&self) -> String {
        format!(
            "{} {}",
            self.group_spec.source.group_words(),
            self.green_name()
        )
    }

    /// What ends an empty green: EKS ends the nodes with the group, an Auto Scaling group is made empty first.
    fn decide_deletion(
        &self,
        green: &Nodegroup,
        seen: &GreenObservation,
        (trail, now): (&RollbackHistory, Timestamp),
    ) -> Decision<GreenAct> {
        // First of all: in a group at zero nodes a pool would keep as many as it may have (ASG-16).
        if let Some(removal) = self.decide_pool_removal(seen, trail, now) {
            return removal;
        }
        let instances = seen.asg.as_ref().map_or(0, |asg| asg.instances.len());
        if green.source.ends_nodes_with_group() || (green.scaling.desired == 0 && instances == 0) {
            return Decision::Act(GreenAct::Delete);
        }
        if green.scaling.desired > 0 {
            return Decision::Act(GreenAct::ScaleToZero {
                request: NodegroupRequest {
                    attempt: CallAttempt::of_rollback(&trail.rollback),
                    modified: green.modified_at,
                },
            });
        }
        wait_polling(format!(
            "{instances} instances of {} are ending",
            green.name
        ))
    }

    fn is_ours(&self, green: &Nodegroup) -> bool {
        green.tags.get(marks::RUN_TAG) == Some(&self.run)
    }
}

impl Step<StepWorld> for CreateGreenStep {
    type Observation = GreenObservation;
    type BeforeImage = GreenBeforeImage;
    type Act = GreenAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<GreenObservation, StepError> {
        let green = world.read_node_group(self.green_name()).await?;
        // Minutes pass while EKS makes it, and nothing but that is of interest then.
        let making = green
            .as_ref()
            .is_some_and(|g| g.status == NodegroupStatus::Creating);
        let blue = if making {
            None
        } else {
            let blue = &self.group_spec.blue;
            world.read_node_group(blue).await?
        };
        // Both Auto Scaling groups in one call: blue's size, tags and suspended processes are what green is compared
        // with.
        let names: Vec<String> = blue
            .iter()
            .chain(green.iter().filter(|_| !making))
            .flat_map(|g| g.asgs.iter().cloned())
            .collect();
        let mut asgs = if names.is_empty() {
            Default::default()
        } else {
            world.aws.describe_asgs(&names).await?
        };
        let mut take = |group: &Option<Nodegroup>| {
            group
                .as_ref()
                .and_then(|g| g.asgs.first())
                .and_then(|name| asgs.remove(name))
        };
        let asg = take(&green);
        let warm_pool = match asg.as_ref().filter(|a| a.warm_pool.is_some()) {
            Some(asg) => self.read_warm_pool(world, &asg.name).await?,
            None => WarmPoolObservation::default(),
        };
        let blue_asg = take(&blue);
        // The template's new version is looked up, because the step that made it may have died before it could tell its
        // number.
        let made_template = match &self.group_spec.template_from {
            Some(from) if green.is_none() => from.find_made_template(world).await?,
            _ => None,
        };
        let snapshot = world.read_snapshot().await?;
        let nodes: Vec<_> = snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup_name() == Some(self.green_name()))
            .cloned()
            .collect();
        // What explains a delay is read only while there is one, and DaemonSets only once their nodes are there.
        let all_ready = green.as_ref().is_some_and(|g| {
            nodes.iter().filter(|n| n.is_ready()).count() as i64 >= i64::from(g.scaling.desired)
        });
        let zones = &self.group_spec.zones;
        let has_node = |zone: &String| nodes.iter().any(|n| n.zone() == Some(zone));
        let launches = match &green {
            Some(green) if !all_ready || !zones.iter().all(has_node) => {
                failed_launches(world, green).await?
            }
            Some(_) | None => Vec::new(),
        };
        let daemons = if all_ready && !nodes.is_empty() {
            let mut sets = world.kube.list_daemon_sets().await?;
            // One that was Ready nowhere before is not asked for, as long as it is no better on blue.
            sets.retain(|s| {
                !world.workloads.daemon_set_was_down(&s.key)
                    || is_ready_on(&snapshot, &self.group_spec.blue, &s.uid)
            });
            missing_daemon_pods(&snapshot, &nodes, &sets)
        } else {
            Vec::new()
        };
        let machines = match &green {
            Some(green) if green.source == NodeSource::NodePool => {
                world
                    .read_pool_machines(green, self.group_spec.kubelet)
                    .await?
            }
            Some(_) | None => PoolMachines::default(),
        };
        // A group that could not be created may have nodes, and nodes may have pods: it is emptied as in a rollback.
        let failed = green
            .as_ref()
            .is_some_and(|g| g.status == NodegroupStatus::CreateFailed);
        let green_drain = match failed {
            true => Some(self.green_drain.observe_green(world).await?),
            false => None,
        };
        // The Auto Scaling group knows the size that an autoscaler has set; EKS's own answer is some time behind it.
        let blue_desired = blue_asg
            .as_ref()
            .map(|a| a.desired)
            .or(blue.as_ref().map(|b| b.scaling.desired));
        let blue_asg = blue_asg.unwrap_or_default();
        Ok(GreenObservation {
            green,
            asg,
            blue_desired,
            blue_health: blue
                .iter()
                .flat_map(|b| b.health.iter())
                .map(|i| i.code.clone())
                .collect(),
            blue_tags: blue_asg.tags,
            blue_suspended: blue_asg.suspended,
            blue_metrics: blue_asg.metrics,
            made_template,
            warm_pool,
            nodes,
            missing_daemon_pods: daemons,
            failed_launches: launches,
            machines,
            drain_observation: green_drain,
        })
    }

    fn decide_next(
        &self,
        seen: &GreenObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<GreenAct> {
        let name = self.green_name();
        let group = self.green_words();
        let Some(green) = &seen.green else {
            // A failed group was deleted by this attempt. The next one needs a person first, or it would fail the same
            // way.
            if let Some(GreenAct::DeleteFailed { why }) = past
                .last_act
                .clone()
                .and_then(|a| serde_json::from_value(a).ok())
            {
                return Decision::Refuse(
                    StepRefusal::new(format!(
                        "EKS could not create {group}: {why}. It was deleted"
                    ))
                    .with_fix("Fix the cause"),
                );
            }
            if self.group_spec.template_from.is_some() && seen.made_template.is_none() {
                return Decision::Refuse(
                    StepRefusal::new(
                        "the launch template version with the new image no longer exists",
                    )
                    .with_next(NextStep::Replan),
                );
            }
            return Decision::Act(GreenAct::Create {
                group: Box::new(self.group_to_create(seen)),
                attempt: CallAttempt::of_forward(past),
            });
        };
        // Known by its tag: a process that died after the call finds its own group, and somebody else's is never
        // touched.
        if !self.is_ours(green) {
            return Decision::Refuse(
                StepRefusal::new(format!("{group} exists and was not made by this run")).with_fix(
                    "Name another `green` in the group's entry of the plan, or delete that group",
                ),
            );
        }
        match &green.status {
            NodegroupStatus::CreateFailed => {
                // Pods may have come to the nodes that did join: they leave as in a rollback first.
                let next = match &seen.drain_observation {
                    Some(green_drain) => self.green_drain.decide_next(green_drain, past, now),
                    None => Decision::Refuse(StepRefusal::new(format!(
                        "the nodes of {name} could not be read"
                    ))),
                };
                return match next {
                    Decision::Done(_) => Decision::Act(GreenAct::DeleteFailed {
                        why: health_issues_text(&green.health),
                    }),
                    Decision::Refuse(refusal) => Decision::Refuse(refusal.with_preface(&format!(
                        "EKS could not create {group}: {}. It is deleted when no pod is left on it: ",
                        health_issues_text(&green.health)
                    ))),
                    next @ (Decision::Act(_) | Decision::Wait { .. } | Decision::Yield { .. }) => next.map_act(|act| GreenAct::Leave {
                        act: Box::new(act.with_attempt(CallAttempt::of_forward(past))),
                    }),
                };
            }
            NodegroupStatus::Deleting => {
                return wait_polling(format!("{group} is being deleted"));
            }
            NodegroupStatus::DeleteFailed => {
                return Decision::Refuse(StepRefusal::new(format!(
                    "{group} could not be deleted: {}",
                    health_issues_text(&green.health)
                )));
            }
            NodegroupStatus::Creating
            | NodegroupStatus::Active
            | NodegroupStatus::Updating
            | NodegroupStatus::Degraded
            | NodegroupStatus::Other(_) => {}
        }
        if let Some(decision) = self.decide_machines(green, seen, past, now) {
            return decision;
        }
        if let Some(act) = self.hold_joined_nodes(seen) {
            return Decision::Act(act);
        }
        // Whatever EKS reports of blue too was there before, and is no reason to wait for green.
        let mut lacks = self.missing_conditions(green, seen);
        let (degraded_as_blue, new) = issues_beyond_blue(green, &seen.blue_health);
        if green.status != NodegroupStatus::Active && !degraded_as_blue {
            lacks.insert(0, format!("{group} is {}", green.status));
        }
        if !new.is_empty() {
            lacks.push(format!("EKS reports {}", health_issues_text(&new)));
        }
        if !lacks.is_empty() {
            // Counted from the beginning: each node that joins is an act, and would begin the time again.
            let limit = signed_duration(self.group_spec.timeout);
            let late = { past.started_at }.is_some_and(|t| now.duration_since(t) > limit);
            let text = lacks.join("; ");
            return if late {
                let seconds = self.group_spec.timeout.as_secs();
                let why = format!("green {name} is not ready after {seconds}s: {text}");
                Decision::Refuse(match self.fix_of_unjoined(seen) {
                    Some(fix) => StepRefusal::new(why).with_fix(fix),
                    None => StepRefusal::new(why),
                })
            } else {
                wait_polling(text)
            };
        }
        if let Some(act) = self.missing_setting(seen) {
            return Decision::Act(act);
        }
        if seen.nodes.is_empty() {
            return Decision::Done(format!("{name} is there, and has no node yet"));
        }
        let mut zones: Vec<&str> = seen.nodes.iter().filter_map(|n| n.zone()).collect();
        zones.sort_unstable();
        zones.dedup();
        Decision::Done(format!(
            "{} nodes of {name} are Ready in {} with their DaemonSets",
            seen.nodes.len(),
            zones.join(", ")
        ))
    }

    fn before_image(&self, seen: &GreenObservation) -> GreenBeforeImage {
        GreenBeforeImage {
            status: seen.green.as_ref().map(|g| g.status.clone()),
            size: seen.green.as_ref().map(|g| g.scaling),
            nodes: seen.nodes.len(),
        }
    }

    async fn observe_for_undo(&self, world: &StepWorld) -> Result<GreenObservation, StepError> {
        let mut seen = self.observe_state(world).await?;
        seen.drain_observation = Some(self.green_drain.observe_green(world).await?);
        Ok(seen)
    }

    async fn perform_act(&self, world: &StepWorld, act: &GreenAct) -> Result<(), StepError> {
        match act {
            GreenAct::Create { group, attempt } => {
                let image = self.group_spec.class_image.as_deref();
                let asked = (self.group_spec.blue.as_str(), &**group, image);
                world.create_node_group(&self.id, asked, *attempt).await
            }
            GreenAct::DeleteFailed { .. } | GreenAct::Delete => {
                // What dead kubelets keep ends with their instances, and only so.
                let proof = prove_group_empty(world, self.green_name(), Node::is_ready);
                if proof.await?.is_none() {
                    return Ok(());
                }
                Ok(world.delete_node_group(self.green_name()).await?)
            }
            GreenAct::ScaleToZero { request } => {
                let proof = prove_group_empty(world, self.green_name(), Node::is_ready);
                if proof.await?.is_none() {
                    return Ok(());
                }
                world
                    .scale_to_zero(&self.id, self.green_name(), *request)
                    .await
            }
            GreenAct::Grow { desired, request } => {
                let change = NodegroupChange {
                    desired: Some(*desired),
                    ..NodegroupChange::default()
                };
                let green = self.green_name();
                let grow = world.update_nodegroup_once(&self.id, green, &change, *request);
                grow.await
            }
            GreenAct::DropClaims { claims } => {
                for name in claims.keys() {
                    world.delete_claim(name).await?;
                }
                Ok(())
            }
            GreenAct::CopyTags { asg, tags } => Ok(world.aws.tag_asg(asg, tags).await?),
            GreenAct::Suspend { asg, processes } => {
                let processes: Vec<&str> = processes.iter().map(String::as_str).collect();
                Ok(world.aws.suspend_processes(asg, &processes).await?)
            }
            GreenAct::CollectMetrics { asg, metrics } => {
                Ok(world.aws.collect_metrics(asg, metrics).await?)
            }
            GreenAct::Hold { nodes: names } => nodes::protect_from_scale_down(world, names).await,
            GreenAct::RemoveWarmPool { act } => act.perform(world, self.green_name()).await,
            GreenAct::Leave { act } => self.green_drain.perform_act(world, act).await,
        }
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &GreenBeforeImage,
        seen: &GreenObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<GreenAct> {
        let name = self.green_name();
        let group = self.green_words();
        let late = trail.is_late(now, GREEN_DELETE_TIMEOUT);
        let Some(green) = &seen.green else {
            // The control plane cannot go back while the API server still lists a kubelet of its version; and what dead
            // nodes held on to is free only now. EBS alone takes six minutes.
            let nodes: Vec<&str> = seen.nodes.iter().map(|n| n.name.as_str()).collect();
            let freed: &[String] = seen
                .drain_observation
                .as_ref()
                .map_or(&[], |l| &l.freed_not_ready);
            return match (nodes.join(", "), freed.join("; ")) {
                (nodes, _) if !nodes.is_empty() && !late => wait_polling(format!(
                    "{group} is gone; the API server still lists {nodes}"
                )),
                (_, pods) if !pods.is_empty() && !late => {
                    wait_polling(format!("{group} is gone; not Ready yet: {pods}"))
                }
                _ => Decision::Done(format!("{group} is gone")),
            };
        };
        // Only a group that this run has made is deleted.
        if before.status.is_some() || !self.is_ours(green) {
            return Decision::Done(format!("{group} was not created by this run, and stays"));
        }
        match &green.status {
            NodegroupStatus::Deleting if !late => {
                return wait_polling(format!("{group} is being deleted"));
            }
            NodegroupStatus::Deleting | NodegroupStatus::DeleteFailed => {
                return Decision::Refuse(
                    StepRefusal::new(format!(
                        "{group} could not be deleted, it is {}: {}. All pods have left it",
                        green.status,
                        health_issues_text(&green.health)
                    ))
                    .with_fix("Fix the cause and delete it by hand"),
                );
            }
            NodegroupStatus::Creating
            | NodegroupStatus::Active
            | NodegroupStatus::Updating
            | NodegroupStatus::CreateFailed
            | NodegroupStatus::Degraded
            | NodegroupStatus::Other(_) => {}
        }
        let Some(green_drain) = &seen.drain_observation else {
            return Decision::Refuse(StepRefusal::new(format!(
                "the nodes of {name} could not be read"
            )));
        };
        // Emptied before it is deleted: EKS itself ends every node after five minutes, whatever the budgets say
        // (EKS-NG-16).
        let next = self.green_drain.decide_next_undo(green_drain, trail, now);
        // While weights or pods are still on their way, green goes only where it serves nothing, no pod can be moved from
        // it, and its dead nodes keep something from coming back that blue may need.
        if trail.early {
            let stranded = &green_drain.stranded;
            return match next {
                Decision::Done(_) if !stranded.is_empty() && !green_drain.serves => {
                    self.decide_deletion(green, seen, (trail, now))
                }
                Decision::Done(_)
                | Decision::Act(_)
                | Decision::Wait { .. }
                | Decision::Yield { .. }
                | Decision::Refuse(_) => Decision::Yield {
                    refusal: StepRefusal::new(format!(
                        "{group} is deleted when the traffic and its pods are back on blue"
                    )),
                    recheck: EKS_POLL_INTERVAL,
                    overdue: true,
                },
            };
        }
        match next {
            Decision::Done(_) => self.decide_deletion(green, seen, (trail, now)),
            next @ (Decision::Act(_)
            | Decision::Wait { .. }
            | Decision::Yield { .. }
            | Decision::Refuse(_)) => next.map_act(|act| GreenAct::Leave { act: Box::new(act) }),
        }
    }

    fn describe_act(&self, act: &GreenAct) -> String {
        act.describe_for(self)
    }
}

fn wait_polling(why: String) -> Decision<GreenAct> {
    Decision::Wait {
        why,
        recheck: EKS_POLL_INTERVAL,
    }
}
