//! What a served cluster is called, and ids that no other served cluster has: by them a kubeconfig proves to be of the
//! cluster that was named.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Value, json};

use super::grow::{derive_hash, derive_uid, text_at};
use super::{find_scenario, variants};
use crate::model::snapshot::Snapshot;

/// The bundled scenario of that name, its cluster named after it.
pub fn find_served_scenario(name: &str) -> Option<Snapshot> {
    let snapshot = find_scenario(name)?;
    if snapshot.inventory.cluster.name == name {
        return Some(snapshot);
    }
    Some(variants::with_cluster_name(snapshot, name))
}

/// Gives the cluster, its node groups, instances and namespaces ids that follow from its name and the seed.
pub fn with_own_ids(snapshot: Snapshot, seed: u64) -> Snapshot {
    let of = format!("{} {seed}", snapshot.inventory.cluster.name);
    let mut own_ids = Vec::new();
    for id in hexadecimal_ids(&snapshot) {
        // Endpoints are in capital letters, all others are not.
        let own = derive_hash(&format!("{of} {id}"), id.len());
        let capital = id.bytes().any(|b| b.is_ascii_uppercase());
        own_ids.push((id, if capital { own.to_uppercase() } else { own }));
    }
    for uid in uids(&snapshot) {
        let own = derive_uid(&format!("{of} {uid}"));
        own_ids.push((uid, own));
    }
    let text = serde_json::to_string(&snapshot).unwrap_or_default();
    let text = replace_ids(text, &own_ids);
    let mut own: Snapshot = serde_json::from_str(&text).unwrap_or(snapshot);
    // User data is encoded, and an instance that is started with another cluster's endpoint never joins.
    let templates = own.aws.get_mut("ec2:LaunchTemplates").into_iter().flatten();
    for versions in templates.filter_map(|t| t["Versions"].as_array_mut()) {
        for version in versions {
            replace_in_user_data(&mut version["LaunchTemplateData"]["UserData"], &own_ids);
        }
    }
    own
}

fn replace_ids(text: String, own_ids: &[(String, String)]) -> String {
    let mut text = text;
    for (id, own) in own_ids {
        text = text.replace(id, own);
    }
    text
}

/// The same within a text in base64.
fn replace_in_user_data(user_data: &mut Value, own_ids: &[(String, String)]) {
    let base64 = &base64::engine::general_purpose::STANDARD;
    let bytes = user_data.as_str().and_then(|t| base64.decode(t).ok());
    if let Some(text) = bytes.and_then(|b| String::from_utf8(b).ok()) {
        *user_data = json!(base64.encode(replace_ids(text, own_ids)));
    }
}

/// The digits of instances, which stand in machine ids too, and of the endpoint.
fn hexadecimal_ids(snapshot: &Snapshot) -> BTreeSet<String> {
    let inventory = &snapshot.inventory;
    let instances = inventory.instances.iter().map(|i| i.id.as_str());
    let instances = instances.filter_map(|id| id.strip_prefix("i-"));
    let endpoint = inventory.cluster.endpoint.as_deref();
    let endpoint = endpoint.and_then(|url| url.strip_prefix("https://")?.split('.').next());
    let is_id = |id: &&str| id.len() >= 8 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let ids = instances.chain(endpoint).filter(is_id);
    ids.map(str::to_owned).collect()
}

/// The ids of node groups, which stand in the names of their Auto Scaling groups too, and of namespaces.
fn uids(snapshot: &Snapshot) -> BTreeSet<String> {
    let groups = snapshot.inventory.nodegroups.iter();
    let groups = groups.filter_map(|group| group.arn.rsplit('/').next());
    let namespaces = snapshot.kubernetes.get("/api/v1/namespaces");
    let namespaces = namespaces.into_iter().flatten();
    let namespaces = namespaces.map(|namespace| text_at(namespace, "/metadata/uid"));
    let is_uid = |id: &&str| id.len() == 36;
    let all = groups.chain(namespaces).filter(is_uid);
    all.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::scenario::bundled_scenarios;

    #[test]
    fn a_served_scenario_s_cluster_is_named_after_it() {
        for (name, _) in bundled_scenarios() {
            let cluster = find_served_scenario(name).unwrap().inventory.cluster;
            assert_eq!(cluster.name, name);
            let arn = format!(":cluster/{name}");
            assert!(cluster.arn.ends_with(&arn), "{}", cluster.arn);
        }
    }

    #[test]
    fn the_user_data_of_a_served_cluster_names_its_own_endpoint() {
        let base64 = &base64::engine::general_purpose::STANDARD;
        for name in ["self-managed", "mixed"] {
            let served = with_own_ids(find_served_scenario(name).unwrap(), 7);
            let endpoint = served.inventory.cluster.endpoint.unwrap();
            for template in &served.aws["ec2:LaunchTemplates"] {
                let data = text_at(template, "/Versions/0/LaunchTemplateData/UserData");
                let text = String::from_utf8(base64.decode(data).unwrap()).unwrap();
                assert!(text.contains(&endpoint), "{name}: {text}");
            }
        }
    }

    #[test]
    fn clusters_of_two_names_or_two_seeds_have_no_id_in_common() {
        let served = |name: &str, seed| with_own_ids(find_served_scenario(name).unwrap(), seed);
        let ids = |s: &Snapshot| {
            let mut ids = hexadecimal_ids(s);
            ids.extend(uids(s));
            ids
        };
        let one = ids(&served("expense-dev", 1));
        assert!(one.len() >= 9, "{one:?}");
        for (name, seed) in [("expense-dev", 2), ("fleet-30", 1), ("minimal", 1)] {
            let other = ids(&served(name, seed));
            assert!(one.is_disjoint(&other), "{name} {seed}");
        }
        assert_eq!(one, ids(&served("expense-dev", 1)));
        // A node still names its instance.
        let snapshot = served("expense-dev", 1);
        let instance = &snapshot.inventory.instances[0].id;
        let nodes = &snapshot.kubernetes["/api/v1/nodes"];
        let of_instance =
            |n: &&serde_json::Value| text_at(n, "/spec/providerID").ends_with(instance);
        assert_eq!(nodes.iter().filter(of_instance).count(), 1);
    }
}
