//! Pods that call AWS with the nodes' credentials, and whether containers reach them. The metadata service answers over a
//! number of hops that the launch template sets, and a container is one hop further than its node (EKS-NG-7).

use std::collections::{BTreeMap, BTreeSet};

use super::codes::Code;
use super::input::{BlueGreenPair, ReadinessInput};
use super::{Finding, Severity};
use crate::model::Inventory;
use crate::model::ec2::LaunchTemplateVersion;
use crate::model::image::OsFamily;
use crate::model::kube::{NamespacedName, Pod, Volume};
use crate::plan::Plan;
use crate::route::{self, AcceptedLosses};

/// Whether containers reach the metadata service, and with it the nodes' credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataAccess {
    Open,
    Closed,
    /// It depends on what the image's or EKS's default is.
    Unknown,
}

/// What containers reach on nodes of a family. `has_template`: the group has a launch template of the user's.
pub fn access_of_pods(
    family: Option<OsFamily>,
    template: Option<&LaunchTemplateVersion>,
    has_template: bool,
) -> MetadataAccess {
    let Some(family) = family else {
        return MetadataAccess::Unknown;
    };
    let default = match family {
        OsFamily::AmazonLinux2 | OsFamily::Bottlerocket => MetadataAccess::Open,
        OsFamily::AmazonLinux2023 if !has_template => MetadataAccess::Closed,
        // The image asks for tokens over two hops; EKS's own default for it is one.
        OsFamily::AmazonLinux2023 => match template {
            Some(template) if template.image.is_some() => MetadataAccess::Open,
            Some(_) | None => MetadataAccess::Unknown,
        },
        OsFamily::Windows | OsFamily::Other => MetadataAccess::Unknown,
    };
    // What the template sets counts more than any default.
    let Some(options) = template.map(|t| &t.options) else {
        return if has_template {
            MetadataAccess::Unknown
        } else {
            default
        };
    };
    if options.metadata_endpoint.as_deref() == Some("disabled") {
        return MetadataAccess::Closed;
    }
    match (
        options.metadata_hop_limit,
        options.metadata_tokens.as_deref(),
    ) {
        (Some(hops), _) if hops >= 2 => MetadataAccess::Open,
        // Without tokens the answer is not counted in hops.
        (Some(_), Some("optional")) => MetadataAccess::Open,
        (Some(_), None) if family == OsFamily::AmazonLinux2 => MetadataAccess::Open,
        (Some(_), _) => MetadataAccess::Closed,
        (None, _) => default,
    }
}

/// Software that calls AWS, by a part of its image's name, and what does not work without credentials.
const AWS_CALLERS: &[(&str, &str)] = &[
    (
        "aws-load-balancer-controller",
        "targets and load balancers are not updated",
    ),
    (
        "aws-alb-ingress-controller",
        "targets and load balancers are not updated",
    ),
    ("cluster-autoscaler", "no node is added or removed"),
    (
        "aws-ebs-csi-driver",
        "no volume is attached, and pods with volumes do not start",
    ),
    ("aws-efs-csi-driver", "no volume is created"),
    ("aws-fsx-csi-driver", "no volume is created"),
    ("external-dns", "DNS records are not updated"),
    ("external-secrets", "secrets are not synchronized"),
    ("karpenter", "no node is launched"),
    ("aws-for-fluent-bit", "logs are not sent"),
    ("cloudwatch-agent", "metrics and logs are not sent"),
    ("aws-otel-collector", "metrics and traces are not sent"),
    ("aws-xray-daemon", "traces are not sent"),
    ("velero", "backups are not made"),
    ("yace", "metrics are not read"),
    ("cloudwatch-exporter", "metrics are not read"),
    ("ack-", "the AWS objects that it manages are not updated"),
];

/// The metadata service tells the AWS Load Balancer Controller its VPC and region, unless flags do.
const BALANCER_CONTROLLER: &str = "aws-load-balancer-controller";

fn has_image(pod: &Pod, part: &str) -> bool {
    let images = pod.cloud.images.iter();
    let mut names = images.map(|i| i.rsplit('/').next().unwrap_or(i));
    names.any(|n| n.contains(part))
        || pod
            .cloud
            .images
            .iter()
            .any(|i| i.contains(&format!("/{part}/")))
}

/// Whether a pod has, or will have in its next life, credentials of its own.
fn has_own_role(inventory: &Inventory, pod: &Pod) -> bool {
    let associated = |a: &crate::model::pod_identity::PodIdentityAssociation| {
        a.namespace == pod.key.namespace
            && Some(&a.service_account) == pod.cloud.service_account.as_ref()
    };
    // The add-on's role is put on the service account by EKS.
    let of_addon = |name: &str, account: &str| {
        let mut addons = inventory.addons.iter();
        pod.cloud.service_account.as_deref() == Some(account)
            && addons.any(|a| a.name == name && a.service_account_role_arn.is_some())
    };
    let annotated = |k: &NamespacedName| {
        k.namespace == pod.key.namespace && Some(&k.name) == pod.cloud.service_account.as_ref()
    };
    pod.cloud.own_credentials
        || inventory.accounts_with_role.iter().flatten().any(annotated)
        || inventory.pod_identities.iter().flatten().any(associated)
        || of_addon("aws-ebs-csi-driver", "ebs-csi-controller-sa")
        || of_addon("aws-efs-csi-driver", "efs-csi-controller-sa")
}

/// What fails for a pod where containers reach no metadata service; none where nothing is known to.
fn expected_failure(inventory: &Inventory, pod: &Pod) -> Option<String> {
    // A pod in its node's network is no hop further than the node.
    if pod.host_network {
        return None;
    }
    let own = has_own_role(inventory, pod);
    let given = |word: &str| pod.cloud.given.iter().any(|g| g == word);
    if has_image(pod, BALANCER_CONTROLLER) {
        let vpc = given("--aws-vpc-id") || given("--aws-vpc-tags");
        let region = given("--aws-region") || given("AWS_REGION") || given("AWS_DEFAULT_REGION");
        if own && vpc && region {
            return None;
        }
        if own {
            return Some("it reads its VPC and region from the metadata service, unless `--aws-vpc-id` and `--aws-region` \
                 are set, and does not start without them".to_owned());
        }
    }
    if own {
        return None;
    }
    // The part of the storage drivers that runs on every node only mounts.
    if pod.is_daemon_pod() && has_image(pod, "csi-driver") {
        return None;
    }
    let caller = AWS_CALLERS.iter().find(|(part, _)| has_image(pod, part));
    caller.map(|(_, what)| (*what).to_owned())
}

/// The pods of blue's nodes, DaemonSets' too: they run on green as well.
fn pods_of<'a>(inventory: &'a Inventory, group: &str) -> Vec<&'a Pod> {
    let nodes: BTreeSet<&str> = inventory.nodes_of(group).map(|n| n.name.as_str()).collect();
    let here = |p: &&Pod| p.node.as_deref().is_some_and(|n| nodes.contains(n));
    let pods = inventory.pods.iter().filter(here);
    pods.filter(|p| !p.is_finished() && !p.mirror).collect()
}

/// A pod's workload, as its owner's name tells: a ReplicaSet's last part is a hash.
fn workload_text(pod: &Pod) -> String {
    let Some(owner) = &pod.owner else {
        return format!("pod {}", pod.key);
    };
    let (kind, name) = match (owner.kind.as_str(), owner.name.rsplit_once('-')) {
        ("ReplicaSet", Some((name, _))) => ("Deployment", name),
        (kind, _) => (kind, owner.name.as_str()),
    };
    format!("{kind} {}/{name}", pod.key.namespace)
}

/// Workloads of blue's nodes that have no role of their own and are not known to call AWS.
pub fn without_own_role(case: &ReadinessInput<'_>, change: &BlueGreenPair<'_>) -> Vec<String> {
    let inventory = case.inventory;
    let pods = pods_of(inventory, &change.blue.name).into_iter();
    let silent = pods.filter(|p| {
        !p.host_network
            && p.key.namespace != "kube-system"
            && !has_own_role(inventory, p)
            && expected_failure(inventory, p).is_none()
    });
    let names: BTreeSet<String> = silent.map(workload_text).collect();
    names.into_iter().collect()
}

/// Names the pods that lose the nodes' credentials.
pub fn check_metadata_access(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    (family, access): (Option<OsFamily>, MetadataAccess),
    consent: bool,
    out: &mut Vec<Finding>,
) {
    let inventory = case.inventory;
    // By workload: what will not work, and whether the upgrade itself depends on it.
    let mut failing: BTreeMap<String, String> = BTreeMap::new();
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for pod in pods_of(inventory, &change.blue.name) {
        if let Some(what) = expected_failure(inventory, pod) {
            let name = workload_text(pod);
            if is_needed(inventory, pod) {
                needed.insert(name.clone());
            }
            failing.insert(name, what);
        }
    }
    if failing.is_empty() {
        return;
    }
    // Told once for the group, with all its workloads, because one fix serves all of them.
    let list: Vec<String> = failing
        .iter()
        .map(|(name, what)| format!("{name} ({what})"))
        .collect();
    // Why containers do not reach the service, or may not.
    let system = family.map_or("its image", OsFamily::display_name);
    let why = match access {
        MetadataAccess::Unknown if family.is_none() => {
            "it is unknown whether containers reach the metadata service with green's image"
                .to_owned()
        }
        MetadataAccess::Unknown => format!(
            "the launch template sets no hop limit for the metadata service, and with {system} containers may not reach it"
        ),
        MetadataAccess::Open | MetadataAccess::Closed => format!(
            "with {system} the metadata service answers over one hop, and a container is two hops away"
        ),
    };
    let mut detail = format!(
        "{why}. These workloads have no role of their own: {}",
        list.join(", ")
    );
    // What the plan's consent is worth here: nothing where the drain would hang, or on a guess.
    if consent && !needed.is_empty() {
        let needed: Vec<String> = needed.iter().cloned().collect();
        detail += &format!(
            ". Setting `amiType` is not enough: the upgrade itself needs {}",
            needed.join(", ")
        );
    } else if consent && !knows_roles(inventory) {
        detail +=
            ". Setting `amiType` is not enough: it is unknown which pods have a role of their own";
    } else if consent {
        detail += ". The plan's `amiType` accepts this: the run does not wait until they are Ready on green";
    }
    let finding = Finding::new(
        Code::MetadataLost,
        change.blue_words(),
        detail,
        "give their service accounts a role (EKS Pod Identity, or IAM roles for service accounts), or give the group a \
         launch template with a hop limit of 2 (`HttpPutResponseHopLimit`); if neither is needed, set `amiType` for the \
         group",
    );
    // Only a warning where the plan's consent covers it: no pod that the upgrade needs, and no guess about roles.
    out.push(if consent && needed.is_empty() && knows_roles(inventory) {
        finding.with_severity(Severity::Warning)
    } else {
        finding
    });
}

/// Whether the drain itself needs what the pod does: volumes of the pods that move are attached again, nodes of green are
/// registered in the target groups that blue's leave.
fn is_needed(inventory: &Inventory, pod: &Pod) -> bool {
    let disks = |v: &Volume| {
        let driver = v.driver.as_deref();
        driver.is_some_and(|d| {
            d == "ebs.csi.aws.com" || d.contains("aws-ebs") || d == "awsElasticBlockStore"
        })
    };
    if has_image(pod, "aws-ebs-csi-driver") {
        let used = |v: &Volume| {
            let claims = |p: &Pod, key: &NamespacedName| {
                p.key.namespace == key.namespace && p.claims.contains(&key.name) && !p.is_finished()
            };
            let claim = v.claim.as_ref();
            claim.is_some_and(|key| inventory.pods.iter().any(|p| claims(p, key)))
        };
        return inventory.volumes.iter().any(|v| disks(v) && used(v));
    }
    has_image(pod, BALANCER_CONTROLLER) && !inventory.target_group_bindings.is_empty()
}

/// Whether it was read which pods have a role of their own.
fn knows_roles(inventory: &Inventory) -> bool {
    inventory.accounts_with_role.is_some() && inventory.pod_identities.is_some()
}

/// Returns the workloads that lose the nodes' credentials and that the plan's `amiType` gives up. None where it is not
/// known which pods have a role of their own: the run waits for all of them then.
pub fn accepted_losses(plan: &Plan, inventory: &Inventory) -> AcceptedLosses {
    let mut losses = AcceptedLosses::new();
    if !knows_roles(inventory) {
        return losses;
    }
    for group in plan.node_groups.iter().filter(|g| g.ami_type.is_some()) {
        let Some(blue) = inventory.find_nodegroup(&group.blue) else {
            continue;
        };
        // Only where access is lost by the move.
        let has_template = blue.launch_template.is_some();
        let before = access_of_pods(
            route::blue_os_family(inventory, blue),
            route::launch_template_of(inventory, blue),
            has_template,
        );
        let after = access_of_pods(
            route::green_os_family(inventory, blue, group, group.ami_type.as_deref()),
            route::launch_template_of_green(inventory, blue, group),
            has_template,
        );
        if before != MetadataAccess::Open || after == MetadataAccess::Open {
            continue;
        }
        // What the drain itself needs is never given up.
        for pod in pods_of(inventory, &blue.name) {
            if expected_failure(inventory, pod).is_some() && !is_needed(inventory, pod) {
                let groups = losses.entry(workload_text(pod)).or_default();
                groups.insert(blue.name.clone());
            }
        }
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ec2::LaunchOptions;

    fn template(
        image: Option<&str>,
        hops: Option<i32>,
        tokens: Option<&str>,
    ) -> LaunchTemplateVersion {
        LaunchTemplateVersion {
            id: "lt-1".to_owned(),
            name: None,
            version: 1,
            description: None,
            image: image.map(str::to_owned),
            instance_type: None,
            user_data: None,
            options: LaunchOptions {
                metadata_hop_limit: hops,
                metadata_tokens: tokens.map(str::to_owned),
                ..LaunchOptions::default()
            },
        }
    }

    #[test]
    fn a_container_reaches_the_metadata_service_as_template_and_image_say() {
        use OsFamily::{AmazonLinux2, AmazonLinux2023, Bottlerocket};
        for (family, made, wanted) in [
            (AmazonLinux2, None, MetadataAccess::Open),
            (AmazonLinux2023, None, MetadataAccess::Closed),
            (Bottlerocket, None, MetadataAccess::Open),
            (
                AmazonLinux2,
                Some(template(None, Some(1), Some("required"))),
                MetadataAccess::Closed,
            ),
            (
                AmazonLinux2,
                Some(template(None, Some(1), None)),
                MetadataAccess::Open,
            ),
            (
                AmazonLinux2023,
                Some(template(None, Some(1), None)),
                MetadataAccess::Closed,
            ),
            (
                AmazonLinux2023,
                Some(template(None, Some(1), Some("optional"))),
                MetadataAccess::Open,
            ),
            (
                AmazonLinux2023,
                Some(template(None, Some(2), None)),
                MetadataAccess::Open,
            ),
            (
                AmazonLinux2023,
                Some(template(None, None, None)),
                MetadataAccess::Unknown,
            ),
            (
                AmazonLinux2023,
                Some(template(Some("ami-1"), None, None)),
                MetadataAccess::Open,
            ),
        ] {
            let access = access_of_pods(Some(family), made.as_ref(), made.is_some());
            assert_eq!(access, wanted, "{family:?} {made:?}");
        }
        let mut off = template(None, Some(2), None);
        off.options.metadata_endpoint = Some("disabled".to_owned());
        assert_eq!(
            access_of_pods(Some(AmazonLinux2), Some(&off), true),
            MetadataAccess::Closed
        );
        // A template that could not be read may say anything.
        assert_eq!(
            access_of_pods(Some(AmazonLinux2023), None, true),
            MetadataAccess::Unknown
        );
        assert_eq!(access_of_pods(None, None, false), MetadataAccess::Unknown);
    }
}
