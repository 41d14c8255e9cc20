//! Whether the nodes of a self-managed green may join, where they get another role than blue's.

use eksup::engine::RunOutcome;
use eksup::model::node_access::AccessReading;
use eksup::model::snapshot::Snapshot;
use eksup::ready::{Finding, Severity, check_readiness};
use eksup::route::build_route;
use eksup::twin::{fault, scenario};

use crate::other_profile::{
    OTHER_ROLE, PLAN_CHANGE, with_other_profile, with_row_of_other_profile, with_rows,
};
use crate::support::process_rig::Rig;

const PLAN: &str = include_str!("../../../plans/self-managed.yaml");
const MISSING: &str = "EKSUP-N019";
const UNKNOWN: &str = "EKSUP-N017";

fn cluster(change: impl FnOnce(Snapshot) -> Snapshot) -> Rig {
    let (old, new) = PLAN_CHANGE;
    assert!(PLAN.contains(old));
    let snapshot = change(scenario::find_scenario("self-managed").unwrap());
    Rig::new(&snapshot, &PLAN.replace(old, new), 7)
}

/// What is said of the access of green's nodes.
async fn told(rig: &Rig) -> Vec<Finding> {
    let inventory = rig.read().await;
    let route = build_route(&rig.plan, &inventory);
    assert!(route.is_ok(), "{route:?}");
    let mut found = check_readiness(&rig.plan, &inventory, &route);
    found.retain(|f| [MISSING, UNKNOWN].contains(&f.code.as_str()));
    found
}

async fn create_entry(rig: &Rig, kind: &str) {
    let aws = rig.reached().await.aws;
    let create = aws.eks.create_access_entry().cluster_name("self-managed");
    let create = create.principal_arn(OTHER_ROLE).r#type(kind);
    create.send().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_role_that_nothing_lets_in_blocks_and_with_an_entry_the_upgrade_goes_through() {
    let rig = cluster(with_other_profile);
    let found = told(&rig).await;
    let [finding] = found.as_slice() else {
        panic!("{found:#?}")
    };
    assert_eq!(
        (finding.severity, finding.code.as_str()),
        (Severity::Blocker, MISSING)
    );
    assert!(finding.detail.contains(OTHER_ROLE), "{finding:?}");
    let command = format!(
        "`aws eks create-access-entry --cluster-name self-managed --principal-arn {OTHER_ROLE} --type EC2_LINUX`"
    );
    assert!(finding.fix.contains(&command), "{finding:?}");
    // Who goes on all the same waits in vain, and is told what to look at.
    let ended = rig.apply().await;
    let RunOutcome::Stuck { step, why, .. } = &ended else {
        panic!("{ended:?}\n{}", rig.log())
    };
    assert_eq!(step, "green-web-green");
    assert!(why.contains("0 of 3 nodes are Ready"), "{why}");
    assert!(
        rig.log()
            .contains("3 of its instances run and have not joined"),
        "{}",
        rig.log()
    );
    create_entry(&rig, "EC2_LINUX").await;
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
}

#[tokio::test(start_paused = true)]
async fn a_role_with_an_entry_for_nodes_or_a_row_of_aws_auth_is_ready() {
    let rig = cluster(with_other_profile);
    create_entry(&rig, "EC2_LINUX").await;
    assert_eq!(told(&rig).await, []);
    let rig = cluster(with_row_of_other_profile);
    assert_eq!(told(&rig).await, []);
    let ended = rig.apply_until("green-web-green").await;
    assert!(matches!(ended, RunOutcome::Paused { .. }), "{}", rig.log());
}

/// The one finding says `what`, and a run that goes on all the same ends with a green that nobody joins.
async fn is_blocked_and_waits_in_vain(rig: &Rig, what: &str) {
    let found = told(rig).await;
    assert!(
        matches!(found.as_slice(), [f] if f.code == MISSING && f.detail.contains(what)),
        "{found:#?}"
    );
    let ended = rig.apply().await;
    assert!(
        matches!(&ended, RunOutcome::Stuck { step, .. } if step == "green-web-green"),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_another_type_goes_before_a_row_that_would_let_the_role_in() {
    let rig = cluster(with_row_of_other_profile);
    create_entry(&rig, "STANDARD").await;
    is_blocked_and_waits_in_vain(&rig, "of type STANDARD").await;
}

#[tokio::test(start_paused = true)]
async fn a_row_that_spells_the_role_with_its_path_lets_nobody_in() {
    let rig = cluster(|snapshot| with_rows(with_other_profile(snapshot), OTHER_ROLE));
    is_blocked_and_waits_in_vain(&rig, "without a path").await;
}

#[tokio::test(start_paused = true)]
async fn only_what_the_authentication_mode_heeds_is_asked() {
    let of_mode = |mode: &'static str| {
        cluster(move |snapshot| {
            let mut snapshot = with_row_of_other_profile(snapshot);
            snapshot.inventory.cluster.authentication_mode = Some(mode.to_owned());
            snapshot
        })
    };
    let rig = of_mode("CONFIG_MAP");
    let access = rig.read().await.node_access["other-nodes"].clone();
    assert_eq!(access.entry, AccessReading::NotAsked);
    assert!(
        matches!(&access.rows, AccessReading::Found(rows) if rows.len() == 1),
        "{access:?}"
    );
    assert_eq!(told(&rig).await, []);
    let rig = of_mode("API");
    let access = rig.read().await.node_access["other-nodes"].clone();
    assert_eq!(access.rows, AccessReading::NotAsked);
    assert_eq!(access.entry, AccessReading::Missing);
    let found = told(&rig).await;
    assert!(
        matches!(found.as_slice(), [f] if f.code == MISSING),
        "{found:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_is_a_warning_that_names_the_call_and_stops_nothing_else() {
    for (rule, named) in [
        ("denied:*:GetInstanceProfile:*", "iam:GetInstanceProfile"),
        ("fail:*:GetInstanceProfile:*", "iam:GetInstanceProfile"),
        (
            "denied:eks:DescribeAccessEntry:*",
            "eks:DescribeAccessEntry",
        ),
        ("denied:k8s:GET configmaps:*", "get configmaps"),
    ] {
        let rig = cluster(with_row_of_other_profile);
        rig.twin
            .with_world(|world| fault::add_rules(world, vec![rule.parse().unwrap()]));
        let found = told(&rig).await;
        assert!(
            matches!(found.as_slice(), [f] if f.code == UNKNOWN && f.severity == Severity::Warning && f.detail.contains(named)),
            "{rule}: {found:#?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_where_blues_nodes_show_that_greens_may_join() {
    let rig = Rig::new(&scenario::find_scenario("self-managed").unwrap(), PLAN, 7);
    assert_eq!(rig.read().await.node_access, Default::default());
    assert_eq!(rig.count("GET", "configmaps/aws-auth"), 0);
}
