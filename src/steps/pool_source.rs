//! NodePools of Karpenter as a source of nodes: a green one is made like blue, and its machines are asked for one by one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::engine::StepError;
use crate::k8s::cache::CacheSnapshot;
use crate::k8s::node_pools::{
    NODE_CLAIMS_PATH, NODE_CLASSES_PATH, NODE_POOLS_PATH, NodePoolChange,
};
use crate::model::eks::{Nodegroup, NodegroupChange};
use crate::model::kube::{Node, Resources};
use crate::model::node_pool::{KarpenterObjects, NodeClaim, NodePool};
use crate::model::pool_group::{
    ClaimOrigin, GreenPool, claim_object, closed_limits, green_class_object, green_pool_object,
    live_claims, pool_to_group,
};
use crate::model::{ApiError, Minor, marks};
use crate::steps::StepWorld;
use crate::steps::node_pools::own_budgets;

/// What is known of the machines of a NodePool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolMachines {
    /// How many of those that the group is to have are not asked for yet.
    pub missing: i32,
    /// Claims that come to nothing, and why: they could not be launched, or became a node of another version.
    pub unfit: BTreeMap<String, String>,
    /// Why no claim may be made now.
    pub held_up: Option<String>,
}

impl StepWorld {
    /// The NodePool as a group; none where it is gone.
    pub(super) async fn read_pool_group(&self, name: &str) -> Result<Option<Nodegroup>, ApiError> {
        let objects = self.kube.list_karpenter().await?;
        let pool = objects.find_pool(name);
        Ok(pool.map(|pool| pool_to_group(&objects, pool)))
    }

    /// Makes a NodePool like `blue` with room for `nodes`; its machines are asked for afterwards. `image`: for a node class
    /// of its own.
    pub(super) async fn create_pool(
        &self,
        blue: &str,
        (green, nodes): (&str, i32),
        image: Option<&str>,
    ) -> Result<(), StepError> {
        let objects = self.kube.list_karpenter().await?;
        let origin = objects
            .find_pool(blue)
            .ok_or_else(|| StepError::Broken(format!("NodePool {blue} is gone")))?;
        let mut class = origin.node_class().name.to_owned();
        // The class comes first: a NodePool whose class is not there is not Ready.
        if let Some(image) = image {
            let like = objects.class_of(origin).ok_or_else(|| {
                StepError::Broken(format!("EC2NodeClass {class} could not be read"))
            })?;
            let object = green_class_object(like, green, image, &self.run);
            let made = objects.classes.iter().flatten().find(|c| c.name == green);
            if let Some(made) = made
                && made.annotations.get(marks::CREATED_BY) != Some(&self.run)
            {
                return Err(StepError::Broken(format!(
                    "EC2NodeClass {green} exists and was not made by this run"
                )));
            }
            let create = self
                .kube
                .create_karpenter_object(NODE_CLASSES_PATH, &object);
            create.await?;
            class = green.to_owned();
        }
        let of_green = GreenPool {
            name: green,
            class: &class,
            budgets: &own_budgets(origin),
            run: &self.run,
            nodes,
        };
        let object = green_pool_object(origin, of_green);
        let create = self.kube.create_karpenter_object(NODE_POOLS_PATH, &object);
        Ok(create.await?)
    }

    /// Changes what a node group's sizes are for others: limits of 0 for a largest size, claims for a desired one.
    pub(super) async fn change_pool(
        &self,
        name: &str,
        change: &NodegroupChange,
    ) -> Result<(), StepError> {
        let objects = self.kube.list_karpenter().await?;
        let pool = objects
            .find_pool(name)
            .ok_or_else(|| StepError::Broken(format!("NodePool {name} is gone")))?;
        if let Some(max) = change.max {
            let closes = max < i32::MAX;
            self.close_pool(pool, closes).await?;
        }
        match change.desired {
            Some(0) => self.delete_claims(live_claims(&objects, name)).await?,
            Some(desired) => {
                self.request_machines(&objects, pool, desired).await?;
                self.note_wanted(pool, desired).await?;
            }
            None => {}
        }
        Ok(())
    }

    /// Sets the limits of a NodePool to 0, or back to what they were.
    async fn close_pool(&self, pool: &NodePool, closes: bool) -> Result<(), ApiError> {
        let before = pool.annotations.get(marks::LIMITS_BEFORE);
        let change = match (closes, before) {
            (true, None) => NodePoolChange {
                limits: Some(closed_limits()),
                annotations: [(
                    marks::LIMITS_BEFORE.to_owned(),
                    Some(pool.spec["limits"].to_string()),
                )]
                .into(),
                ..NodePoolChange::default()
            },
            (false, Some(before)) => NodePoolChange {
                limits: Some(serde_json::from_str(before).unwrap_or(Value::Null)),
                annotations: [(marks::LIMITS_BEFORE.to_owned(), None)].into(),
                ..NodePoolChange::default()
            },
            (true, Some(_)) | (false, None) => return Ok(()),
        };
        self.kube.change_node_pool(pool, &change).await
    }

    /// Writes on a green how many nodes it is to have.
    async fn note_wanted(&self, pool: &NodePool, desired: i32) -> Result<(), ApiError> {
        let wanted = desired.to_string();
        let known = pool.annotations.get(marks::WANTED_NODES);
        if !pool.annotations.contains_key(marks::CREATED_BY) || known == Some(&wanted) {
            return Ok(());
        }
        let change = NodePoolChange {
            annotations: [(marks::WANTED_NODES.to_owned(), Some(wanted))].into(),
            ..NodePoolChange::default()
        };
        self.kube.change_node_pool(pool, &change).await
    }

    /// Asks for as many machines as are missing, each like one of blue's.
    async fn request_machines(
        &self,
        objects: &KarpenterObjects,
        pool: &NodePool,
        desired: i32,
    ) -> Result<(), StepError> {
        let have = live_claims(objects, &pool.name).count();
        let desired = usize::try_from(desired).unwrap_or(0);
        if have >= desired {
            return Ok(());
        }
        let snapshot = self.read_snapshot().await?;
        let blue = pool.annotations.get(marks::CLONED_FROM);
        let blue = blue.map_or(pool.name.as_str(), String::as_str);
        let mut origins: Vec<&NodeClaim> = objects
            .claims
            .iter()
            .filter(|c| c.pool.as_deref() == Some(blue))
            .collect();
        origins.sort_by(|a, b| a.name.cmp(&b.name));
        if origins.is_empty() {
            return Err(StepError::Broken(format!(
                "NodePool {blue} has no NodeClaim to make others like"
            )));
        }
        // A name that is free, and the same one where the act is repeated.
        let taken = |name: &String| objects.claims.iter().any(|c| c.name == *name);
        let names = (1..).map(|n| format!("{}-eksup-{n}", pool.name));
        let names = names.filter(|name| !taken(name)).take(desired - have);
        for (i, name) in names.enumerate() {
            let claim = origins[(have + i) % origins.len()];
            let node = claim.node.as_ref().and_then(|n| snapshot.nodes.get(n));
            let origin = ClaimOrigin {
                claim,
                node: node.map(AsRef::as_ref),
                requests: node.map_or_else(Resources::default, |n| requests_on(&snapshot, n)),
            };
            let object = claim_object(pool, &name, origin);
            let create = self.kube.create_karpenter_object(NODE_CLAIMS_PATH, &object);
            create.await?;
        }
        Ok(())
    }

    /// What is known of the machines of a green NodePool whose nodes are to have `kubelet`.
    ///
    /// # Errors
    /// Those of listing Karpenter's objects, and of the watches.
    pub async fn read_pool_machines(
        &self,
        green: &Nodegroup,
        kubelet: Option<Minor>,
    ) -> Result<PoolMachines, StepError> {
        let objects = self.kube.list_karpenter().await?;
        let snapshot = self.read_snapshot().await?;
        let Some(pool) = objects.find_pool(&green.name) else {
            return Ok(PoolMachines::default());
        };
        let claims: Vec<&NodeClaim> = live_claims(&objects, &green.name).collect();
        let node_of = |claim: &NodeClaim| {
            let name = claim.node.as_ref()?;
            snapshot.nodes.get(name).map(AsRef::as_ref)
        };
        let unfit = claims.iter().filter_map(|claim| {
            let why = unfit_reason(claim, node_of(claim), kubelet)?;
            Some((claim.name.clone(), why))
        });
        let have = i32::try_from(claims.len()).unwrap_or(i32::MAX);
        Ok(PoolMachines {
            missing: (green.scaling.desired - have).max(0),
            unfit: unfit.collect(),
            held_up: kubelet.and_then(|at| why_not_launched(&objects, pool, at)),
        })
    }

    /// Deletes claims; Karpenter drains each node that is not empty, by the Eviction API, and ends it.
    pub(super) async fn delete_claims<'a>(
        &self,
        claims: impl Iterator<Item = &'a NodeClaim>,
    ) -> Result<(), ApiError> {
        for claim in claims {
            self.delete_claim(&claim.name).await?;
        }
        Ok(())
    }

    /// Deletes one claim.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn delete_claim(&self, name: &str) -> Result<(), ApiError> {
        let delete = self.kube.delete_karpenter_object(NODE_CLAIMS_PATH, name);
        delete.await
    }

    /// Deletes a NodePool with its claims, and the node class that a run made for it.
    pub(super) async fn delete_pool(&self, name: &str) -> Result<(), ApiError> {
        let objects = self.kube.list_karpenter().await?;
        let delete = self.kube.delete_karpenter_object(NODE_POOLS_PATH, name);
        delete.await?;
        let Some(pool) = objects.find_pool(name) else {
            return Ok(());
        };
        // A class waits for the claims that use it, and goes only where no other NodePool does.
        let others = objects.pools.iter().filter(|p| p.name != name);
        let shared = others
            .filter(|p| p.node_class() == pool.node_class())
            .count()
            > 0;
        let class = objects.class_of(pool).filter(|_| !shared);
        if let Some(class) = class.filter(|c| c.annotations.contains_key(marks::CREATED_BY)) {
            let delete = self
                .kube
                .delete_karpenter_object(NODE_CLASSES_PATH, &class.name);
            delete.await?;
        }
        Ok(())
    }
}

/// What the pods on a node ask for together.
fn requests_on(snapshot: &CacheSnapshot, node: &Node) -> Resources {
    let pods = snapshot.pods.on_node(&node.name);
    let pods = pods.iter().filter(|p| !p.is_finished());
    pods.fold(Resources::default(), |sum, pod| Resources {
        cpu_millis: sum.cpu_millis + pod.requests.cpu_millis,
        memory_bytes: sum.memory_bytes + pod.requests.memory_bytes,
        pods: sum.pods + 1,
    })
}

/// Why a claim comes to nothing. One that cannot be launched stands in the way of all that Karpenter does (KARP-6).
fn unfit_reason(claim: &NodeClaim, node: Option<&Node>, kubelet: Option<Minor>) -> Option<String> {
    if let Some(why) = claim
        .conditions
        .get("Launched")
        .and_then(|c| c.launch_failure())
    {
        return Some(why.to_owned());
    }
    let (node, wanted) = (node?, kubelet?);
    let seen = Minor::from_reported(&node.kubelet_version).ok();
    (seen != Some(wanted)).then(|| format!("its kubelet is {}", node.kubelet_version))
}

/// Why a claim that is made now would come to nothing.
fn why_not_launched(objects: &KarpenterObjects, pool: &NodePool, at: Minor) -> Option<String> {
    let class = objects.class_of(pool);
    // The class says what is wrong with it; its NodePool says no more than that.
    if let Some(class) = class
        && let Some(why) = class.ready.as_ref().and_then(|r| r.trouble())
    {
        return Some(format!("EC2NodeClass {} is not Ready: {why}", class.name));
    }
    if let Some(why) = pool.ready.as_ref().and_then(|r| r.trouble()) {
        return Some(format!("NodePool {} is not Ready: {why}", pool.name));
    }
    let class = class?;
    match &class.ready {
        Some(ready) if ready.status == "True" => {}
        Some(ready) => {
            return Some(format!(
                "EC2NodeClass {} is not Ready: {}",
                class.name, ready.message
            ));
        }
        None => return Some(format!("EC2NodeClass {} is not Ready yet", class.name)),
    }
    class.selects_other_version(at).then(|| {
        format!(
            "EC2NodeClass {} still selects an image of another version than {at}: {}",
            class.name,
            class.images.join(", ")
        )
    })
}
