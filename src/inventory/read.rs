//! Reads a whole cluster in one pass, many calls at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};

use super::balancers::{Balancers, balancers};
use super::limits::limits;
use crate::aws::{AT_ONCE, Aws, unless_gone};
use crate::k8s::Kube;
use crate::model::image::Image;
use crate::model::inventory::Unread;
use crate::model::kube::Node;
use crate::model::volumes::volume_resource;
use crate::model::{ApiError, Class, Clock, Inventory, Minor, asg, ec2, eks};

type Result<T> = std::result::Result<T, ApiError>;

/// Add-ons that run in nearly every cluster whether or not EKS manages them.
const EVERYWHERE: &[&str] = &["vpc-cni", "kube-proxy", "coredns", "aws-ebs-csi-driver"];

/// Reads the cluster. Cluster, node groups, nodes, pods and budgets must be readable; any other reading that the caller
/// may not do, or the endpoint does not know, is named in `unread`.
///
/// # Errors
/// The first failure of a reading that must not fail, and any that may pass (throttled, transient, expired).
pub async fn read(
    aws: &Aws,
    kube: &Kube,
    cluster: &str,
    to: Option<Minor>,
    clock: &Clock,
) -> Result<Inventory> {
    let notes = Notes::default();
    let taken_at = clock.now();
    let cluster = aws.describe_cluster(cluster).await?;
    let name = cluster.name.as_str();
    let (nodegroups, addons, nodes, pods, pdbs, eni_configs) = futures::try_join!(
        nodegroups(aws, name),
        addons(aws, name, &notes),
        kube.nodes(),
        kube.pods(),
        kube.pdbs(),
        notes.or_default(kube.eni_configs()),
    )?;
    let eni_configs = eni_configs.unwrap_or_default();
    let kubernetes = async {
        futures::try_join!(
            notes.or_none(kube.server_version()),
            notes.or_default(kube.workloads()),
            notes.or_default(kube.services()),
            notes.or_default(kube.volumes()),
            notes.or_default(kube.attachments()),
            notes.or_default(kube.target_group_bindings()),
            notes.or_default(kube.validating_webhooks()),
            notes.or_default(kube.mutating_webhooks()),
            notes.or_default(kube.namespaces()),
            notes.or_default(kube.cni_settings()),
            notes.or_none(kube.accounts_with_role()),
            notes.or_default(kube.volume_limits()),
        )
    };
    let upkeep = async {
        futures::try_join!(
            notes.or_default(aws.cluster_versions()),
            notes.or_default(aws.insights(name)),
            notes.or_default(aws.list_fargate_profiles(name)),
            notes.or_none(aws.pod_identities(name)),
            catalog(aws, &cluster, to, &addons, &notes),
            updates_in_progress(aws, &cluster, &notes),
        )
    };
    let machines = async {
        let groups: Vec<String> = nodegroups
            .iter()
            .flat_map(|g| g.asgs.iter().cloned())
            .collect();
        let asgs = notes.or_default(aws.asgs(&groups)).await?;
        let ids = instance_ids(&asgs, nodes.iter().filter_map(|n| n.instance_id()));
        let (instances, hooks) = futures::try_join!(
            notes.or_default(aws.instances(&ids)),
            lifecycle_hooks(aws, &asgs, &notes)
        )?;
        Ok((asgs, instances, hooks))
    };
    let pod_subnets = eni_configs.iter().filter_map(|c| c.subnet.clone());
    let subnets = subnet_ids(&cluster, &nodegroups, pod_subnets);
    let network = async {
        futures::try_join!(
            notes.or_default(aws.subnets(&subnets)),
            launch_templates(aws, &nodegroups, &notes),
            balancers(aws, &cluster, &notes)
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
        validating,
        mutating,
        namespaces,
        cni,
        accounts_with_role,
        volume_limits,
    ) = kubernetes;
    let nodes = with_volume_limits(nodes, &volume_limits);
    let (asgs, instances, lifecycle_hooks) = machines;
    let (cluster_versions, insights, fargate_profiles, pod_identities, addon_catalog, updates) =
        upkeep;
    let (subnets, launch_templates, balancers) = network;
    let Balancers {
        load_balancers,
        listeners,
        rules,
        target_groups,
        classic_balancers,
        target_health,
    } = balancers;
    let nodegroups = with_numbers(nodegroups, &launch_templates);
    let launch_templates = each_once(launch_templates);
    let types = instance_types(&nodegroups, &instances, &launch_templates);
    let of_templates = launch_templates.iter().filter_map(|t| t.image.clone());
    let named: BTreeSet<String> = of_templates.collect();
    let (images, interface_limits, limits) = futures::try_join!(
        Box::pin(images(aws, named, &notes)),
        notes.or_default(aws.interface_limits(&types)),
        Box::pin(limits(aws, &types, &instances, &notes)),
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
        instances: sorted(instances, |i| i.id.clone()),
        subnets: sorted(subnets, |s| s.id.clone()),
        launch_templates,
        load_balancers,
        listeners,
        rules,
        target_groups,
        classic_balancers,
        target_health,
        nodes: sorted(nodes, |n| n.name.clone()),
        pods: sorted(pods, |p| p.key.clone()),
        pdbs: sorted(pdbs, |p| p.key.clone()),
        workloads: sorted(workloads, |w| (w.key.clone(), w.kind.clone())),
        services: sorted(services, |s| s.key.clone()),
        volumes: sorted(volumes, |v| v.name.clone()),
        attachments: sorted(attachments, |a| a.name.clone()),
        target_group_bindings: sorted(bindings, |b| b.key.clone()),
        cni,
        eni_configs,
        interface_limits,
        webhooks: validating.into_iter().chain(mutating).collect(),
        namespaces,
        images,
        limits: Some(limits),
        pod_identities,
        accounts_with_role: accounts_with_role.map(|all| sorted(all, Clone::clone)),
        addon_schemas: BTreeMap::new(),
        unread: notes.into_unread(),
    })
}

/// Nodes that offer as many volumes of each driver as their CSINode says.
fn with_volume_limits(
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
pub(super) async fn images(aws: &Aws, ids: BTreeSet<String>, notes: &Notes) -> Result<Vec<Image>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = ids.into_iter().collect();
    let found = notes.or_default(aws.images(&ids)).await?;
    Ok(sorted(found, |i| i.id.clone()))
}

async fn nodegroups(aws: &Aws, cluster: &str) -> Result<Vec<eks::Nodegroup>> {
    let names = aws.list_nodegroups(cluster).await?;
    let each = names
        .iter()
        .map(|name| unless_gone(aws.describe_nodegroup(cluster, name)));
    let found: Vec<Option<eks::Nodegroup>> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    Ok(sorted(found.into_iter().flatten().collect(), |g| {
        g.name.clone()
    }))
}

async fn addons(aws: &Aws, cluster: &str, notes: &Notes) -> Result<Vec<eks::Addon>> {
    let names = notes.or_default(aws.list_addons(cluster)).await?;
    let each = names
        .iter()
        .map(|name| notes.or_none(unless_gone(aws.describe_addon(cluster, name))));
    let found: Vec<Option<Option<eks::Addon>>> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    Ok(sorted(
        found.into_iter().flatten().flatten().collect(),
        |a: &eks::Addon| a.name.clone(),
    ))
}

/// What EKS does to the cluster just now. Nothing is asked of a cluster that stands still: EKS answers ids only, and
/// each has to be described.
async fn updates_in_progress(
    aws: &Aws,
    cluster: &eks::Cluster,
    notes: &Notes,
) -> Result<Vec<eks::Update>> {
    if cluster.status != "UPDATING" {
        return Ok(Vec::new());
    }
    let (name, of) = (cluster.name.as_str(), || eks::UpdateOf::Cluster);
    let ids = notes.or_default(aws.list_updates(name, of())).await?;
    let each = ids
        .iter()
        .map(|id| notes.or_none(aws.describe_update(name, of(), id)));
    let found: Vec<Option<eks::Update>> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    let going = |u: &eks::Update| {
        use eks::UpdateStatus::{InProgress, Unknown};
        matches!(u.status, InProgress | Unknown)
    };
    Ok(found.into_iter().flatten().filter(going).collect())
}

/// What is offered on every minor on the way, by add-on and minor.
async fn catalog(
    aws: &Aws,
    cluster: &eks::Cluster,
    to: Option<Minor>,
    addons: &[eks::Addon],
    notes: &Notes,
) -> Result<BTreeMap<String, BTreeMap<Minor, Vec<eks::AddonOffer>>>> {
    let names: BTreeSet<String> = addons
        .iter()
        .map(|a| a.name.clone())
        .chain(EVERYWHERE.iter().map(ToString::to_string))
        .collect();
    let names: Vec<String> = names.into_iter().collect();
    let to = to.unwrap_or(cluster.version);
    let (first, last) = (cluster.version.min(to), cluster.version.max(to));
    let mut catalog: BTreeMap<String, BTreeMap<Minor, Vec<eks::AddonOffer>>> = BTreeMap::new();
    for minor in std::iter::successors(Some(first), |m| Some(m.next())).take_while(|m| *m <= last) {
        for (name, offers) in notes.or_default(aws.addon_offers(minor, &names)).await? {
            catalog.entry(name).or_default().insert(minor, offers);
        }
    }
    Ok(catalog)
}

/// By Auto Scaling group; one whose hooks could not be read is left out, and one that is gone too.
async fn lifecycle_hooks(
    aws: &Aws,
    asgs: &BTreeMap<String, asg::Asg>,
    notes: &Notes,
) -> Result<BTreeMap<String, Vec<asg::LifecycleHook>>> {
    let each = asgs.keys().map(async |name| {
        let hooks = notes.or_none(aws.lifecycle_hooks(name)).await?;
        Ok::<_, ApiError>(hooks.map(|hooks| (name.clone(), hooks)))
    });
    let found: Vec<Option<(String, Vec<asg::LifecycleHook>)>> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn launch_templates(
    aws: &Aws,
    nodegroups: &[eks::Nodegroup],
    notes: &Notes,
) -> Result<Vec<AskedVersion>> {
    let used: BTreeSet<(&str, &str)> = nodegroups
        .iter()
        .filter_map(|g| g.launch_template.as_ref())
        .filter_map(|t| Some((t.id.as_deref()?, asked_version(t))))
        .collect();
    let each = used.into_iter().map(async |(id, version)| {
        let found = notes
            .or_none(aws.launch_template_version(id, version))
            .await?;
        Ok::<_, ApiError>(found.map(|found| (version.to_owned(), found)))
    });
    let found: Vec<Option<AskedVersion>> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// A template version by the number or the name (`$Latest`, `$Default`) that was asked for.
type AskedVersion = (String, ec2::LaunchTemplateVersion);

fn asked_version(template: &eks::LaunchTemplateRef) -> &str {
    template.version.as_deref().unwrap_or("$Default")
}

/// The groups with the number of the template version that each uses: a name means another one tomorrow.
fn with_numbers(mut groups: Vec<eks::Nodegroup>, found: &[AskedVersion]) -> Vec<eks::Nodegroup> {
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

fn each_once(found: Vec<AskedVersion>) -> Vec<ec2::LaunchTemplateVersion> {
    let by_number: BTreeMap<(String, i64), ec2::LaunchTemplateVersion> = found
        .into_iter()
        .map(|(_, version)| ((version.id.clone(), version.version), version))
        .collect();
    by_number.into_values().collect()
}

fn instance_ids<'a>(
    asgs: &BTreeMap<String, asg::Asg>,
    nodes: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let in_groups = asgs
        .values()
        .flat_map(|g| g.instances.iter().map(|i| i.id.clone()));
    let ids: BTreeSet<String> = in_groups.chain(nodes.map(str::to_owned)).collect();
    ids.into_iter().collect()
}

fn subnet_ids(
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
fn instance_types(
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

pub(super) fn sorted<T, K: Ord>(mut list: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    list.sort_by_key(key);
    list
}

/// Notes what could not be read and lets the reading go on.
#[derive(Default)]
pub(super) struct Notes(Mutex<Vec<Unread>>);

impl Notes {
    /// The answer, or nothing and a note where the caller may not ask or the endpoint does not know.
    pub(super) async fn or_none<T>(
        &self,
        call: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        match call.await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => match error.class {
                Class::Denied | Class::Invalid | Class::Absent => {
                    self.note(&error.op, &error.message);
                    Ok(None)
                }
                Class::Conflict
                | Class::Throttled
                | Class::Blocked
                | Class::Expired
                | Class::Transient => Err(error),
            },
        }
    }

    /// The same, with what is empty in place of nothing.
    pub(super) async fn or_default<T: Default>(
        &self,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        Ok(self.or_none(call).await?.unwrap_or_default())
    }

    pub(super) fn note(&self, op: &str, why: &str) {
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
        let mut notes = sorted(notes, |n| (n.op.clone(), n.why.clone()));
        notes.dedup();
        notes
    }
}
