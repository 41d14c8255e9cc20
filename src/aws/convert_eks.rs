//! EKS's types to the model's and back.

use std::collections::BTreeMap;

use aws_sdk_eks::types;
use jiff::Timestamp;

use crate::model::eks::{
    Addon, AddonOffer, Cluster, ClusterVersion, HealthIssue, Insight, LaunchTemplateRef,
    NodeRepairConfig, NodeRepairOverride, Nodegroup, NodegroupTaint, RemoteAccess, Scaling, Update,
    UpdateConfig, UpdateStatus, WarmPoolConfig,
};
use crate::model::node_source::NodeSource;
use crate::model::{AddonVersion, ApiError, ErrorClass, Minor};

type Result<T> = std::result::Result<T, ApiError>;

/// AWS's time as ours. It comes as a decimal of seconds, whose last digits are the decimal's, not the clock's.
pub fn to_timestamp(at: Option<aws_smithy_types::DateTime>) -> Option<Timestamp> {
    let at = at?;
    Timestamp::new(at.secs(), at.subsec_nanos().cast_signed())
        .ok()?
        .round(jiff::Unit::Microsecond)
        .ok()
}

fn missing_field(op: &str, what: &str) -> ApiError {
    ApiError::new(
        op,
        ErrorClass::Transient,
        format!("the answer has no {what}"),
    )
}

fn parse_minor(op: &str, text: &str) -> Result<Minor> {
    text.parse().map_err(|e| {
        ApiError::new(
            op,
            ErrorClass::Invalid,
            format!("the answer's version cannot be read: {e}"),
        )
    })
}

fn to_health_issue(
    code: Option<&str>,
    message: Option<String>,
    resource_ids: Option<Vec<String>>,
) -> HealthIssue {
    HealthIssue {
        code: code.unwrap_or_default().to_owned(),
        message: message.unwrap_or_default(),
        resource_ids: resource_ids.unwrap_or_default(),
    }
}

fn to_sorted_map(
    map: Option<std::collections::HashMap<String, String>>,
) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

pub fn to_cluster(c: types::Cluster) -> Result<Cluster> {
    let op = "eks:DescribeCluster";
    let vpc = c.resources_vpc_config;
    let issues = c.health.and_then(|h| h.issues).unwrap_or_default();
    // Without a name, an ARN or a version nothing can be decided, and the reading fails. The other fields may be
    // absent: clusters that are being created have no endpoint, and older answers lack whole settings.
    Ok(Cluster {
        name: c.name.ok_or_else(|| missing_field(op, "cluster name"))?,
        arn: c.arn.ok_or_else(|| missing_field(op, "cluster ARN"))?,
        version: parse_minor(op, &c.version.ok_or_else(|| missing_field(op, "version"))?)?,
        status: c.status.map(|s| s.as_str().into()).unwrap_or_default(),
        endpoint: c.endpoint,
        certificate_authority: c.certificate_authority.and_then(|ca| ca.data),
        platform_version: c.platform_version,
        role_arn: c.role_arn,
        vpc_id: vpc.as_ref().and_then(|v| v.vpc_id.clone()),
        subnet_ids: vpc
            .as_ref()
            .and_then(|v| v.subnet_ids.clone())
            .unwrap_or_default(),
        security_group_ids: vpc
            .as_ref()
            .and_then(|v| v.security_group_ids.clone())
            .unwrap_or_default(),
        cluster_security_group_id: vpc.and_then(|v| v.cluster_security_group_id),
        // Both are fixed when a cluster is created.
        ip_family: c
            .kubernetes_network_config
            .as_ref()
            .and_then(|n| n.ip_family.as_ref())
            .map(|f| f.as_str().to_owned()),
        service_ipv4_cidr: c
            .kubernetes_network_config
            .and_then(|n| n.service_ipv4_cidr),
        support_type: c
            .upgrade_policy
            .and_then(|p| p.support_type)
            .map(|t| t.as_str().to_owned()),
        authentication_mode: c
            .access_config
            .and_then(|a| a.authentication_mode)
            .map(|m| m.as_str().to_owned()),
        // A cluster that never had Auto Mode may lack the whole field: it is off then.
        auto_mode: c.compute_config.and_then(|c| c.enabled).unwrap_or(false),
        health: issues
            .into_iter()
            .map(|i| {
                to_health_issue(
                    i.code.as_ref().map(|c| c.as_str()),
                    i.message,
                    i.resource_ids,
                )
            })
            .collect(),
        tags: to_sorted_map(c.tags),
        created_at: to_timestamp(c.created_at),
    })
}

pub fn to_update(op: &str, u: types::Update) -> Result<Update> {
    // A status that this program does not know is `Unknown`, which counts as in progress: it is neither a success nor a
    // failure, and nothing is begun beside it.
    let status = match u.status {
        Some(types::UpdateStatus::InProgress) => UpdateStatus::InProgress,
        Some(types::UpdateStatus::Failed) => UpdateStatus::Failed,
        Some(types::UpdateStatus::Cancelled) => UpdateStatus::Cancelled,
        Some(types::UpdateStatus::Successful) => UpdateStatus::Successful,
        _ => UpdateStatus::Unknown,
    };
    let params = u.params.unwrap_or_default().into_iter();
    Ok(Update {
        id: u.id.ok_or_else(|| missing_field(op, "update id"))?,
        status,
        kind: u.r#type.map(|t| t.as_str().to_owned()).unwrap_or_default(),
        params: params
            .filter_map(|p| Some((p.r#type?.as_str().to_owned(), p.value.unwrap_or_default())))
            .collect(),
        created_at: to_timestamp(u.created_at),
        errors: u
            .errors
            .unwrap_or_default()
            .into_iter()
            .map(|e| {
                to_health_issue(
                    e.error_code.as_ref().map(|c| c.as_str()),
                    e.error_message,
                    e.resource_ids,
                )
            })
            .collect(),
    })
}

pub fn to_cluster_version(v: types::ClusterVersionInformation) -> Option<ClusterVersion> {
    // The older field spells it in lower case with hyphens; emulators may send only that one.
    let status = v.version_status.map(|s| s.as_str().to_owned()).or_else(|| {
        v.status
            .map(|s| s.as_str().to_uppercase().replace('-', "_"))
    });
    Some(ClusterVersion {
        version: v.cluster_version?.parse().ok()?,
        status: status.unwrap_or_default().into(),
        default: v.default_version,
        patch: v.kubernetes_patch_version,
        end_of_standard_support: to_timestamp(v.end_of_standard_support_date),
        end_of_extended_support: to_timestamp(v.end_of_extended_support_date),
    })
}

pub fn to_insight(s: types::InsightSummary) -> Insight {
    let status = s.insight_status;
    Insight {
        id: s.id.unwrap_or_default(),
        name: s.name.unwrap_or_default(),
        category: s
            .category
            .map(|c| c.as_str().to_owned())
            .unwrap_or_default(),
        kubernetes_version: s.kubernetes_version.and_then(|v| v.parse().ok()),
        status: status
            .as_ref()
            .and_then(|s| s.status.as_ref())
            .map_or(crate::model::aws_status::InsightStatus::Unknown, |s| {
                s.as_str().into()
            }),
        reason: status.and_then(|s| s.reason).unwrap_or_default(),
        description: s.description.unwrap_or_default(),
        last_refresh: to_timestamp(s.last_refresh_time),
        recommendation: None,
        resources: Vec::new(),
    }
}

/// What an insight names: resources with their own status, deprecated APIs with who still calls them, add-ons.
pub fn list_insight_resources(insight: &types::Insight) -> Vec<String> {
    // Three kinds of insights name their objects in three places.
    let resources = insight.resources().iter().filter_map(|r| {
        let name = r.kubernetes_resource_uri().or(r.arn())?;
        let status = r
            .insight_status()
            .and_then(|s| s.status())
            .map_or("UNKNOWN", |s| s.as_str());
        Some(format!("{name} ({status})"))
    });
    let summary = insight.category_specific_summary();
    // Of a deprecated API the caller counts most: it is who has to change.
    let apis = summary
        .map(|s| s.deprecation_details())
        .unwrap_or_default()
        .iter()
        .filter_map(|d| {
            let agents: Vec<&str> = d
                .client_stats()
                .iter()
                .filter_map(|c| c.user_agent())
                .collect();
            let mut text = d.usage()?.to_owned();
            if let Some(version) = d.stop_serving_version() {
                text.push_str(&format!(", not served from {version}"));
            }
            if let Some(instead) = d.replaced_with() {
                text.push_str(&format!(", use {instead}"));
            }
            if !agents.is_empty() {
                text.push_str(&format!(", called by {}", agents.join(", ")));
            }
            Some(text)
        });
    // An add-on without compatible versions is named alone.
    let addons = summary
        .map(|s| s.addon_compatibility_details())
        .unwrap_or_default()
        .iter()
        .filter_map(|a| {
            let versions = a.compatible_versions();
            let name = a.name()?;
            Some(if versions.is_empty() {
                name.to_owned()
            } else {
                format!("{name}: compatible versions {}", versions.join(", "))
            })
        });
    resources.chain(apis).chain(addons).collect()
}

pub fn to_nodegroup(op: &str, g: types::Nodegroup) -> Result<Nodegroup> {
    // A size that is not told is not 0: at 0 a group counts as done with.
    let scaling = (g.scaling_config).ok_or_else(|| missing_field(op, "scaling configuration"))?;
    let size = |size: Option<i32>| size.ok_or_else(|| missing_field(op, "size"));
    // Absent while EKS creates the group. A group without its Auto Scaling group is read all the same.
    let asgs = g
        .resources
        .and_then(|r| r.auto_scaling_groups)
        .unwrap_or_default();
    let issues = g.health.and_then(|h| h.issues).unwrap_or_default();
    // A field that EKS leaves out stays absent, because green is made from this: a default written here would become an
    // explicit setting of the new group.
    Ok(Nodegroup {
        name: g
            .nodegroup_name
            .ok_or_else(|| missing_field(op, "node group name"))?,
        arn: g.nodegroup_arn.unwrap_or_default(),
        source: NodeSource::ManagedGroup,
        version: g.version.as_deref().and_then(|v| v.parse().ok()),
        release_version: g.release_version,
        status: g.status.map(|s| s.as_str().into()).unwrap_or_default(),
        capacity_type: g.capacity_type.map(|t| t.as_str().to_owned()),
        scaling: Scaling {
            min: size(scaling.min_size)?,
            max: size(scaling.max_size)?,
            desired: size(scaling.desired_size)?,
        },
        // Empty where the launch template has the type (EKS-NG-4).
        instance_types: g.instance_types.unwrap_or_default(),
        subnets: g.subnets.unwrap_or_default(),
        remote_access: g.remote_access.map(|r| RemoteAccess {
            ec2_ssh_key: r.ec2_ssh_key,
            source_security_groups: r.source_security_groups.unwrap_or_default(),
        }),
        ami_type: g.ami_type.map(|t| t.as_str().to_owned()),
        node_role: g.node_role,
        labels: to_sorted_map(g.labels),
        taints: g
            .taints
            .unwrap_or_default()
            .into_iter()
            .map(to_taint)
            .collect(),
        asgs: asgs.into_iter().filter_map(|a| a.name).collect(),
        disk_size: g.disk_size,
        health: issues
            .into_iter()
            .map(|i| {
                to_health_issue(
                    i.code.as_ref().map(|c| c.as_str()),
                    i.message,
                    i.resource_ids,
                )
            })
            .collect(),
        update_config: g.update_config.map(|c| UpdateConfig {
            max_unavailable: c.max_unavailable,
            max_unavailable_percentage: c.max_unavailable_percentage,
            update_strategy: c.update_strategy.map(|s| s.as_str().to_owned()),
        }),
        node_repair_config: g.node_repair_config.map(to_node_repair_config),
        warm_pool_config: g.warm_pool_config.map(|w| WarmPoolConfig {
            enabled: w.enabled.unwrap_or(false),
            min_size: w.min_size,
            max_group_prepared_capacity: w.max_group_prepared_capacity,
            pool_state: w.pool_state.map(|s| s.as_str().to_owned()),
            reuse_on_scale_in: w.reuse_on_scale_in,
        }),
        // EKS answers id and name, and takes only one of them; green's input chooses.
        launch_template: g.launch_template.map(|t| LaunchTemplateRef {
            id: t.id,
            name: t.name,
            version: t.version,
        }),
        tags: to_sorted_map(g.tags),
        created_at: to_timestamp(g.created_at),
        modified_at: to_timestamp(g.modified_at),
    })
}

fn to_taint(t: types::Taint) -> NodegroupTaint {
    NodegroupTaint {
        key: t.key.unwrap_or_default(),
        value: t.value,
        effect: t.effect.map(|e| e.as_str().to_owned()).unwrap_or_default(),
    }
}

fn to_node_repair_config(c: types::NodeRepairConfig) -> NodeRepairConfig {
    let overrides = c.node_repair_config_overrides.unwrap_or_default();
    NodeRepairConfig {
        enabled: c.enabled.unwrap_or(false),
        max_unhealthy_node_threshold_count: c.max_unhealthy_node_threshold_count,
        max_unhealthy_node_threshold_percentage: c.max_unhealthy_node_threshold_percentage,
        max_parallel_nodes_repaired_count: c.max_parallel_nodes_repaired_count,
        max_parallel_nodes_repaired_percentage: c.max_parallel_nodes_repaired_percentage,
        overrides: overrides
            .into_iter()
            .map(|o| NodeRepairOverride {
                node_monitoring_condition: o.node_monitoring_condition,
                node_unhealthy_reason: o.node_unhealthy_reason,
                min_repair_wait_time_mins: o.min_repair_wait_time_mins,
                repair_action: o.repair_action.map(|a| a.as_str().to_owned()),
            })
            .collect(),
    }
}

pub fn to_addon(op: &str, a: types::Addon) -> Result<Addon> {
    let issues = a.health.and_then(|h| h.issues).unwrap_or_default();
    Ok(Addon {
        name: a
            .addon_name
            .ok_or_else(|| missing_field(op, "add-on name"))?,
        version: AddonVersion::new(a.addon_version.unwrap_or_default()),
        status: a.status.map(|s| s.as_str().into()).unwrap_or_default(),
        health: issues
            .into_iter()
            .map(|i| {
                to_health_issue(
                    i.code.as_ref().map(|c| c.as_str()),
                    i.message,
                    i.resource_ids,
                )
            })
            .collect(),
        service_account_role_arn: a.service_account_role_arn,
        configuration_values: a.configuration_values,
    })
}

/// The versions of `name` that are offered on `minor`, newest first.
pub fn to_addon_offers(minor: Minor, name: &str, found: Vec<types::AddonInfo>) -> Vec<AddonOffer> {
    let on = minor.to_string();
    let versions = found
        .into_iter()
        .filter(|a| a.addon_name() == Some(name))
        .flat_map(|a| a.addon_versions.unwrap_or_default());
    let mut offers: Vec<AddonOffer> = versions
        .filter_map(|v| {
            // The catalogue lists versions of other minors too (EKS-ADD-1).
            let fits = v
                .compatibilities()
                .iter()
                .find(|c| c.cluster_version() == Some(on.as_str()))?;
            Some(AddonOffer {
                default: fits.default_version,
                version: AddonVersion::new(v.addon_version.clone()?),
                architectures: v.architecture.unwrap_or_default(),
                requires_configuration: v.requires_configuration,
                requires_iam_permissions: v.requires_iam_permissions,
            })
        })
        .collect();
    offers.sort_by(|a, b| b.version.cmp(&a.version));
    offers
}

pub fn to_sdk_scaling(s: &Scaling) -> types::NodegroupScalingConfig {
    types::NodegroupScalingConfig::builder()
        .min_size(s.min)
        .max_size(s.max)
        .desired_size(s.desired)
        .build()
}

pub fn to_sdk_taint(t: &NodegroupTaint) -> types::Taint {
    types::Taint::builder()
        .key(&t.key)
        .set_value(t.value.clone())
        .effect(t.effect.as_str().into())
        .build()
}

pub fn to_sdk_remote_access(r: &RemoteAccess) -> types::RemoteAccessConfig {
    let groups = (!r.source_security_groups.is_empty()).then(|| r.source_security_groups.clone());
    types::RemoteAccessConfig::builder()
        .set_ec2_ssh_key(r.ec2_ssh_key.clone())
        .set_source_security_groups(groups)
        .build()
}

pub fn to_sdk_update_config(c: &UpdateConfig) -> types::NodegroupUpdateConfig {
    types::NodegroupUpdateConfig::builder()
        .set_max_unavailable(c.max_unavailable)
        .set_max_unavailable_percentage(c.max_unavailable_percentage)
        .set_update_strategy(c.update_strategy.as_deref().map(Into::into))
        .build()
}

pub fn to_sdk_node_repair_config(c: &NodeRepairConfig) -> types::NodeRepairConfig {
    let overrides = c.overrides.iter().map(|o| {
        types::NodeRepairConfigOverrides::builder()
            .set_node_monitoring_condition(o.node_monitoring_condition.clone())
            .set_node_unhealthy_reason(o.node_unhealthy_reason.clone())
            .set_min_repair_wait_time_mins(o.min_repair_wait_time_mins)
            .set_repair_action(o.repair_action.as_deref().map(Into::into))
            .build()
    });
    types::NodeRepairConfig::builder()
        .enabled(c.enabled)
        .set_max_unhealthy_node_threshold_count(c.max_unhealthy_node_threshold_count)
        .set_max_unhealthy_node_threshold_percentage(c.max_unhealthy_node_threshold_percentage)
        .set_max_parallel_nodes_repaired_count(c.max_parallel_nodes_repaired_count)
        .set_max_parallel_nodes_repaired_percentage(c.max_parallel_nodes_repaired_percentage)
        .set_node_repair_config_overrides((!c.overrides.is_empty()).then(|| overrides.collect()))
        .build()
}

pub fn to_sdk_warm_pool_config(w: &WarmPoolConfig) -> types::WarmPoolConfig {
    types::WarmPoolConfig::builder()
        .enabled(w.enabled)
        .set_min_size(w.min_size)
        .set_max_group_prepared_capacity(w.max_group_prepared_capacity)
        .set_pool_state(w.pool_state.as_deref().map(Into::into))
        .set_reuse_on_scale_in(w.reuse_on_scale_in)
        .build()
}

/// EKS answers id and name and takes only one of them: the id where there is one.
pub fn to_sdk_launch_template(t: &LaunchTemplateRef) -> types::LaunchTemplateSpecification {
    let name = if t.id.is_none() { t.name.clone() } else { None };
    types::LaunchTemplateSpecification::builder()
        .set_id(t.id.clone())
        .set_name(name)
        .set_version(t.version.clone())
        .build()
}
