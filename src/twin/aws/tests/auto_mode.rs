use aws_sdk_eks::types::{CancellationStatus, RollbackConfig, UpdateStatus};

use super::sdk::{Asked, asked, said, seconds};
use crate::twin::k8s::cloud_hooks;
use crate::twin::{Twin, scenario};

const CLUSTER: &str = "auto-mode";

fn auto_mode() -> Asked {
    let snapshot = scenario::find_scenario(CLUSTER).unwrap();
    asked(Twin::start(scenario::load_world(&snapshot, 7)), "us-east-1")
}

async fn status(asked: &Asked) -> (String, String) {
    let found = asked.eks.describe_cluster().name(CLUSTER);
    let cluster = found.send().await.unwrap().cluster.unwrap();
    let status = cluster.status().unwrap().as_str().to_owned();
    (cluster.version().unwrap().to_owned(), status)
}

async fn begin(asked: &Asked, version: &str) -> String {
    let call = asked.eks.update_cluster_version();
    let begun = call.name(CLUSTER).version(version).send().await.unwrap();
    begun.update.unwrap().id.unwrap()
}

async fn update_of(asked: &Asked, id: &str) -> aws_sdk_eks::types::Update {
    let call = asked.eks.describe_update().name(CLUSTER).update_id(id);
    call.send().await.unwrap().update.unwrap()
}

/// How many nodes have a kubelet of the version.
fn nodes_at(asked: &Asked, minor: &str) -> usize {
    let all = asked.twin.with_world(|w| cloud_hooks::kubelet_versions(w));
    let at = |(_, v): &&(String, String)| v.starts_with(&format!("v{minor}."));
    all.iter().filter(at).count()
}

/// Takes the cluster to 1.31, and waits until its nodes are there too.
async fn upgrade(asked: &Asked) {
    let id = begin(asked, "1.31").await;
    for _ in 0..240 {
        seconds(30).await;
        let done = update_of(asked, &id).await.status() == Some(&UpdateStatus::Successful);
        if done && nodes_at(asked, "1.30") == 0 && nodes_at(asked, "1.31") == 5 {
            return;
        }
    }
    panic!("the nodes have not followed");
}

#[tokio::test(start_paused = true)]
async fn the_cluster_shows_its_compute_and_its_instances_are_operated_by_eks() {
    let asked = auto_mode();
    let cluster = asked.eks.describe_cluster().name(CLUSTER);
    let cluster = cluster.send().await.unwrap().cluster.unwrap();
    let compute = cluster.compute_config().unwrap();
    assert_eq!(compute.enabled(), Some(true));
    assert_eq!(compute.node_pools(), ["general-purpose", "system"]);
    assert!(compute.node_role_arn().unwrap().contains(":role/"));
    assert!(cluster.storage_config().is_some());
    let found = asked.ec2.describe_instances().send().await.unwrap();
    let all = found.reservations().iter().flat_map(|r| r.instances());
    let operators: Vec<_> = all.filter_map(|i| i.operator()).collect();
    assert_eq!(operators.len(), 5);
    for operator in operators {
        assert_eq!(operator.managed(), Some(true));
        assert_eq!(operator.principal(), Some("eks.amazonaws.com"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_takes_the_nodes_back_first_while_the_cluster_stays_active() {
    let asked = auto_mode();
    upgrade(&asked).await;
    let id = begin(&asked, "1.30").await;
    seconds(60).await;
    let mut active = 0;
    while nodes_at(&asked, "1.31") > 0 {
        let (version, status) = status(&asked).await;
        assert_eq!((version.as_str(), status.as_str()), ("1.31", "ACTIVE"));
        let server = asked.twin.with_world(|w| cloud_hooks::server_version(w));
        assert_eq!(server.to_string(), "1.31");
        seconds(15).await;
        active += 1;
        assert!(active < 1000);
    }
    assert!(active > 10, "{active}");
    // Another update is refused meanwhile, and a cancellation once the control plane is at it.
    seconds(60).await;
    assert_eq!(status(&asked).await.1, "UPDATING");
    let cancel = asked.eks.cancel_update().name(CLUSTER).update_id(&id);
    let (code, _) = said(cancel.send().await.unwrap_err());
    assert_eq!(code, "InvalidRequestException");
    seconds(15 * 60).await;
    let update = update_of(&asked, &id).await;
    assert_eq!(update.status(), Some(&UpdateStatus::Successful));
    assert_eq!(
        status(&asked).await,
        ("1.30".to_owned(), "ACTIVE".to_owned())
    );
    // The nodes stay where they are.
    seconds(3600).await;
    assert_eq!((nodes_at(&asked, "1.30"), nodes_at(&asked, "1.31")), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_is_cancelled_while_nodes_go_back_and_the_nodes_return() {
    let asked = auto_mode();
    upgrade(&asked).await;
    let id = begin(&asked, "1.30").await;
    seconds(100).await;
    assert!(nodes_at(&asked, "1.31") > 0);
    let cancel = asked.eks.cancel_update().name(CLUSTER).update_id(&id);
    let asked_for = cancel.send().await.unwrap().update.unwrap();
    let cancellation = asked_for.cancellation().unwrap();
    assert_eq!(cancellation.status(), Some(&CancellationStatus::InProgress));
    seconds(90).await;
    let update = update_of(&asked, &id).await;
    assert_eq!(update.status(), Some(&UpdateStatus::Cancelled));
    let cancellation = update.cancellation().unwrap();
    assert_eq!(cancellation.status(), Some(&CancellationStatus::Successful));
    seconds(3600).await;
    assert_eq!(nodes_at(&asked, "1.31"), 5);
    assert_eq!(
        status(&asked).await,
        ("1.31".to_owned(), "ACTIVE".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_rollback_whose_nodes_do_not_go_back_is_cancelled_by_eks_after_its_timeout() {
    let asked = auto_mode();
    upgrade(&asked).await;
    let call = || {
        let call = asked.eks.update_cluster_version();
        call.name(CLUSTER).version("1.30")
    };
    let config = |minutes: i32| RollbackConfig::builder().timeout_minutes(minutes).build();
    let short = call().rollback_config(config(60)).send().await;
    assert_eq!(said(short.unwrap_err()).0, "InvalidParameterException");
    asked.fault("budget:shop/web:3");
    let begun = call().rollback_config(config(120)).send().await.unwrap();
    let id = begun.update.unwrap().id.unwrap();
    seconds(119 * 60).await;
    let update = update_of(&asked, &id).await;
    assert_eq!(update.status(), Some(&UpdateStatus::InProgress));
    seconds(5 * 60).await;
    let update = update_of(&asked, &id).await;
    assert_eq!(update.status(), Some(&UpdateStatus::Cancelled));
    assert_eq!(
        status(&asked).await,
        ("1.31".to_owned(), "ACTIVE".to_owned())
    );
}
