//! The rollback from every step of every plan, whole, from the middle of a step, after crashes and with faults.
//!
//! A run goes forward once and is paused after each step; a copy of the world at each pause is rolled back. Without
//! `EKSUP_FULL_SWEEP` the long sweeps are sampled.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use eksup::engine::RunOutcome;
use eksup::model::Inventory;
use eksup::plan::Plan;
use eksup::route::StepSpec;
use eksup::run::{RunError, RunErrorKind};
use eksup::twin::world::SimWorld;
use eksup::twin::{fault, scenario};

use super::world::{differences, happen};
use crate::support::process_rig::{Rig, RunCommand};

pub const SEED: u64 = 5;

/// The world after a step.
pub struct Stop {
    pub step: String,
    pub spec: StepSpec,
    pub world: Mutex<SimWorld>,
    pub inventory: Inventory,
}

/// A run forward, stopped after every step.
pub struct Walk {
    pub plan: Plan,
    pub before: Inventory,
    pub start: Mutex<SimWorld>,
    pub stops: Vec<Stop>,
}

/// A plan's walk, made once for all tests.
pub fn walk(name: &'static str) -> &'static Walk {
    static WALKS: Mutex<BTreeMap<&str, &'static OnceLock<Walk>>> = Mutex::new(BTreeMap::new());
    let cell: &'static OnceLock<Walk> = WALKS
        .lock()
        .unwrap()
        .entry(name)
        .or_insert_with(|| Box::leak(Box::default()));
    cell.get_or_init(|| walk_with(name, &plan_text(name)))
}

/// Runs `f` in virtual time of its own.
pub fn virtually<T>(f: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(f)
}

pub fn full() -> bool {
    std::env::var_os("EKSUP_FULL_SWEEP").is_some()
}

/// Every n-th of a sweep, and all of them when asked.
pub fn sampled(i: usize, n: usize) -> bool {
    full() || i.is_multiple_of(n)
}

pub fn plan_text(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("plans/{name}.yaml"));
    std::fs::read_to_string(path).unwrap()
}

pub fn walk_with(name: &str, text: &str) -> Walk {
    virtually(async {
        let rig = Rig::new(&scenario::find_scenario(name).unwrap(), text, SEED);
        let before = rig.read().await;
        let start = Mutex::new(rig.twin.with_world(|w| w.clone()));
        let route = eksup::route::build_route(&rig.plan, &before).unwrap();
        let mut stops = Vec::new();
        for step in &route.steps {
            let ended = rig.apply_until(&step.id).await;
            assert!(
                matches!(ended, RunOutcome::Paused { .. }),
                "{}: {ended:?}\n{}",
                step.id,
                rig.log()
            );
            stops.push(Stop {
                step: step.id.clone(),
                spec: step.spec.clone(),
                inventory: rig.read().await,
                world: Mutex::new(rig.twin.with_world(|w| w.clone())),
            });
        }
        Walk {
            plan: rig.plan.clone(),
            before,
            start,
            stops,
        }
    })
}

/// What became of a rollback.
pub struct Back {
    pub ended: Result<RunOutcome, RunError>,
    pub after: Inventory,
    pub log: String,
}

/// Rolls back from a copy of `world`, after `first` has been done to it.
pub fn back(
    walk: &Walk,
    world: &Mutex<SimWorld>,
    control_plane: bool,
    first: impl AsyncFnOnce(&Rig),
) -> Back {
    virtually(async {
        let rig = Rig::again(world.lock().unwrap().clone(), &walk.plan, SEED);
        first(&rig).await;
        let ended = rig.process(RunCommand::Rollback { control_plane }).await;
        settled(&rig, ended).await
    })
}

pub async fn settled(rig: &Rig, ended: Result<RunOutcome, RunError>) -> Back {
    // The control plane keeps its version, so that Karpenter begins to replace its nodes once it is let go.
    happen(rig, &["karpenter-down"]);
    // Pods that moved last turn Ready, targets healthy.
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    Back {
        ended,
        after: rig.read().await,
        log: rig.log(),
    }
}

pub async fn nothing(_: &Rig) {}

impl Walk {
    /// What the world was like where the rollback from after stop `i` must end: before the run, or after the last
    /// retirement that the run has completed.
    pub fn origin(&self, i: usize) -> (&Inventory, bool) {
        let last = self.stops[..=i]
            .iter()
            .rposition(|s| s.spec.deleted_group().is_some());
        let Some(last) = last else {
            return (&self.before, false);
        };
        let released = self.stops[last..=i]
            .iter()
            .take_while(|s| {
                matches!(
                    s.spec,
                    StepSpec::Retire { .. }
                        | StepSpec::DeleteStack { .. }
                        | StepSpec::ReleaseGreen { .. }
                )
            })
            .count();
        (&self.stops[last + released - 1].inventory, true)
    }
}

/// After the step there are other nodes of the same kind: a blue that was at zero is grown again, and a pod on Fargate has a new
/// node.
fn renews_nodes(spec: &StepSpec) -> bool {
    match spec {
        StepSpec::Retire { .. } => spec.deleted_group().is_none(),
        StepSpec::RestartFargate { .. } => true,
        _ => false,
    }
}

/// How many nodes there are of each group and state.
fn node_shapes(inventory: &Inventory) -> BTreeMap<String, usize> {
    let mut shapes = BTreeMap::new();
    for node in &inventory.nodes {
        let group = node.nodegroup_name().unwrap_or("no group");
        let (fargate, ready) = (node.is_fargate(), node.is_ready());
        let shape = format!("{group} {fargate} {ready} {:?}", node.taints);
        *shapes.entry(shape).or_default() += 1;
    }
    shapes
}

/// What differs from where the rollback from stop `i` must end, but for nodes that are new by right.
pub fn find_differences(walk: &Walk, i: usize, after: &Inventory) -> Vec<String> {
    let origin = walk.origin(i).0;
    let mut found = differences(origin, after);
    // What Karpenter has replaced stays. Once it is let go it may replace the first before it is stopped. EKS replaces the
    // nodes of Auto Mode on both ways.
    let stops = &walk.stops[..=i];
    let is_drift = |s: &Stop| matches!(s.spec, StepSpec::DriftPool { .. });
    let mut taints = after.nodes.iter().flat_map(|n| &n.taints);
    let begun = taints.any(|t| t.key == "karpenter.sh/disrupted");
    if begun || stops.iter().any(is_drift) || walk.before.cluster.auto_mode {
        found.retain(|f| !f.starts_with("nodes:") && !f.starts_with("NodeClaims:"));
    } else if stops.iter().any(|s| renews_nodes(&s.spec)) {
        found.retain(|f| !f.starts_with("nodes:"));
        let (was, is) = (node_shapes(origin), node_shapes(after));
        if was != is {
            found.push(format!("nodes of a kind: were {was:?}, are {is:?}"));
        }
    }
    found
}

/// The rollback from a stop ends where it must, or is refused by the name of the point of no return.
pub fn judge(walk: &Walk, i: usize, back: &Back) -> Result<(), String> {
    let retired = walk.origin(i).1;
    let at = &walk.stops[i].step;
    match &back.ended {
        Ok(RunOutcome::RolledBack { .. }) => {
            let found = find_differences(walk, i, &back.after);
            if found.is_empty() {
                Ok(())
            } else {
                Err(format!("after {at}: {}", found.join("\n  ")))
            }
        }
        Err(error) if error.kind == RunErrorKind::Stuck && retired => {
            let named = ["retire-", "delete-stack-"];
            if named.iter().any(|step| error.message.contains(step)) {
                Ok(())
            } else {
                Err(format!("after {at}: {} names no step", error.message))
            }
        }
        other => Err(format!("after {at}: {other:?}\n{}", back.log)),
    }
}

fn sweep(name: &'static str, every: usize) {
    let walk = walk(name);
    let mut wrong = Vec::new();
    let mut whole = 0;
    for (i, stop) in walk.stops.iter().enumerate() {
        let last = i + 1 == walk.stops.len();
        if !sampled(i, every) && !last {
            continue;
        }
        let back = back(walk, &stop.world, false, nothing);
        whole += usize::from(matches!(back.ended, Ok(RunOutcome::RolledBack { .. })));
        wrong.extend(judge(walk, i, &back).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(whole > 0);
}

/// A test for each plan, which sweeps it: every n-th step.
macro_rules! swept {
    ($sweep:ident: $($test:ident: $plan:literal, $every:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            $sweep($plan, $every);
        }
    )*};
}
pub(super) use swept;

swept!(sweep:
    every_step_of_expense_dev_rolls_back_until_blue_is_deleted: "expense-dev", 1,
    every_step_of_minimal_rolls_back_until_blue_is_deleted: "minimal", 2,
    every_step_of_multi_hop_rolls_back_to_the_last_point_of_no_return: "multi-hop", 9,
    every_step_of_custom_ami_rolls_back_until_blue_is_deleted: "custom-ami", 5,
    every_step_of_controller_ingress_rolls_back_until_blue_is_deleted: "controller-ingress", 3,
    every_step_of_local_policy_rolls_back_until_blue_is_deleted: "local-policy", 2,
    every_step_of_canary_rolls_back_until_blue_is_deleted: "canary", 4,
    every_step_of_self_managed_rolls_back_until_blue_is_deleted: "self-managed", 6,
    every_step_of_karpenter_blue_green_rolls_back_until_blue_is_deleted: "karpenter-blue-green", 5,
    every_step_of_karpenter_drift_rolls_back_but_what_karpenter_replaced: "karpenter-drift", 4,
    every_step_of_fargate_rolls_back_until_blue_is_deleted: "fargate", 4,
    every_step_of_windows_rolls_back_until_blue_is_deleted: "windows", 5,
    every_step_of_eksctl_rolls_back_until_a_blue_is_deleted: "eksctl", 7,
    every_step_of_mixed_rolls_back_until_a_blue_is_deleted: "mixed", 30,
);

/// A process dies in the middle of a step, and the next one rolls the run back.
#[test]
fn a_run_that_died_in_the_middle_of_any_step_rolls_back() {
    let walk = walk("expense-dev");
    let mut wrong = Vec::new();
    let mut died = 0;
    for (i, stop) in walk.stops.iter().enumerate() {
        let world = if i == 0 {
            &walk.start
        } else {
            &walk.stops[i - 1].world
        };
        let retires = matches!(stop.spec, StepSpec::Retire { .. });
        let lives: Vec<u64> = if full() {
            (1..60).map(|n| 18 + n * 3).collect()
        } else if retires {
            (1..6).map(|n| 20 + n * 16).collect()
        } else if i % 2 == 1 {
            continue;
        } else {
            vec![24 + (i as u64 % 7) * 5]
        };
        for life in lives {
            let mut dead = false;
            let back = back(walk, world, false, async |rig| {
                let command = RunCommand::Forward(Some(stop.step.clone()));
                dead = rig.die_after(life, command).await.is_none() && rig.state().await.is_some();
            });
            if !dead {
                continue;
            }
            died += 1;
            // Whatever the step had done by then, it is rolled back as if it had not begun, unless it ended the rollback.
            let judged = match (judge(walk, i.saturating_sub(1), &back), retires) {
                (Err(_), true) => judge(walk, i, &back),
                (judged, _) => judged,
            };
            wrong.extend(judged.err().map(|e| format!("life {life}: {e}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(died > walk.stops.len() / 4, "only {died} deaths");
}

/// The process that takes a run back dies at each of its records, and the next one goes on.
#[test]
fn a_rollback_that_dies_at_any_record_is_taken_up_again() {
    let walk = walk("expense-dev");
    let at = walk
        .stops
        .iter()
        .rposition(|s| matches!(s.spec, StepSpec::Soak { .. }))
        .unwrap();
    let mut wrong = Vec::new();
    let mut deaths = 0;
    for control_plane in [false, true] {
        for record in 0.. {
            if !sampled(record, if control_plane { 17 } else { 7 }) {
                continue;
            }
            let mut dead = false;
            let back = back(walk, &walk.stops[at].world, control_plane, async |rig| {
                let command = RunCommand::Rollback { control_plane };
                dead = rig.die_at_record(record as u64, command).await.is_none();
            });
            if !dead {
                break;
            }
            deaths += 1;
            wrong.extend(
                judge(walk, at, &back)
                    .err()
                    .map(|e| format!("record {record}: {e}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(deaths > 5, "only {deaths} deaths");
}

/// Faults of every kind while a run is rolled back.
#[test]
fn a_rollback_bears_faults() {
    let walk = walk("expense-dev");
    let at = walk
        .stops
        .iter()
        .rposition(|s| matches!(s.spec, StepSpec::Soak { .. }))
        .unwrap();
    let rules = [
        "throttle:*:12",
        "fail:eks:DescribeNodegroup:3",
        "drop-after:elb:ModifyRule:1",
        "drop-before:elb:ModifyRule:1",
        "drop-after:eks:DeleteNodegroup:1",
        "drop-after:eks:UpdateNodegroupConfig:1",
        "drop-after:k8s:POST pods/eviction:4",
        "drop-after:k8s:PATCH nodes:2",
        "drop-after:asg:DetachLoadBalancerTargetGroups:1",
        "drop-after:eks:UpdateClusterVersion:1",
        "drop-after:eks:UpdateAddon:1",
        "fail:k8s:PATCH configmaps:3",
        "delay:eks:*:20s:5",
    ];
    let mut wrong = Vec::new();
    for rule in rules {
        let control_plane = rule.contains("UpdateClusterVersion") || rule.contains("UpdateAddon");
        let mut fired = 0;
        let back = virtually(async {
            let world = walk.stops[at].world.lock().unwrap().clone();
            let rig = Rig::again(world, &walk.plan, SEED);
            rig.twin
                .with_world(|w| fault::add_rules(w, vec![rule.parse().unwrap()]));
            let ended = rig.process(RunCommand::Rollback { control_plane }).await;
            fired = rig
                .twin
                .with_world(|w| w.faults.fired_counts().iter().map(|(_, n)| n).sum());
            settled(&rig, ended).await
        });
        if fired == 0 {
            wrong.push(format!("{rule} never fired"));
        }
        wrong.extend(judge(walk, at, &back).err().map(|e| format!("{rule}: {e}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Retiring has begun, target groups are detached, and EKS has not been asked to delete blue: it serves again.
#[test]
fn a_blue_whose_targets_are_detached_serves_again() {
    let walk = walk("expense-dev");
    let at = walk
        .stops
        .iter()
        .position(|s| matches!(s.spec, StepSpec::Retire { .. }))
        .unwrap();
    let world = &walk.stops[at - 1].world;
    let mut detached = false;
    let back = back(walk, world, false, async |rig| {
        rig.twin.with_world(|w| {
            let rule = "drop-before:eks:DeleteNodegroup:*".parse().unwrap();
            fault::add_rules(w, vec![rule]);
        });
        let command = RunCommand::Forward(Some(walk.stops[at].step.clone()));
        // Long enough to have detached blue and to have asked in vain.
        tokio::select! {
            biased;
            _ = rig.process(command) => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(420)) => {}
        }
        let now = rig.read().await;
        let blue = &now.find_nodegroup("expense-blue").unwrap().asgs[0];
        detached = now.asgs[blue].target_groups.is_empty();
        rig.twin.with_world(|w| w.faults = fault::Faults::default());
    });
    assert!(detached, "{}", back.log);
    judge(walk, at - 1, &back).unwrap();
    assert!(matches!(back.ended, Ok(RunOutcome::RolledBack { .. })));
}

/// EKS was asked to delete blue a moment ago, and still shows it ACTIVE: no promise is made that cannot be kept.
#[test]
fn a_blue_that_eks_was_just_asked_to_delete_is_not_promised_back() {
    let walk = walk("expense-dev");
    let at = walk
        .stops
        .iter()
        .position(|s| matches!(s.spec, StepSpec::Retire { .. }))
        .unwrap();
    let world = &walk.stops[at - 1].world;
    let back = back(walk, world, false, async |rig| {
        rig.twin.with_world(|w| {
            let rule = "delay:eks:DeleteNodegroup:1h:1".parse().unwrap();
            fault::add_rules(w, vec![rule]);
        });
        let step = walk.stops[at].step.clone();
        let asked = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                if rig.twin.with_world(|w| w.faults.fired_counts()[0].1) > 0 {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            _ = rig.process(RunCommand::Forward(Some(step))) => {}
            () = asked => {}
        }
    });
    let Err(error) = &back.ended else {
        panic!("{:?}\n{}", back.ended, back.log)
    };
    assert_eq!(error.kind, RunErrorKind::Stuck);
    assert!(
        error.message.contains("retire-expense-blue"),
        "{}",
        error.message
    );
}

/// Strategy recreate: blue is at zero while green serves, and comes back all the same.
#[test]
fn a_recreated_group_rolls_back_from_every_step() {
    let text = plan_text("expense-dev").replace("strategy: blue-green", "strategy: recreate");
    let walk = &walk_with("expense-dev", &text);
    let mut wrong = Vec::new();
    for (i, stop) in walk.stops.iter().enumerate() {
        if !sampled(i, 3) {
            continue;
        }
        let back = back(walk, &stop.world, false, nothing);
        match judge(walk, i, &back) {
            // Blue was at zero, so its nodes are new ones.
            Err(text) if !text.contains("nodes: was") || text.contains("\n") => wrong.push(text),
            Err(_) => assert_eq!(back.after.nodes.len(), walk.before.nodes.len()),
            Ok(()) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A blue that is kept at zero can be brought back even after the run is done.
#[test]
fn a_finished_run_rolls_back_when_blue_was_kept_at_zero() {
    let text = plan_text("expense-dev").replace("then: delete", "then: keep-at-zero");
    let walk = &walk_with("expense-dev", &text);
    let last = walk.stops.len() - 1;
    let back = back(walk, &walk.stops[last].world, false, async |rig| {
        assert_eq!(rig.apply().await, RunOutcome::Done);
    });
    let Ok(RunOutcome::RolledBack { .. }) = &back.ended else {
        panic!("{:?}\n{}", back.ended, back.log)
    };
    // Its nodes are new ones; everything else is as it was.
    let found: Vec<String> = differences(&walk.before, &back.after)
        .into_iter()
        .filter(|d| !d.starts_with("nodes:"))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(back.after.nodes.len(), walk.before.nodes.len());
}
