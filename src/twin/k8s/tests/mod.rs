//! The twin's cluster, seen through its wire: what is answered, and what happens when.

mod admission;
mod answers;
mod auto_mode;
mod clients;
mod fargate;
mod fleet;
mod kubectl;
mod nodes;
mod operators;
mod owners;
mod scheduling;
mod scheduling_volumes;
mod watches;
mod webhooks;
mod windows;
mod workloads;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::cloud_hooks::{JoiningNode, join_node};
use super::{KubeletTimings, SimCluster};
use crate::model::snapshot::Snapshot;
use crate::model::{Clock, Minor};
use crate::twin::scenario::find_scenario;
use crate::twin::world::SimWorld;
use crate::twin::{Twin, aws};
use crate::wire::{Body, Wire};

const HOST: &str = "https://0A1B2C3D.gr7.us-east-1.eks.amazonaws.com";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A twin to try things on.
pub struct Bench {
    pub twin: Twin,
    wire: Wire,
}

impl Bench {
    pub fn of(cluster: SimCluster) -> Self {
        let clock = Clock::starting_at("2026-11-21T08:15:30Z".parse().unwrap());
        let twin = Twin::start(SimWorld::new(clock, 7, aws::AwsAccount::default(), cluster));
        let wire = twin.wire();
        Self { twin, wire }
    }

    /// The scenario of the name, open to everybody.
    pub fn of_scenario(name: &str) -> Self {
        Self::of_snapshot(&find_scenario(name).unwrap())
    }

    /// The cluster of a snapshot, open to everybody.
    pub fn of_snapshot(snapshot: &Snapshot) -> Self {
        let account = aws::seed_account(snapshot);
        let lists = snapshot.kubernetes.clone();
        let mut cluster = SimCluster::from_lists(&snapshot.inventory, lists).allow_anonymous();
        super::fargate::set_profiles(&mut cluster, aws::scheduling_profiles(&account));
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let twin = Twin::start(SimWorld::new(clock, 7, account, cluster));
        let wire = twin.wire();
        Self { twin, wire }
    }

    /// Nodes `a`, `b`, `c` in three zones, ready, with pulls that take no time.
    pub async fn with_nodes(names: &[&str]) -> Self {
        let pace = KubeletTimings {
            pull: (0, 0),
            ..KubeletTimings::default()
        };
        let bench = Self::of(
            SimCluster::new_empty(Minor::new(29))
                .allow_anonymous()
                .with_pace(pace),
        );
        for (n, name) in names.iter().enumerate() {
            bench.join(name, n, "blue");
        }
        bench.sleep(30.0).await;
        bench
    }

    pub fn join(&self, name: &str, n: usize, group: &str) {
        let zone = ["us-east-1a", "us-east-1b", "us-east-1c"][n % 3].to_owned();
        let birth = JoiningNode {
            name: name.to_owned(),
            provider_id: format!("aws:///{zone}/i-{name}"),
            zone,
            zone_id: "use1-az1".into(),
            region: "us-east-1".into(),
            instance_type: "t3.large".into(),
            labels: BTreeMap::from([("eks.amazonaws.com/nodegroup".into(), group.into())]),
            taints: Vec::new(),
            kubelet_version: "v1.29.3-eks-adc7111".into(),
            cpu_millis: 1930,
            memory_bytes: 7 << 30,
            max_pods: 35,
            ephemeral_storage: 18 << 30,
            short_hop: false,
            driverless: false,
            startup_taints: Vec::new(),
            internal_ip: format!("10.0.{}.{}", n / 250, n % 250 + 4),
            architecture: "amd64".into(),
            os_image: "Amazon Linux 2023".into(),
        };
        self.twin.with_world(|world| join_node(world, birth));
    }

    /// The cluster that was captured from a real API server.
    pub fn expense() -> Self {
        let lists: BTreeMap<String, Vec<Value>> = serde_json::from_str(include_str!(
            "../../../../tests/data/expense-dev-kubernetes.json"
        ))
        .unwrap();
        let mut cluster = SimCluster::new_empty(Minor::new(27)).allow_anonymous();
        for (path, items) in &lists {
            cluster.seed_list(path, items);
        }
        Self::of(cluster)
    }

    pub async fn sleep(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    pub async fn send(&self, request: http::Request<Bytes>) -> http::Response<Body> {
        self.wire.clone().oneshot(request).await.unwrap()
    }

    pub async fn call(&self, method: &str, path: &str, kind: &str, body: Value) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{HOST}{path}"))
            .header("content-type", kind)
            .header("accept", "application/json")
            .body(if body.is_null() {
                Bytes::new()
            } else {
                body.to_string().into()
            })
            .unwrap();
        let response = self.send(request).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        (code, value)
    }

    pub async fn get(&self, path: &str) -> Value {
        let (code, value) = self.call("GET", path, "", Value::Null).await;
        assert_eq!(code, 200, "{path}: {value}");
        value
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, "application/json", body).await
    }

    pub async fn make(&self, path: &str, body: Value) -> Value {
        let (code, value) = self.post(path, body).await;
        assert_eq!(code, 201, "{path}: {value}");
        value
    }

    pub async fn patch(&self, path: &str, kind: &str, body: Value) -> (u16, Value) {
        self.call("PATCH", path, kind, body).await
    }

    pub async fn evict(&self, ns: &str, pod: &str) -> (u16, Value) {
        self.evict_as(ns, pod, "", json!({})).await
    }

    pub async fn evict_as(&self, ns: &str, pod: &str, query: &str, options: Value) -> (u16, Value) {
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": ns},
            "deleteOptions": options,
        });
        self.post(
            &format!("/api/v1/namespaces/{ns}/pods/{pod}/eviction{query}"),
            body,
        )
        .await
    }

    /// A deployment in `default`, and its pods once they had time to start.
    pub async fn deploy(&self, name: &str, replicas: i64, notes: Value) -> Vec<Value> {
        self.make(
            "/apis/apps/v1/namespaces/default/deployments",
            deployment(name, replicas, notes),
        )
        .await;
        self.sleep(5.0).await;
        self.pods(name).await
    }

    pub async fn budget(&self, name: &str, app: &str, rest: Value) -> Value {
        let mut spec = json!({"selector": {"matchLabels": {"app": app}}});
        spec.as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
        self.make(path, json!({"metadata": {"name": name}, "spec": spec}))
            .await;
        self.sleep(0.1).await;
        self.budget_status(name).await
    }

    pub async fn budget_status(&self, name: &str) -> Value {
        self.get(&format!(
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets/{name}"
        ))
        .await["status"]
            .clone()
    }

    /// The pods with label `app`.
    pub async fn pods(&self, app: &str) -> Vec<Value> {
        let list = self
            .get(&format!(
                "/api/v1/namespaces/default/pods?labelSelector=app%3D{app}"
            ))
            .await;
        list["items"].as_array().unwrap().clone()
    }
}

pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub fn is_ready(pod: &Value) -> bool {
    super::typed_views::PodView::from_object(pod).ready
}

pub fn deployment(name: &str, replicas: i64, notes: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}, "annotations": notes}, "spec": pod_spec()},
        },
    })
}

pub fn pod_spec() -> Value {
    json!({"containers": [{"name": "main", "image": "registry.local/app:1", "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}]})
}
