//! Two self-managed Auto Scaling groups beside a managed node group, made of the bundled snapshot.
//!
//! `web-blue` has Amazon Linux 2023, a mixed instances policy and the target group of the balancer; `data-blue` has
//! Bottlerocket, a taint, a lifecycle hook and instances that are protected from scale-in. The managed group keeps the
//! database and the DNS servers.

use base64::Engine as _;
use serde_json::{Value, json};

use super::grow::{self, list_mut, text_at};
use super::variants;
use crate::model::Minor;
use crate::model::snapshot::Snapshot;
use crate::twin::aws;

const CLUSTER: &str = "self-managed";
const ACCOUNT: &str = "123456789012";
const ENDPOINT: &str = "https://5B1C0F2E9A7D4C3B8E6F1A2B3C4D5E6F.gr7.us-east-1.eks.amazonaws.com";
const AUTHORITY: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==";
const SECURITY_GROUP: &str = "sg-bb076c4f565bce23e";
/// The instance profile of both groups; its role has a name of its own.
const PROFILE: &str = "self-managed-nodes";
const ROLE: &str = "arn:aws:iam::123456789012:role/self-managed-node";
/// How many nodes each of the three groups has.
const NODES_PER_GROUP: usize = 3;

/// A self-managed group, and the label that tells its nodes.
pub(super) struct SelfManagedGroup {
    pub cluster: &'static str,
    pub minor: Minor,
    pub asg: &'static str,
    pub template: (&'static str, &'static str),
    pub image_kind: &'static str,
    pub os_image: &'static str,
    pub label: (&'static str, &'static str),
    /// Whether it is as `data-blue` is: Bottlerocket, tainted, protected from scale-in.
    pub for_data: bool,
    /// The captured workloads that have to run on it.
    pub apps: &'static [&'static str],
}

const WEB: SelfManagedGroup = SelfManagedGroup {
    cluster: CLUSTER,
    minor: Minor::new(27),
    asg: "web-blue",
    template: ("lt-0a1b2c3d4e5f60718", "web-nodes"),
    image_kind: "AL2023_x86_64_STANDARD",
    os_image: "Amazon Linux 2023.7.20250609",
    label: ("pool", "web"),
    for_data: false,
    apps: &["backend", "frontend"],
};
const DATA: SelfManagedGroup = SelfManagedGroup {
    cluster: CLUSTER,
    minor: Minor::new(27),
    asg: "data-blue",
    template: ("lt-0b1c2d3e4f5061728", "data-nodes"),
    image_kind: "BOTTLEROCKET_x86_64",
    os_image: "Bottlerocket OS 1.49.0 (aws-k8s-1.27)",
    label: ("pool", "data"),
    for_data: true,
    apps: &["redis"],
};

impl SelfManagedGroup {
    fn image(&self) -> String {
        aws::published_image_id(self.minor, self.image_kind)
    }

    /// What its instances are started with, in base64.
    fn user_data(&self) -> String {
        let cluster = self.cluster;
        let (key, value) = self.label;
        let text = match self.for_data {
            false => format!(
                "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\nContent-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: {cluster}\n    apiServerEndpoint: {ENDPOINT}\n    certificateAuthority: {AUTHORITY}\n    cidr: 172.20.0.0/16\n  kubelet:\n    flags:\n      - --node-labels={key}={value}\n--//--\n"
            ),
            true => format!(
                "[settings.kubernetes]\ncluster-name = \"{cluster}\"\napi-server = \"{ENDPOINT}\"\ncluster-certificate = \"{AUTHORITY}\"\n\n[settings.kubernetes.node-labels]\n{key} = \"{value}\"\n\n[settings.kubernetes.node-taints]\ndedicated = [\"{value}:NoSchedule\"]\n"
            ),
        };
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    /// The template, spelled as requests spell it on the wire.
    fn template_item(&self) -> Value {
        let (id, name) = self.template;
        json!({
            "LaunchTemplateId": id, "LaunchTemplateName": name, "DefaultVersionNumber": 1,
            "Tags": [{"Key": "environment", "Value": "dev"}],
            "Versions": [{"VersionNumber": 1, "VersionDescription": "first", "LaunchTemplateData": {
                "ImageId": self.image(),
                "InstanceType": "t3.large",
                "UserData": self.user_data(),
                "IamInstanceProfile": {"Arn": format!("arn:aws:iam::{ACCOUNT}:instance-profile/{PROFILE}")},
                "SecurityGroupId": [SECURITY_GROUP],
                "BlockDeviceMapping": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 50, "VolumeType": "gp3", "Encrypted": true, "DeleteOnTermination": true}}],
                "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
                "TagSpecification": [{"ResourceType": "instance", "Tag": [{"Key": "team", "Value": self.label.1}]}],
            }}],
        })
    }

    /// The group as DescribeAutoScalingGroups shows it, but for where its instances come from.
    fn group_item(&self, subnets: &[String], instances: &[(String, String)]) -> Value {
        let (id, name) = self.template;
        let protected = self.for_data;
        let (cluster, size) = (self.cluster, instances.len());
        let shown = instances.iter().map(|(instance, zone)| {
            json!({
                "InstanceId": instance, "InstanceType": "t3.large", "AvailabilityZone": zone, "LifecycleState": "InService",
                "HealthStatus": "Healthy", "ProtectedFromScaleIn": protected,
                "LaunchTemplate": {"LaunchTemplateId": id, "LaunchTemplateName": name, "Version": "1"},
            })
        });
        let tag = |key: &str, value: &str, propagate: bool| json!({"ResourceId": self.asg, "ResourceType": "auto-scaling-group", "Key": key, "Value": value, "PropagateAtLaunch": propagate});
        let mut item = json!({
            "AutoScalingGroupName": self.asg,
            "AutoScalingGroupARN": format!("arn:aws:autoscaling:us-east-1:{ACCOUNT}:autoScalingGroup:{}:autoScalingGroupName/{}", grow::derive_uid(self.asg), self.asg),
            "MinSize": size, "MaxSize": size * 2, "DesiredCapacity": size,
            "VPCZoneIdentifier": subnets.join(","),
            "Instances": shown.collect::<Vec<_>>(),
            "DefaultCooldown": 300, "HealthCheckType": "EC2", "HealthCheckGracePeriod": 300,
            "NewInstancesProtectedFromScaleIn": protected,
            "Tags": [
                tag("Name", &format!("{cluster}-{}", self.label.1), true),
                tag("environment", "dev", true),
                tag(&format!("kubernetes.io/cluster/{cluster}"), "owned", true),
                tag("k8s.io/cluster-autoscaler/enabled", "true", false),
                tag(&format!("k8s.io/cluster-autoscaler/{cluster}"), "owned", false),
                tag(&format!("k8s.io/cluster-autoscaler/node-template/label/{}", self.label.0), self.label.1, false),
            ],
        });
        let template = json!({"LaunchTemplateId": id, "LaunchTemplateName": name, "Version": "1"});
        if !self.for_data {
            item["MixedInstancesPolicy"] = json!({
                "LaunchTemplate": {
                    "LaunchTemplateSpecification": template,
                    "Overrides": [{"InstanceType": "t3.large"}, {"InstanceType": "t3a.large"}, {"InstanceType": "m5.large"}],
                },
                "InstancesDistribution": {"OnDemandAllocationStrategy": "prioritized", "OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 100, "SpotAllocationStrategy": "price-capacity-optimized"},
            });
            item["HealthCheckType"] = json!("ELB");
            item["TerminationPolicies"] = json!(["OldestInstance"]);
            item["EnabledMetrics"] = json!([
                {"Metric": "GroupInServiceInstances", "Granularity": "1Minute"},
                {"Metric": "GroupDesiredCapacity", "Granularity": "1Minute"},
            ]);
        } else {
            item["LaunchTemplate"] =
                json!({"LaunchTemplateId": id, "LaunchTemplateName": name, "Version": "$Latest"});
        }
        item
    }
}

/// One managed group and two self-managed ones, three nodes each.
pub fn self_managed_groups() -> Snapshot {
    let mut s = variants::rename_cluster(CLUSTER);
    let sizes = s.inventory.nodegroups.first().map(|g| g.scaling);
    grow::grow_to(&mut s, NODES_PER_GROUP * 3);
    let mut s = variants::rename_instances(s, CLUSTER);
    // The managed group has the first nodes, with the sizes that it had before.
    if let Some(sizes) = sizes {
        s.inventory
            .nodegroups
            .iter_mut()
            .for_each(|g| g.scaling = sizes);
        for asg in s.inventory.asgs.values_mut() {
            (asg.min, asg.max, asg.desired) = (sizes.min, sizes.max, sizes.desired);
        }
    }
    for (group, first) in [(&WEB, NODES_PER_GROUP), (&DATA, NODES_PER_GROUP * 2)] {
        move_nodes(&mut s, group, first, NODES_PER_GROUP);
    }
    attach_web(&mut s);
    for group in [&WEB, &DATA] {
        move_workloads(&mut s, group);
    }
    put(
        &mut s,
        "autoscaling:DescribeLifecycleHooks",
        json!({
            "AutoScalingGroupName": DATA.asg, "LifecycleHookName": "data-drain",
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
            "HeartbeatTimeout": 300, "GlobalTimeout": 30000, "DefaultResult": "CONTINUE",
        }),
    );
    allow_nodes(&mut s);
    s
}

/// Adds the instance profile of self-managed groups, and the access entry of its role.
pub(super) fn allow_nodes(s: &mut Snapshot) {
    let profile = json!({"InstanceProfileName": PROFILE, "Roles": [{"Arn": ROLE}]});
    put(s, "iam:ListInstanceProfiles", profile);
    let entry = json!({"principalArn": ROLE, "type": "EC2_LINUX"});
    put(s, "eks:DescribeAccessEntry", entry);
}

fn put(s: &mut Snapshot, op: &str, item: Value) {
    s.aws.entry(op.to_owned()).or_default().push(item);
}

/// Makes some of the nodes those of a group of their own.
pub(super) fn move_nodes(s: &mut Snapshot, group: &SelfManagedGroup, first: usize, size: usize) {
    let (key, value) = group.label;
    let (image, taint) = (
        group.image(),
        json!({"key": "dedicated", "value": value, "effect": "NoSchedule"}),
    );
    let mut instances = Vec::new();
    for node in list_mut(s, "/api/v1/nodes")
        .iter_mut()
        .skip(first)
        .take(size)
    {
        let zone = text_at(node, "/metadata/labels/topology.kubernetes.io~1zone").to_owned();
        let id = text_at(node, "/spec/providerID").rsplit('/').next();
        instances.push((id.unwrap_or_default().to_owned(), zone));
        // Nothing of EKS's and eksctl's labels is on a self-managed node.
        if let Some(labels) = node["metadata"]["labels"].as_object_mut() {
            labels.retain(|key, _| {
                !key.contains("eks.amazonaws.com/")
                    && !key.contains("eksctl.io/")
                    && key != "colour"
            });
            labels.insert(key.to_owned(), json!(value));
        }
        if group.for_data {
            node["spec"]["taints"] = json!([taint]);
        }
        node["status"]["nodeInfo"]["osImage"] = json!(group.os_image);
    }
    let moved = |id: &str| instances.iter().any(|(other, _)| other == id);
    let i = &mut s.inventory;
    for asg in i.asgs.values_mut() {
        asg.instances.retain(|m| !moved(&m.id));
    }
    for instance in i.instances.iter_mut().filter(|m| moved(&m.id)) {
        instance.image = Some(image.clone());
        let (id, _) = group.template;
        instance.tags = [
            ("Name".to_owned(), format!("{}-{value}", group.cluster)),
            ("aws:autoscaling:groupName".to_owned(), group.asg.to_owned()),
            ("aws:ec2launchtemplate:id".to_owned(), id.to_owned()),
            ("aws:ec2launchtemplate:version".to_owned(), "1".to_owned()),
            ("environment".to_owned(), "dev".to_owned()),
            (
                format!("kubernetes.io/cluster/{}", group.cluster),
                "owned".to_owned(),
            ),
            ("team".to_owned(), value.to_owned()),
        ]
        .into();
    }
    let subnets: Vec<String> = i.subnets.iter().map(|s| s.id.clone()).collect();
    put(s, "ec2:LaunchTemplates", group.template_item());
    put(
        s,
        "autoscaling:DescribeAutoScalingGroups",
        group.group_item(&subnets, &instances),
    );
}

/// The balancer's target group is filled by the web group instead of the managed one.
fn attach_web(s: &mut Snapshot) {
    let Some(arn) = s.inventory.target_groups.first().map(|g| g.arn.clone()) else {
        return;
    };
    s.inventory
        .asgs
        .values_mut()
        .for_each(|a| a.target_groups.clear());
    let groups = s.aws.get_mut("autoscaling:DescribeAutoScalingGroups");
    let Some(web) = groups.and_then(|g| g.first_mut()) else {
        return;
    };
    web["TargetGroupARNs"] = json!([arn]);
    let members = web["Instances"].as_array();
    let members = members.into_iter().flatten();
    let ids: Vec<&str> = members.map(|m| text_at(m, "/InstanceId")).collect();
    if let Some(targets) = s.inventory.target_health.get_mut(&arn) {
        targets.retain(|t| ids.contains(&t.id.as_str()));
    }
}

/// Binds the group's workloads to its nodes, and moves their pods there, each within its zone.
fn move_workloads(s: &mut Snapshot, group: &SelfManagedGroup) {
    let (key, value) = group.label;
    let of_group = |o: &Value| {
        text_at(o, "/metadata/namespace") == "expense"
            && group.apps.contains(&text_at(o, "/metadata/labels/app"))
    };
    let bind = |spec: &mut Value| {
        spec["nodeSelector"] = json!({key: value});
        if group.for_data {
            let toleration = json!({"key": "dedicated", "operator": "Equal", "value": value, "effect": "NoSchedule"});
            match spec["tolerations"].as_array_mut() {
                Some(known) => known.insert(0, toleration),
                None => spec["tolerations"] = json!([toleration]),
            }
        }
    };
    for path in ["/apis/apps/v1/deployments", "/apis/apps/v1/replicasets"] {
        for object in list_mut(s, path).iter_mut().filter(|o| of_group(o)) {
            bind(&mut object["spec"]["template"]["spec"]);
        }
    }
    // Zone -> name and address of the group's node there; and the zone of each node of the cluster.
    let nodes: Vec<(String, String, String, bool)> = list_mut(s, "/api/v1/nodes")
        .iter()
        .map(|n| {
            (
                text_at(n, "/metadata/name").to_owned(),
                text_at(n, "/metadata/labels/topology.kubernetes.io~1zone").to_owned(),
                text_at(n, "/status/addresses/0/address").to_owned(),
                text_at(n, &format!("/metadata/labels/{key}")) == value,
            )
        })
        .collect();
    let home_of = |node: &str| {
        let zone = nodes.iter().find(|n| n.0 == node).map(|n| &n.1);
        nodes.iter().find(|n| n.3 && Some(&n.1) == zone)
    };
    let mut moved = Vec::new();
    for pod in list_mut(s, "/api/v1/pods")
        .iter_mut()
        .filter(|p| of_group(p))
    {
        let Some((node, _, address, _)) = home_of(text_at(pod, "/spec/nodeName")) else {
            continue;
        };
        bind(&mut pod["spec"]);
        pod["spec"]["nodeName"] = json!(node);
        pod["status"]["hostIP"] = json!(address);
        pod["status"]["hostIPs"] = json!([{"ip": address}]);
        moved.push((text_at(pod, "/metadata/name").to_owned(), node.clone()));
    }
    for slice in list_mut(s, "/apis/discovery.k8s.io/v1/endpointslices") {
        let endpoints = slice["endpoints"].as_array_mut();
        for endpoint in endpoints.into_iter().flatten() {
            let pod = text_at(endpoint, "/targetRef/name");
            if let Some((_, node)) = moved.iter().find(|(name, _)| name == pod) {
                endpoint["nodeName"] = json!(node);
            }
        }
    }
}
