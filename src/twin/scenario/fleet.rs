//! Big clusters, for measuring.

use serde_json::{Value, json};

use super::expense_dev;
use super::grow::{self, hash, list, text, uid};
use crate::model::snapshot::Snapshot;

/// Pods of one deployment.
const REPLICAS: usize = 20;

/// The bundled snapshot with `nodes` nodes and, beside what it has, `pods_per_node` small pods on each, in deployments
/// of twenty with a budget on every other one.
pub fn fleet(nodes: usize, pods_per_node: usize) -> Snapshot {
    let mut s = expense_dev();
    grow::to(&mut s, nodes.max(3));
    // As EKS ships its own; one node at a time, as captured, a large cluster's add-ons would take hours.
    for set in list(&mut s, "/apis/apps/v1/daemonsets") {
        if matches!(text(set, "/metadata/name"), "aws-node" | "kube-proxy") {
            set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = json!("10%");
        }
    }
    let names: Vec<(String, String)> = list(&mut s, "/api/v1/nodes")
        .iter()
        .map(|n| {
            (
                text(n, "/metadata/name").to_owned(),
                text(n, "/status/addresses/0/address").to_owned(),
            )
        })
        .collect();
    let model = |s: &mut Snapshot, path: &str| {
        list(s, path)
            .iter()
            .find(|o| text(o, "/metadata/name").starts_with("frontend"))
            .cloned()
    };
    let models = (
        model(&mut s, "/apis/apps/v1/deployments"),
        model(&mut s, "/apis/apps/v1/replicasets"),
        model(&mut s, "/api/v1/pods"),
        model(&mut s, "/apis/policy/v1/poddisruptionbudgets"),
    );
    let (Some(deployment), Some(set), Some(pod), Some(budget)) = models else {
        return s;
    };
    let total = nodes * pods_per_node;
    let mut placed = 0;
    for number in 0..total.div_ceil(REPLICAS) {
        let app = format!("app-{number:04}");
        let replicas = REPLICAS.min(total - placed);
        let made = Made {
            app: &app,
            replicas,
        };
        list(&mut s, "/apis/apps/v1/deployments").push(made.of(&deployment));
        list(&mut s, "/apis/apps/v1/replicasets").push(made.of(&set));
        if number % 2 == 0 {
            list(&mut s, "/apis/policy/v1/poddisruptionbudgets").push(made.budget(&budget));
        }
        let pod = made.named(&pod);
        let pods = list(&mut s, "/api/v1/pods");
        for replica in 0..replicas {
            let at = placed + replica;
            let (node, address) = &names[at % names.len()];
            pods.push(made.pod(&pod, node, address, at));
        }
        placed += replicas;
    }
    s
}

/// A deployment to be made of the bundled one.
struct Made<'a> {
    app: &'a str,
    replicas: usize,
}

impl Made<'_> {
    /// The model with the app's name wherever its own was.
    fn named(&self, model: &Value) -> Value {
        let text = model.to_string().replace("frontend", self.app);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A deployment or replica set under the app's name, with its own uid and small pods.
    fn of(&self, model: &Value) -> Value {
        let mut out = self.named(model);
        out["metadata"]["uid"] = json!(self.uid(super::grow::text(&out, "/kind")));
        if let Some(owner) = out.pointer_mut("/metadata/ownerReferences/0/uid") {
            *owner = json!(self.uid("Deployment"));
        }
        out["spec"]["replicas"] = json!(self.replicas);
        out["spec"]["template"]["spec"]["containers"][0]["resources"] = small();
        for member in [
            "availableReplicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "replicas",
            "updatedReplicas",
        ] {
            if out["status"].get(member).is_some() {
                out["status"][member] = json!(self.replicas);
            }
        }
        out
    }

    fn uid(&self, kind: &str) -> String {
        uid(&format!("{kind}/{}", self.app))
    }

    fn budget(&self, model: &Value) -> Value {
        let mut out = self.named(model);
        let wanted = self.replicas.saturating_sub(2).max(1);
        out["metadata"]["uid"] = json!(self.uid("PodDisruptionBudget"));
        out["spec"] =
            json!({"minAvailable": wanted, "selector": {"matchLabels": {"app": self.app}}});
        for (member, value) in [
            ("currentHealthy", self.replicas),
            ("desiredHealthy", wanted),
            ("disruptionsAllowed", self.replicas.saturating_sub(wanted)),
            ("expectedPods", self.replicas),
        ] {
            out["status"][member] = json!(value);
        }
        out
    }

    /// One of the app's pods, all alike but for name, place and address.
    fn pod(&self, model: &Value, node: &str, address: &str, number: usize) -> Value {
        let mut out = model.clone();
        let set = text(&out, "/metadata/ownerReferences/0/name").to_owned();
        let name = format!("{set}-{}", hash(&format!("{}{number}", self.app), 5));
        let ip = std::net::Ipv4Addr::from(
            u32::from_be_bytes([100, 64, 16, 0]).wrapping_add(u32::try_from(number).unwrap_or(0)),
        );
        out["metadata"]["uid"] = json!(uid(&name));
        out["metadata"]["name"] = json!(name);
        out["metadata"]["ownerReferences"][0]["uid"] = json!(self.uid("ReplicaSet"));
        out["spec"]["nodeName"] = json!(node);
        out["spec"]["containers"][0]["resources"] = small();
        out["status"]["hostIP"] = json!(address);
        out["status"]["hostIPs"] = json!([{"ip": address}]);
        out["status"]["podIP"] = json!(ip.to_string());
        out["status"]["podIPs"] = json!([{"ip": ip.to_string()}]);
        out
    }
}

fn small() -> Value {
    json!({"requests": {"cpu": "20m", "memory": "32Mi"}})
}
