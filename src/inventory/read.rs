//! Reads a whole cluster in one pass, many calls at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};

use super::account_limits::read_limits;
use super::load_balancers::{VpcLoadBalancers, read_load_balancers};
use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi, none_if_gone};
use crate::k8s::KubeApi;
use crate::model::aws_status::ClusterStatus;
use crate::model::image::AmiImage;
use crate::model::inventory::Unread;
use crate::model::kube::Node;
use crate::model::node_pool::{KarpenterObjects, pool_of};
use crate::model::pod_admission::{LimitDefaults, ResourceQuota};
use crate::model::volumes::volume_resource;
use crate::model::{ApiError, Clock, ErrorClass, Inventory, Minor, asg, ec2, eks, node_source};

type Result<T> = std::result::Result<T, ApiError>;

/// Add-ons that run in nearly every cluster whether or not EKS manages them.
const COMMON_ADDONS: &[&str] = &["vpc-cni", "kube-proxy", "coredns", "aws-ebs-csi-driver"];

/// Reads the cluster. Cluster, node groups, nodes, pods and budgets must be readable; any other reading that the caller
/// may not do, or the endpoint does not know, is named in `unread`.
///
/// # Errors
/// The first failure of a reading that must not fail, and any that may pass (throttled, transient, expired).
pub async fn read_inventory(
    aws: &AwsApi,
    kube: &KubeApi,
    cluster: &str,
    to: Option<Minor>,
    clock: &Clock,
) -> Result<Inventory> {
    let notes = UnreadNotes::default();
    let taken_at = clock.now();
    let cluster = aws.describe_cluster(cluster).await?;
    let name = cluster.name.as_str();
    // What nothing can be decided without: a failure here ends the reading. It also says what else there is to ask
    // about.
    let (nodegroups, self_managed, addons, nodes, pods, pdbs, eni_configs) = futures::try_join!(
        read_nodegroups(aws, name),
        notes.or_default(aws.list_self_managed_groups(name)),
        read_addons(aws, name, &notes),
        kube.list_nodes(),
        kube.list_pods(),
        kube.list_pdbs(),
        notes.or_default(kube.list_eni_configs()),
    )?;
    let eni_configs = eni_configs.unwrap_or_default();
    let nodegroups = add_self_managed(nodegroups, &self_managed, &notes);
    kube.members.add_members(self_managed.iter());
    // From here on a refusal is noted and the reading goes on, in four groups side by side.
    let kubernetes = async {
        futures::try_join!(
            notes.or_none(kube.read_server_version()),
            notes.or_default(kube.list_workloads()),
            notes.or_default(kube.list_services()),
            notes.or_default(kube.list_volumes()),
            notes.or_default(kube.list_attachments()),
            notes.or_default(kube.list_target_group_bindings()),
            read_karpenter(kube, &nodes, &notes),
            notes.or_default(kube.list_validating_webhooks()),
            notes.or_default(kube.list_mutating_webhooks()),
            notes.or_default(kube.list_namespace_labels()),
            notes.or_default(kube.read_cni_settings()),
            notes.or_none(kube.accounts_with_role()),
            notes.or_default(kube.volume_limits()),
            Box::pin(read_admission_rules(kube, &notes)),
        )
    };
    // EKS's own view: which versions it offers, what it warns of, and what it is changing now.
    let upkeep = async {
        futures::try_join!(
            notes.or_default(aws.list_cluster_versions()),
            notes.or_default(aws.list_insights(name)),
            notes.or_default(aws.list_fargate_profiles(name)),
            notes.or_none(aws.list_pod_identities(name)),
            read_addon_catalog(aws, &cluster, to, &addons, &notes),
            read_updates_in_progress(aws, &cluster, &notes),
        )
    };
    // In two rounds: instances are named by Auto Scaling groups and nodes.
    let machines = async {
        let groups: Vec<String> = nodegroups
            .iter()
            .flat_map(|g| g.asgs.iter().cloned())
            .collect();
        let asgs = notes.or_default(aws.describe_asgs(&groups)).await?;
        let ids = collect_instance_ids(&asgs, nodes.iter().filter_map(|n| n.instance_id()));
        let (instances, hooks, automation, pools) = futures::try_join!(
            notes.or_default(aws.describe_instances(&ids)),
            read_lifecycle_hooks(aws, &asgs, &notes),
            read_group_automation(aws, &asgs, &notes),
            notes.or_default(aws.describe_warm_pools(&self_managed))
        )?;
        Ok((asgs, instances, hooks, automation, pools))
    };
    // Pods may have subnets of their own (custom networking), which only the VPC CNI's ENIConfigs name.
    let pod_subnets = eni_configs.iter().filter_map(|c| c.subnet.clone());
    let subnets = collect_subnet_ids(&cluster, &nodegroups, pod_subnets);
    let network = async {
        futures::try_join!(
            notes.or_default(aws.describe_subnets(&subnets)),
            read_launch_templates(aws, &nodegroups, &notes),
            read_load_balancers(aws, &cluster, &notes)
        )
    };
    // On the heap: together they are too large for the stack of a thread of their own.
    let (kubernetes, upkeep, machines, network) = futures::try_join!(
        Box::pin(kubernetes),
        Box::pin(upkeep),
        Box::pin(machines),
        Box::pin(network)
    )?;

    let (
        server_version,
        workloads,
        services,
        volumes,
        attachments,
        bindings,
        karpenter,
        validating,
        mutating,
        namespaces,
        cni,
        accounts_with_role,
        volume_limits,
        (priority_classes, resource_quotas, limit_defaults),
    ) = kubernetes;
    let mut nodes = with_volume_limits(nodes, &volume_limits);
    for node in &mut nodes {
        kube.members.name_group(node);
    }
    let (asgs, instances, lifecycle_hooks, group_automation, warm_pools) = machines;
    let (cluster_versions, insights, fargate_profiles, pod_identities, addon_catalog, updates) =
        upkeep;
    let (subnets, launch_templates, balancers) = network;
    let VpcLoadBalancers {
        load_balancers,
        listeners,
        rules,
        target_groups,
        classic_balancers,
        target_health,
    } = balancers;
    // Names such as `$Latest` become numbers now: tomorrow they mean another version.
    let nodegroups = resolve_version_numbers(nodegroups, &launch_templates);
    let launch_templates = unique_versions(launch_templates);
    let types = collect_instance_types(&nodegroups, &instances, &launch_templates);
    let of_templates = launch_templates.iter().filter_map(|t| t.image.clone());
    let named: BTreeSet<String> = of_templates.collect();
    // Asked last, because which images and types are asked about comes from everything before.
    let (images, interface_limits, limits) = futures::try_join!(
        Box::pin(read_images(aws, named, &notes)),
        notes.or_default(aws.read_interface_limits(&types)),
        Box::pin(read_limits(aws, &types, &instances, &notes)),
    )?;
    Ok(Inventory {
        taken_at,
        region: aws.region.clone(),
        cluster,
        updates,
        server_version,
        cluster_versions,
        insights,
        insights_refresh: eks::InsightsRefreshOutcome::NotAsked,
        nodegroups,
        fargate_profiles,
        addons,
        addon_catalog,
        asgs,
        lifecycle_hooks,
        group_automation,
        // Only a plan says that one is to be deleted.
        stacks: BTreeMap::new(),
        warm_pools,
        // Which profiles are asked about, the route says.
        node_access: BTreeMap::new(),
        // What the APIs list in no fixed order is sorted, so that routes and findings do not depend on it.
        instances: sorted_by(instances, |i| i.id.clone()),
        subnets: sorted_by(subnets, |s| s.id.clone()),
        launch_templates,
        load_balancers,
        listeners,
        rules,
        target_groups,
        classic_balancers,
        target_health,
        nodes: sorted_by(nodes, |n| n.name.clone()),
        pods: sorted_by(pods, |p| p.key.clone()),
        pdbs: sorted_by(pdbs, |p| p.key.clone()),
        workloads: sorted_by(workloads, |w| (w.key.clone(), w.kind.clone())),
        services: sorted_by(services, |s| s.key.clone()),
        volumes: sorted_by(volumes, |v| v.name.clone()),
        attachments: sorted_by(attachments, |a| a.name.clone()),
        target_group_bindings: sorted_by(bindings, |b| b.key.clone()),
        karpenter,
        cni,
        eni_configs,
        interface_limits,
        webhooks: validating.into_iter().chain(mutating).collect(),
        namespaces,
        images,
        limits: Some(limits),
        pod_identities,
        accounts_with_role: accounts_with_role.map(|all| sorted_by(all, Clone::clone)),
        priority_classes,
        resource_quotas,
        limit_defaults,
        addon_schemas: BTreeMap::new(),
        optimized_images: BTreeMap::new(),
        unread: notes.into_unread(),
    })
}

/// PriorityClasses, ResourceQuotas and what LimitRanges give; none where they could not be read.
async fn read_admission_rules(
    kube: &KubeApi,
    notes: &UnreadNotes,
) -> Result<(
    Option<Vec<String>>,
    Option<Vec<ResourceQuota>>,
    Option<LimitDefaults>,
)> {
    let (classes, quotas, defaults) = futures::try_join!(
        notes.or_none(kube.list_priority_classes()),
        notes.or_none(kube.list_resource_quotas()),
        notes.or_none(kube.read_limit_defaults()),
    )?;
    Ok((
        classes.map(|all| sorted_by(all, Clone::clone)),
        quotas.map(|all| sorted_by(all, |q| q.key.clone())),
        defaults,
    ))
}

/// Returns the nodes, each offering as many volumes of each driver as its CSINode says.
pub fn with_volume_limits(
    mut nodes: Vec<Node>,
    limits: &BTreeMap<String, BTreeMap<String, i64>>,
) -> Vec<Node> {
    for node in &mut nodes {
        for (driver, limit) in limits.get(&node.name).into_iter().flatten() {
            let resource = volume_resource(driver);
            node.other_allocatable.insert(resource, *limit);
        }
    }
    nodes
}

/// Images by their ids, in order.
pub(super) async fn read_images(
    aws: &AwsApi,
    ids: BTreeSet<String>,
    notes: &UnreadNotes,
) -> Result<Vec<AmiImage>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = ids.into_iter().collect();
    let found = notes.or_default(aws.describe_images(&ids)).await?;
    Ok(sorted_by(found, |i| i.id.clone()))
}

async fn read_nodegroups(aws: &AwsApi, cluster: &str) -> Result<Vec<eks::Nodegroup>> {
    let names = aws.list_nodegroups(cluster).await?;
    let each = names
        .iter()
        .map(|name| none_if_gone(aws.describe_nodegroup(cluster, name)));
    let found: Vec<Option<eks::Nodegroup>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    Ok(sorted_by(found.into_iter().flatten().collect(), |g| {
        g.name.clone()
    }))
}

/// The managed groups and those that nobody manages. Groups are known by name, so one whose name is taken is left out.
fn add_self_managed(
    mut groups: Vec<eks::Nodegroup>,
    found: &[asg::Asg],
    notes: &UnreadNotes,
) -> Vec<eks::Nodegroup> {
    for asg in found {
        // Auto Scaling groups of EKS say so by a tag, which somebody may have removed.
        if groups.iter().any(|g| g.asgs.contains(&asg.name)) {
            continue;
        }
        if groups.iter().any(|g| g.name == asg.name) {
            let why = format!(
                "Auto Scaling group {0} has the name of managed node group {0}; rename one of them to have it judged and moved",
                asg.name
            );
            notes.add_note("autoscaling:DescribeAutoScalingGroups", &why);
            continue;
        }
        groups.push(node_source::to_node_group(asg));
    }
    groups
}

async fn read_addons(aws: &AwsApi, cluster: &str, notes: &UnreadNotes) -> Result<Vec<eks::Addon>> {
    let names = notes.or_default(aws.list_addons(cluster)).await?;
    let each = names
        .iter()
        .map(|name| notes.or_none(none_if_gone(aws.describe_addon(cluster, name))));
    let found: Vec<Option<Option<eks::Addon>>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    Ok(sorted_by(
        found.into_iter().flatten().flatten().collect(),
        |a: &eks::Addon| a.name.clone(),
    ))
}

/// What EKS does to the cluster just now. Nothing is asked of a cluster that stands still: EKS answers ids only, and
/// each has to be described.
async fn read_updates_in_progress(
    aws: &AwsApi,
    cluster: &eks::Cluster,
    notes: &UnreadNotes,
) -> Result<Vec<eks::Update>> {
    if cluster.status != ClusterStatus::Updating {
        return Ok(Vec::new());
    }
    let (name, of) = (cluster.name.as_str(), || eks::UpdateOf::Cluster);
    let ids = notes.or_default(aws.list_updates(name, of())).await?;
    let each = ids
        .iter()
        .map(|id| notes.or_none(aws.describe_update(name, of(), id)));
    let found: Vec<Option<eks::Update>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    // A status that the SDK does not know may be one of an update that goes on.
    let going = |u: &eks::Update| {
        use eks::UpdateStatus::{InProgress, Unknown};
        matches!(u.status, InProgress | Unknown)
    };
    Ok(found.into_iter().flatten().filter(going).collect())
}

/// What is offered on every minor on the way, by add-on and minor.
async fn read_addon_catalog(
    aws: &AwsApi,
    cluster: &eks::Cluster,
    to: Option<Minor>,
    addons: &[eks::Addon],
    notes: &UnreadNotes,
) -> Result<BTreeMap<String, BTreeMap<Minor, Vec<eks::AddonOffer>>>> {
    // The common ones are asked for even where EKS does not manage them, for whoever wants it to.
    let names: BTreeSet<String> = addons
        .iter()
        .map(|a| a.name.clone())
        .chain(COMMON_ADDONS.iter().map(ToString::to_string))
        .collect();
    let names: Vec<String> = names.into_iter().collect();
    let to = to.unwrap_or(cluster.version);
    let (first, last) = (cluster.version.min(to), cluster.version.max(to));
    let mut catalog: BTreeMap<String, BTreeMap<Minor, Vec<eks::AddonOffer>>> = BTreeMap::new();
    for minor in std::iter::successors(Some(first), |m| Some(m.next())).take_while(|m| *m <= last) {
        for (name, offers) in notes
            .or_default(aws.list_addon_offers(minor, &names))
            .await?
        {
            catalog.entry(name).or_default().insert(minor, offers);
        }
    }
    Ok(catalog)
}

/// What Karpenter or EKS Auto Mode has; asked only where a node is of one of them, as all others need no right to it.
async fn read_karpenter(
    kube: &KubeApi,
    nodes: &[Node],
    notes: &UnreadNotes,
) -> Result<Option<KarpenterObjects>> {
    if nodes.iter().all(|n| pool_of(n).is_none()) {
        return Ok(Some(KarpenterObjects::default()));
    }
    let read = notes.or_none(Box::pin(kube.list_karpenter())).await?;
    if read.as_ref().is_some_and(|k| k.classes.is_none()) {
        notes.add_note(
            "list ec2nodeclasses",
            "the caller may not list them, so that it is unknown which images NodePools select",
        );
    }
    Ok(read)
}

/// By Auto Scaling group; one whose hooks could not be read is left out, and one that is gone too.
async fn read_lifecycle_hooks(
    aws: &AwsApi,
    asgs: &BTreeMap<String, asg::Asg>,
    notes: &UnreadNotes,
) -> Result<BTreeMap<String, Vec<asg::LifecycleHook>>> {
    let each = asgs.keys().map(async |name| {
        let hooks = notes.or_none(aws.describe_lifecycle_hooks(name)).await?;
        Ok::<_, ApiError>(hooks.map(|hooks| (name.clone(), hooks)))
    });
    let found: Vec<Option<(String, Vec<asg::LifecycleHook>)>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// By Auto Scaling group; one of which it could not be read is left out.
async fn read_group_automation(
    aws: &AwsApi,
    asgs: &BTreeMap<String, asg::Asg>,
    notes: &UnreadNotes,
) -> Result<BTreeMap<String, asg::GroupAutomation>> {
    let each = asgs.keys().map(async |name| {
        let found = notes.or_none(aws.describe_automation(name)).await?;
        Ok::<_, ApiError>(found.map(|found| (name.clone(), found)))
    });
    let found: Vec<Option<(String, asg::GroupAutomation)>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

async fn read_launch_templates(
    aws: &AwsApi,
    nodegroups: &[eks::Nodegroup],
    notes: &UnreadNotes,
) -> Result<Vec<AskedVersion>> {
    // Several groups may use one version, which is read once.
    let used: BTreeSet<(&str, &str)> = nodegroups
        .iter()
        .filter_map(|g| g.launch_template.as_ref())
        .filter_map(|t| Some((t.id.as_deref()?, asked_version(t))))
        .collect();
    let each = used.into_iter().map(async |(id, version)| {
        let found = match eks::configuration_of_id(id) {
            Some(name) => {
                notes
                    .or_none(aws.describe_launch_configuration(name))
                    .await?
            }
            None => {
                notes
                    .or_none(aws.describe_launch_template_version(id, version))
                    .await?
            }
        };
        // Kept under the name that was asked for: `$Latest` is answered with a number.
        Ok::<_, ApiError>(found.map(|found| (version.to_owned(), found)))
    });
    let found: Vec<Option<AskedVersion>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// A template version by the number or the name (`$Latest`, `$Default`) that was asked for.
type AskedVersion = (String, ec2::LaunchTemplateVersion);

fn asked_version(template: &eks::LaunchTemplateRef) -> &str {
    template.version.as_deref().unwrap_or("$Default")
}

/// The groups with the number of the template version that each uses: a name means another one tomorrow.
fn resolve_version_numbers(
    mut groups: Vec<eks::Nodegroup>,
    found: &[AskedVersion],
) -> Vec<eks::Nodegroup> {
    for template in groups.iter_mut().filter_map(|g| g.launch_template.as_mut()) {
        let number = found.iter().find(|(asked, version)| {
            *asked == asked_version(template) && Some(&version.id) == template.id.as_ref()
        });
        if let Some((_, version)) = number {
            template.version = Some(version.version.to_string());
        }
    }
    groups
}

fn unique_versions(found: Vec<AskedVersion>) -> Vec<ec2::LaunchTemplateVersion> {
    let by_number: BTreeMap<(String, i64), ec2::LaunchTemplateVersion> = found
        .into_iter()
        .map(|(_, version)| ((version.id.clone(), version.version), version))
        .collect();
    by_number.into_values().collect()
}

fn collect_instance_ids<'a>(
    asgs: &BTreeMap<String, asg::Asg>,
    nodes: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let in_groups = asgs
        .values()
        .flat_map(|g| g.instances.iter().map(|i| i.id.clone()));
    let ids: BTreeSet<String> = in_groups.chain(nodes.map(str::to_owned)).collect();
    ids.into_iter().collect()
}

fn collect_subnet_ids(
    cluster: &eks::Cluster,
    nodegroups: &[eks::Nodegroup],
    pod_subnets: impl Iterator<Item = String>,
) -> Vec<String> {
    let ids: BTreeSet<String> = cluster
        .subnet_ids
        .iter()
        .chain(nodegroups.iter().flat_map(|g| &g.subnets))
        .cloned()
        .chain(pod_subnets)
        .collect();
    ids.into_iter().collect()
}

/// Of the instances that are there, and of those the node groups may get.
fn collect_instance_types(
    nodegroups: &[eks::Nodegroup],
    instances: &[ec2::Instance],
    templates: &[ec2::LaunchTemplateVersion],
) -> Vec<String> {
    let there = instances.iter().map(|i| i.instance_type.clone());
    let groups = nodegroups.iter().flat_map(|g| g.instance_types.clone());
    let templates = templates.iter().filter_map(|t| t.instance_type.clone());
    let types: BTreeSet<String> = there.chain(groups).chain(templates).collect();
    types.into_iter().filter(|t| !t.is_empty()).collect()
}

pub(super) fn sorted_by<T, K: Ord>(mut list: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    list.sort_by_key(key);
    list
}

/// Notes what could not be read and lets the reading go on.
#[derive(Default)]
pub(super) struct UnreadNotes(Mutex<Vec<Unread>>);

impl UnreadNotes {
    /// Returns the answer; or `None` and a note, so that the plan says what it does not know, where the caller may not
    /// ask or the endpoint does not know the call. Other errors end the reading, as a later try may succeed.
    pub(super) async fn or_none<T>(
        &self,
        call: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        match call.await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => match error.class {
                ErrorClass::Denied | ErrorClass::Invalid | ErrorClass::Absent => {
                    self.add_note(&error.op, &error.message);
                    Ok(None)
                }
                ErrorClass::Conflict
                | ErrorClass::Throttled
                | ErrorClass::Blocked
                | ErrorClass::Expired
                | ErrorClass::Transient => Err(error),
            },
        }
    }

    /// Returns the answer, or an empty one with a note in the cases in which [`Self::or_none`] returns `None`.
    pub(super) async fn or_default<T: Default>(
        &self,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        Ok(self.or_none(call).await?.unwrap_or_default())
    }

    pub(super) fn add_note(&self, op: &str, why: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Unread {
                op: op.to_owned(),
                why: why.to_owned(),
            });
    }

    /// In order, each once: the calls do not end in the order in which they began.
    pub(super) fn into_unread(self) -> Vec<Unread> {
        let notes = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut notes = sorted_by(notes, |n| (n.op.clone(), n.why.clone()));
        notes.dedup();
        notes
    }
}
