//! Who may use the cluster's API: access entries, and aws-auth where the cluster heeds it (EKS-AUTH-2, SELF-3, SELF-5).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{requested_cluster, show};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AccessEntry, EksCluster};
use crate::twin::world::SimWorld;

const KNOWN_KINDS: &[&str] = &[
    "STANDARD",
    "EC2",
    "EC2_LINUX",
    "EC2_WINDOWS",
    "FARGATE_LINUX",
    "HYBRID_LINUX",
    "HYPERPOD_LINUX",
];

/// Whether entries of this type let nodes of EC2 in.
pub fn access_kind_for_nodes(kind: &str) -> bool {
    matches!(kind, "EC2" | "EC2_LINUX" | "EC2_WINDOWS")
}

impl EksCluster {
    /// API, CONFIG_MAP or API_AND_CONFIG_MAP.
    pub fn authentication_mode(&self) -> &str {
        let config = self.rest.get("accessConfig");
        let mode = config.and_then(|c| c["authenticationMode"].as_str());
        mode.unwrap_or("CONFIG_MAP")
    }
}

/// Whether self-managed nodes with this role may register.
pub fn admits_role(world: &SimWorld, role: &str) -> bool {
    let Some(eks) = &world.cloud.eks else {
        return false;
    };
    let mode = eks.authentication_mode();
    match eks.access_entries.get(role) {
        // It goes before a row of aws-auth, also where it lets no node in (SELF-5).
        Some(entry) if mode != "CONFIG_MAP" => {
            return matches!(entry.kind.as_str(), "EC2_LINUX" | "EC2_WINDOWS");
        }
        _ if mode == "API" => return false,
        Some(_) | None => {}
    }
    match kube::read_map_roles(world) {
        Some(rows) => rows.iter().any(|row| is_node_row(row, role)),
        // A snapshot may lack the ConfigMap of a cluster that has no other way in.
        None => mode == "CONFIG_MAP",
    }
}

fn is_node_row(row: &Value, role: &str) -> bool {
    let groups = row["groups"].as_array();
    let mut groups = groups.into_iter().flatten();
    // The authenticator asks for the role of an STS session, which has no path, in lower case (SELF-6).
    let account = role.split(":role/").next().unwrap_or_default();
    let name = role.rsplit('/').next().unwrap_or_default();
    let asked = format!("{account}:role/{name}");
    let named = row["rolearn"].as_str();
    named.is_some_and(|arn| arn.eq_ignore_ascii_case(&asked)) && groups.any(|g| g == "system:nodes")
}

/// A managed group is gone: EKS takes its role out of aws-auth where no other managed group has it, and self-managed nodes
/// with that role and no access entry fall silent (EKS-NG-18).
pub fn forget_role(world: &mut SimWorld, role: &str) {
    let groups = world.cloud.eks.iter().flat_map(|e| e.nodegroups.values());
    let mut roles = groups.filter_map(|g| g.spec.get("nodeRole")?.as_str());
    if roles.any(|other| other == role) {
        return;
    }
    let Some(rows) = kube::read_map_roles(world) else {
        return;
    };
    let kept: Vec<Value> = rows
        .iter()
        .filter(|r| r["rolearn"] != *role)
        .cloned()
        .collect();
    if kept.len() == rows.len() {
        return;
    }
    kube::write_map_roles(world, &kept);
    silence_unadmitted(world, role);
}

/// The access entry of a role is deleted; its nodes fall silent unless they may register by other means.
pub fn remove_access_entry(world: &mut SimWorld, principal: &str) {
    let eks = world.cloud.eks.as_mut();
    if eks
        .and_then(|e| e.access_entries.remove(principal))
        .is_some()
    {
        silence_unadmitted(world, principal);
    }
}

fn silence_unadmitted(world: &mut SimWorld, role: &str) {
    if admits_role(world, role) {
        return;
    }
    let asgs = world.cloud.asgs.values();
    let members = asgs
        .filter(|a| a.nodegroup.is_none())
        .flat_map(|a| a.all_members());
    let lost = members.filter(|(_, m)| world.cloud.role_of(&m.launch).as_deref() == Some(role));
    let lost: Vec<String> = lost.map(|(id, _)| id.clone()).collect();
    for id in lost {
        kube::silence_node(world, &id);
    }
}

fn show_entry(eks: &EksCluster, entry: &AccessEntry) -> Value {
    let base = eks.arn.replace(":cluster/", ":access-entry/");
    let name = entry.principal.rsplit('/').next().unwrap_or_default();
    let account = entry.principal.split(':').nth(4).unwrap_or_default();
    json!({
        "clusterName": eks.name,
        "principalArn": entry.principal,
        "kubernetesGroups": entry.groups,
        "accessEntryArn": format!("{base}/role/{account}/{name}/00000000-0000-4000-8000-000000000000"),
        "createdAt": show::show_time(entry.created),
        "modifiedAt": show::show_time(entry.created),
        "tags": entry.tags,
        "username": entry.username,
        "type": entry.kind,
    })
}

/// Access entries are refused where the cluster heeds aws-auth only.
fn require_entries(eks: &EksCluster) -> Result<(), AwsError> {
    match eks.authentication_mode() {
        "CONFIG_MAP" => Err(AwsError::invalid_request(
            "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation.",
        )),
        _ => Ok(()),
    }
}

fn entry_not_found(principal: &str) -> AwsError {
    AwsError::not_found(format!(
        "The specified principalArn could not be found. You can view your available access entries with 'list-access-entries'. ({principal})"
    ))
}

/// ListAccessEntries.
pub fn list(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    require_entries(eks)?;
    let size = input.get_number("maxResults").unwrap_or(100);
    let all = eks.access_entries.keys();
    let page = cut_page(all, input.get_text("nextToken"), size)?;
    Ok(json!({"accessEntries": page.items, "nextToken": page.next}))
}

/// DescribeAccessEntry.
pub fn describe(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    require_entries(eks)?;
    let principal = input.require_text("principalArn")?;
    let entry = eks.access_entries.get(principal);
    let entry = entry.ok_or_else(|| entry_not_found(principal))?;
    Ok(json!({"accessEntry": show_entry(eks, entry)}))
}

/// CreateAccessEntry.
pub fn create(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let created = world.now();
    let eks = requested_cluster(world, input)?;
    require_entries(eks)?;
    let principal = input.require_text("principalArn")?.to_owned();
    if eks.access_entries.contains_key(&principal) {
        return Err(AwsError::in_use(
            "The specified access entry resource is already in use on this cluster.",
        ));
    }
    let kind = input.get_text("type").unwrap_or("STANDARD").to_owned();
    let groups = input.get_text_list("kubernetesGroups");
    if !KNOWN_KINDS.contains(&kind.as_str()) {
        return Err(AwsError::invalid_parameter(format!(
            "The type {kind} is not supported"
        )));
    }
    if kind != "STANDARD" && !groups.is_empty() {
        return Err(AwsError::invalid_parameter(
            "The kubernetesGroups parameter can only be used with access entries of type STANDARD",
        ));
    }
    if groups.iter().any(|g| g.starts_with("system:")) {
        return Err(AwsError::invalid_parameter(
            "The kubernetes group name must not start with system:",
        ));
    }
    let of_nodes = access_kind_for_nodes(&kind);
    let entry = AccessEntry {
        principal: principal.clone(),
        groups: if of_nodes {
            vec!["system:nodes".to_owned()]
        } else {
            groups
        },
        username: match of_nodes {
            true => Some("system:node:{{EC2PrivateDNSName}}".to_owned()),
            false => input.get_text("username").map(str::to_owned),
        },
        kind,
        tags: input.get_text_map("tags"),
        created,
    };
    let shown = show_entry(eks, &entry);
    eks.access_entries.insert(principal, entry);
    Ok(json!({"accessEntry": shown}))
}

/// DeleteAccessEntry.
pub fn delete(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    require_entries(eks)?;
    let principal = input.require_text("principalArn")?;
    match eks.access_entries.remove(principal) {
        Some(_) => Ok(json!({})),
        None => Err(entry_not_found(principal)),
    }
}

/// The entry that EKS makes for the role of a managed group.
pub fn note_node_role(eks: &mut EksCluster, role: &str, created: jiff::Timestamp) {
    if eks.authentication_mode() == "CONFIG_MAP" || eks.access_entries.contains_key(role) {
        return;
    }
    let entry = AccessEntry {
        principal: role.to_owned(),
        kind: "EC2_LINUX".to_owned(),
        groups: vec!["system:nodes".to_owned()],
        username: Some("system:node:{{EC2PrivateDNSName}}".to_owned()),
        tags: BTreeMap::new(),
        created,
    };
    eks.access_entries.insert(role.to_owned(), entry);
}
