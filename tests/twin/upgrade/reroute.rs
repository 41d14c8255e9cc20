//! EKS asks for another order of hops and node groups in the middle of a run: a second route, under the same lock.

use std::fs;

use eksup::engine::RunOutcome;
use eksup::model::Inventory;
use eksup::twin::scenario;

use super::expense;
use super::world::no_marks;
use crate::support::process_rig::{Rig, RunCommand};
use crate::warm_pool::{GROUP, with_stopped_pool};

#[tokio::test(start_paused = true)]
async fn the_second_route_pauses_where_the_first_was_to() {
    let rig = expense(5);
    rig.twin
        .with_world(|world| world.cloud.switches.node_groups_must_match = true);
    let step = "drain-expense-blue";
    let ended = rig.apply_until(step).await;
    let RunOutcome::Paused { resume, .. } = &ended else {
        panic!("{ended:?}\n{}", rig.log())
    };
    assert_eq!(resume, "eksup apply", "the way beyond the step");
    let log = rig.log();
    assert!(log.contains("another route is needed"), "{log}");
    let state = rig.state().await.unwrap();
    let over = |id: &str| state.find_step(id).is_some_and(|s| s.status.is_over());
    assert!(over(step) && !over("retire-expense-blue"), "{log}");
    assert_eq!(
        rig.count("DELETE /clusters/expense-dev/node-groups/expense-blue", ""),
        0
    );
    // Asked for again, it stands where it is.
    let again = rig.process(RunCommand::Forward(Some(step.into()))).await;
    assert!(matches!(again, Ok(RunOutcome::Paused { .. })), "{again:?}");
    assert_eq!(
        rig.count("DELETE /clusters/expense-dev/node-groups/expense-blue", ""),
        0
    );
}

/// The first route has removed blue's warm pool, and a run that another one follows is not rolled back itself. The second has
/// deleted groups since, and lets go all the same what it held from its beginning.
#[tokio::test(start_paused = true)]
async fn a_rollback_of_the_second_route_gives_back_what_the_first_removed_and_holds_nothing() {
    let snapshot = scenario::find_scenario("mixed").unwrap();
    let plan = fs::read_to_string("plans/mixed.yaml").unwrap();
    let plan = plan.replace("to: 1.29", "to: 1.30");
    let rig = Rig::new(&with_stopped_pool(snapshot), &plan, 7);
    rig.twin
        .with_world(|world| world.cloud.switches.node_groups_must_match = true);
    let pool = |inventory: &Inventory| {
        let reading = inventory.asgs[GROUP].warm_pool.clone();
        reading.map(|r| r.pool)
    };
    let before = pool(&rig.read().await);
    assert!(before.is_some());
    let ended = rig.apply_until("cordon-web-blue").await;
    assert!(matches!(ended, RunOutcome::Paused { .. }), "{}", rig.log());
    assert!(rig.log().contains("another route is needed"));
    assert_eq!(pool(&rig.read().await), None);
    let back = rig.rollback().await;
    let rolled_back = matches!(back, Ok(RunOutcome::RolledBack { .. }));
    assert!(rolled_back, "{back:?}\n{}", rig.log());
    let after = rig.read().await;
    assert_eq!(pool(&after), before);
    no_marks(&after);
}
