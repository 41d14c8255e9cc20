//! Operating systems, user data, processors and devices of green's image.

use base64::Engine;

use super::tests::{judged, of, plan};
use super::{Code, Finding, Severity};
use crate::model::image::AmiImage;
use crate::model::pod_identity::PodIdentityAssociation;
use crate::model::{Inventory, Minor};
use crate::plan::{Plan, parse_plan};
use crate::route::fixture::{expense_dev, with_template};

/// A cluster of 1.32 with one group of Amazon Linux 2.
fn al2() -> Inventory {
    let mut i = expense_dev();
    let was = i.cluster.version;
    i.cluster.version = Minor::new(32);
    i.server_version = Some(Minor::new(32));
    for versions in i.addon_catalog.values_mut() {
        let offers = versions.get(&was).cloned().unwrap_or_default();
        *versions = [32, 33].map(|m| (Minor::new(m), offers.clone())).into();
    }
    for group in &mut i.nodegroups {
        group.version = Some(Minor::new(32));
        group.ami_type = Some("AL2_x86_64".to_owned());
    }
    for node in &mut i.nodes {
        node.kubelet_version = "v1.32.9".to_owned();
    }
    i
}

fn to_1_33(rest: &str) -> Plan {
    let text = format!("cluster: expense-dev\nto: 1.33\n{rest}");
    parse_plan("plan.yaml", &text)
        .map_err(|e| e.problems)
        .unwrap()
}

/// Gives one pod of blue the image.
fn run(i: &mut Inventory, image: &str, change: impl Fn(&mut crate::model::kube::Pod)) {
    let pod = i
        .pods
        .iter_mut()
        .find(|p| !p.is_daemon_pod() && !p.mirror)
        .unwrap();
    pod.cloud.images = vec![image.to_owned()];
    pod.cloud.service_account = Some("caller".to_owned());
    change(pod);
}

fn severity(findings: &[Finding], code: Code) -> Option<Severity> {
    of(findings, code).first().map(|(severity, _)| *severity)
}

const DNS: &str = "registry.k8s.io/external-dns/external-dns:v0.14.0";
const BALANCERS: &str = "public.ecr.aws/eks/aws-load-balancer-controller:v2.8.1";

#[test]
fn who_calls_aws_with_the_nodes_role_needs_one_of_its_own_on_al2023() {
    let lost = |change: &dyn Fn(&mut Inventory), rest: &str| {
        let mut i = al2();
        (i.pod_identities, i.accounts_with_role) = (Some(Vec::new()), Some(Vec::new()));
        change(&mut i);
        severity(&judged(&to_1_33(rest), &i), Code::MetadataLost)
    };
    assert_eq!(lost(&|_| {}, ""), None);
    assert_eq!(lost(&|i| run(i, DNS, |_| {}), ""), Some(Severity::Blocker));
    let consent = "nodeGroups: [{blue: expense-blue, amiType: AL2023_x86_64_STANDARD}]";
    assert_eq!(
        lost(&|i| run(i, DNS, |_| {}), consent),
        Some(Severity::Warning)
    );
    // Nothing is given up on a guess.
    let unread = |i: &mut Inventory| {
        run(i, DNS, |_| {});
        i.accounts_with_role = None;
    };
    assert_eq!(lost(&unread, consent), Some(Severity::Blocker));
    let mut guessed = al2();
    unread(&mut guessed);
    assert!(crate::ready::accepted_losses(&to_1_33(consent), &guessed).is_empty());
    // A role of its own, now or with its next pod, or the node's own network.
    assert_eq!(
        lost(&|i| run(i, DNS, |p| p.cloud.own_credentials = true), ""),
        None
    );
    assert_eq!(lost(&|i| run(i, DNS, |p| p.host_network = true), ""), None);
    let associated = |i: &mut Inventory| {
        run(i, DNS, |_| {});
        let pod = i
            .pods
            .iter()
            .find(|p| p.cloud.service_account.is_some())
            .unwrap();
        i.pod_identities = Some(vec![PodIdentityAssociation {
            namespace: pod.key.namespace.clone(),
            service_account: "caller".to_owned(),
        }]);
    };
    assert_eq!(lost(&associated, ""), None);
    // A template's hop limit of two keeps it.
    let hops = |i: &mut Inventory| {
        run(i, DNS, |_| {});
        with_template(i, "expense-blue", None, None);
        i.launch_templates
            .last_mut()
            .unwrap()
            .options
            .metadata_hop_limit = Some(2);
    };
    assert_eq!(lost(&hops, ""), None);
    // With a role the load balancer controller still asks for its VPC.
    let balancers = |given: &'static [&'static str]| {
        move |i: &mut Inventory| {
            run(i, BALANCERS, |p| {
                p.cloud.own_credentials = true;
                p.cloud.given = given.iter().map(|g| (*g).to_owned()).collect();
            });
        }
    };
    assert_eq!(
        lost(&balancers(&["AWS_REGION"]), ""),
        Some(Severity::Blocker)
    );
    assert_eq!(lost(&balancers(&["--aws-vpc-id", "AWS_REGION"]), ""), None);
}

#[test]
fn another_operating_system_is_told_and_one_that_is_asked_for_is_dealt_with() {
    let told = judged(&to_1_33(""), &al2());
    assert_eq!(severity(&told, Code::OtherSystem), Some(Severity::Warning));
    let asked = "nodeGroups: [{blue: expense-blue, amiType: BOTTLEROCKET_x86_64}]";
    let told = judged(&to_1_33(asked), &al2());
    assert_eq!(severity(&told, Code::OtherSystem), Some(Severity::Info));
    assert_eq!(
        of(&judged(&plan(""), &expense_dev()), Code::OtherSystem),
        []
    );
}

/// What is said of user data on green, with a template of blue's that has it.
fn with_user_data(text: &str, own_image: Option<&str>, rest: &str) -> Vec<Finding> {
    let mut i = al2();
    let blue = own_image.map(|_| "ami-0fedcba9876543210");
    with_template(&mut i, "expense-blue", blue, None);
    let template = i.launch_templates.last_mut().unwrap();
    template.user_data = Some(base64::engine::general_purpose::STANDARD.encode(text));
    template.options.metadata_hop_limit = Some(2);
    i.images.extend(own_image.map(|name| AmiImage {
        id: "ami-0123456789abcdef0".to_owned(),
        name: name.to_owned(),
        description: None,
        architecture: Some("x86_64".to_owned()),
        metadata_support: None,
    }));
    judged(&to_1_33(rest), &i)
}

const BOOTSTRAP: &str = "#!/bin/bash\n/etc/eks/bootstrap.sh expense-dev\n";
const EDIT: &str = "#!/bin/bash\nsed -i s/1/2/ /etc/kubernetes/kubelet/kubelet-config.json\n";
const OWN: &str = "nodeGroups: [{blue: expense-blue, ami: ami-0123456789abcdef0}]";

#[test]
fn user_data_is_judged_by_the_image_that_green_gets() {
    let old = |found: &[Finding]| severity(found, Code::OldBootstrap);
    let unsure = |found: &[Finding]| severity(found, Code::UserDataUnsure);
    let blocks = Some(Severity::Blocker);
    assert_eq!(old(&with_user_data(BOOTSTRAP, None, "")), blocks);
    assert_eq!(old(&with_user_data(EDIT, None, "")), blocks);
    let meant = "nodeGroups: [{blue: expense-blue, amiType: AL2023_x86_64_STANDARD}]";
    let found = with_user_data(EDIT, None, meant);
    assert_eq!(
        (old(&found), unsure(&found)),
        (None, Some(Severity::Warning))
    );
    // Custom AMIs, by their names.
    let known = "golden-amazon-linux-2023-k8s-1.33";
    assert_eq!(old(&with_user_data(BOOTSTRAP, Some(known), OWN)), blocks);
    let unknown = with_user_data(BOOTSTRAP, Some("golden-42"), OWN);
    assert_eq!(
        (old(&unknown), unsure(&unknown)),
        (None, Some(Severity::Warning))
    );
    let same = with_user_data(BOOTSTRAP, Some("golden-amazon-linux-2-k8s-1.33"), OWN);
    assert_eq!((old(&same), unsure(&same)), (None, None));
    let rocket = "nodeGroups: [{blue: expense-blue, amiType: BOTTLEROCKET_x86_64}]";
    assert_eq!(old(&with_user_data(EDIT, None, rocket)), blocks);
    let settings = "[settings.kubernetes]\nmax-pods = 20\n";
    assert_eq!(old(&with_user_data(settings, None, rocket)), None);
    assert_eq!(old(&with_user_data(settings, None, "")), blocks);
}

#[test]
fn an_image_suits_the_processor_and_the_devices_of_the_instance_types() {
    let misfit = |rest: &str| severity(&judged(&plan(rest), &expense_dev()), Code::ImageMisfit);
    let group = |more: &str| format!("nodeGroups: [{{blue: expense-blue, {more}}}]");
    assert_eq!(misfit(""), None);
    assert_eq!(
        misfit(&group("instanceTypes: [m7g.large]")),
        Some(Severity::Blocker)
    );
    assert_eq!(
        misfit(&group(
            "instanceTypes: [m7g.large], amiType: AL2023_ARM_64_STANDARD"
        )),
        None
    );
    assert_eq!(
        misfit(&group(
            "instanceTypes: [inf2.xlarge], amiType: AL2023_x86_64_NVIDIA"
        )),
        Some(Severity::Blocker)
    );
    assert_eq!(
        misfit(&group(
            "instanceTypes: [inf2.xlarge], amiType: AL2023_x86_64_NEURON"
        )),
        None
    );
    assert_eq!(
        misfit(&group(
            "instanceTypes: [g5.xlarge], amiType: AL2023_x86_64_NVIDIA"
        )),
        None
    );
}

#[test]
fn groups_of_neuron_devices_get_the_image_with_their_driver() {
    let green = |instance_type: &str| {
        let mut i = al2();
        for group in &mut i.nodegroups {
            group.ami_type = Some("AL2_x86_64_GPU".to_owned());
            group.instance_types = vec![instance_type.to_owned()];
        }
        let route = crate::route::build_route(&to_1_33(""), &i).unwrap();
        let types = route.steps.into_iter().find_map(|s| match s.spec {
            crate::route::StepSpec::CreateGreen { group, .. } => group.ami_type,
            _ => None,
        });
        types.unwrap()
    };
    assert_eq!(green("inf2.xlarge"), "AL2023_x86_64_NEURON");
    assert_eq!(green("trn1.2xlarge"), "AL2023_x86_64_NEURON");
    assert_eq!(green("g5.xlarge"), "AL2023_x86_64_NVIDIA");
}

#[test]
fn karpenters_nodes_of_amazon_linux_2_are_told_from_the_version_that_has_no_image() {
    let with_pool = |mut i: Inventory| {
        let mut node = i.nodes[0].clone();
        node.name = "karpenter-1".to_owned();
        node.os_image = "Amazon Linux 2".to_owned();
        node.labels.remove("eks.amazonaws.com/nodegroup");
        node.labels
            .insert("karpenter.sh/nodepool".to_owned(), "default".to_owned());
        i.nodes.push(node);
        i
    };
    let told = judged(&to_1_33(""), &with_pool(al2()));
    assert_eq!(
        of(&told, Code::KarpenterSystem),
        [(Severity::Warning, "NodePool default".to_owned())]
    );
    let before = judged(&plan(""), &with_pool(expense_dev()));
    assert_eq!(of(&before, Code::KarpenterSystem), []);
}
