//! Big clusters, for measuring.

use serde_json::{Value, json};

use super::expense_dev;
use super::grow::{self, derive_hash, derive_uid, list_mut, text_at};
use crate::model::snapshot::Snapshot;

/// Pods of one deployment.
const REPLICAS_PER_DEPLOYMENT: usize = 20;

/// The bundled snapshot with `nodes` nodes and, beside what it has, `pods_per_node` small pods on each, in deployments
/// of twenty with a budget on every other one.
pub fn fleet_snapshot(nodes: usize, pods_per_node: usize) -> Snapshot {
    let mut s = expense_dev();
    // The cluster grows first, so the pods below have nodes to be put on.
    grow::grow_to(&mut s, nodes.max(3));
    // As EKS ships its own; one node at a time, as captured, a large cluster's add-ons would take hours.
    for set in list_mut(&mut s, "/apis/apps/v1/daemonsets") {
        if matches!(text_at(set, "/metadata/name"), "aws-node" | "kube-proxy") {
            set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = json!("10%");
        }
    }
    // Names and addresses are copied, because the pods below are pushed into the same snapshot.
    let names: Vec<(String, String)> = list_mut(&mut s, "/api/v1/nodes")
        .iter()
        .map(|n| {
            (
                text_at(n, "/metadata/name").to_owned(),
                text_at(n, "/status/addresses/0/address").to_owned(),
            )
        })
        .collect();
    // Each kind has one object to copy from, which is the one of the frontend.
    let model = |s: &mut Snapshot, path: &str| {
        list_mut(s, path)
            .iter()
            .find(|o| text_at(o, "/metadata/name").starts_with("frontend"))
            .cloned()
    };
    let models = (
        model(&mut s, "/apis/apps/v1/deployments"),
        model(&mut s, "/apis/apps/v1/replicasets"),
        model(&mut s, "/api/v1/pods"),
        model(&mut s, "/apis/policy/v1/poddisruptionbudgets"),
    );
    // A snapshot without the frontend has nothing to copy.
    let (Some(deployment), Some(set), Some(pod), Some(budget)) = models else {
        return s;
    };
    let total = nodes * pods_per_node;
    let mut placed = 0;
    for number in 0..total.div_ceil(REPLICAS_PER_DEPLOYMENT) {
        let app = format!("app-{number:04}");
        let replicas = REPLICAS_PER_DEPLOYMENT.min(total - placed);
        let made = FleetDeployment {
            app: &app,
            replicas,
            placement: Placement::default(),
        };
        list_mut(&mut s, "/apis/apps/v1/deployments").push(made.workload_object(&deployment));
        list_mut(&mut s, "/apis/apps/v1/replicasets").push(made.workload_object(&set));
        // Half of the deployments have a budget, so a drain meets both kinds.
        if number % 2 == 0 {
            list_mut(&mut s, "/apis/policy/v1/poddisruptionbudgets")
                .push(made.budget_object(&budget));
        }
        let pod = made.rename_model(&pod);
        let pods = list_mut(&mut s, "/api/v1/pods");
        // Pods are spread over the nodes in turn.
        for replica in 0..replicas {
            let at = placed + replica;
            let (node, address) = &names[at % names.len()];
            pods.push(made.pod_object(&pod, node, address, at));
        }
        placed += replicas;
    }
    s
}

/// Which nodes pods may be on: by their node selector and tolerations. Null: any without a taint.
#[derive(Default)]
pub struct Placement {
    pub selector: Value,
    pub tolerations: Value,
}

impl Placement {
    fn apply_to(&self, spec: &mut Value) {
        for (member, value) in [
            ("nodeSelector", &self.selector),
            ("tolerations", &self.tolerations),
        ] {
            if !value.is_null() {
                spec[member] = value.clone();
            }
        }
    }
}

/// A deployment to be made of the bundled one.
pub struct FleetDeployment<'a> {
    pub app: &'a str,
    pub replicas: usize,
    pub placement: Placement,
}

impl FleetDeployment<'_> {
    /// The model with the app's name wherever its own was.
    pub fn rename_model(&self, model: &Value) -> Value {
        let text = model.to_string().replace("frontend", self.app);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A deployment or replica set under the app's name, with its own uid and small pods.
    pub fn workload_object(&self, model: &Value) -> Value {
        let mut out = self.rename_model(model);
        out["metadata"]["uid"] = json!(self.object_uid(super::grow::text_at(&out, "/kind")));
        // The owner's UID is derived from the app's name as well, so the two objects fit together.
        if let Some(owner) = out.pointer_mut("/metadata/ownerReferences/0/uid") {
            *owner = json!(self.object_uid("Deployment"));
        }
        out["spec"]["replicas"] = json!(self.replicas);
        let spec = &mut out["spec"]["template"]["spec"];
        spec["containers"][0]["resources"] = small_requests();
        self.placement.apply_to(spec);
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

    fn object_uid(&self, kind: &str) -> String {
        derive_uid(&format!("{kind}/{}", self.app))
    }

    pub fn budget_object(&self, model: &Value) -> Value {
        let mut out = self.rename_model(model);
        let wanted = self.replicas.saturating_sub(2).max(1);
        out["metadata"]["uid"] = json!(self.object_uid("PodDisruptionBudget"));
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
    pub fn pod_object(&self, model: &Value, node: &str, address: &str, number: usize) -> Value {
        let mut out = model.clone();
        let set = text_at(&out, "/metadata/ownerReferences/0/name").to_owned();
        let name = format!("{set}-{}", derive_hash(&format!("{}{number}", self.app), 5));
        let ip = std::net::Ipv4Addr::from(
            u32::from_be_bytes([100, 64, 16, 0]).wrapping_add(u32::try_from(number).unwrap_or(0)),
        );
        out["metadata"]["uid"] = json!(derive_uid(&name));
        out["metadata"]["name"] = json!(name);
        out["metadata"]["ownerReferences"][0]["uid"] = json!(self.object_uid("ReplicaSet"));
        out["spec"]["nodeName"] = json!(node);
        self.placement.apply_to(&mut out["spec"]);
        out["spec"]["containers"][0]["resources"] = small_requests();
        out["status"]["hostIP"] = json!(address);
        out["status"]["hostIPs"] = json!([{"ip": address}]);
        out["status"]["podIP"] = json!(ip.to_string());
        out["status"]["podIPs"] = json!([{"ip": ip.to_string()}]);
        out
    }
}

fn small_requests() -> Value {
    json!({"requests": {"cpu": "20m", "memory": "32Mi"}})
}
