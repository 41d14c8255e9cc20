//! Karpenter's objects: reading them, and the few changes that a run makes.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::api_call::{JSON_CONTENT_TYPE, MERGE_PATCH_CONTENT_TYPE, with_field_manager};
use super::convert;
use crate::k8s::KubeApi;
use crate::model::node_pool::{KarpenterObjects, NodeClaim, NodeClass, NodePool};
use crate::model::{ApiError, ErrorClass};

/// Where NodePools are listed.
pub const NODE_POOLS_PATH: &str = "/apis/karpenter.sh/v1/nodepools";
/// Where NodeClaims are listed.
pub const NODE_CLAIMS_PATH: &str = "/apis/karpenter.sh/v1/nodeclaims";
/// Where the node classes of AWS are listed.
pub const NODE_CLASSES_PATH: &str = "/apis/karpenter.k8s.aws/v1/ec2nodeclasses";

/// A change to a NodePool. What is `None` or empty stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePoolChange {
    /// The whole new list of budgets.
    pub budgets: Option<Vec<Value>>,
    /// The whole new limits; null removes them.
    pub limits: Option<Value>,
    /// `None` removes.
    pub annotations: BTreeMap<String, Option<String>>,
}

impl KubeApi {
    /// What Karpenter, or EKS Auto Mode, has; empty where the cluster has neither.
    pub async fn list_karpenter(&self) -> Result<KarpenterObjects, ApiError> {
        let (pools, claims) = futures::try_join!(self.list_node_pools(), self.list_node_claims())?;
        // Only AWS's own provider has these, and who may read the pools may still not read the classes.
        let asks = pools.iter().any(|pool| !pool.is_auto_mode());
        let classes = if asks {
            match self.list_node_classes().await {
                Ok(classes) => Some(classes),
                Err(error) if error.class == ErrorClass::Denied => None,
                Err(error) => return Err(error),
            }
        } else {
            Some(Vec::new())
        };
        Ok(KarpenterObjects {
            pools,
            claims,
            classes,
        })
    }

    /// Every NodePool; none where there is no such resource.
    pub async fn list_node_pools(&self) -> Result<Vec<NodePool>, ApiError> {
        none_if_absent(
            self.list_converted(NODE_POOLS_PATH, convert::to_node_pool)
                .await,
        )
    }

    /// Every NodeClaim; none where there is no such resource.
    pub async fn list_node_claims(&self) -> Result<Vec<NodeClaim>, ApiError> {
        none_if_absent(
            self.list_converted(NODE_CLAIMS_PATH, convert::to_node_claim)
                .await,
        )
    }

    /// Every EC2NodeClass; none where there is no such resource.
    pub async fn list_node_classes(&self) -> Result<Vec<NodeClass>, ApiError> {
        none_if_absent(
            self.list_converted(NODE_CLASSES_PATH, convert::to_node_class)
                .await,
        )
    }

    /// One merge patch carrying the `resourceVersion` that was read, so that a concurrent change is a Conflict.
    pub async fn change_node_pool(
        &self,
        read: &NodePool,
        change: &NodePoolChange,
    ) -> Result<(), ApiError> {
        let path = with_field_manager(&format!("{NODE_POOLS_PATH}/{}", read.name));
        self.send_json::<Value>(
            "patch nodepools",
            Method::PATCH,
            &path,
            MERGE_PATCH_CONTENT_TYPE,
            &pool_patch(read, change),
        )
        .await?;
        Ok(())
    }
}

impl KubeApi {
    /// Creates an object of Karpenter; one of that name that is there already is no error, as the caller looks whose it is.
    pub async fn create_karpenter_object(
        &self,
        path: &str,
        object: &Value,
    ) -> Result<(), ApiError> {
        let op = format!("create {}", path.rsplit('/').next().unwrap_or(path));
        let path = with_field_manager(path);
        let created = self.send_json::<Value>(&op, Method::POST, &path, JSON_CONTENT_TYPE, object);
        match created.await {
            Err(error) if error.class != ErrorClass::Conflict => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Deletes an object of Karpenter; what belongs to it follows in the background. One that is gone is no error.
    pub async fn delete_karpenter_object(&self, path: &str, name: &str) -> Result<(), ApiError> {
        let op = format!("delete {}", path.rsplit('/').next().unwrap_or(path));
        let body = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        });
        let path = format!("{path}/{name}");
        let deleted = self.send_json::<Value>(&op, Method::DELETE, &path, JSON_CONTENT_TYPE, &body);
        match deleted.await {
            Err(error) if error.class != ErrorClass::Absent => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn none_if_absent<T>(listed: Result<Vec<T>, ApiError>) -> Result<Vec<T>, ApiError> {
    match listed {
        Err(error) if error.class == ErrorClass::Absent => Ok(Vec::new()),
        listed => listed,
    }
}

/// The merge patch that makes the change; with the version that was read, as a list is replaced as a whole and another's
/// change must not get lost.
pub fn pool_patch(read: &NodePool, change: &NodePoolChange) -> Value {
    let NodePoolChange {
        budgets,
        limits,
        annotations,
    } = change;
    let mut patch = json!({ "metadata": { "resourceVersion": read.resource_version } });
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = json!(annotations);
    }
    if let Some(budgets) = budgets {
        patch["spec"]["disruption"]["budgets"] = json!(budgets);
    }
    if let Some(limits) = limits {
        // A merge patch merges maps: what is to go has to be named.
        let mut all = json!({});
        for key in read.spec["limits"]
            .as_object()
            .into_iter()
            .flat_map(|l| l.keys())
        {
            all[key] = Value::Null;
        }
        for (key, value) in limits.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        patch["spec"]["limits"] = if limits.is_null() { Value::Null } else { all };
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_of_a_node_pool_replaces_limits_whole_and_carries_the_version() {
        let read = NodePool {
            resource_version: "7".into(),
            spec: json!({"limits": {"cpu": "100", "memory": "1Gi"}}),
            ..NodePool::default()
        };
        let change = NodePoolChange {
            limits: Some(json!({"cpu": "0"})),
            ..NodePoolChange::default()
        };
        assert_eq!(
            pool_patch(&read, &change),
            json!({"metadata": {"resourceVersion": "7"}, "spec": {"limits": {"cpu": "0", "memory": null}}})
        );
    }
}
