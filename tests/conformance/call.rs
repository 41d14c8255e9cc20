//! Raw requests, so that what the server says is seen whole.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// A cluster to be asked, and the namespace to work in.
pub struct Arm {
    pub client: kube::Client,
    pub namespace: String,
}

/// A status code and what came with it.
#[derive(Debug)]
pub struct Said {
    pub code: u16,
    pub body: Value,
}

impl Said {
    /// The reason of the first cause, such as `DisruptionBudget`.
    pub fn cause(&self) -> &str {
        self.body["details"]["causes"][0]["reason"]
            .as_str()
            .unwrap_or_default()
    }

    /// The message of the first cause.
    pub fn cause_message(&self) -> &str {
        self.body["details"]["causes"][0]["message"]
            .as_str()
            .unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

impl Arm {
    pub async fn send(&self, method: Method, path: &str, content: &str, body: &Value) -> Said {
        self.ask("application/json", method, path, content, body)
            .await
    }

    /// The same; `accept`: in what form the answer is wanted.
    pub async fn ask(
        &self,
        accept: &str,
        method: Method,
        path: &str,
        content: &str,
        body: &Value,
    ) -> Said {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body).unwrap()
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content)
            .header("accept", accept)
            .body(kube::client::Body::from(bytes))
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Said {
            code,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    pub async fn get(&self, path: &str) -> Said {
        self.send(Method::GET, path, "application/json", &Value::Null)
            .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Said {
        self.send(Method::POST, path, "application/json", body)
            .await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Said {
        self.send(Method::PATCH, path, "application/merge-patch+json", body)
            .await
    }

    pub async fn delete(&self, path: &str) -> Said {
        self.send(Method::DELETE, path, "application/json", &Value::Null)
            .await
    }

    /// `/api/v1/namespaces/NS/...`.
    pub fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// `/apis/GROUP/namespaces/NS/...`.
    pub fn apis(&self, group: &str, rest: &str) -> String {
        format!("/apis/{group}/namespaces/{}/{rest}", self.namespace)
    }

    pub async fn create(&self, path: &str, body: &Value) -> Value {
        let said = self.post(path, body).await;
        assert!(matches!(said.code, 200 | 201), "{path}: {said:?}");
        said.body
    }

    /// Evicts by name; `uid` is a precondition when given.
    pub async fn evict(&self, name: &str, uid: Option<&str>, dry_run: bool) -> Said {
        let mut body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.namespace}});
        if let Some(uid) = uid {
            body["deleteOptions"] = json!({"preconditions": {"uid": uid}});
        }
        let query = if dry_run { "?dryRun=All" } else { "" };
        self.post(&self.core(&format!("pods/{name}/eviction{query}")), &body)
            .await
    }

    pub async fn deployment(&self, name: &str, replicas: i32, spec: Value) {
        let mut pod = pod_spec();
        merge(&mut pod, &spec);
        let body = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                     "template": {"metadata": {"labels": {"app": name}}, "spec": pod}},
        });
        self.create(&self.apis("apps/v1", "deployments"), &body)
            .await;
    }

    pub async fn budget(&self, name: &str, app: &str, spec: Value) {
        let mut body = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
                              "spec": {"selector": {"matchLabels": {"app": app}}}});
        merge(&mut body["spec"], &spec);
        self.create(&self.apis("policy/v1", "poddisruptionbudgets"), &body)
            .await;
    }

    /// Pods of an app, oldest name first.
    pub async fn pods(&self, app: &str) -> Vec<Value> {
        let said = self
            .get(&self.core(&format!("pods?labelSelector=app%3D{app}")))
            .await;
        said.body["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until `app` has `n` ready pods that are not on their way out.
    pub async fn ready(&self, app: &str, n: usize) -> Vec<Value> {
        self.until(&format!("{n} ready pods of {app}"), async || {
            let pods: Vec<Value> = self
                .pods(app)
                .await
                .into_iter()
                .filter(|p| is_ready(p) && p["metadata"]["deletionTimestamp"].is_null())
                .collect();
            (pods.len() == n).then_some(pods)
        })
        .await
    }

    /// Waits until the budget allows `n` by its latest state.
    pub async fn allowed(&self, name: &str, n: i64) -> Value {
        let path = self.apis("policy/v1", &format!("poddisruptionbudgets/{name}"));
        self.until(&format!("budget {name} to allow {n}"), async || {
            let pdb = self.get(&path).await.body;
            let current = pdb["status"]["observedGeneration"] == pdb["metadata"]["generation"];
            (current && pdb["status"]["disruptionsAllowed"].as_i64() == Some(n)).then_some(pdb)
        })
        .await
    }

    /// Asks again and again, for a minute.
    pub async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        self.until_in(Duration::from_secs(60), what, ask).await
    }

    /// Asks again and again, for at most `limit`.
    pub async fn until_in<T>(
        &self,
        limit: Duration,
        what: &str,
        ask: impl AsyncFn() -> Option<T>,
    ) -> T {
        let step = Duration::from_millis(100);
        for _ in 0..limit.as_millis() / step.as_millis() {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(step).await;
        }
        panic!("no {what} within {limit:?}");
    }
}

pub fn name(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

pub fn uid(object: &Value) -> String {
    object["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

pub fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().is_some_and(|c| {
        c.iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
    })
}

pub fn pod_spec() -> Value {
    json!({"terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]})
}

pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
