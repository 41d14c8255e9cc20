//! What a call needs: actions, each on a resource.
//!
//! Every call needs the action of its own name on what it is about, by the Service Authorization Reference (IAM-7); reads
//! of EC2, Auto Scaling and Elastic Load Balancing are about no resource (IAM-6). What a call needs besides cites its own
//! fact. `.ci/policy_check.py` holds what is asked for here against the reference.

use super::document::Keys;
use crate::twin::aws::call::{Call, Input, Service};
use crate::twin::aws::ec2;
use crate::twin::aws::state::Cloud;

/// In whose words a missing permission is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// The service's own.
    Own,
    /// EKS could not look for its service-linked role.
    LinkedRole,
    /// EKS could not try out the launch of an instance.
    Launch,
}

/// One permission that a call needs.
#[derive(Clone, Debug)]
pub struct Need {
    pub action: String,
    /// `*` where the action is about no resource.
    pub resource: String,
    pub keys: Keys,
    pub words: Words,
}

fn need(action: impl Into<String>, resource: impl Into<String>) -> Need {
    Need {
        action: action.into(),
        resource: resource.into(),
        keys: Keys::new(),
        words: Words::Own,
    }
}

/// What `call` needs, in the order in which it is checked.
pub fn needs(cloud: &Cloud, call: &Call) -> Vec<Need> {
    let input = Input(&call.input);
    let action = format!("{}:{}", call.service.iam_prefix(), call.op);
    let on = |resources: Vec<String>| {
        let mut needs: Vec<Need> = resources
            .into_iter()
            .map(|resource| need(action.clone(), resource))
            .collect();
        needs.sort_by(|a, b| a.resource.cmp(&b.resource));
        needs.dedup_by(|a, b| a.resource == b.resource);
        needs
    };
    match call.service {
        // IAM-10: GetCallerIdentity needs nothing.
        Service::Sts => Vec::new(),
        Service::Eks => {
            let mut needs = on(eks(cloud, &call.op, input));
            match call.op.as_str() {
                "CreateNodegroup" => needs.extend(for_nodegroup(cloud, input)),
                // IAM-9.
                "UpdateAddon" => needs.extend(input.text("serviceAccountRoleArn").map(pass)),
                _ => {}
            }
            needs
        }
        Service::Ec2 => on(vec![ec2_resource(cloud, &call.op, input)]),
        Service::Autoscaling => on(groups(cloud, &call.op, input)),
        Service::Elb => on(vec![balancer(cloud, &call.op, input)]),
        Service::Ssm => {
            let names = input.texts("Names").into_iter();
            let names = names.chain(input.text("Name").map(str::to_owned));
            let arn = |name: String| format!("arn:aws:ssm:{}::parameter{name}", cloud.region);
            on(names.map(arn).collect())
        }
        Service::Iam => on(vec![
            input.text("PolicySourceArn").unwrap_or("*").to_owned(),
        ]),
        Service::Quotas => on(vec!["*".to_owned()]),
        Service::Sns => on(vec![input.text("TopicArn").unwrap_or("*").to_owned()]),
    }
}

fn eks(cloud: &Cloud, op: &str, input: Input) -> Vec<String> {
    let of = |what: &str| format!("arn:aws:eks:{}:{}:{what}", cloud.region, cloud.account);
    let cluster = input
        .text("clusterName")
        .or(input.text("name"))
        .unwrap_or_default();
    let group = input.text("nodegroupName").map(|name| {
        let known = cloud.eks.as_ref().and_then(|eks| eks.nodegroups.get(name));
        known.map_or_else(
            || of(&format!("nodegroup/{cluster}/{name}/-")),
            |g| g.arn.clone(),
        )
    });
    let addon = input.text("addonName").map(|name| {
        let known = cloud.eks.as_ref().and_then(|eks| eks.addons.get(name));
        known.map_or_else(
            || of(&format!("addon/{cluster}/{name}/-")),
            |a| a.arn.clone(),
        )
    });
    let cluster = of(&format!("cluster/{cluster}"));
    match op {
        "ListClusters" => vec![of("cluster/*")],
        "DescribeClusterVersions" => vec![of("/cluster-versions")],
        "DescribeAddonVersions" => vec![of("/addons/supported-versions")],
        "DescribeAddonConfiguration" => vec![of("/addons/configuration-schemas")],
        "DescribeNodegroup"
        | "UpdateNodegroupConfig"
        | "UpdateNodegroupVersion"
        | "DeleteNodegroup" => group.into_iter().collect(),
        "DescribeAddon" | "UpdateAddon" => addon.into_iter().collect(),
        // The cluster, and what of it is asked about.
        "DescribeUpdate" | "ListUpdates" => [Some(cluster), group, addon]
            .into_iter()
            .flatten()
            .collect(),
        "ListTagsForResource" | "TagResource" | "UntagResource" => {
            vec![input.text("resourceArn").unwrap_or_default().to_owned()]
        }
        _ => vec![cluster],
    }
}

/// What EKS asks for on the way to a node group: its tags (IAM-5), the nodes' role to pass (IAM-1) and to look at (IAM-2),
/// its own service-linked role (IAM-3), and with a launch template the rights to launch from it (IAM-4).
fn for_nodegroup(cloud: &Cloud, input: Input) -> Vec<Need> {
    let (region, account) = (&cloud.region, &cloud.account);
    let mut needs = Vec::new();
    if !input.map("tags").is_empty() {
        let (cluster, name) = (input.text("clusterName"), input.text("nodegroupName"));
        let group = format!(
            "arn:aws:eks:{region}:{account}:nodegroup/{}/{}/-",
            cluster.unwrap_or_default(),
            name.unwrap_or_default()
        );
        needs.push(need("eks:TagResource", group));
    }
    if let Some(role) = input.text("nodeRole") {
        needs.push(pass(role));
        needs.push(need("iam:GetRole", role));
        needs.push(need("iam:ListAttachedRolePolicies", role));
    }
    needs.push(Need {
        words: Words::LinkedRole,
        ..need(
            "iam:GetRole",
            format!(
                "arn:aws:iam::{account}:role/aws-service-role/eks-nodegroup.amazonaws.com/AWSServiceRoleForAmazonEKSNodegroup"
            ),
        )
    });
    if let Some(template) = input.inner("launchTemplate") {
        needs.extend(for_launch(cloud, template, &input.texts("subnets")));
    }
    needs
}

/// What EC2 asks for where EKS tries out a launch: the required resource types of RunInstances, with the template and its
/// volumes (IAM-11), and the tags that EKS puts on instances.
fn for_launch(cloud: &Cloud, template: Input, subnets: &[String]) -> Vec<Need> {
    let (region, account) = (&cloud.region, &cloud.account);
    let of = |what: &str| format!("arn:aws:ec2:{region}:{account}:{what}");
    let launch = |action: &str, resource: String| Need {
        words: Words::Launch,
        ..need(action, resource)
    };
    let id = template.text("id").or(template.text("name"));
    let mut resources = vec![
        of("instance/*"),
        of("network-interface/*"),
        of("security-group/*"),
        of("volume/*"),
        // Images belong to no account in their names.
        format!("arn:aws:ec2:{region}::image/*"),
        of(&format!("launch-template/{}", id.unwrap_or_default())),
    ];
    resources.extend(subnets.iter().map(|id| of(&format!("subnet/{id}"))));
    let launches = resources.into_iter().map(|r| launch("ec2:RunInstances", r));
    let tags = launch("ec2:CreateTags", of("instance/*"));
    launches.chain([tags]).collect()
}

fn pass(role: &str) -> Need {
    Need {
        keys: Keys::from([("iam:PassedToService", "eks.amazonaws.com".to_owned())]),
        ..need("iam:PassRole", role)
    }
}

fn ec2_resource(cloud: &Cloud, op: &str, input: Input) -> String {
    let template = input
        .text("LaunchTemplateId")
        .or(input.text("LaunchTemplateName"))
        .filter(|_| op == "CreateLaunchTemplateVersion");
    match template {
        Some(key) => {
            let id = ec2::templates::find(cloud, key).map_or(key, |t| t.id.as_str());
            format!(
                "arn:aws:ec2:{}:{}:launch-template/{id}",
                cloud.region, cloud.account
            )
        }
        None => "*".to_owned(),
    }
}

/// The groups that a write is about; reads are about none.
fn groups(cloud: &Cloud, op: &str, input: Input) -> Vec<String> {
    if op.starts_with("Describe") {
        return vec!["*".to_owned()];
    }
    let tagged = input.list("Tags").iter().map(Input);
    let named: Vec<&str> = tagged
        .filter_map(|tag| tag.text("ResourceId"))
        .chain(input.text("AutoScalingGroupName"))
        .collect();
    let arn = |name: &str| {
        cloud.asgs.get(name).map_or_else(
            || {
                format!(
                    "arn:aws:autoscaling:{}:{}:autoScalingGroup:-:autoScalingGroupName/{name}",
                    cloud.region, cloud.account
                )
            },
            |asg| asg.arn.clone(),
        )
    };
    named.into_iter().map(arn).collect()
}

/// The rule, listener, target group or classic load balancer that a write is about; reads are about none.
fn balancer(cloud: &Cloud, op: &str, input: Input) -> String {
    if matches!(
        op,
        "RegisterInstancesWithLoadBalancer" | "DeregisterInstancesFromLoadBalancer"
    ) {
        return format!(
            "arn:aws:elasticloadbalancing:{}:{}:loadbalancer/{}",
            cloud.region,
            cloud.account,
            input.text("LoadBalancerName").unwrap_or_default()
        );
    }
    let arn = match op {
        "ModifyRule" => input.text("RuleArn"),
        "ModifyListener" => input.text("ListenerArn"),
        "RegisterTargets" | "DeregisterTargets" => input.text("TargetGroupArn"),
        _ => None,
    };
    arn.unwrap_or("*").to_owned()
}
