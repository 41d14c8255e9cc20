//! The stacks that a snapshot's groups say they are of, with templates like those of eksctl (CFN-16) or AWS's own (CFN-26).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::outputs::outputs_of;
use super::references::imports_of;
use super::seed_groups::{add_auto_scaling_group, add_managed_group};
use super::seed_nodes::make_node_stack;
use crate::twin::aws::state::*;

const STACK_NAME_TAG: &str = "aws:cloudformation:stack-name";
const STACK_ID_TAG: &str = "aws:cloudformation:stack-id";
const LOGICAL_ID_TAG: &str = "aws:cloudformation:logical-id";

/// Hexadecimal digits made of `of`.
pub fn derive_digits(of: &str, digits: usize) -> String {
    hex::encode(Sha256::digest(of))[..digits.min(64)].to_owned()
}

fn is_eksctl_tag(key: &str) -> bool {
    key.starts_with("alpha.eksctl.io/") || key.starts_with("eksctl.cluster.k8s.io/")
}

/// Adds a resource that is there to a stack, whose template has it.
pub fn add_made_resource(
    stack: &mut CloudFormationStack,
    logical: &str,
    kind: &str,
    physical: &str,
) {
    let made = StackResource {
        logical_id: logical.to_owned(),
        physical_id: physical.to_owned(),
        kind: kind.to_owned(),
        status: "CREATE_COMPLETE".to_owned(),
        changed: stack.created,
        ..StackResource::default()
    };
    stack.resources.insert(logical.to_owned(), made);
}

/// A stack that is being made of what is there.
pub struct StackDraft {
    pub stack: CloudFormationStack,
    description: String,
    resources: Map<String, Value>,
    outputs: Map<String, Value>,
}

impl StackDraft {
    fn new(cloud: &AwsAccount, tags: &BTreeMap<String, String>, created: Timestamp) -> Self {
        let name = tags.get(STACK_NAME_TAG).cloned().unwrap_or_default();
        let id = tags.get(STACK_ID_TAG).cloned();
        let stack = CloudFormationStack {
            id: id.unwrap_or_else(|| new_stack_id(cloud, &name)),
            status: "CREATE_COMPLETE".to_owned(),
            capabilities: vec!["CAPABILITY_IAM".to_owned()],
            tags: tags
                .iter()
                .filter(|(key, _)| is_eksctl_tag(key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            created,
            name,
            ..CloudFormationStack::default()
        };
        Self {
            stack,
            description: String::new(),
            resources: Map::new(),
            outputs: Map::new(),
        }
    }

    pub fn describe(&mut self, description: &str) {
        description.clone_into(&mut self.description);
    }

    /// A logical id that is free: the wanted one, else with the owner's before it.
    pub fn free_name(&self, wanted: &str, owner: &str) -> String {
        match self.resources.contains_key(wanted) {
            false => wanted.to_owned(),
            true => format!("{owner}{wanted}"),
        }
    }

    /// Adds a resource that is there.
    pub fn add(&mut self, logical: &str, kind: &str, physical: &str, properties: Value) {
        let resource = json!({"Type": kind, "Properties": properties});
        self.resources.insert(logical.to_owned(), resource);
        add_made_resource(&mut self.stack, logical, kind, physical);
    }

    /// Adds another attribute of a resource, such as `UpdatePolicy`.
    pub fn add_attribute(&mut self, logical: &str, attribute: &str, value: Value) {
        if let Some(resource) = self.resources.get_mut(logical) {
            resource[attribute] = value;
        }
    }

    /// Adds an output; with `export` its export has the stack's name before it.
    pub fn add_output(&mut self, key: &str, value: Value, export: bool) {
        let mut output = json!({"Value": value});
        if export {
            output["Export"] = json!({"Name": {"Fn::Sub": format!("${{AWS::StackName}}::{key}")}});
        }
        self.outputs.insert(key.to_owned(), output);
    }

    fn finish(self, cloud: &mut AwsAccount) {
        let mut stack = self.stack;
        let template = json!({
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": self.description,
            "Mappings": {"ServicePrincipalPartitionMap": {"aws": {
                "EC2": "ec2.amazonaws.com", "EKS": "eks.amazonaws.com", "EKSFargatePods": "eks-fargate-pods.amazonaws.com",
            }}},
            "Resources": self.resources,
            "Outputs": self.outputs,
        });
        stack.imports = imports_of(&template);
        stack.outputs = outputs_of(cloud, &stack, &template);
        stack.template = template.to_string();
        cloud.cloudformation.stacks.insert(stack.id.clone(), stack);
    }
}

fn new_stack_id(cloud: &AwsAccount, name: &str) -> String {
    let h = derive_digits(name, 32);
    format!(
        "arn:aws:cloudformation:{}:{}:stack/{name}/{}-{}-4{}-8{}-{}",
        cloud.region,
        cloud.account,
        &h[..8],
        &h[8..12],
        &h[13..16],
        &h[17..20],
        &h[20..]
    )
}

/// Makes a stack for every name of one that a group's or the cluster's tags have.
pub fn seed(cloud: &mut AwsAccount, now: Timestamp) {
    seed_cluster_stack(cloud);
    let managed: Vec<ManagedNodegroup> = cloud
        .eks
        .iter()
        .flat_map(|eks| eks.nodegroups.values())
        .filter(|group| group.tags.contains_key(STACK_NAME_TAG))
        .cloned()
        .collect();
    let own: Vec<AutoScalingGroup> = cloud
        .asgs
        .values()
        .filter(|asg| asg.nodegroup.is_none() && asg.tags.contains_key(STACK_NAME_TAG))
        .cloned()
        .collect();
    let mut drafts: BTreeMap<String, StackDraft> = BTreeMap::new();
    // What one stack has made no other one has: the first that names it gets it.
    let mut taken = BTreeSet::new();
    for group in &managed {
        let draft = draft_of(cloud, &mut drafts, &group.tags, group.created);
        let logical = group.tags.get(LOGICAL_ID_TAG);
        let logical = logical.map_or("ManagedNodeGroup", String::as_str);
        add_managed_group(cloud, draft, &mut taken, group, logical);
        let (id, logical) = (draft.stack.id.clone(), logical.to_owned());
        let groups = cloud.eks.as_mut().map(|eks| &mut eks.nodegroups);
        if let Some(group) = groups.and_then(|g| g.get_mut(&group.name)) {
            group.tags.entry(STACK_ID_TAG.to_owned()).or_insert(id);
            group
                .tags
                .entry(LOGICAL_ID_TAG.to_owned())
                .or_insert(logical);
        }
    }
    for asg in &own {
        let tags = plain_tags(asg);
        let logical = tags.get(LOGICAL_ID_TAG).map_or("NodeGroup", String::as_str);
        let id = match seed_node_stack(cloud, &mut taken, asg, (&managed, &own), now) {
            Some(id) => id,
            None => {
                let draft = draft_of(cloud, &mut drafts, &tags, now);
                add_auto_scaling_group(cloud, draft, &mut taken, asg, logical);
                draft.stack.id.clone()
            }
        };
        if let Some(asg) = cloud.asgs.get_mut(&asg.name) {
            asg.tags
                .entry(STACK_ID_TAG.to_owned())
                .or_insert((id, true));
            asg.tags
                .entry(LOGICAL_ID_TAG.to_owned())
                .or_insert((logical.to_owned(), true));
        }
    }
    for draft in drafts.into_values() {
        draft.finish(cloud);
    }
}

fn plain_tags(asg: &AutoScalingGroup) -> BTreeMap<String, String> {
    let tags = asg.tags.iter();
    tags.map(|(k, (v, _))| (k.clone(), v.clone())).collect()
}

/// Makes the stack of a group that has one to itself, which is not eksctl's: AWS's own template has made it. Returns the
/// stack's id; none where the stack is of another kind.
fn seed_node_stack(
    cloud: &mut AwsAccount,
    taken: &mut BTreeSet<String>,
    asg: &AutoScalingGroup,
    (managed, own): (&[ManagedNodegroup], &[AutoScalingGroup]),
    created: Timestamp,
) -> Option<String> {
    let tags = plain_tags(asg);
    let name = tags.get(STACK_NAME_TAG)?;
    let of_eksctl = name.starts_with("eksctl-") || tags.keys().any(|key| is_eksctl_tag(key));
    let logical = tags.get(LOGICAL_ID_TAG).map_or("NodeGroup", String::as_str);
    let managed = managed.iter().map(|g| g.tags.get(STACK_NAME_TAG));
    let own = own
        .iter()
        .map(|a| a.tags.get(STACK_NAME_TAG).map(|(name, _)| name));
    let groups = managed.chain(own).filter(|of| *of == Some(name)).count();
    if of_eksctl || logical != "NodeGroup" || groups != 1 {
        return None;
    }
    let draft = StackDraft::new(cloud, &tags, created);
    let stack = make_node_stack(cloud, draft.stack, taken, asg)?;
    let id = stack.id.clone();
    cloud.cloudformation.stacks.insert(id.clone(), stack);
    Some(id)
}

fn draft_of<'d>(
    cloud: &AwsAccount,
    drafts: &'d mut BTreeMap<String, StackDraft>,
    tags: &BTreeMap<String, String>,
    created: Timestamp,
) -> &'d mut StackDraft {
    let name = tags.get(STACK_NAME_TAG).cloned().unwrap_or_default();
    drafts
        .entry(name)
        .or_insert_with(|| StackDraft::new(cloud, tags, created))
}

/// The stack of the cluster, whose exports the stacks of node groups import.
fn seed_cluster_stack(cloud: &mut AwsAccount) {
    let Some(eks) = cloud
        .eks
        .as_ref()
        .filter(|e| e.tags.contains_key(STACK_NAME_TAG))
    else {
        return;
    };
    let vpc = |member: &str| {
        let config = eks.rest.get("resourcesVpcConfig");
        config
            .and_then(|c| c.get(member))
            .cloned()
            .unwrap_or_default()
    };
    let subnets: Vec<Value> = vpc("subnetIds").as_array().cloned().unwrap_or_default();
    let subnets: Vec<&str> = subnets.iter().filter_map(Value::as_str).collect();
    let mut draft = StackDraft::new(cloud, &eks.tags, eks.created);
    draft.describe(
        "EKS cluster (dedicated VPC: true, dedicated IAM: true) [created and managed by eksctl]",
    );
    let logical = eks.tags.get(LOGICAL_ID_TAG);
    let logical = logical.map_or("ControlPlane", String::as_str);
    let properties = json!({
        "Name": eks.name,
        "RoleArn": eks.rest.get("roleArn"),
        "ResourcesVpcConfig": {"SubnetIds": subnets},
        "Version": eks.version.to_string(),
    });
    draft.add(logical, "AWS::EKS::Cluster", &eks.name, properties);
    draft.add_output("ARN", json!({"Fn::GetAtt": [logical, "Arn"]}), true);
    draft.add_output("ClusterStackName", json!({"Ref": "AWS::StackName"}), false);
    let cluster_group = vpc("clusterSecurityGroupId");
    for (key, value) in [
        ("ClusterSecurityGroupId", cluster_group.clone()),
        ("SharedNodeSecurityGroup", cluster_group.clone()),
        (
            "SecurityGroup",
            vpc("securityGroupIds")
                .get(0)
                .cloned()
                .unwrap_or(cluster_group),
        ),
        ("VPC", vpc("vpcId")),
        ("SubnetsPrivate", json!(subnets.join(","))),
    ] {
        draft.add_output(key, value, true);
    }
    draft.finish(cloud);
}
