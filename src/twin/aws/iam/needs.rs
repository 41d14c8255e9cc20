//! What a call needs: actions, each on a resource.
//!
//! Every call needs the action of its own name on what it is about, by the Service Authorization Reference (IAM-7); reads
//! of EC2, Auto Scaling and Elastic Load Balancing are about no resource (IAM-6). What a call needs besides cites its own
//! fact. `.ci/policy_check.py` holds what is asked for here against the reference.

use super::document::ContextKeys;
use crate::twin::aws::call::{AwsCall, AwsService, Input};
use crate::twin::aws::ec2;
use crate::twin::aws::state::AwsAccount;

/// In whose words a missing permission is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialWording {
    /// The service's own.
    Own,
    /// EKS could not look for its service-linked role.
    LinkedRole,
    /// EKS could not try out the launch of an instance.
    Launch,
    /// Auto Scaling could not, from a launch template.
    Template,
}

/// One permission that a call needs.
#[derive(Clone, Debug)]
pub struct RequiredPermission {
    pub action: String,
    /// `*` where the action is about no resource.
    pub resource: String,
    pub keys: ContextKeys,
    pub wording: DenialWording,
}

pub fn require_action(
    action: impl Into<String>,
    resource: impl Into<String>,
) -> RequiredPermission {
    RequiredPermission {
        action: action.into(),
        resource: resource.into(),
        keys: ContextKeys::new(),
        wording: DenialWording::Own,
    }
}

/// What `call` needs, in the order in which it is checked.
pub fn required_permissions(cloud: &AwsAccount, call: &AwsCall) -> Vec<RequiredPermission> {
    let input = Input(&call.input);
    let action = format!("{}:{}", call.service.iam_prefix(), call.op);
    // The same action on several resources is one requirement for each of them.
    let on = |resources: Vec<String>| {
        let mut needs: Vec<RequiredPermission> = resources
            .into_iter()
            .map(|resource| require_action(action.clone(), resource))
            .collect();
        needs.sort_by(|a, b| a.resource.cmp(&b.resource));
        needs.dedup_by(|a, b| a.resource == b.resource);
        needs
    };
    // What a call is about is worked out service by service (IAM-7).
    match call.service {
        // IAM-10: GetCallerIdentity needs nothing.
        AwsService::Sts => Vec::new(),
        AwsService::Eks => {
            let mut needs = on(eks_resources(cloud, &call.op, input));
            match call.op.as_str() {
                "CreateNodegroup" => needs.extend(nodegroup_permissions(cloud, input)),
                // IAM-9.
                "UpdateAddon" => {
                    let role = input.get_text("serviceAccountRoleArn");
                    needs.extend(role.map(|role| pass_role(role, "eks.amazonaws.com")));
                }
                _ => {}
            }
            needs
        }
        AwsService::Ec2 => {
            let mut needs = on(ec2_resources(cloud, &call.op, input));
            // Tags at creation are tagging besides (IAM-12).
            if call.op == "CreateLaunchTemplate" && input.get_member("TagSpecification").is_some() {
                needs.extend(
                    ec2_resources(cloud, &call.op, input)
                        .into_iter()
                        .map(|r| require_action("ec2:CreateTags", r)),
                );
            }
            needs
        }
        AwsService::Autoscaling => {
            let mut needs = on(asg_resources(cloud, &call.op, input));
            needs.extend(asg_permissions(cloud, &call.op, input));
            needs
        }
        AwsService::Elb => on(vec![elb_resource(cloud, &call.op, input)]),
        // Parameters are named one by one, so each is a resource of its own.
        AwsService::Ssm => {
            let names = input.get_text_list("Names").into_iter();
            let names = names.chain(input.get_text("Name").map(str::to_owned));
            let arn = |name: String| format!("arn:aws:ssm:{}::parameter{name}", cloud.region);
            on(names.map(arn).collect())
        }
        AwsService::Iam => {
            let profile = input.get_text("InstanceProfileName");
            let profile = profile
                .map(|name| format!("arn:aws:iam::{}:instance-profile/{name}", cloud.account));
            let source = input.get_text("PolicySourceArn").unwrap_or("*");
            on(vec![profile.unwrap_or_else(|| source.to_owned())])
        }
        AwsService::Quotas => on(vec!["*".to_owned()]),
        AwsService::CloudFormation => {
            let mut needs = on(vec![stack_resource(cloud, &call.op, input)]);
            // Without a name it lists the account's stacks.
            if call.op == "DescribeStacks" && input.get_text("StackName").is_none() {
                needs.push(require_action("cloudformation:ListStacks", "*"));
            }
            let role = input.get_text("RoleARN");
            needs.extend(role.map(|role| pass_role(role, "cloudformation.amazonaws.com")));
            needs
        }
        AwsService::Sns => on(vec![input.get_text("TopicArn").unwrap_or("*").to_owned()]),
    }
}

fn eks_resources(cloud: &AwsAccount, op: &str, input: Input) -> Vec<String> {
    // Resources that do not exist yet have a dash in place of the part that EKS will make up.
    let of = |what: &str| format!("arn:aws:eks:{}:{}:{what}", cloud.region, cloud.account);
    let cluster = input
        .get_text("clusterName")
        .or(input.get_text("name"))
        .unwrap_or_default();
    let group = input.get_text("nodegroupName").map(|name| {
        let known = cloud.eks.as_ref().and_then(|eks| eks.nodegroups.get(name));
        known.map_or_else(
            || of(&format!("nodegroup/{cluster}/{name}/-")),
            |g| g.arn.clone(),
        )
    });
    let addon = input.get_text("addonName").map(|name| {
        let known = cloud.eks.as_ref().and_then(|eks| eks.addons.get(name));
        known.map_or_else(
            || of(&format!("addon/{cluster}/{name}/-")),
            |a| a.arn.clone(),
        )
    });
    // An entry's ARN is made of its principal's.
    let entry = input.get_text("principalArn").map(|principal| {
        let account = principal.split(':').nth(4).unwrap_or_default();
        let name = principal.rsplit('/').next().unwrap_or_default();
        of(&format!("access-entry/{cluster}/role/{account}/{name}/-"))
    });
    let profile = input.get_text("fargateProfileName").map(|name| {
        let known = cloud.eks.as_ref().and_then(|eks| eks.fargate.get(name));
        known.map_or_else(
            || of(&format!("fargateprofile/{cluster}/{name}/-")),
            |p| p.arn.clone(),
        )
    });
    let cluster = of(&format!("cluster/{cluster}"));
    // What an operation is about follows from its name; where nothing else is known it is the cluster.
    match op {
        "ListClusters" => vec![of("cluster/*")],
        "DescribeClusterVersions" => vec![of("/cluster-versions")],
        "DescribeAddonVersions" => vec![of("/addons/supported-versions")],
        "DescribeAddonConfiguration" => vec![of("/addons/configuration-schemas")],
        "DescribeNodegroup"
        | "UpdateNodegroupConfig"
        | "UpdateNodegroupVersion"
        | "DeleteNodegroup" => group.into_iter().collect(),
        "DescribeAccessEntry" | "DeleteAccessEntry" => entry.into_iter().collect(),
        "DescribeFargateProfile" => profile.into_iter().collect(),
        "DescribeAddon" | "UpdateAddon" => addon.into_iter().collect(),
        // The cluster, and what of it is asked about.
        "DescribeUpdate" | "ListUpdates" => [Some(cluster), group, addon]
            .into_iter()
            .flatten()
            .collect(),
        "ListTagsForResource" | "TagResource" | "UntagResource" => {
            vec![input.get_text("resourceArn").unwrap_or_default().to_owned()]
        }
        _ => vec![cluster],
    }
}

/// What EKS asks for on the way to a node group: its tags (IAM-5), the nodes' role to pass (IAM-1) and to look at (IAM-2),
/// its own service-linked role (IAM-3), and with a launch template the rights to launch from it (IAM-4).
fn nodegroup_permissions(cloud: &AwsAccount, input: Input) -> Vec<RequiredPermission> {
    let (region, account) = (&cloud.region, &cloud.account);
    let mut needs = Vec::new();
    // The permissions are in the order in which EKS asks for them, and each is refused in its own words.
    if !input.get_text_map("tags").is_empty() {
        let (cluster, name) = (
            input.get_text("clusterName"),
            input.get_text("nodegroupName"),
        );
        let group = format!(
            "arn:aws:eks:{region}:{account}:nodegroup/{}/{}/-",
            cluster.unwrap_or_default(),
            name.unwrap_or_default()
        );
        needs.push(require_action("eks:TagResource", group));
    }
    if let Some(role) = input.get_text("nodeRole") {
        needs.push(pass_role(role, "eks.amazonaws.com"));
        needs.push(require_action("iam:GetRole", role));
        needs.push(require_action("iam:ListAttachedRolePolicies", role));
    }
    // The service-linked role is looked at by EKS itself, in words that differ from the others (IAM-3).
    needs.push(RequiredPermission {
        wording: DenialWording::LinkedRole,
        ..require_action(
            "iam:GetRole",
            format!(
                "arn:aws:iam::{account}:role/aws-service-role/eks-nodegroup.amazonaws.com/AWSServiceRoleForAmazonEKSNodegroup"
            ),
        )
    });
    // A template means that EKS tries out a launch from it (IAM-4).
    if let Some(template) = input.get_input("launchTemplate") {
        needs.extend(launch_permissions(
            cloud,
            template.get_text("id").or(template.get_text("name")),
            &input.get_text_list("subnets"),
            DenialWording::Launch,
        ));
    }
    needs
}

/// What Auto Scaling asks for besides: tags at creation (IAM-12), and with a launch template the rights to launch from it
/// (IAM-13), among them to pass the role of its instance profile.
fn asg_permissions(cloud: &AwsAccount, op: &str, input: Input) -> Vec<RequiredPermission> {
    let mut needs = Vec::new();
    if op == "PutLifecycleHook" {
        let role = input.get_text("RoleARN");
        needs.extend(role.map(|role| pass_role(role, "autoscaling.amazonaws.com")));
    }
    if !matches!(op, "CreateAutoScalingGroup" | "UpdateAutoScalingGroup") {
        return needs;
    }
    if op == "CreateAutoScalingGroup" && !input.get_list("Tags").is_empty() {
        let groups = asg_resources(cloud, op, input).into_iter();
        needs.extend(groups.map(|arn| require_action("autoscaling:CreateOrUpdateTags", arn)));
    }
    // A mixed instances policy holds a template like any other, and overrides may have their own.
    let policy = input.get_input("MixedInstancesPolicy");
    let policy = policy.and_then(|p| p.get_input("LaunchTemplate"));
    let base = policy.and_then(|p| p.get_input("LaunchTemplateSpecification"));
    let overrides = policy.map(|p| p.get_list("Overrides")).unwrap_or_default();
    let overrides = overrides.iter().map(Input);
    let overrides = overrides.filter_map(|o| o.get_input("LaunchTemplateSpecification"));
    let templates = input.get_input("LaunchTemplate").into_iter();
    let subnets = input.get_text("VPCZoneIdentifier").unwrap_or_default();
    let subnets: Vec<String> = subnets
        .split(',')
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect();
    for template in templates.chain(base).chain(overrides) {
        let key = template.get_text("LaunchTemplateId");
        let key = key.or(template.get_text("LaunchTemplateName"));
        let known = key.and_then(|k| ec2::templates::find_template(cloud, k));
        let id = known.map(|t| t.id.as_str()).or(key);
        needs.extend(launch_permissions(
            cloud,
            id,
            &subnets,
            DenialWording::Template,
        ));
        let version = template.get_text("Version").unwrap_or("$Default");
        let version = known.and_then(|t| {
            let version = ec2::templates::find_version(t, version)?;
            ec2::launches::launch_of_version(cloud, t, version).ok()
        });
        let role = version.and_then(|launch| cloud.role_of(&launch));
        needs.extend(role.map(|role| RequiredPermission {
            wording: DenialWording::Template,
            ..pass_role(&role, "ec2.amazonaws.com")
        }));
    }
    needs
}

/// What EC2 asks for where EKS or Auto Scaling tries out a launch: the required resource types of RunInstances, with the template and its
/// volumes (IAM-11), and the tags that EKS puts on instances.
fn launch_permissions(
    cloud: &AwsAccount,
    template: Option<&str>,
    subnets: &[String],
    wording: DenialWording,
) -> Vec<RequiredPermission> {
    let (region, account) = (&cloud.region, &cloud.account);
    // Everything that RunInstances is about has to be allowed, each of them on its own (IAM-11).
    let of = |what: &str| format!("arn:aws:ec2:{region}:{account}:{what}");
    let launch = |action: &str, resource: String| RequiredPermission {
        wording,
        ..require_action(action, resource)
    };
    let mut resources = vec![
        of("instance/*"),
        of("network-interface/*"),
        of("security-group/*"),
        of("volume/*"),
        // Images belong to no account in their names.
        format!("arn:aws:ec2:{region}::image/*"),
        of(&format!("launch-template/{}", template.unwrap_or_default())),
    ];
    resources.extend(subnets.iter().map(|id| of(&format!("subnet/{id}"))));
    let launches = resources.into_iter().map(|r| launch("ec2:RunInstances", r));
    let tags = launch("ec2:CreateTags", of("instance/*"));
    launches.chain([tags]).collect()
}

fn pass_role(role: &str, service: &str) -> RequiredPermission {
    RequiredPermission {
        keys: ContextKeys::from([("iam:PassedToService", service.to_owned())]),
        ..require_action("iam:PassRole", role)
    }
}

fn ec2_resources(cloud: &AwsAccount, op: &str, input: Input) -> Vec<String> {
    let of = |what: &str| format!("arn:aws:ec2:{}:{}:{what}", cloud.region, cloud.account);
    match op {
        "CreateLaunchTemplate" => vec![of("launch-template/*")],
        "CreateLaunchTemplateVersion"
        | "ModifyLaunchTemplate"
        | "DeleteLaunchTemplate"
        | "DeleteLaunchTemplateVersions" => {
            let key = input
                .get_text("LaunchTemplateId")
                .or(input.get_text("LaunchTemplateName"))
                .unwrap_or_default();
            let id = ec2::templates::find_template(cloud, key).map_or(key, |t| t.id.as_str());
            vec![of(&format!("launch-template/{id}"))]
        }
        "CreateTags" | "DeleteTags" => {
            let kind = |id: &str| match id.split('-').next() {
                Some("lt") => "launch-template",
                Some("i") => "instance",
                _ => "*",
            };
            let ids = input.get_text_list("ResourceId").into_iter();
            ids.map(|id| of(&format!("{}/{id}", kind(&id)))).collect()
        }
        _ => vec!["*".to_owned()],
    }
}

/// The groups that a write is about; reads are about none.
fn asg_resources(cloud: &AwsAccount, op: &str, input: Input) -> Vec<String> {
    // Reads are about no group at all (IAM-6).
    // A request may name a group that is not there yet: its ARN has a dash in place of the id.
    if op.starts_with("Describe") {
        return vec!["*".to_owned()];
    }
    let tagged = input.get_list("Tags").iter().map(Input);
    let named: Vec<&str> = tagged
        .filter_map(|tag| tag.get_text("ResourceId"))
        .chain(input.get_text("AutoScalingGroupName"))
        .collect();
    // A termination names the instance only, and is about its group.
    let instance = input.get_text("InstanceId").filter(|_| named.is_empty());
    let instance = instance.and_then(|id| cloud.instances.get(id));
    let of_instance = instance.and_then(|i| i.asg.as_deref());
    if op == "DeleteLaunchConfiguration" {
        let name = input
            .get_text("LaunchConfigurationName")
            .unwrap_or_default();
        return vec![format!(
            "arn:aws:autoscaling:{}:{}:launchConfiguration:-:launchConfigurationName/{name}",
            cloud.region, cloud.account
        )];
    }
    // A group that is not known still has a name in its ARN.
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
    let mut groups: Vec<&str> = named.into_iter().chain(of_instance).collect();
    groups.dedup();
    groups.into_iter().map(arn).collect()
}

/// The stack that an operation is about; the lists of exports are about none.
fn stack_resource(cloud: &AwsAccount, op: &str, input: Input) -> String {
    let sets = &cloud.cloudformation.change_sets;
    let set = input
        .get_text("ChangeSetName")
        .and_then(|arn| sets.get(arn));
    let named = input.get_text("StackName");
    match named.or(set.map(|set| set.stack.as_str())) {
        _ if matches!(op, "ListExports" | "ListImports") => "*".to_owned(),
        None => "*".to_owned(),
        Some(name) => cloud.cloudformation.find_stack(name).map_or_else(
            || {
                let (region, account) = (&cloud.region, &cloud.account);
                format!("arn:aws:cloudformation:{region}:{account}:stack/{name}/-")
            },
            |stack| stack.id.clone(),
        ),
    }
}

/// The rule, listener, target group or classic load balancer that a write is about; reads are about none.
fn elb_resource(cloud: &AwsAccount, op: &str, input: Input) -> String {
    // Classic load balancers are known by name, and their ARN is made of it (CLB-1).
    if matches!(
        op,
        "RegisterInstancesWithLoadBalancer" | "DeregisterInstancesFromLoadBalancer"
    ) {
        return format!(
            "arn:aws:elasticloadbalancing:{}:{}:loadbalancer/{}",
            cloud.region,
            cloud.account,
            input.get_text("LoadBalancerName").unwrap_or_default()
        );
    }
    // An operation that is about nothing else is about everything (IAM-6).
    let arn = match op {
        "ModifyRule" => input.get_text("RuleArn"),
        "ModifyListener" => input.get_text("ListenerArn"),
        "RegisterTargets" | "DeregisterTargets" => input.get_text("TargetGroupArn"),
        _ => None,
    };
    arn.unwrap_or("*").to_owned()
}
