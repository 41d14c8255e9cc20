//! Six node groups behind three load balancers, each with routes and settings of its own.

use crate::support::process_rig::Rig;
use eksup::engine::RunOutcome;
use eksup::model::Inventory;
use eksup::route::{Route, StepSpec};
use eksup::twin::scenario;

use super::world::{no_marks, weights, whole};

const PLAN: &str = include_str!("../../../plans/multi-group.yaml");

fn multi_group(seed: u64) -> Rig {
    Rig::new(&scenario::find_scenario("multi-group").unwrap(), PLAN, seed)
}

/// Which target groups have traffic, by name.
fn live(inventory: &Inventory) -> Vec<String> {
    let weights = weights(inventory).into_iter();
    let live = weights.filter(|(_, weight)| *weight > 0);
    live.map(|(name, _)| name).collect()
}

async fn route_of(rig: &Rig) -> Route {
    eksup::route::build_route(&rig.plan, &rig.read().await).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_route_is_shifted_directly_before_its_own_group_is_emptied() {
    let route = route_of(&multi_group(1)).await;
    let ids: Vec<&str> = (route.steps.iter())
        .map(|s| s.id.as_str())
        .filter(|id| {
            ["register-", "shift-", "drain-"]
                .iter()
                .any(|kind| id.starts_with(kind))
        })
        .collect();
    let wanted = [
        "drain-batch-blue",
        "drain-reports-blue",
        "drain-cache-blue",
        "register-admin-green-tg",
        "shift-admin-green-tg",
        "drain-admin-blue",
        "register-orders-green-tg",
        "shift-orders-green-tg",
        "register-users-green-tg",
        "shift-users-green-tg",
        "drain-api-blue",
        "register-expense-green-tg",
        "shift-expense-green-tg",
        "drain-expense-blue",
    ];
    assert_eq!(ids, wanted);
}

#[tokio::test(start_paused = true)]
async fn a_group_s_own_settings_count_for_its_steps_and_the_plan_s_for_the_others() {
    let route = route_of(&multi_group(1)).await;
    let minutes = |d: std::time::Duration| d.as_secs() / 60;
    let mut drains = Vec::new();
    let mut shifts = Vec::new();
    for step in &route.steps {
        match &step.spec {
            StepSpec::Drain { blue, drain, .. } => drains.push((
                blue.as_str(),
                drain.parallel,
                minutes(drain.bake),
                minutes(drain.pod_deadline),
            )),
            StepSpec::Shift { shift, .. } => {
                shifts.push((step.id.as_str(), shift.steps.clone(), minutes(shift.bake)));
            }
            _ => {}
        }
    }
    let wanted = [
        ("batch-blue", 2, 0, 15),
        ("reports-blue", 1, 1, 15),
        ("cache-blue", 1, 5, 20),
        ("admin-blue", 1, 1, 15),
        ("api-blue", 1, 1, 15),
        ("expense-blue", 1, 1, 15),
    ];
    assert_eq!(drains, wanted);
    let api = vec![5, 25, 50, 100];
    let wanted = [
        ("shift-admin-green-tg", vec![100], 2),
        ("shift-orders-green-tg", api.clone(), 10),
        ("shift-users-green-tg", api, 10),
        ("shift-expense-green-tg", vec![10, 50, 100], 5),
    ];
    assert_eq!(shifts, wanted);
}

#[tokio::test(start_paused = true)]
async fn traffic_of_a_group_that_is_not_emptied_yet_stays_on_blue() {
    let rig = multi_group(3);
    let paused = rig.apply_until("drain-api-blue").await;
    assert!(
        matches!(paused, RunOutcome::Paused { .. }),
        "{paused:?}\n{}",
        rig.log()
    );
    let wanted = [
        "admin-green-tg",
        "expense-blue-tg",
        "orders-green-tg",
        "reports-tg",
        "users-green-tg",
    ];
    let mut found = live(&rig.read().await);
    found.sort_unstable();
    assert_eq!(found, wanted);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_from_any_group_s_steps_brings_all_groups_and_their_traffic_back() {
    for step in [
        "drain-reports-blue",
        "shift-orders-green-tg",
        "drain-api-blue",
        "drain-expense-blue",
    ] {
        let rig = multi_group(4);
        let before = rig.read().await;
        let paused = rig.apply_until(step).await;
        assert!(
            matches!(paused, RunOutcome::Paused { .. }),
            "{step}: {paused:?}\n{}",
            rig.log()
        );
        let ended = rig.rollback().await;
        assert!(
            matches!(ended, Ok(RunOutcome::RolledBack { .. })),
            "{step}: {ended:?}\n{}",
            rig.log()
        );
        let after = rig.read().await;
        let groups = |i: &Inventory| {
            let groups = i.nodegroups.iter();
            let groups = groups.map(|g| (g.name.clone(), g.scaling, g.taints.clone()));
            groups.collect::<Vec<_>>()
        };
        assert_eq!(groups(&after), groups(&before), "{step}");
        assert_eq!(weights(&after), weights(&before), "{step}");
        no_marks(&after);
        whole(&after);
    }
}
