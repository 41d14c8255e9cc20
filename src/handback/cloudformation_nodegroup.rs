//! Properties of AWS::EKS::Nodegroup.

use serde_json::{Map, Value, json};

use crate::model::eks::{NodeRepairConfig, Nodegroup};

/// Green as CloudFormation describes it; what EKS did not answer is left out.
pub fn nodegroup_properties(cluster: &str, green: &Nodegroup) -> Value {
    let custom = green.ami_type.as_deref() == Some("CUSTOM");
    let taints = green
        .taints
        .iter()
        .map(|t| without_null(json!({"Key": t.key, "Value": t.value, "Effect": t.effect})));
    let tags: Map<String, Value> = green
        .tags
        .iter()
        .filter(|(k, _)| !k.starts_with("aws:"))
        .map(|(k, v)| (k.clone(), v.clone().into()))
        .collect();
    let update = green.update_config.as_ref().map(|u| {
        let percent = u.max_unavailable_percentage;
        let percent = percent.filter(|_| u.max_unavailable.is_none());
        let strategy = u.update_strategy.as_ref().filter(|s| *s != "DEFAULT");
        without_null(json!({
            "MaxUnavailable": u.max_unavailable,
            "MaxUnavailablePercentage": percent,
            "UpdateStrategy": strategy,
        }))
    });
    let template = green.launch_template.as_ref().map(|t| {
        let name = t.name.as_ref().filter(|_| t.id.is_none());
        without_null(json!({"Id": t.id, "Name": name, "Version": t.version}))
    });
    let access = green.remote_access.as_ref().map(|a| {
        let mut access = without_null(json!({"Ec2SshKey": a.ec2_ssh_key}));
        if !a.source_security_groups.is_empty() {
            access["SourceSecurityGroups"] = json!(a.source_security_groups);
        }
        access
    });
    let of_image = |value: Option<String>| value.filter(|_| !custom);
    without_null(json!({
        "ClusterName": cluster,
        "NodegroupName": green.name,
        "NodeRole": green.node_role,
        "Subnets": green.subnets,
        "Version": of_image(green.version.map(|v| v.to_string())),
        "ReleaseVersion": of_image(green.release_version.clone()),
        "AmiType": of_image(green.ami_type.clone()),
        "CapacityType": green.capacity_type,
        "InstanceTypes": (!green.instance_types.is_empty()).then_some(&green.instance_types),
        "DiskSize": green.disk_size.filter(|_| green.launch_template.is_none()),
        "ScalingConfig": {
            "MinSize": green.scaling.min,
            "MaxSize": green.scaling.max,
            "DesiredSize": green.scaling.desired,
        },
        "Labels": green.labels,
        "Taints": (!green.taints.is_empty()).then(|| taints.collect::<Vec<_>>()),
        "Tags": tags,
        "UpdateConfig": update,
        "NodeRepairConfig": green.node_repair_config.as_ref().map(repair_config),
        "WarmPoolConfig": green.warm_pool_config.as_ref().map(|pool| without_null(json!({
            "Enabled": pool.enabled,
            "MinSize": pool.min_size,
            "MaxGroupPreparedCapacity": pool.max_group_prepared_capacity,
            "PoolState": pool.pool_state,
            "ReuseOnScaleIn": pool.reuse_on_scale_in,
        }))),
        "LaunchTemplate": template,
        "RemoteAccess": access,
    }))
}

fn repair_config(repair: &NodeRepairConfig) -> Value {
    let overrides = repair.overrides.iter().map(|o| {
        without_null(json!({
            "NodeMonitoringCondition": o.node_monitoring_condition,
            "NodeUnhealthyReason": o.node_unhealthy_reason,
            "MinRepairWaitTimeMins": o.min_repair_wait_time_mins,
            "RepairAction": o.repair_action,
        }))
    });
    let overrides: Vec<Value> = overrides.collect();
    without_null(json!({
        "Enabled": repair.enabled,
        "MaxUnhealthyNodeThresholdCount": repair.max_unhealthy_node_threshold_count,
        "MaxUnhealthyNodeThresholdPercentage": repair.max_unhealthy_node_threshold_percentage,
        "MaxParallelNodesRepairedCount": repair.max_parallel_nodes_repaired_count,
        "MaxParallelNodesRepairedPercentage": repair.max_parallel_nodes_repaired_percentage,
        "NodeRepairConfigOverrides": (!overrides.is_empty()).then_some(overrides),
    }))
}

/// An object without its members that are null: a template has no place for them.
pub fn without_null(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !v.is_null());
    }
    value
}
