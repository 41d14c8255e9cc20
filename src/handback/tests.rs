use super::facts::GroupKind;
use super::*;
use crate::model::AddonVersion;
use crate::model::asg::{Asg, AsgLaunch, AsgTag};
use crate::model::aws_status::NodegroupStatus;
use crate::model::ec2::LaunchTemplateVersion;
use crate::model::eks::{
    LaunchTemplateRef, NodeRepairConfig, NodeRepairOverride, Nodegroup, NodegroupTaint,
    RemoteAccess, Scaling, UpdateConfig,
};
use crate::model::group_owner::{GroupOwner, OwningTool};
use crate::model::node_source::{NodeSource, to_node_group};

/// What begins or ends something in one of the languages.
const AWKWARD: &str = "say \"hi\" ${path.module} %{ if true } \\ # ' <é>";

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

fn pairs<const N: usize>(values: [(&str, &str); N]) -> std::collections::BTreeMap<String, String> {
    values
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into_iter()
        .collect()
}

/// A managed group as EKS answers a plain one.
fn managed(name: &str) -> Nodegroup {
    Nodegroup {
        name: name.to_owned(),
        arn: format!("arn:aws:eks:eu-west-1:123456789012:nodegroup/shop/{name}/1"),
        source: NodeSource::ManagedGroup,
        version: Some("1.33".parse().unwrap()),
        release_version: Some("1.33.5-20261101".to_owned()),
        status: NodegroupStatus::Active,
        capacity_type: Some("ON_DEMAND".to_owned()),
        scaling: Scaling {
            min: 1,
            max: 6,
            desired: 3,
        },
        instance_types: texts(&["m6i.large", "m6a.large", "m5.large"]),
        subnets: texts(&["subnet-0a0a0a0a0a0a0a0a0", "subnet-0b0b0b0b0b0b0b0b0"]),
        remote_access: None,
        ami_type: Some("AL2023_x86_64_STANDARD".to_owned()),
        node_role: Some("arn:aws:iam::123456789012:role/apps-eks-node-group-2024".to_owned()),
        labels: pairs([("team", "shop")]),
        taints: Vec::new(),
        asgs: texts(&["eks-apps-green-1"]),
        disk_size: Some(40),
        health: Vec::new(),
        update_config: Some(UpdateConfig {
            max_unavailable: None,
            max_unavailable_percentage: Some(33),
            update_strategy: Some("DEFAULT".to_owned()),
        }),
        node_repair_config: None,
        warm_pool_config: None,
        launch_template: None,
        tags: pairs([
            ("Name", "apps"),
            ("eksup.dev/cloned-from", "apps-blue"),
            ("eksup.dev/run", "20261128-1"),
        ]),
        created_at: None,
        modified_at: None,
    }
}

fn replaced(blue: &str, green: Nodegroup) -> ReplacedGroup {
    ReplacedGroup {
        moved: GroupMove {
            blue: blue.to_owned(),
            green: green.name.clone(),
            source: match green.source {
                NodeSource::ManagedGroup => GroupKind::ManagedGroup,
                NodeSource::AutoScalingGroup | NodeSource::NodePool => GroupKind::AutoScalingGroup,
            },
            with_stack: false,
            owner: None,
            made_template: None,
        },
        blue: BlueState::Gone,
        green: Reading::Known(Box::new(green)),
        template: None,
        asg: None,
    }
}

/// A launch template of one's own, whose image the run replaced in a version of its own.
fn with_custom_image() -> ReplacedGroup {
    let mut green = managed("gpu-green");
    green.ami_type = Some("CUSTOM".to_owned());
    green.version = None;
    green.release_version = Some("ami-0123456789abcdef0".to_owned());
    green.instance_types.clear();
    green.disk_size = None;
    green.launch_template = Some(LaunchTemplateRef {
        id: Some("lt-0d0d0d0d0d0d0d0d0".to_owned()),
        name: Some("gpu".to_owned()),
        version: Some("8".to_owned()),
    });
    let mut group = replaced("gpu", green);
    group.moved.made_template = Some("lt-0d0d0d0d0d0d0d0d0".to_owned());
    group.template = Some(Reading::Known(LaunchTemplateVersion {
        id: "lt-0d0d0d0d0d0d0d0d0".to_owned(),
        name: Some("gpu".to_owned()),
        version: 8,
        description: None,
        image: Some("ami-0123456789abcdef0".to_owned()),
        instance_type: Some("g5.xlarge".to_owned()),
        user_data: None,
        options: Default::default(),
    }));
    group
}

/// Everything that a group without a template can have, with awkward words.
fn with_everything() -> ReplacedGroup {
    let mut green = managed("spot.green-1");
    green.capacity_type = Some("SPOT".to_owned());
    green.ami_type = Some("BOTTLEROCKET_ARM_64".to_owned());
    green.labels = pairs([("note", AWKWARD), ("eight/é ${x}", "")]);
    green.tags.extend(pairs([("why", AWKWARD)]));
    green.taints = vec![
        NodegroupTaint {
            key: "spot".to_owned(),
            value: Some("true".to_owned()),
            effect: "NO_SCHEDULE".to_owned(),
        },
        NodegroupTaint {
            key: "late".to_owned(),
            value: None,
            effect: "PREFER_NO_SCHEDULE".to_owned(),
        },
    ];
    green.remote_access = Some(RemoteAccess {
        ec2_ssh_key: Some("ops".to_owned()),
        source_security_groups: texts(&["sg-0c0c0c0c0c0c0c0c0"]),
    });
    green.node_repair_config = Some(NodeRepairConfig {
        enabled: true,
        max_unhealthy_node_threshold_count: Some(3),
        max_unhealthy_node_threshold_percentage: None,
        max_parallel_nodes_repaired_count: None,
        max_parallel_nodes_repaired_percentage: Some(10),
        overrides: vec![NodeRepairOverride {
            node_monitoring_condition: Some("AcceleratedHardwareReady".to_owned()),
            node_unhealthy_reason: Some("NvidiaXID64Error".to_owned()),
            min_repair_wait_time_mins: Some(5),
            repair_action: Some("Replace".to_owned()),
        }],
    });
    replaced("spot", green)
}

fn self_managed() -> ReplacedGroup {
    let asg = Asg {
        name: "batch-green".to_owned(),
        min: 0,
        max: 4,
        desired: 2,
        subnets: texts(&["subnet-0a0a0a0a0a0a0a0a0"]),
        target_groups: texts(&[
            "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/batch/0123456789abcdef",
        ]),
        suspended: texts(&["AZRebalance"]),
        launch: AsgLaunch {
            template: Some(LaunchTemplateRef {
                id: Some("lt-0e0e0e0e0e0e0e0e0".to_owned()),
                name: Some("batch".to_owned()),
                version: Some("4".to_owned()),
            }),
            ..AsgLaunch::default()
        },
        tags: vec![AsgTag {
            key: "kubernetes.io/cluster/shop".to_owned(),
            value: "owned".to_owned(),
            propagate: true,
        }],
        ..Asg::default()
    };
    let mut group = replaced("batch", to_node_group(&asg));
    group.asg = Some(Reading::Known(Box::new(asg)));
    group
}

/// Blue is kept at zero, and what EKS does not answer of green is not made up.
fn little_known() -> ReplacedGroup {
    let mut green = managed("web-green");
    green.node_role = None;
    green.version = None;
    green.release_version = None;
    green.ami_type = None;
    green.capacity_type = None;
    green.instance_types.clear();
    green.update_config = None;
    let mut blue = managed("web");
    blue.scaling = Scaling {
        min: 0,
        max: 6,
        desired: 0,
    };
    let mut group = replaced("web", green);
    group.blue = BlueState::There(Box::new(blue));
    group
}

fn unread() -> ReplacedGroup {
    let mut group = replaced("gone", managed("gone-green"));
    group.green = Reading::Unknown("as it could not be read (eks:DescribeNodegroup: no)".into());
    group.blue = BlueState::Unknown("as it could not be read".into());
    group
}

fn facts(groups: Vec<ReplacedGroup>) -> HandbackFacts {
    HandbackFacts {
        cluster: "shop".to_owned(),
        region: "eu-west-1".to_owned(),
        run: "20261128-1".to_owned(),
        from: "1.32".parse().unwrap(),
        version: "1.33".parse().unwrap(),
        of_terraform_module: false,
        addons: vec![
            AddonFact {
                name: "coredns".to_owned(),
                was: AddonVersion::new("v1.11.4-eksbuild.2"),
                now: Reading::Known(AddonVersion::new("v1.12.1-eksbuild.1")),
            },
            AddonFact {
                name: "kube-proxy".to_owned(),
                was: AddonVersion::new("v1.32.0-eksbuild.2"),
                now: Reading::Unknown("as it could not be read (eks:DescribeAddon: no)".into()),
            },
            AddonFact {
                name: "vpc-cni".to_owned(),
                was: AddonVersion::new("v1.20.0-eksbuild.1"),
                now: Reading::Known(AddonVersion::new("v1.20.0-eksbuild.1")),
            },
        ],
        groups,
        pools: Vec::new(),
    }
}

/// Groups of every shape.
fn all_shapes() -> Vec<ReplacedGroup> {
    vec![
        replaced("apps-blue", managed("apps-green")),
        with_custom_image(),
        with_everything(),
        self_managed(),
        little_known(),
        unread(),
    ]
}

fn of_tool(tool: OwningTool) -> HandbackOptions {
    HandbackOptions {
        tool: Some(tool),
        ..HandbackOptions::default()
    }
}

/// CI parses what is in these documents by each language's own parser (`.ci/handback_check.py`).
#[test]
fn what_each_tool_is_told_of_every_shape_of_group() {
    for tool in [
        OwningTool::Terraform,
        OwningTool::Eksctl,
        OwningTool::Cloudformation,
        OwningTool::Cdk,
        OwningTool::Pulumi,
    ] {
        let document = build_handback(&facts(all_shapes()), &of_tool(tool));
        let name = tool.name().to_lowercase();
        insta::assert_snapshot!(name, document.render_markdown());
    }
}

/// With a launch template and a role that the entry makes.
fn of_the_eks_module() -> ReplacedGroup {
    let mut green = managed("apps-green");
    green.disk_size = None;
    green.launch_template = Some(LaunchTemplateRef {
        id: Some("lt-0f0f0f0f0f0f0f0f0".to_owned()),
        name: Some("apps-2024".to_owned()),
        version: Some("3".to_owned()),
    });
    let mut group = replaced("apps-blue", green);
    group.moved.owner = Some(GroupOwner {
        tool: OwningTool::Terraform,
        tags: pairs([("managed-by", "Terraform")]),
    });
    group
}

#[test]
fn an_entry_of_the_eks_module_keeps_its_key_and_with_it_the_role_and_the_template_of_green() {
    let mut facts = facts(vec![of_the_eks_module(), with_everything(), self_managed()]);
    facts.of_terraform_module = true;
    let mut options = of_tool(OwningTool::Terraform);
    let entry = r#"module.eks.module.eks_managed_node_group["apps"]"#;
    options.addresses.insert(
        "apps-blue".to_owned(),
        TerraformAddress::parse(entry).unwrap(),
    );
    let document = build_handback(&facts, &options).render_markdown();
    // `removed` takes no address with a key, and another key would delete the role that green has.
    assert!(!document.contains("removed {"), "{document}");
    insta::assert_snapshot!("terraform_module", document);
}

#[test]
fn a_resource_that_repeats_keeps_its_address_and_one_that_does_not_is_removed_without_a_destroy() {
    let address = |text: &str| HandbackOptions {
        tool: Some(OwningTool::Terraform),
        address: Some(TerraformAddress::parse(text).unwrap()),
        ..HandbackOptions::default()
    };
    let facts = facts(vec![replaced("apps-blue", managed("apps-green"))]);
    let file = |text: &str| {
        let document = build_handback(&facts, &address(text));
        document.tools[0].files[0].text.clone()
    };
    let repeated = file(r#"aws_eks_node_group.apps["a"]"#);
    assert!(
        repeated.contains("to = aws_eks_node_group.apps[\"a\"]"),
        "{repeated}"
    );
    assert!(!repeated.contains("removed {") && !repeated.contains("\nresource"));
    let single = file("module.nodes.aws_eks_node_group.apps");
    assert!(
        single.contains("from = module.nodes.aws_eks_node_group.apps\n"),
        "{single}"
    );
    assert!(single.contains("to = module.nodes.aws_eks_node_group.apps_green"));
    // A name that blue's resource has is not green's too.
    let same = file("aws_eks_node_group.apps_green");
    assert!(
        same.contains("resource \"aws_eks_node_group\" \"apps_green_green\""),
        "{same}"
    );
}

#[test]
fn by_their_tags_groups_go_to_the_tools_that_own_them_and_the_stack_of_eksctl_is_spared() {
    let stack = "eksctl-shop-nodegroup-apps-blue";
    let mut green = managed("apps-green");
    green.node_role = Some(format!(
        "arn:aws:iam::123456789012:role/{stack}-NodeInstanceRole-1ABC"
    ));
    green.launch_template = Some(LaunchTemplateRef {
        id: Some("lt-0f0f0f0f0f0f0f0f0".to_owned()),
        name: Some(stack.to_owned()),
        version: Some("1".to_owned()),
    });
    let mut of_eksctl = replaced("apps-blue", green);
    of_eksctl.moved.owner = GroupOwner::from_tags(&pairs([
        ("alpha.eksctl.io/nodegroup-name", "apps-blue"),
        ("aws:cloudformation:stack-name", stack),
        ("aws:cloudformation:logical-id", "ManagedNodeGroup"),
    ]));
    let of_terraform = of_the_eks_module();
    let of_nobody = with_custom_image();
    let facts = facts(vec![of_eksctl, of_nobody, of_terraform]);
    let document = build_handback(&facts, &HandbackOptions::default());
    let tools: Vec<OwningTool> = document.tools.iter().map(|t| t.tool).collect();
    assert_eq!(tools, [OwningTool::Eksctl, OwningTool::Terraform]);
    assert!(document.notes[0].contains("gpu") && document.notes[0].contains("`--tool`"));
    let steps = &document.tools[0].steps;
    let warned = steps.iter().find(|s| s.what.contains("Do not delete"));
    let warned = &warned.expect("a warning").what;
    assert!(warned.contains("role eksctl-shop") && warned.contains("launch template eksctl-shop"));
    insta::assert_snapshot!("by_tags", document.render_text());
}

#[test]
fn after_its_deletion_a_stack_is_named_as_gone_and_green_comes_into_another() {
    let stack = "eksctl-shop-nodegroup-apps-blue";
    let mut green = managed("apps-green");
    green.node_role = Some(format!(
        "arn:aws:iam::123456789012:role/{stack}-NodeInstanceRole-1ABC"
    ));
    let mut group = replaced("apps-blue", green);
    group.moved.owner = GroupOwner::from_tags(&pairs([("aws:cloudformation:stack-name", stack)]));
    group.moved.with_stack = true;
    let facts = facts(vec![group]);
    let steps_of = |tool: OwningTool| {
        let document = build_handback(&facts, &of_tool(tool));
        let steps = document.tools.into_iter().flat_map(|t| t.steps);
        let texts = steps.map(|s| format!("{} {}", s.what, s.command.unwrap_or_default()));
        texts.collect::<Vec<_>>().join("\n")
    };
    for tool in [
        OwningTool::Eksctl,
        OwningTool::Cloudformation,
        OwningTool::Cdk,
    ] {
        let text = steps_of(tool);
        assert!(text.contains(&format!("deleted stack {stack}")), "{text}");
        assert!(!text.contains("delete-stack"), "{text}");
    }
    assert!(steps_of(OwningTool::Eksctl).contains("Green uses role eksctl-shop"));
    let told = steps_of(OwningTool::Cloudformation);
    assert!(told.contains("--stack-name NEW-STACK"), "{told}");
    assert!(!told.contains(&format!("--stack-name {stack}")), "{told}");
}

#[test]
fn a_text_is_only_text_in_every_language() {
    assert_eq!(
        super::hcl::quote_hcl("a\"b\\ ${c} %{d} $e %f $${g}\n"),
        r#""a\"b\\ $${c} %%{d} $e %f \u0024$${g}\n""#
    );
    assert_eq!(
        super::yaml::quote_yaml("a\"b\u{7f}\u{2028}"),
        "\"a\\\"b\\u007f\\u2028\""
    );
    assert_eq!(super::hcl::one_line("a\nresource {}"), "a resource {}");
    assert_eq!(super::hcl::identifier("1.a-b"), "_1_a_b");
}

#[test]
fn without_a_group_a_tool_that_is_named_is_told_the_versions_and_nobody_else_anything() {
    let facts = facts(Vec::new());
    let nobody = build_handback(&facts, &HandbackOptions::default());
    assert!(nobody.tools.is_empty() && !nobody.notes.is_empty());
    let named = build_handback(&facts, &of_tool(OwningTool::Terraform));
    assert!(
        named.tools[0].files[0]
            .text
            .contains("#   version = \"1.33\"")
    );
}

#[test]
fn a_text_that_begins_an_expression_in_pulumis_yaml_is_only_text() {
    let facts = facts(vec![with_everything()]);
    let document = build_handback(&facts, &of_tool(OwningTool::Pulumi));
    let text = &document.tools[0].files[0].text;
    assert!(text.contains("$${path.module}"), "{text}");
    assert!(
        text.contains("repairAction: \"Replace\""),
        "all of node repair: {text}"
    );
}

#[test]
fn a_node_pool_is_told_as_its_source_has_it_without_marks_of_the_run() {
    use crate::model::node_pool::{KarpenterObjects, NodeClass, NodePool};
    use crate::model::pool_group::pool_manifests;
    let marked = [
        ("eksup.dev/created-by".to_owned(), "20261128-1".to_owned()),
        ("karpenter.sh/nodepool-hash".to_owned(), "1".to_owned()),
        ("team".to_owned(), "shop".to_owned()),
    ];
    let pool = NodePool {
        name: "general-green".to_owned(),
        annotations: marked.clone().into(),
        spec: serde_json::json!({
            "disruption": {"budgets": [{"nodes": "10%"}], "consolidateAfter": "30s"},
            "weight": 10,
            "limits": null,
            "template": {"spec": {"nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "general-green"}}},
        }),
        ..NodePool::default()
    };
    let class = NodeClass {
        name: "general-green".to_owned(),
        annotations: marked.into(),
        spec: serde_json::json!({"amiSelectorTerms": [{"alias": "al2023@latest"}], "role": AWKWARD}),
        ..NodeClass::default()
    };
    let objects = KarpenterObjects {
        pools: vec![pool],
        classes: Some(vec![class]),
        ..KarpenterObjects::default()
    };
    let mut facts = facts(Vec::new());
    facts.pools = vec![
        ReplacedPool {
            blue: "general".to_owned(),
            green: "general-green".to_owned(),
            manifests: Reading::Known(pool_manifests(&objects, "general-green").unwrap()),
        },
        ReplacedPool {
            blue: "spot".to_owned(),
            green: "spot-green".to_owned(),
            manifests: Reading::Unknown("as it is not there any more".to_owned()),
        },
    ];
    let document = build_handback(&facts, &HandbackOptions::default());
    insta::assert_snapshot!("node_pools", document.render_markdown());
    assert_eq!(document.files().count(), 1);
}
