//! A hop that somebody else began: taken up as the run's own, on the way and on rollback.

use eksup::engine::RunOutcome;
use eksup::model::Minor;
use eksup::ready;
use eksup::route;

use super::expense;
use crate::support::process_rig::RunCommand;

#[tokio::test(start_paused = true)]
async fn a_hop_that_is_in_progress_is_taken_up_and_can_be_rolled_back() {
    let rig = expense(5);
    rig.begin_hop(Minor::new(28)).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let found = rig.read().await;
    assert_eq!(found.cluster.status.as_str(), "UPDATING");
    let drawn = route::build_route(&rig.plan, &found);
    let codes: Vec<String> = ready::check_readiness(&rig.plan, &found, &drawn)
        .into_iter()
        .map(|f| f.code)
        .collect();
    let has = |code: &str| codes.iter().any(|c| c == code);
    assert!(has("EKSUP-C020") && !has("EKSUP-C001"), "{codes:?}");
    let ended = rig.apply_until("control-plane-1.28").await;
    assert!(
        matches!(ended, RunOutcome::Paused { .. }),
        "{ended:?}\n{}",
        rig.log()
    );
    let asked = rig.count("POST /clusters/expense-dev/updates", "");
    assert_eq!(asked, 1, "the hop is asked for once, by the other one");
    let state = rig.state().await.unwrap();
    let hop = state.find_step("control-plane-1.28").unwrap();
    assert_eq!((hop.acts, hop.before.clone()), (1, Some("1.27".into())));
    let ended = rig
        .process(RunCommand::Rollback {
            control_plane: true,
        })
        .await;
    assert!(
        matches!(ended, Ok(RunOutcome::RolledBack { .. })),
        "{ended:?}\n{}",
        rig.log()
    );
    assert_eq!(rig.read().await.cluster.version, Minor::new(27));
}

#[tokio::test(start_paused = true)]
async fn an_adopted_hop_that_fails_is_told_with_eks_own_reason() {
    let rig = expense(5);
    rig.twin.with_world(|world| {
        world
            .cloud
            .switches
            .control_plane_fails
            .push("IpNotAvailable".into());
    });
    rig.begin_hop(Minor::new(28)).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let ended = rig.apply().await;
    let text = format!("{ended:?}");
    assert!(
        matches!(ended, RunOutcome::Stuck { .. }) && text.contains("IpNotAvailable"),
        "{text}\n{}",
        rig.log()
    );
    assert_eq!(rig.read().await.cluster.version, Minor::new(27));
}
