//! Inventories for tests, made by hand.

use std::collections::BTreeMap;

use crate::model::asg::{Asg, AsgInstance};
use crate::model::ec2::{LaunchTemplateVersion, Subnet};
use crate::model::eks::{
    Addon, AddonOffer, Cluster, ClusterVersion, LaunchTemplateRef, Nodegroup, Scaling, UpdateConfig,
};
use crate::model::elb::{
    Listener, LoadBalancer, Rule, TargetGroup, TargetHealth, WeightedTargetGroup,
};
use crate::model::kube::{
    Key, Node, Owner, Pdb, Pod, Resources, Selector, Service, Volume, Workload,
};
use crate::model::{AddonVersion, Inventory, Minor, marks};

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
const ELB: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012";

pub fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// A cluster with nothing in it.
pub fn cluster(name: &str, version: u16) -> Inventory {
    let minor = Minor::new(version);
    let subnets: Vec<Subnet> = ZONES
        .iter()
        .enumerate()
        .map(|(i, zone)| Subnet {
            id: format!("subnet-{i}"),
            zone: (*zone).to_owned(),
            zone_id: None,
            vpc: Some("vpc-1".to_owned()),
            cidr: None,
            free_ips: 4000,
        })
        .collect();
    Inventory {
        taken_at: "2026-11-21T08:15:00Z".parse().unwrap(),
        region: "us-east-1".to_owned(),
        cluster: Cluster {
            name: name.to_owned(),
            arn: format!("arn:aws:eks:us-east-1:123456789012:cluster/{name}"),
            version: minor,
            status: "ACTIVE".to_owned(),
            endpoint: None,
            certificate_authority: None,
            platform_version: None,
            role_arn: None,
            vpc_id: Some("vpc-1".to_owned()),
            subnet_ids: subnets.iter().map(|s| s.id.clone()).collect(),
            security_group_ids: Vec::new(),
            cluster_security_group_id: None,
            service_ipv4_cidr: None,
            support_type: Some("EXTENDED".to_owned()),
            authentication_mode: None,
            auto_mode: false,
            health: Vec::new(),
            tags: BTreeMap::new(),
            created_at: None,
        },
        server_version: Some(minor),
        cluster_versions: (24..=36)
            .map(|v| ClusterVersion {
                version: Minor::new(v),
                status: "STANDARD_SUPPORT".to_owned(),
                default: v == 33,
                patch: None,
                end_of_standard_support: Some("2027-12-01T00:00:00Z".parse().unwrap()),
                end_of_extended_support: Some("2028-12-01T00:00:00Z".parse().unwrap()),
            })
            .collect(),
        insights: Vec::new(),
        nodegroups: Vec::new(),
        fargate_profiles: Vec::new(),
        addons: Vec::new(),
        addon_catalog: BTreeMap::new(),
        asgs: BTreeMap::new(),
        instances: Vec::new(),
        subnets,
        launch_templates: Vec::new(),
        load_balancers: Vec::new(),
        listeners: Vec::new(),
        rules: Vec::new(),
        target_groups: Vec::new(),
        target_health: BTreeMap::new(),
        nodes: Vec::new(),
        pods: Vec::new(),
        pdbs: Vec::new(),
        workloads: Vec::new(),
        services: Vec::new(),
        volumes: Vec::new(),
        attachments: Vec::new(),
        target_group_bindings: Vec::new(),
        unread: Vec::new(),
    }
}

/// Adds a managed node group with its Auto Scaling group and `size` nodes, in the three zones by turns.
pub fn add_group(inventory: &mut Inventory, name: &str, kubelet: u16, size: i32) {
    let asg = format!("eks-{name}");
    let minor = Minor::new(kubelet);
    inventory.nodegroups.push(Nodegroup {
        name: name.to_owned(),
        arn: format!(
            "arn:aws:eks:us-east-1:123456789012:nodegroup/{}/{name}/1",
            inventory.cluster.name
        ),
        version: Some(minor),
        release_version: Some(format!("1.{kubelet}.16-20250620")),
        status: "ACTIVE".to_owned(),
        capacity_type: Some("ON_DEMAND".to_owned()),
        scaling: Scaling {
            min: size.min(3),
            max: size.max(1) + 3,
            desired: size,
        },
        instance_types: vec!["t3.large".to_owned()],
        subnets: (0..3).map(|i| format!("subnet-{i}")).collect(),
        remote_access: None,
        ami_type: Some("AL2023_x86_64_STANDARD".to_owned()),
        node_role: Some("arn:aws:iam::123456789012:role/eks-node".to_owned()),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        asgs: vec![asg.clone()],
        disk_size: Some(20),
        health: Vec::new(),
        update_config: Some(UpdateConfig {
            max_unavailable: Some(1),
            max_unavailable_percentage: None,
            update_strategy: None,
        }),
        node_repair_config: None,
        warm_pool_config: None,
        launch_template: None,
        tags: BTreeMap::new(),
        created_at: None,
    });
    let mut instances = Vec::new();
    for i in 0..size {
        let zone = ZONES[i as usize % 3].to_owned();
        let id = format!("i-{name}-{i}");
        instances.push(AsgInstance {
            id: id.clone(),
            zone: zone.clone(),
            lifecycle: "InService".to_owned(),
            healthy: true,
        });
        let mut node = node(&format!("{name}-{i}"), kubelet, &zone);
        node.labels
            .insert(marks::NODEGROUP_LABEL.to_owned(), name.to_owned());
        node.provider_id = Some(format!("aws:///{zone}/{id}"));
        inventory.nodes.push(node);
    }
    inventory.asgs.insert(
        asg.clone(),
        Asg {
            name: asg,
            min: size,
            max: size + 3,
            desired: size,
            zones: ZONES.map(str::to_owned).to_vec(),
            instances,
            target_groups: Vec::new(),
            suspended: Vec::new(),
            tags: Vec::new(),
        },
    );
}

/// A node of no node group.
pub fn node(name: &str, kubelet: u16, zone: &str) -> Node {
    Node {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        labels: map([
            ("topology.kubernetes.io/zone", zone),
            ("kubernetes.io/hostname", name),
            ("kubernetes.io/arch", "amd64"),
        ]),
        annotations: BTreeMap::new(),
        unschedulable: false,
        taints: Vec::new(),
        provider_id: None,
        ready: "True".to_owned(),
        ready_since: None,
        kubelet_version: format!("v1.{kubelet}.16-eks-473151a"),
        allocatable: Resources {
            cpu_millis: 1930,
            memory_bytes: 7 << 30,
            pods: 35,
        },
        created: None,
        deleting: false,
    }
}

/// A managed add-on.
pub fn add_addon(inventory: &mut Inventory, name: &str, version: &str) {
    inventory.addons.push(Addon {
        name: name.to_owned(),
        version: AddonVersion::new(version),
        status: "ACTIVE".to_owned(),
        health: Vec::new(),
        service_account_role_arn: None,
        configuration_values: None,
    });
}

/// What EKS offers of an add-on on a minor, newest first; a `*` marks the default.
pub fn offer(inventory: &mut Inventory, name: &str, minor: u16, versions: &[&str]) {
    let offers = versions
        .iter()
        .map(|v| AddonOffer {
            version: AddonVersion::new(v.trim_start_matches('*')),
            default: v.starts_with('*'),
            architectures: vec!["amd64".to_owned(), "arm64".to_owned()],
            requires_configuration: false,
            requires_iam_permissions: false,
        })
        .collect();
    inventory
        .addon_catalog
        .entry(name.to_owned())
        .or_default()
        .insert(Minor::new(minor), offers);
}

pub fn tg_arn(name: &str) -> String {
    format!("{ELB}:targetgroup/{name}/f059f255316f351e")
}

/// An instance target group.
pub fn add_target_group(inventory: &mut Inventory, name: &str, port: i32) {
    inventory.target_groups.push(TargetGroup {
        arn: tg_arn(name),
        name: name.to_owned(),
        protocol: Some("HTTP".to_owned()),
        port: Some(port),
        target_type: "instance".to_owned(),
        vpc: Some("vpc-1".to_owned()),
        load_balancers: Vec::new(),
        health_check_interval_seconds: 10,
        healthy_threshold: 2,
        unhealthy_threshold: 2,
        deregistration_delay_seconds: 30,
        sticky: false,
        tags: BTreeMap::new(),
    });
}

/// Attaches a target group to a node group's Auto Scaling group, and registers its instances.
pub fn attach(inventory: &mut Inventory, group: &str, target_group: &str) {
    let asg = inventory.asgs.get_mut(&format!("eks-{group}")).unwrap();
    asg.target_groups.push(tg_arn(target_group));
    let targets = asg.instances.iter().map(|i| TargetHealth {
        id: i.id.clone(),
        port: Some(30080),
        zone: Some(i.zone.clone()),
        state: "healthy".to_owned(),
        reason: None,
    });
    inventory
        .target_health
        .entry(tg_arn(target_group))
        .or_default()
        .extend(targets);
}

/// An application load balancer with one listener on 80, a rule for `path` and a default answer.
pub fn add_rule(
    inventory: &mut Inventory,
    balancer: &str,
    path: &str,
    forward: &[(&str, i32)],
) -> String {
    let lb = format!("{ELB}:loadbalancer/app/{balancer}/1");
    let listener = format!("{ELB}:listener/app/{balancer}/1/2");
    let arn = format!(
        "{ELB}:listener-rule/app/{balancer}/1/2/{}",
        inventory.rules.len()
    );
    inventory.load_balancers.push(LoadBalancer {
        arn: lb.clone(),
        name: balancer.to_owned(),
        kind: "application".to_owned(),
        dns_name: None,
        vpc: Some("vpc-1".to_owned()),
        zones: ZONES.map(str::to_owned).to_vec(),
        tags: BTreeMap::new(),
    });
    inventory.listeners.push(Listener {
        arn: listener.clone(),
        load_balancer: lb.clone(),
        port: Some(80),
        protocol: Some("HTTP".to_owned()),
        tags: BTreeMap::new(),
    });
    let rule = |arn: &str,
                priority: &str,
                conditions: Vec<String>,
                forward: Vec<WeightedTargetGroup>| Rule {
        arn: arn.to_owned(),
        listener: listener.clone(),
        priority: priority.to_owned(),
        is_default: priority == "default",
        conditions,
        forward,
        stickiness_seconds: None,
        rest: serde_json::Value::Null,
        tags: BTreeMap::new(),
    };
    let weights = forward
        .iter()
        .map(|(name, weight)| WeightedTargetGroup {
            arn: tg_arn(name),
            weight: *weight,
        })
        .collect();
    inventory.rules.push(rule(
        &arn,
        "10",
        vec![format!("path-pattern={path}")],
        weights,
    ));
    inventory.rules.push(rule(
        &format!("{arn}-default"),
        "default",
        Vec::new(),
        Vec::new(),
    ));
    for (name, _) in forward {
        for group in inventory
            .target_groups
            .iter_mut()
            .filter(|g| g.name == *name)
        {
            group.load_balancers.push(lb.clone());
        }
    }
    arn
}

/// A running pod of a controller.
pub fn pod(namespace: &str, name: &str, app: &str, kind: &str, node: &str) -> Pod {
    Pod {
        key: Key::new(namespace, name),
        uid: format!("uid-{name}"),
        labels: map([("app", app)]),
        annotations: BTreeMap::new(),
        owner: Some(Owner {
            kind: kind.to_owned(),
            name: app.to_owned(),
            uid: format!("uid-{app}"),
        }),
        node: Some(node.to_owned()),
        phase: "Running".to_owned(),
        ready: true,
        ready_since: None,
        deletion_timestamp: None,
        grace_seconds: 30,
        finalizers: Vec::new(),
        priority: 0,
        priority_class: None,
        tolerations: Vec::new(),
        node_selector: BTreeMap::new(),
        required_affinity: BTreeMap::new(),
        requests: Resources {
            cpu_millis: 200,
            memory_bytes: 256 << 20,
            pods: 0,
        },
        empty_dir: false,
        claims: Vec::new(),
        host_path: false,
        host_ports: Vec::new(),
        mirror: false,
        waiting: None,
        created: None,
    }
}

/// A workload and one pod of it on each of `nodes`.
pub fn add_workload(
    inventory: &mut Inventory,
    namespace: &str,
    app: &str,
    kind: &str,
    nodes: &[&str],
) {
    let pods = nodes.len() as i32;
    let workload = |kind: &str, name: &str, owner: Option<Owner>| Workload {
        kind: kind.to_owned(),
        key: Key::new(namespace, name),
        uid: format!("uid-{name}"),
        owner,
        labels: BTreeMap::new(),
        selector: Some(Selector {
            match_labels: map([("app", app)]),
            expressions: Vec::new(),
        }),
        template_labels: map([("app", app)]),
        desired: pods,
        ready: pods,
        available: pods,
        updated: pods,
        generation: 1,
        observed_generation: 1,
        strategy: Some("RollingUpdate".to_owned()),
        max_surge: Some("25%".to_owned()),
        paused: false,
        images: vec![format!("registry.example/{app}:v1")],
        node_selector: BTreeMap::new(),
        required_affinity: BTreeMap::new(),
        tolerations: Vec::new(),
        readiness_probe: true,
    };
    inventory.workloads.push(workload(kind, app, None));
    let mut owner_kind = kind;
    let mut owner_name = app.to_owned();
    if kind == "Deployment" {
        owner_kind = "ReplicaSet";
        owner_name = format!("{app}-7d8f");
        let owner = Owner {
            kind: "Deployment".to_owned(),
            name: app.to_owned(),
            uid: format!("uid-{app}"),
        };
        inventory
            .workloads
            .push(workload("ReplicaSet", &owner_name, Some(owner)));
    }
    for (i, node) in nodes.iter().enumerate() {
        let mut pod = pod(
            namespace,
            &format!("{owner_name}-{i}"),
            app,
            owner_kind,
            node,
        );
        pod.owner = Some(Owner {
            kind: owner_kind.to_owned(),
            name: owner_name.clone(),
            uid: format!("uid-{owner_name}"),
        });
        inventory.pods.push(pod);
    }
}

/// A budget over the pods of an app.
pub fn add_pdb(
    inventory: &mut Inventory,
    namespace: &str,
    app: &str,
    min_available: i32,
    pods: i32,
) {
    inventory.pdbs.push(Pdb {
        key: Key::new(namespace, app),
        selector: Some(Selector {
            match_labels: map([("app", app)]),
            expressions: Vec::new(),
        }),
        min_available: Some(min_available.to_string()),
        max_unavailable: None,
        unhealthy_policy: None,
        allowed: (pods - min_available).max(0),
        current_healthy: pods,
        desired_healthy: min_available,
        expected: pods,
        generation: 1,
        observed_generation: 1,
        disrupted: Vec::new(),
    });
}

pub fn node_port(namespace: &str, name: &str, port: i32, policy: &str) -> Service {
    Service {
        key: Key::new(namespace, name),
        kind: "NodePort".to_owned(),
        selector: map([("app", name)]),
        node_ports: vec![port],
        external_traffic_policy: Some(policy.to_owned()),
        health_check_node_port: None,
        annotations: BTreeMap::new(),
    }
}

/// Gives a group a launch template.
pub fn with_template(
    inventory: &mut Inventory,
    group: &str,
    image: Option<&str>,
    instance_type: Option<&str>,
) {
    let group = inventory
        .nodegroups
        .iter_mut()
        .find(|g| g.name == group)
        .unwrap();
    group.launch_template = Some(LaunchTemplateRef {
        id: Some("lt-1".to_owned()),
        name: Some("apps".to_owned()),
        version: Some("4".to_owned()),
    });
    group.disk_size = None;
    if image.is_some() {
        group.ami_type = Some("CUSTOM".to_owned());
        group.release_version = image.map(str::to_owned);
    }
    if instance_type.is_some() {
        group.instance_types = Vec::new();
    }
    inventory.launch_templates.push(LaunchTemplateVersion {
        id: "lt-1".to_owned(),
        name: Some("apps".to_owned()),
        version: 4,
        description: None,
        image: image.map(str::to_owned),
        instance_type: instance_type.map(str::to_owned),
        user_data: None,
    });
}

/// The cluster of `data/expense-dev`, with the objects that decide a route.
pub fn expense_dev() -> Inventory {
    let mut i = cluster("expense-dev", 27);
    add_group(&mut i, "expense-blue", 27, 3);
    i.nodegroups[0].labels = map([("colour", "blue")]);
    for (name, version) in [
        ("aws-ebs-csi-driver", "v1.38.1-eksbuild.1"),
        ("coredns", "v1.10.1-eksbuild.18"),
        ("kube-proxy", "v1.27.16-eksbuild.2"),
        ("vpc-cni", "v1.18.3-eksbuild.3"),
    ] {
        add_addon(&mut i, name, version);
    }
    let ebs = [
        "v1.44.0-eksbuild.1",
        "*v1.38.1-eksbuild.1",
        "v1.25.0-eksbuild.1",
    ];
    offer(
        &mut i,
        "aws-ebs-csi-driver",
        27,
        &["v1.38.1-eksbuild.1", "*v1.25.0-eksbuild.1"],
    );
    offer(&mut i, "aws-ebs-csi-driver", 28, &ebs);
    offer(&mut i, "aws-ebs-csi-driver", 29, &ebs);
    offer(
        &mut i,
        "coredns",
        27,
        &[
            "v1.11.1-eksbuild.9",
            "*v1.10.1-eksbuild.18",
            "v1.9.3-eksbuild.11",
        ],
    );
    offer(
        &mut i,
        "coredns",
        28,
        &["v1.11.1-eksbuild.9", "*v1.10.1-eksbuild.18"],
    );
    offer(
        &mut i,
        "coredns",
        29,
        &[
            "v1.11.4-eksbuild.2",
            "*v1.11.1-eksbuild.9",
            "v1.10.1-eksbuild.18",
        ],
    );
    for minor in 27..=29 {
        let own = |m: u16| format!("v1.{m}.{}-eksbuild.2", if m == 27 { 16 } else { 15 });
        let list: Vec<String> = (minor - 2..=minor)
            .rev()
            .map(|m| {
                if m == minor {
                    format!("*{}", own(m))
                } else {
                    own(m)
                }
            })
            .collect();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        offer(&mut i, "kube-proxy", minor, &list);
    }
    offer(
        &mut i,
        "vpc-cni",
        27,
        &[
            "v1.19.2-eksbuild.1",
            "*v1.18.3-eksbuild.3",
            "v1.15.1-eksbuild.1",
        ],
    );
    offer(
        &mut i,
        "vpc-cni",
        28,
        &[
            "v1.20.1-eksbuild.1",
            "*v1.19.2-eksbuild.1",
            "v1.18.3-eksbuild.3",
            "v1.15.1-eksbuild.1",
        ],
    );
    offer(
        &mut i,
        "vpc-cni",
        29,
        &[
            "v1.20.1-eksbuild.1",
            "*v1.19.2-eksbuild.1",
            "v1.18.3-eksbuild.3",
        ],
    );
    add_target_group(&mut i, "expense-blue-tg", 30080);
    add_target_group(&mut i, "expense-green-tg", 30080);
    attach(&mut i, "expense-blue", "expense-blue-tg");
    i.target_health
        .insert(tg_arn("expense-green-tg"), Vec::new());
    add_rule(&mut i, "expense-dev-alb", "/*", &[("expense-blue-tg", 100)]);
    i.services
        .push(node_port("expense", "frontend", 30080, "Cluster"));
    let n = ["expense-blue-0", "expense-blue-1", "expense-blue-2"];
    add_workload(&mut i, "expense", "frontend", "Deployment", &[n[0], n[1]]);
    add_workload(&mut i, "expense", "backend", "Deployment", &n);
    add_workload(&mut i, "expense", "redis", "Deployment", &[n[2]]);
    add_workload(&mut i, "expense", "mysql", "StatefulSet", &[n[0]]);
    add_workload(&mut i, "expense", "log-agent", "DaemonSet", &n);
    add_workload(
        &mut i,
        "kube-system",
        "coredns",
        "Deployment",
        &[n[1], n[2]],
    );
    add_workload(&mut i, "kube-system", "aws-node", "DaemonSet", &n);
    add_workload(&mut i, "kube-system", "kube-proxy", "DaemonSet", &n);
    add_pdb(&mut i, "expense", "frontend", 1, 2);
    add_pdb(&mut i, "expense", "backend", 2, 3);
    add_pdb(&mut i, "kube-system", "coredns", 1, 2);
    for pod in i
        .pods
        .iter_mut()
        .filter(|p| p.key.name.starts_with("mysql"))
    {
        pod.claims = vec!["data-mysql-0".to_owned()];
    }
    i.volumes.push(Volume {
        name: "expense-mysql".to_owned(),
        claim: Some(Key::new("expense", "data-mysql-0")),
        driver: Some("ebs.csi.aws.com".to_owned()),
        handle: Some("vol-0657870656e73652d".to_owned()),
        zones: vec!["us-east-1a".to_owned()],
        nodes: Vec::new(),
        access_modes: vec!["ReadWriteOnce".to_owned()],
    });
    i
}
