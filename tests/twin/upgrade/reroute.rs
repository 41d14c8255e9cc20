//! EKS asks for another order of hops and node groups in the middle of a run: a second route, under the same lock.

use eksup::engine::RunOutcome;

use super::expense;
use crate::support::process_rig::RunCommand;

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
