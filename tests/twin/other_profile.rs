//! A version of blue's launch template that gives green's nodes another role than blue's.

use eksup::model::Minor;
use eksup::model::snapshot::Snapshot;
use eksup::twin::aws::published_image_id;
use serde_json::{Value, json};

const PROFILE: &str = "other-nodes";
/// The role of green's nodes, which has a path.
pub const OTHER_ROLE: &str = "arn:aws:iam::123456789012:role/team/other-node";
/// The same as aws-auth knows it.
const ROLE_OF_ROW: &str = "arn:aws:iam::123456789012:role/other-node";
/// What the plan of the bundled cluster `self-managed` says of the group, and what it says instead.
pub const PLAN_CHANGE: (&str, &str) = (
    "web-blue\n    ami: auto",
    "web-blue\n    launchTemplateVersion: 2",
);

/// The bundled cluster `self-managed`, whose template `web-nodes` has a second version with another instance profile. Nothing
/// lets its role in.
pub fn with_other_profile(mut snapshot: Snapshot) -> Snapshot {
    let templates = snapshot.aws.get_mut("ec2:LaunchTemplates").unwrap();
    let web = templates
        .iter_mut()
        .find(|t| t["LaunchTemplateName"] == "web-nodes");
    let versions = web.unwrap()["Versions"].as_array_mut().unwrap();
    let mut version = versions[0].clone();
    version["VersionNumber"] = json!(2);
    let data = &mut version["LaunchTemplateData"];
    let image = published_image_id(Minor::new(29), "AL2023_x86_64_STANDARD");
    data["ImageId"] = json!(image);
    data["IamInstanceProfile"] = json!({"Name": PROFILE});
    versions.push(version);
    let profile = json!({"InstanceProfileName": PROFILE, "Roles": [{"Arn": OTHER_ROLE}]});
    let profiles = snapshot.aws.get_mut("iam:ListInstanceProfiles").unwrap();
    profiles.push(profile);
    snapshot
}

/// The same, where a row of aws-auth lets the role in.
pub fn with_row_of_other_profile(snapshot: Snapshot) -> Snapshot {
    with_rows(with_other_profile(snapshot), ROLE_OF_ROW)
}

/// A cluster with aws-auth, which lets the nodes of a role in.
pub fn with_rows(mut snapshot: Snapshot, role: &str) -> Snapshot {
    let rows = format!(
        "- rolearn: {role}\n  username: system:node:{{{{EC2PrivateDNSName}}}}\n  groups:\n  - system:bootstrappers\n  - system:nodes\n"
    );
    let map: Value = json!({
        "metadata": {"name": "aws-auth", "namespace": "kube-system"},
        "data": {"mapRoles": rows},
    });
    let maps = snapshot.kubernetes.entry("/api/v1/configmaps".to_owned());
    maps.or_default().push(map);
    snapshot
}
