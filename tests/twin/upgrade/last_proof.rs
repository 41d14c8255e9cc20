//! What ends instances for good is proved by lists of that very moment, whatever the look before it saw.

use std::sync::Arc;

use eksup::engine::DynStep;
use eksup::k8s::WatchCache;
use eksup::route::{Route, RouteStep, StepSpec, build_route};
use eksup::steps::workload_health::WorkloadMonitor;
use eksup::steps::{StepWorld, build_step};
use eksup::twin::scenario;
use serde_json::{Value, json};

use super::EXPENSE;
use crate::support::process_rig::Rig;

/// What a step may ask, over the twin of the rig.
async fn world_of(rig: &Rig) -> StepWorld {
    let reached = rig.reached().await;
    StepWorld {
        cluster: rig.plan.cluster.clone(),
        run: "run".to_owned(),
        cache: WatchCache::start_watches(&reached.kube),
        workloads: WorkloadMonitor::default(),
        self_managed: Arc::default(),
        node_pools: Default::default(),
        aws: reached.aws,
        kube: reached.kube,
        clock: rig.clock.clone(),
        emit: Arc::new(|_| {}),
    }
}

/// A step of the route whose kind `change` knows, changed so that its act is about blue, which has pods.
fn step_about_blue(
    route: &Route,
    change: impl Fn(&mut StepSpec) -> bool,
) -> Box<dyn DynStep<StepWorld>> {
    let changed = |step: &RouteStep| {
        let mut step = step.clone();
        change(&mut step.spec).then_some(step)
    };
    let step = route.steps.iter().find_map(changed).unwrap();
    build_step(&step, route, "run", false)
}

#[tokio::test(start_paused = true)]
async fn a_group_with_pods_is_neither_scaled_to_zero_nor_deleted_whatever_the_watches_had_shown() {
    let rig = Rig::new(&scenario::expense_dev(), EXPENSE, 7);
    let world = world_of(&rig).await;
    let route = build_route(&rig.plan, &rig.read().await).unwrap();
    // Without a green nothing but the pods themselves stands in the way.
    let mut recreate = route.clone();
    (recreate.steps).retain(|s| matches!(s.spec, StepSpec::Retire { .. }));
    let retire = step_about_blue(&recreate, |_| true);
    let green = step_about_blue(&route, |spec| {
        if let StepSpec::CreateGreen { group, .. } = spec {
            group.name = "expense-blue".to_owned();
            return true;
        }
        false
    });
    let acts: [(&dyn DynStep<StepWorld>, Value); 4] = [
        (
            &*retire,
            json!({"scale-to-zero": {"request": {"attempt": 0}}}),
        ),
        (&*retire, json!("delete")),
        (&*green, json!({"delete-failed": {"why": "no nodes"}})),
        (&*green, json!("delete")),
    ];
    for (step, act) in acts {
        step.perform_act(&world, &act).await.unwrap();
        let sent = rig.count("POST", "/update-config") + rig.count("DELETE", "/expense-blue");
        assert_eq!(sent, 0, "{act}");
    }
}
