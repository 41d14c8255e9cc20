//! What a node group shows, and what it is made of, when updates and deletions meet.

use aws_sdk_eks::types::{LaunchTemplateSpecification, NodegroupScalingConfig};
use serde_json::json;

use super::sdk::{Asked, BLUE, CLUSTER, expense_dev, said, seconds};
use crate::model::Minor;
use crate::twin::aws::state::{Ec2LaunchTemplate, Ec2TemplateVersion, ManagedNodegroup};
use crate::twin::k8s::cloud_hooks;
use crate::twin::scenario;

fn change_blue(asked: &Asked, change: impl FnOnce(&mut ManagedNodegroup)) {
    asked.twin.with_world(|world| {
        let groups = &mut world.cloud.eks.as_mut().unwrap().nodegroups;
        change(groups.get_mut(BLUE).unwrap());
    });
}

async fn begin_control_plane_update(asked: &Asked) {
    let request = asked.eks.update_cluster_version().name(CLUSTER);
    request.version("1.28").send().await.unwrap();
}

fn versions(asked: &Asked) -> (Minor, Minor) {
    asked.twin.with_world(|world| {
        let shown = world.cloud.eks.as_ref().unwrap().version;
        (shown, cloud_hooks::server_version(world))
    })
}

#[tokio::test(start_paused = true)]
async fn a_hop_that_began_to_fail_fails_though_its_cause_is_taken_away_meanwhile() {
    let asked = expense_dev();
    asked.fault("control-plane-fails:IpNotAvailable");
    begin_control_plane_update(&asked).await;
    seconds(60).await;
    asked
        .twin
        .with_world(|world| world.cloud.switches.control_plane_fails.clear());
    seconds(3600).await;
    assert_eq!(versions(&asked), (Minor::new(27), Minor::new(27)));
    let failed = asked.twin.with_world(|world| {
        let eks = world.cloud.eks.as_ref().unwrap();
        eks.updates.values().any(|u| u.status == "Failed")
    });
    assert!(failed);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_comes_during_a_hop_is_the_next_ones() {
    let asked = expense_dev();
    begin_control_plane_update(&asked).await;
    seconds(60).await;
    asked.fault("control-plane-fails:IpNotAvailable");
    seconds(3600).await;
    assert_eq!(versions(&asked), (Minor::new(28), Minor::new(28)));
}

#[tokio::test(start_paused = true)]
async fn a_maximum_below_the_size_that_auto_scaling_has_is_refused_though_eks_shows_a_smaller_one()
{
    let asked = expense_dev();
    let asg = asked.asg_of(BLUE).await;
    let shown = asked.twin.with_world(|world| {
        let group = world.cloud.asgs.get_mut(&asg).unwrap();
        group.desired += 2;
        group.max = group.max.max(group.desired);
        world.cloud.eks.as_ref().unwrap().nodegroups[BLUE].desired
    });
    let request = |max: i64| {
        let sizes = NodegroupScalingConfig::builder().max_size(i32::try_from(max).unwrap());
        let request = asked.eks.update_nodegroup_config().cluster_name(CLUSTER);
        let request = request.nodegroup_name(BLUE);
        request.scaling_config(sizes.build()).send()
    };
    let refused = said(request(shown + 1).await.unwrap_err());
    assert_eq!(refused.0, "InvalidParameterException");
    let desired = |asked: &Asked| {
        let asg = asg.clone();
        asked
            .twin
            .with_world(move |world| world.cloud.asgs[&asg].desired)
    };
    assert_eq!(desired(&asked), shown + 2);
    request(shown + 2).await.unwrap();
    assert_eq!(desired(&asked), shown + 2);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_deleted_while_it_still_shows_an_update_shows_the_deletion() {
    let asked = expense_dev();
    change_blue(&asked, |group| group.status = "UPDATING".into());
    let request = asked.eks.delete_nodegroup().cluster_name(CLUSTER);
    request.nodegroup_name(BLUE).send().await.unwrap();
    assert!(asked.until(BLUE, "DELETING").await < 5);
}

#[tokio::test(start_paused = true)]
async fn a_degraded_group_shows_its_version_update() {
    let asked = expense_dev();
    change_blue(&asked, |group| {
        group.status = "DEGRADED".into();
        group.degraded = true;
    });
    let request = asked.eks.update_nodegroup_version().cluster_name(CLUSTER);
    request.nodegroup_name(BLUE).send().await.unwrap();
    assert!(asked.until(BLUE, "UPDATING").await < 5);
    // A node has joined meanwhile, which ends the trouble as well as the update.
    asked.until(BLUE, "ACTIVE").await;
}

#[tokio::test(start_paused = true)]
async fn a_version_of_a_template_brings_its_user_data_and_hop_limit_to_new_nodes() {
    let asked = expense_dev();
    let asg = asked.asg_of(BLUE).await;
    asked.twin.with_world(|world| {
        let created = world.now();
        let data = |text: &str, hops: i64| {
            json!({"UserData": text, "MetadataOptions": {"HttpPutResponseHopLimit": hops}})
        };
        let version = |number: i64, data: serde_json::Value| Ec2TemplateVersion {
            number,
            description: None,
            data: data.as_object().unwrap().clone(),
            created,
        };
        let template = Ec2LaunchTemplate {
            id: "lt-own".into(),
            tags: Default::default(),
            name: "own".into(),
            default: 1,
            versions: vec![version(1, data("b2xk", 2)), version(2, data("bmV3", 1))],
            created,
        };
        world.cloud.templates.insert("lt-own".into(), template);
    });
    let template = LaunchTemplateSpecification::builder().id("lt-own");
    let request = asked.eks.update_nodegroup_version().cluster_name(CLUSTER);
    let request = request.nodegroup_name(BLUE);
    let request = request.launch_template(template.version("2").build());
    request.send().await.unwrap();
    let launch = asked
        .twin
        .with_world(|world| world.cloud.asgs[&asg].launch.clone());
    assert_eq!(
        (launch.user_data.as_deref(), launch.hop_limit),
        (Some("bmV3"), Some(1))
    );
}

#[test]
fn a_seeded_group_is_of_the_version_of_its_template_that_it_names() {
    let mut snapshot = scenario::find_scenario("custom-ami").unwrap();
    let templates = &mut snapshot.inventory.launch_templates;
    let mut newer = templates[0].clone();
    newer.version += 1;
    templates[0].user_data = Some("b2xk".into());
    newer.user_data = Some("bmV3".into());
    templates.push(newer);
    let world = scenario::load_world(&snapshot, 7);
    let groups = &world.cloud.eks.as_ref().unwrap().nodegroups;
    let of_template = |g: &&ManagedNodegroup| g.spec.contains_key("launchTemplate");
    let group = groups.values().find(of_template).unwrap();
    assert_eq!(group.launch.user_data.as_deref(), Some("b2xk"));
}
