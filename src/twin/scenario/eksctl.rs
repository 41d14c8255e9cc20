//! A cluster that eksctl made at 1.28: two managed groups, each of a CloudFormation stack that holds its launch template and
//! its node role too.

use std::collections::BTreeMap;

use serde_json::json;

use super::grow::{copy_node, derive_hash, derive_uid, list_mut, text_at};
use super::{groups, grow, variants, versions};
use crate::model::ec2::{LaunchOptions, LaunchTemplateVersion};
use crate::model::eks::LaunchTemplateRef;
use crate::model::snapshot::Snapshot;

const CLUSTER: &str = "eksctl";
const MINOR: u16 = 28;
const EKSCTL_VERSION: &str = "0.229.0";
const ACCOUNT: &str = "123456789012";
/// The group that there is from the start, and the one that is made beside it.
const FIRST_GROUP: (&str, &str) = ("expense-blue", "apps");
const SECOND_GROUP: (&str, &str) = ("jobs-blue", "jobs");
const SECOND_NODES: usize = 2;

/// Two managed groups of eksctl's.
pub fn eksctl_cluster() -> Snapshot {
    let mut s = variants::rename_cluster(CLUSTER);
    versions::move_to_minor(&mut s, MINOR);
    let models = list_mut(&mut s, "/api/v1/nodes").clone();
    let nodes: Vec<_> = (0..SECOND_NODES)
        .map(|n| copy_node(&mut s, &models[n], models.len() + n))
        .collect();
    groups::add_group(&mut s, "jobs", true, &nodes);
    let places: Vec<(String, String)> = nodes
        .iter()
        .map(|node| (node.name.clone(), node.address.clone()))
        .collect();
    let app = groups::app("importer", 4, None);
    let placement = groups::placement_of("jobs", true);
    groups::add_app(&mut s, &app, placement, &places, &mut 0);
    let all = list_mut(&mut s, "/api/v1/nodes").len();
    grow::count_daemons(&mut s, all);
    let mut s = variants::rename_instances(s, CLUSTER);
    for (captured, name) in [FIRST_GROUP, SECOND_GROUP] {
        s = rename_group(s, captured, name);
        own_group(&mut s, name);
    }
    let stack = stack_tags("cluster", "ControlPlane");
    s.inventory.cluster.tags.extend(stack);
    s
}

/// The name of the stack of a node group, or of the cluster's own.
fn stack_name(part: &str) -> String {
    format!("eksctl-{CLUSTER}-{part}")
}

/// What CloudFormation and eksctl put on what a stack has made.
fn stack_tags(part: &str, logical_id: &str) -> BTreeMap<String, String> {
    let stack = stack_name(part);
    let id = derive_uid(&stack);
    [
        ("alpha.eksctl.io/cluster-name", CLUSTER.to_owned()),
        ("alpha.eksctl.io/cluster-oidc-enabled", "false".to_owned()),
        ("alpha.eksctl.io/eksctl-version", EKSCTL_VERSION.to_owned()),
        ("aws:cloudformation:logical-id", logical_id.to_owned()),
        (
            "aws:cloudformation:stack-id",
            format!("arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/{stack}/{id}"),
        ),
        ("aws:cloudformation:stack-name", stack),
        (
            "eksctl.cluster.k8s.io/v1alpha1/cluster-name",
            CLUSTER.to_owned(),
        ),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Gives a group another name wherever the captured one stands, but in those of target groups.
fn rename_group(s: Snapshot, captured: &str, name: &str) -> Snapshot {
    let text = serde_json::to_string(&s)
        .unwrap_or_default()
        .replace(&format!("\"{captured}\""), &format!("\"{name}\""))
        .replace(&format!("/{captured}/"), &format!("/{name}/"))
        .replace(&format!("eks-{captured}-"), &format!("eks-{name}-"))
        .replace(
            &format!("\"{CLUSTER}-{captured}\""),
            &format!("\"{CLUSTER}-{name}-Node\""),
        );
    serde_json::from_str(&text).unwrap_or(s)
}

/// Gives a group what eksctl does: tags, labels, a role of its own, and a launch template without an image.
fn own_group(s: &mut Snapshot, name: &str) {
    let stack = stack_name(&format!("nodegroup-{name}"));
    let template = LaunchTemplateVersion {
        id: format!("lt-{}", derive_hash(&stack, 17)),
        name: Some(stack.clone()),
        version: 1,
        description: None,
        image: None,
        instance_type: None,
        user_data: None,
        // What eksctl writes where the file says nothing.
        options: LaunchOptions {
            metadata_hop_limit: Some(2),
            metadata_tokens: Some("required".to_owned()),
            ..LaunchOptions::default()
        },
    };
    let mut labels = BTreeMap::from([
        (
            "alpha.eksctl.io/cluster-name".to_owned(),
            CLUSTER.to_owned(),
        ),
        ("alpha.eksctl.io/nodegroup-name".to_owned(), name.to_owned()),
    ]);
    let mut tags = stack_tags(&format!("nodegroup-{name}"), "ManagedNodeGroup");
    tags.extend(labels.clone());
    tags.insert(
        "alpha.eksctl.io/nodegroup-type".to_owned(),
        "managed".to_owned(),
    );
    let own = s.inventory.nodegroups.iter_mut();
    for group in own.filter(|g| g.name == name) {
        let role = derive_hash(&format!("role {stack}"), 12);
        group.node_role = Some(format!(
            "arn:aws:iam::{ACCOUNT}:role/{stack}-NodeInstanceRole-{role}"
        ));
        // The template has the disk (EKS-NG-4).
        group.disk_size = None;
        group.launch_template = Some(LaunchTemplateRef {
            id: Some(template.id.clone()),
            name: template.name.clone(),
            version: Some("1".to_owned()),
        });
        group.labels.remove("colour");
        group.labels.extend(labels.clone());
        group.tags = tags.clone();
        labels.clone_from(&group.labels);
    }
    for node in list_mut(s, "/api/v1/nodes") {
        if text_at(node, "/metadata/labels/eks.amazonaws.com~1nodegroup") != name {
            continue;
        }
        if let Some(known) = node["metadata"]["labels"].as_object_mut() {
            known.remove("colour");
            known.extend(labels.iter().map(|(k, v)| (k.clone(), json!(v))));
        }
    }
    s.inventory.launch_templates.push(template);
}
