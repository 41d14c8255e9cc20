//! Whole upgrades through the twin, in virtual time: the engine's own code, end to end.

mod rig;

use eksup::engine::Ended;
use eksup::model::Minor;
use rig::Rig;

const EXPENSE: &str = "
apiVersion: eksup.dev/v1
kind: UpgradePlan
cluster: expense-dev
to: 1.29
traffic:
  routes:
    - rule: { loadBalancer: expense-dev-alb, port: 80, conditions: ['path-pattern=/*'] }
      blue: expense-blue-tg
      green: expense-green-tg
";

#[tokio::test(start_paused = true)]
async fn expense_dev_goes_from_1_27_to_1_29_and_blue_is_gone() {
    let rig = Rig::expense_dev(7).await;
    let (ended, log) = rig.apply(EXPENSE).await;
    assert_eq!(ended, Ended::Done, "{}", log.join("\n"));
    let after = rig.read(Minor::new(29)).await;
    assert_eq!(after.cluster.version, Minor::new(29));
    let groups: Vec<&str> = after.nodegroups.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(groups, ["expense-green"]);
    println!("{}", log.join("\n"));
}
