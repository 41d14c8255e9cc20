//! Rolling back out of an outage: green's kubelets are dead, or its pods are sick. Blue is opened and its pods come back
//! while the weights stand; the weights follow blue's targets. Without `EKSUP_FULL_SWEEP` the sweeps are sampled.

use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::route::StepSpec;
use eksup::run::RunErrorKind;
use eksup::twin::k8s::cloud_hooks;
use eksup::twin::world::SimWorld;
use eksup::twin::{aws, fault, scenario};

use super::back::{Back, SEED, Walk, judge, sampled, settled, virtually, walk};
use super::world::weights;
use crate::support::process_rig::{Rig, RunCommand};

/// From the beginning of a rollback out of an outage until a healthy target has the traffic: opening blue, half a minute
/// in which a pod that is not Ready may get Ready, pods that start, two checks of the load balancer.
const SERVED_WITHIN: u64 = 240;
/// Until everything is rolled back: targets drain for five minutes, EKS waits five for pods of dead kubelets, and a
/// volume is free six after its node has gone.
const OVER_WITHIN: u64 = 1800;

/// What is wrong with green.
#[derive(Clone, Copy, Debug)]
enum Outage {
    KubeletsDead,
    PodsFail,
    NoImages,
}

impl Outage {
    /// Strikes `green` and lets the cluster notice.
    async fn strike(self, rig: &Rig, green: &str) {
        rig.twin.with_world(|world| {
            let nodes = cloud_hooks::nodes_of_group(world, green);
            let rules: Vec<String> = match self {
                Self::KubeletsDead => nodes.iter().map(|n| format!("kubelet-dies:{n}")).collect(),
                Self::PodsFail => vec![format!("pods-fail-on:{green}")],
                Self::NoImages => vec![format!("no-images-on:{green}")],
            };
            let rules = rules.iter().map(|r| r.parse().unwrap()).collect();
            fault::add_rules(world, rules);
            if matches!(self, Self::NoImages) {
                // Nodes that were started again: their pods have to be pulled again.
                nodes
                    .iter()
                    .for_each(|n| cloud_hooks::delete_node_pods(world, n));
            }
        });
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
}

/// What users of the load balancer met while a run was rolled back.
#[derive(Debug, Default)]
struct Watched {
    /// Seconds until a healthy target had traffic in every rule.
    served_after: Option<u64>,
    /// Seconds without one after that.
    lost_again: u64,
    /// Weights that were raised on a group with no healthy target.
    raised: Vec<String>,
    /// How long it all took.
    took: u64,
}

/// By rule: each target group with its weight and its healthy targets.
type Shares = Vec<Vec<(String, i64, usize)>>;

fn shares(world: &SimWorld) -> Shares {
    let rules = world.cloud.elb.rules.keys();
    let of = |rule: &String| -> Vec<(String, i64, usize)> {
        aws::target_weights(world, rule)
            .into_iter()
            .map(|(group, weight)| {
                let healthy = aws::count_healthy_targets(world, &group);
                (group, weight, healthy)
            })
            .collect()
    };
    rules.map(of).filter(|shares| !shares.is_empty()).collect()
}

/// Rolls back, looking at the load balancer each second.
async fn rolled_back(rig: &Rig) -> (Back, Watched) {
    let mut watched = Watched::default();
    let mut before = rig.twin.with_world(|w| shares(w));
    let watch = async {
        loop {
            let now = rig.twin.with_world(|w| shares(w));
            for (was, is) in before.iter().flatten().zip(now.iter().flatten()) {
                if was.0 == is.0 && is.1 > was.1 && was.2.max(is.2) == 0 {
                    watched.raised.push(format!("{} to {}", is.0, is.1));
                }
            }
            let served = |rule: &Vec<(String, i64, usize)>| {
                rule.iter()
                    .any(|(_, weight, healthy)| *weight > 0 && *healthy > 0)
            };
            match (now.iter().all(served), watched.served_after) {
                (true, None) => watched.served_after = Some(watched.took),
                (false, Some(_)) => watched.lost_again += 1,
                (true, Some(_)) | (false, None) => {}
            }
            before = now;
            tokio::time::sleep(Duration::from_secs(1)).await;
            watched.took += 1;
        }
    };
    let ended = tokio::select! {
        biased;
        ended = rig.process(RunCommand::Rollback { control_plane: false }) => ended,
        () = watch => unreachable!(),
    };
    (settled(rig, ended).await, watched)
}

/// The green that is not yet all there is after stop `i`.
fn green_after(walk: &Walk, i: usize) -> Option<String> {
    let over = |spec: &StepSpec| matches!(spec, StepSpec::Retire { delete: true, .. });
    let mut green = None;
    for stop in &walk.stops[..=i] {
        match &stop.spec {
            StepSpec::CreateGreen { group, .. } => green = Some(group.name.clone()),
            spec if over(spec) => green = None,
            _ => {}
        }
    }
    green
}

fn sweep(name: &'static str, outage: Outage, every: usize) {
    let walk = walk(name);
    let stops = walk.stops.iter().enumerate();
    let stops = stops.filter_map(|(i, stop)| Some((i, stop, green_after(walk, i)?)));
    let mut wrong = Vec::new();
    let mut count = 0;
    for (n, (i, stop, green)) in stops.enumerate() {
        // The last ones are those where everything is on green.
        let drained = walk.stops[..=i]
            .iter()
            .any(|s| matches!(s.spec, StepSpec::Drain { .. }));
        if !(sampled(n, every) || drained && n % 2 == every % 2) {
            continue;
        }
        count += 1;
        let (back, watched) = virtually(async {
            let world = stop.world.lock().unwrap().clone();
            let rig = Rig::again(world, &walk.plan, SEED);
            outage.strike(&rig, &green).await;
            rolled_back(&rig).await
        });
        let at = format!("{outage:?} after {}", stop.step);
        let mut say = |what: String| wrong.push(format!("{at}: {what}"));
        if std::env::var_os("EKSUP_SHOW_SWEEP").is_some() {
            #[expect(clippy::print_stderr, reason = "asked for")]
            {
                eprintln!("{name} {at}: {watched:?}");
            }
        }
        if let Err(error) = judge(walk, i, &back) {
            say(error);
        }
        if !matches!(back.ended, Ok(RunOutcome::RolledBack { .. })) {
            say(format!("{:?}\n{}", back.ended, back.log));
        }
        if watched.served_after.is_none_or(|s| s > SERVED_WITHIN) || watched.lost_again > 0 {
            say(format!("{watched:?}\n{}", back.log));
        }
        if !watched.raised.is_empty() || watched.took > OVER_WITHIN {
            say(format!("{watched:?}\n{}", back.log));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 1);
}

macro_rules! swept {
    ($($test:ident: $plan:literal, $outage:ident, $every:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            sweep($plan, Outage::$outage, $every);
        }
    )*};
}

swept!(
    expense_dev_rolls_back_from_every_step_with_greens_kubelets_dead: "expense-dev", KubeletsDead, 3,
    expense_dev_rolls_back_from_every_step_with_greens_pods_not_ready: "expense-dev", PodsFail, 4,
    expense_dev_rolls_back_from_every_step_with_no_image_on_green: "expense-dev", NoImages, 5,
    local_policy_rolls_back_from_every_step_with_greens_kubelets_dead: "local-policy", KubeletsDead, 6,
    local_policy_rolls_back_from_every_step_with_greens_pods_not_ready: "local-policy", PodsFail, 7,
    local_policy_rolls_back_from_every_step_with_no_image_on_green: "local-policy", NoImages, 6,
    minimal_rolls_back_from_every_step_with_greens_kubelets_dead: "minimal", KubeletsDead, 6,
    minimal_rolls_back_from_every_step_with_greens_pods_not_ready: "minimal", PodsFail, 7,
    controller_ingress_rolls_back_from_every_step_with_greens_kubelets_dead: "controller-ingress", KubeletsDead, 7,
    canary_rolls_back_from_every_step_with_greens_pods_not_ready: "canary", PodsFail, 7,
);

/// The drain itself brought the outage about: green can pull no image, and the run is stuck in the middle of it.
#[tokio::test(start_paused = true)]
async fn a_drain_that_is_stuck_because_green_can_pull_no_image_rolls_back() {
    let snapshot = scenario::find_scenario("expense-dev").unwrap();
    let text = super::back::plan_text("expense-dev");
    let rig = Rig::new(&snapshot, &text, SEED);
    let before = rig.read().await;
    rig.apply_until("cordon-expense-blue").await;
    rig.twin.with_world(|world| {
        let rule = "no-images-on:expense-green".parse().unwrap();
        fault::add_rules(world, vec![rule]);
    });
    let stuck = rig.apply().await;
    assert!(matches!(stuck, RunOutcome::Stuck { .. }), "{stuck:?}");
    let (back, watched) = rolled_back(&rig).await;
    assert!(
        matches!(back.ended, Ok(RunOutcome::RolledBack { .. })),
        "{:?}\n{}",
        back.ended,
        back.log
    );
    assert_eq!(weights(&back.after), weights(&before));
    super::world::whole(&back.after);
    super::world::no_marks(&back.after);
    assert!(
        watched.raised.is_empty() && watched.lost_again == 0,
        "{watched:?}"
    );
    assert!(watched.took < OVER_WITHIN, "{watched:?}");
}

/// An image that is nowhere keeps its own pods away and nothing else; the end names them, and the next rollback ends.
#[test]
fn a_pod_whose_image_is_nowhere_keeps_neither_other_pods_nor_weights_from_coming_back() {
    let walk = walk("expense-dev");
    let at = walk
        .stops
        .iter()
        .rposition(|s| matches!(s.spec, StepSpec::Soak { .. }))
        .unwrap();
    virtually(async {
        let world = walk.stops[at].world.lock().unwrap().clone();
        let rig = Rig::again(world, &walk.plan, SEED);
        Outage::PodsFail.strike(&rig, "expense-green").await;
        let blues: Vec<String> = rig.twin.with_world(|world| {
            fault::add_rules(world, vec!["no-images-on:expense-blue".parse().unwrap()]);
            cloud_hooks::nodes_of_group(world, "expense-blue")
        });
        // Blue can pull again, but not this one.
        rig.twin.with_world(|world| {
            eksup::twin::k8s::external_actors::restore_budgets_and_nodes(world);
            let rules = [
                "pods-fail-on:expense-green",
                "image-missing:expense/backend",
            ];
            fault::add_rules(world, rules.iter().map(|r| r.parse().unwrap()).collect());
        });
        let (back, watched) = rolled_back(&rig).await;
        let Ok(RunOutcome::Stuck { why, .. }) = &back.ended else {
            panic!("{:?}\n{}", back.ended, back.log)
        };
        assert!(
            why.contains("pod expense/backend-") && why.contains("ImagePullBackOff"),
            "{why}"
        );
        let after = weights(&back.after);
        let blue = |(group, weight): &(String, i32)| group == "expense-blue-tg" || *weight == 0;
        assert!(after.iter().all(blue), "{after:?}\n{}", back.log);
        assert!(
            watched.served_after.is_some_and(|s| s < SERVED_WITHIN),
            "{watched:?}"
        );
        let down: Vec<String> = back
            .after
            .workloads
            .iter()
            .filter(|w| w.ready < w.desired)
            .map(|w| w.key.to_string())
            .collect();
        assert!(
            down.iter().all(|key| key.contains("expense/backend")),
            "{down:?}"
        );
        let open = back.after.nodes.iter().filter(|n| blues.contains(&n.name));
        assert!(open.clone().count() > 0 && open.clone().all(|n| !n.unschedulable));
        let again = rig
            .process(RunCommand::Rollback {
                control_plane: false,
            })
            .await;
        assert!(
            matches!(again, Ok(RunOutcome::RolledBack { .. })),
            "{again:?}\n{}",
            rig.log()
        );
    });
}

/// Blue cannot serve either: the rollback ends, says so, and names what is not healthy.
#[test]
fn a_rollback_to_a_blue_that_is_dead_too_ends_and_says_what_cannot_come_back() {
    let walk = walk("expense-dev");
    let at = walk
        .stops
        .iter()
        .rposition(|s| matches!(s.spec, StepSpec::Drain { .. }))
        .unwrap();
    virtually(async {
        let world = walk.stops[at].world.lock().unwrap().clone();
        let rig = Rig::again(world, &walk.plan, SEED);
        Outage::KubeletsDead.strike(&rig, "expense-blue").await;
        Outage::KubeletsDead.strike(&rig, "expense-green").await;
        let (back, watched) = rolled_back(&rig).await;
        match &back.ended {
            Ok(RunOutcome::Stuck { why, .. }) => {
                assert!(why.contains("blue must be healthy"), "{why}");
            }
            Err(error) => assert_eq!(error.kind, RunErrorKind::Stuck),
            other => panic!("{other:?}\n{}", back.log),
        }
        assert!(watched.raised.is_empty(), "{watched:?}");
        assert!(watched.took < 3 * OVER_WITHIN, "{watched:?}");
    });
}
