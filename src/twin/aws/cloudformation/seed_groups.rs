//! The resources that eksctl's stacks of node groups have, made of what is there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::seed::{StackDraft, derive_digits};
use crate::twin::aws::ec2::templates;
use crate::twin::aws::state::*;

/// The last part of an ARN: the name of a role or of an instance profile.
pub fn name_of_arn(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// Whether CloudFormation made up a name for a resource of this stack: its own stands before it.
fn is_named_by(stack: &CloudFormationStack, physical: &str) -> bool {
    physical.starts_with(&format!("{}-", stack.name)) || physical == stack.name
}

fn export_of_cluster(cloud: &AwsAccount, output: &str) -> Value {
    let cluster = cloud.eks.as_ref().map(|eks| eks.name.as_str());
    json!({"Fn::ImportValue": format!("eksctl-{}-cluster::{output}", cluster.unwrap_or_default())})
}

fn role_properties() -> Value {
    let policy =
        |name: &str| json!({"Fn::Sub": format!("arn:${{AWS::Partition}}:iam::aws:policy/{name}")});
    let service = json!({"Fn::FindInMap": ["ServicePrincipalPartitionMap", {"Ref": "AWS::Partition"}, "EC2"]});
    json!({
        "AssumeRolePolicyDocument": {
            "Statement": [{"Action": ["sts:AssumeRole"], "Effect": "Allow", "Principal": {"Service": [service]}}],
            "Version": "2012-10-17",
        },
        "ManagedPolicyArns": [
            policy("AmazonEC2ContainerRegistryPullOnly"), policy("AmazonEKSWorkerNodePolicy"),
            policy("AmazonEKS_CNI_Policy"), policy("AmazonSSMManagedInstanceCore"),
        ],
        "Path": "/",
        "Tags": [{"Key": "Name", "Value": {"Fn::Sub": "${AWS::StackName}/NodeInstanceRole"}}],
    })
}

/// The newest version of a launch template in CloudFormation's spelling, as far as the twin keeps it.
fn template_data(cloud: &AwsAccount, id: &str) -> Value {
    let known = templates::find_template(cloud, id);
    let data = known.and_then(|t| t.versions.last()).map(|v| &v.data);
    let mut out = json!({});
    for member in ["ImageId", "InstanceType", "UserData", "MetadataOptions"] {
        if let Some(value) = data.and_then(|d| d.get(member)) {
            out[member] = value.clone();
        }
    }
    out
}

/// Adds a managed node group with its launch template and its role.
pub fn add_managed_group(
    cloud: &AwsAccount,
    draft: &mut StackDraft,
    taken: &mut BTreeSet<String>,
    group: &ManagedNodegroup,
    logical: &str,
) {
    draft.describe("EKS Managed Nodes (SSH access: false) [created by eksctl]");
    let of_eksctl = logical == "ManagedNodeGroup";
    let cluster = cloud.eks.as_ref().map(|eks| eks.name.clone());
    let cluster = cluster.unwrap_or_default();
    let spec = |member: &str| group.spec.get(member).cloned().unwrap_or_default();
    // Whatever eksctl did not make, and whose name is not the stack's, comes from elsewhere.
    let mut role = spec("nodeRole");
    let arn = role.as_str().unwrap_or_default().to_owned();
    let is_own = of_eksctl || is_named_by(&draft.stack, name_of_arn(&arn));
    if !arn.is_empty() && is_own && taken.insert(arn.clone()) {
        let name = draft.free_name("NodeInstanceRole", logical);
        draft.add(
            &name,
            "AWS::IAM::Role",
            name_of_arn(&arn),
            role_properties(),
        );
        role = json!({"Fn::GetAtt": [name, "Arn"]});
    }
    let mut properties = json!({
        "ClusterName": cluster,
        "NodegroupName": group.name,
        "NodeRole": role,
        "Subnets": spec("subnets"),
        "ScalingConfig": {"MinSize": group.min, "MaxSize": group.max, "DesiredSize": group.desired},
        "Labels": group.labels,
        "Tags": {
            "alpha.eksctl.io/nodegroup-name": group.name,
            "alpha.eksctl.io/nodegroup-type": "managed",
        },
    });
    for (member, of) in [("AmiType", "amiType"), ("InstanceTypes", "instanceTypes")] {
        if let Some(value) = group.spec.get(of) {
            properties[member] = value.clone();
        }
    }
    if !group.taints.is_empty() {
        properties["Taints"] = json!(group.taints);
    }
    let template = group.spec.get("launchTemplate");
    let template = template.and_then(|t| t.get("id")?.as_str());
    if let Some(id) = template {
        let known = templates::find_template(cloud, id);
        let is_own = of_eksctl || known.is_some_and(|t| is_named_by(&draft.stack, &t.name));
        let mut reference = json!(id);
        if is_own && taken.insert(id.to_owned()) {
            let name = draft.free_name("LaunchTemplate", logical);
            let mut data = template_data(cloud, id);
            if of_eksctl {
                data["SecurityGroupIds"] =
                    json!([export_of_cluster(cloud, "ClusterSecurityGroupId")]);
            }
            let made = json!({"LaunchTemplateData": data, "LaunchTemplateName": {"Fn::Sub": "${AWS::StackName}"}});
            draft.add(&name, "AWS::EC2::LaunchTemplate", id, made);
            reference = json!({"Ref": name});
        }
        properties["LaunchTemplate"] = json!({"Id": reference});
    }
    let physical = format!("{cluster}/{}", group.name);
    draft.add(logical, "AWS::EKS::Nodegroup", &physical, properties);
}

/// The launch template that a group names.
pub fn template_id(asg: &AutoScalingGroup) -> Option<String> {
    match &asg.source {
        LaunchSource::Template { id, .. } => Some(id.clone()),
        LaunchSource::Mixed(policy) => policy
            .pointer("/LaunchTemplate/LaunchTemplateSpecification/LaunchTemplateId")
            .and_then(Value::as_str)
            .map(str::to_owned),
        LaunchSource::Configuration(_) | LaunchSource::Eks => None,
    }
}

/// Adds a self-managed group with its launch template, instance profile, role, security group and access entry.
pub fn add_auto_scaling_group(
    cloud: &AwsAccount,
    draft: &mut StackDraft,
    taken: &mut BTreeSet<String>,
    asg: &AutoScalingGroup,
    logical: &str,
) {
    draft.describe("EKS nodes (AMI family: AmazonLinux2023, SSH access: false, private networking: false) [created and managed by eksctl]");
    let of_eksctl = logical == "NodeGroup";
    let mut properties = json!({
        "MinSize": asg.min.to_string(), "MaxSize": asg.max.to_string(), "DesiredCapacity": asg.desired.to_string(),
        "VPCZoneIdentifier": asg.subnets,
    });
    let id = template_id(asg);
    let known = id
        .as_deref()
        .and_then(|id| templates::find_template(cloud, id));
    let is_own =
        |draft: &StackDraft| of_eksctl || known.is_some_and(|t| is_named_by(&draft.stack, &t.name));
    if let Some(id) = id.filter(|id| is_own(draft) && taken.insert(id.clone())) {
        let mut data = template_data(cloud, &id);
        if let Some(profile) = asg
            .launch
            .profile
            .as_ref()
            .filter(|p| taken.insert((*p).clone()))
        {
            let name = add_profile(cloud, draft, taken, profile, logical);
            data["IamInstanceProfile"] = json!({"Arn": {"Fn::GetAtt": [name, "Arn"]}});
        }
        let groups = add_security_group(cloud, draft, taken, asg, logical);
        data["NetworkInterfaces"] =
            json!([{"DeviceIndex": 0, "NetworkCardIndex": 0, "Groups": groups}]);
        let name = draft.free_name("NodeGroupLaunchTemplate", logical);
        let made = json!({"LaunchTemplateData": data, "LaunchTemplateName": {"Fn::Sub": "${AWS::StackName}"}});
        draft.add(&name, "AWS::EC2::LaunchTemplate", &id, made);
        properties["LaunchTemplate"] = json!({
            "LaunchTemplateId": {"Ref": name},
            "Version": {"Fn::GetAtt": [name, "LatestVersionNumber"]},
        });
    }
    let tags = asg.tags.iter().filter(|(key, _)| !key.starts_with("aws:"));
    let tags: Vec<Value> = tags
        .map(|(k, (v, propagate))| json!({"Key": k, "Value": v, "PropagateAtLaunch": propagate.to_string()}))
        .collect();
    properties["Tags"] = json!(tags);
    draft.add(
        logical,
        "AWS::AutoScaling::AutoScalingGroup",
        &asg.name,
        properties,
    );
    draft.add_attribute(
        logical,
        "UpdatePolicy",
        json!({"AutoScalingRollingUpdate": {}}),
    );
    for (key, value) in [
        ("FeatureLocalSecurityGroup", true),
        ("FeaturePrivateNetworking", false),
        ("FeatureSharedSecurityGroup", true),
    ] {
        draft.add_output(key, json!(value), false);
    }
}

/// Adds an instance profile, its role and the role's access entry; returns the profile's logical id.
fn add_profile(
    cloud: &AwsAccount,
    draft: &mut StackDraft,
    taken: &mut BTreeSet<String>,
    profile: &str,
    logical: &str,
) -> String {
    let arn = cloud.role_of_profile(profile);
    let mut role = json!(name_of_arn(&arn));
    if taken.insert(arn.clone()) {
        let name = draft.free_name("NodeInstanceRole", logical);
        draft.add(
            &name,
            "AWS::IAM::Role",
            name_of_arn(&arn),
            role_properties(),
        );
        draft.add_output(
            "InstanceRoleARN",
            json!({"Fn::GetAtt": [name, "Arn"]}),
            true,
        );
        role = json!({"Ref": name});
        let eks = cloud.eks.as_ref();
        if let Some(eks) = eks.filter(|eks| eks.access_entries.contains_key(&arn)) {
            let physical = format!("{arn}|{}", eks.name);
            let made = json!({"PrincipalArn": {"Fn::GetAtt": [name, "Arn"]}, "ClusterName": eks.name, "Type": "EC2_LINUX"});
            let name = draft.free_name("AccessEntry", logical);
            draft.add(&name, "AWS::EKS::AccessEntry", &physical, made);
            draft.add_output("NodeGroupUsesAccessEntry", json!(true), false);
        }
    }
    let name = draft.free_name("NodeInstanceProfile", logical);
    let made = json!({"Path": "/", "Roles": [role]});
    draft.add(&name, "AWS::IAM::InstanceProfile", profile, made);
    draft.add_output(
        "InstanceProfileARN",
        json!({"Fn::GetAtt": [name, "Arn"]}),
        true,
    );
    name
}

/// The id of a group's security group that is no other stack's, nor the cluster's; one that is made up where it has none.
pub fn own_security_group(
    cloud: &AwsAccount,
    stack: &str,
    taken: &BTreeSet<String>,
    asg: &AutoScalingGroup,
) -> String {
    let eks = cloud.eks.as_ref();
    let config = eks.and_then(|e| e.rest.get("resourcesVpcConfig"));
    let of_cluster = config.map(ToString::to_string).unwrap_or_default();
    let mut own = asg.launch.security_groups.iter();
    let own = own.find(|id| !of_cluster.contains(id.as_str()) && !taken.contains(*id));
    own.cloned()
        .unwrap_or_else(|| format!("sg-{}", derive_digits(stack, 17)))
}

/// Adds the group's security group with its rules; returns what the launch template names.
fn add_security_group(
    cloud: &AwsAccount,
    draft: &mut StackDraft,
    taken: &mut BTreeSet<String>,
    asg: &AutoScalingGroup,
    logical: &str,
) -> Vec<Value> {
    let physical = own_security_group(cloud, &draft.stack.name, taken, asg);
    taken.insert(physical.clone());
    let group = draft.free_name("SG", logical);
    let cluster = cloud
        .eks
        .as_ref()
        .map(|eks| eks.name.clone())
        .unwrap_or_default();
    let reference = json!({"Ref": group});
    let properties = json!({
        "GroupDescription": format!("Communication between the control plane and worker nodes in group {}", asg.name),
        "Tags": [{"Key": format!("kubernetes.io/cluster/{cluster}"), "Value": "owned"}],
        "VpcId": export_of_cluster(cloud, "VPC"),
    });
    draft.add(&group, "AWS::EC2::SecurityGroup", &physical, properties);
    let cluster_group = export_of_cluster(cloud, "SecurityGroup");
    for (name, kind, from) in [
        ("EgressInterCluster", "AWS::EC2::SecurityGroupEgress", 1025),
        (
            "EgressInterClusterAPI",
            "AWS::EC2::SecurityGroupEgress",
            443,
        ),
        (
            "IngressInterClusterCP",
            "AWS::EC2::SecurityGroupIngress",
            443,
        ),
    ] {
        let other = match kind {
            "AWS::EC2::SecurityGroupEgress" => "DestinationSecurityGroupId",
            _ => "SourceSecurityGroupId",
        };
        let to = if from == 443 { 443 } else { 65535 };
        let rule = json!({"GroupId": cluster_group, other: reference, "FromPort": from, "ToPort": to, "IpProtocol": "tcp"});
        let name = draft.free_name(name, logical);
        let id = derive_digits(&format!("{} {name}", draft.stack.name), 17);
        draft.add(&name, kind, &format!("sgr-{id}"), rule);
    }
    vec![
        export_of_cluster(cloud, "SharedNodeSecurityGroup"),
        reference,
    ]
}
