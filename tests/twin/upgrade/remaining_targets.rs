//! Blue leaves no target group and no classic load balancer in which nobody else serves, whoever put it there and whenever;
//! and a shift stops where green is dark in a whole zone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eksup::engine::{NextStep, RunOutcome};
use eksup::model::elb::{RegisteredTarget, TargetGroup};
use eksup::model::snapshot::Snapshot;
use eksup::twin::scenario;

use super::EXPENSE;
use crate::support::process_rig::Rig;

/// Longer than health checks take to judge a target either way.
const UNTIL_JUDGED: Duration = Duration::from_secs(600);

/// expense-dev with one more target group, `late`, which a rule of its own sends traffic to at `weight`. Nobody is in it.
fn with_late_group(weight: i32) -> (Snapshot, String) {
    let mut snapshot = scenario::expense_dev();
    let inventory = &mut snapshot.inventory;
    let mut group = inventory.target_groups[0].clone();
    group.name = "late".to_owned();
    group.arn = format!(
        "{}/late/0123456789abcdef",
        group.arn.split('/').next().unwrap()
    );
    let arn = group.arn.clone();
    inventory.target_health.insert(arn.clone(), Vec::new());
    let mut rule = inventory
        .rules
        .iter()
        .find(|r| !r.is_default)
        .unwrap()
        .clone();
    rule.arn = format!("{}0", rule.arn);
    rule.priority = "7".to_owned();
    rule.conditions = vec!["path-pattern=/late".to_owned()];
    let rest = rule.rest.to_string().replace("/*", "/late");
    rule.rest = serde_json::from_str(&rest).unwrap();
    rule.forward.truncate(1);
    rule.forward[0].arn = arn.clone();
    rule.forward[0].weight = weight;
    // A rule at weight 0 alone would answer 503; another group has the traffic then.
    if weight == 0 {
        let mut other = rule.forward[0].clone();
        let green = |g: &&TargetGroup| g.name == "expense-green-tg";
        let green = inventory.target_groups.iter().find(green).unwrap();
        (other.arn, other.weight) = (green.arn.clone(), 1);
        rule.forward.push(other);
    }
    inventory.target_groups.push(group);
    inventory.rules.push(rule);
    (snapshot, arn)
}

/// The Auto Scaling group of a node group.
async fn asg_of(rig: &Rig, group: &str) -> String {
    let inventory = rig.read().await;
    inventory.find_nodegroup(group).unwrap().asgs[0].clone()
}

/// Runs until blue is empty, and lets somebody attach its Auto Scaling group to `late` then.
async fn attached_late(weight: i32) -> (Rig, String) {
    let (snapshot, arn) = with_late_group(weight);
    let rig = Rig::new(&snapshot, EXPENSE, 7);
    let paused = rig.apply_until("drain-expense-blue").await;
    assert!(
        matches!(paused, RunOutcome::Paused { .. }),
        "{paused:?}\n{}",
        rig.log()
    );
    let (aws, blue) = (rig.reached().await.aws, asg_of(&rig, "expense-blue").await);
    let arns = [arn.clone()];
    aws.attach_target_groups(&blue, &arns).await.unwrap();
    (rig, arn)
}

#[tokio::test(start_paused = true)]
async fn blue_stays_in_a_target_group_that_somebody_attached_it_to_and_nobody_else_serves() {
    let (rig, arn) = attached_late(1).await;
    let ended = rig.apply().await;
    let RunOutcome::Stuck {
        step, why, next, ..
    } = &ended
    else {
        panic!("{ended:?}\n{}", rig.log())
    };
    let resume = NextStep::Resume;
    assert_eq!((step.as_str(), *next), ("retire-expense-blue", resume));
    assert!(
        why.contains("target group late") && why.contains("expense-green"),
        "{why}"
    );
    let after = rig.read().await;
    assert!(
        after
            .find_nodegroup("expense-blue")
            .is_some_and(|g| g.status.as_str() == "ACTIVE")
    );
    let ids: BTreeSet<&str> = after.asgs[&asg_of(&rig, "expense-blue").await]
        .instances
        .iter()
        .map(|i| i.id.as_str())
        .collect();
    let serving = after.target_health[&arn]
        .iter()
        .filter(|t| t.state.as_str() == "healthy");
    assert_eq!(serving.map(|t| t.id.as_str()).collect::<BTreeSet<_>>(), ids);
    // The way out that it names.
    let aws = rig.reached().await.aws;
    let green = after.find_nodegroup("expense-green").unwrap().asgs[0].clone();
    aws.attach_target_groups(&green, std::slice::from_ref(&arn))
        .await
        .unwrap();
    tokio::time::sleep(UNTIL_JUDGED).await;
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert!(after.find_nodegroup("expense-blue").is_none());
    assert!(
        after.target_health[&arn]
            .iter()
            .any(|t| t.state.as_str() == "healthy")
    );
}

#[tokio::test(start_paused = true)]
async fn blue_leaves_a_target_group_that_gets_no_traffic_though_nobody_else_is_in_it() {
    let (rig, _) = attached_late(0).await;
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
}

#[tokio::test(start_paused = true)]
async fn blue_stays_where_one_of_its_instances_was_registered_by_hand() {
    let (snapshot, arn) = with_late_group(1);
    let rig = Rig::new(&snapshot, EXPENSE, 7);
    rig.apply_until("drain-expense-blue").await;
    let reached = rig.reached().await;
    let instance = rig.read().await.asgs[&asg_of(&rig, "expense-blue").await].instances[0]
        .id
        .clone();
    let by_hand = [RegisteredTarget {
        instance,
        port: None,
    }];
    reached.aws.register_targets(&arn, &by_hand).await.unwrap();
    let ended = rig.apply().await;
    let RunOutcome::Stuck { step, why, .. } = &ended else {
        panic!("{ended:?}\n{}", rig.log())
    };
    assert_eq!(step, "retire-expense-blue");
    assert!(why.contains("target group late"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn blue_stays_in_a_classic_load_balancer_until_another_instance_is_in_service() {
    let rig = Rig::new(&scenario::expense_dev(), EXPENSE, 7);
    rig.apply_until("drain-expense-blue").await;
    let attach = |asg: &str| {
        let asg = asg.to_owned();
        rig.twin.with_world(|world| {
            let asg = world.cloud.asgs.get_mut(&asg).unwrap();
            asg.load_balancers.insert("old".to_owned());
        });
    };
    attach(&asg_of(&rig, "expense-blue").await);
    let ended = rig.apply().await;
    let RunOutcome::Stuck { step, why, .. } = &ended else {
        panic!("{ended:?}\n{}", rig.log())
    };
    assert_eq!(step, "retire-expense-blue");
    assert!(why.contains("classic load balancer old"), "{why}");
    let green = rig
        .read()
        .await
        .find_nodegroup("expense-green")
        .unwrap()
        .asgs[0]
        .clone();
    attach(&green);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
}

#[tokio::test(start_paused = true)]
async fn a_shift_stops_where_green_has_targets_in_a_zone_and_none_is_healthy() {
    // Half of the targets are enough by their number; those that are not healthy are all that their zone has.
    let plan = EXPENSE.replace("minHealthyPercent: 100", "minHealthyPercent: 50");
    let rig = Rig::new(&scenario::expense_dev(), &plan, 7);
    rig.apply_until("register-expense-green-tg").await;
    let inventory = rig.read().await;
    let green = inventory.find_nodegroup("expense-green").unwrap().asgs[0].clone();
    let instances = &inventory.asgs[&green].instances;
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in instances {
        *zones.entry(&instance.zone).or_default() += 1;
    }
    assert!(zones.len() > 1, "{zones:?}");
    let dark = zones.iter().min_by_key(|(_, n)| **n).unwrap().0.to_string();
    let ids: Vec<String> = instances
        .iter()
        .filter(|i| i.zone == dark)
        .map(|i| i.id.clone())
        .collect();
    // Their security group is changed: the load balancer does not reach them any more.
    rig.twin
        .with_world(|world| world.cloud.elb.unreachable.extend(ids.iter().cloned()));
    tokio::time::sleep(UNTIL_JUDGED).await;
    let ended = rig.apply().await;
    let RunOutcome::Stuck { step, why, .. } = &ended else {
        panic!("{ended:?}\n{}", rig.log())
    };
    assert_eq!(step, "shift-expense-green-tg");
    assert!(why.contains(&format!("none healthy in {dark}")), "{why}");
}
