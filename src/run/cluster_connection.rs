//! A way to one cluster, and what is read over it.

use std::time::Duration;

use super::error::RunError;
use super::output::RunOutput;
use super::run_target::KnownCaller;
use crate::aws::AwsApi;
use crate::clients::call_retry::{RetrySchedule, retry_call};
use crate::inventory::{self, refresh_insights};
use crate::k8s::KubeApi;
use crate::model::aws_status::ClusterStatus;
use crate::model::inventory::Unread;
use crate::model::{ApiError, Clock, ErrorClass, Inventory, Minor, eks};
use crate::plan::Plan;
use crate::{ready, route};

/// A way to one cluster: the real one, or the twin's.
#[derive(Clone)]
pub struct ClusterConnection {
    pub aws: AwsApi,
    pub kube: KubeApi,
    pub cluster: eks::Cluster,
    pub clock: Clock,
    pub caller: KnownCaller,
    /// What could not be read when the snapshot was taken that a twin is made of; of the real cluster nothing.
    pub unread: Vec<Unread>,
}

impl ClusterConnection {
    /// One reading of the cluster.
    pub async fn read_inventory(&self, to: Option<Minor>) -> Result<Inventory, RunError> {
        let name = self.cluster.name.as_str();
        let read =
            || crate::inventory::read_inventory(&self.aws, &self.kube, name, to, &self.clock);
        let mut inventory = retry_throttled(read).await?;
        // The twin answers for it, and is no witness: it is as unknown as it was then.
        inventory.unread.extend(self.unread.clone());
        Ok(inventory)
    }

    /// One reading of the cluster, with what only the plan says that it must be read.
    pub async fn read_for_plan(&self, plan: &Plan) -> Result<Inventory, RunError> {
        let inventory = self.read_inventory(Some(plan.to)).await?;
        let read = || inventory::read_for_plan(&self.aws, plan, inventory.clone());
        let inventory = retry_throttled(read).await?;
        // Which versions an add-on goes through and which profiles green's nodes get, only the route says.
        let Ok(route) = route::build_route(plan, &inventory) else {
            return Ok(inventory);
        };
        let versions = ready::configured_versions(&route, &inventory);
        let read = || inventory::read_addon_schemas(&self.aws, &versions, inventory.clone());
        let inventory = retry_throttled(read).await?;
        let profiles = ready::unproved_profiles(plan, &route, &inventory);
        if profiles.is_empty() {
            return Ok(inventory);
        }
        let read =
            || inventory::read_node_access(&self.aws, &self.kube, &profiles, inventory.clone());
        Ok(retry_throttled(read).await?)
    }

    /// One reading for an upgrade by `plan` that is about to be judged: where the control plane has a hop ahead, EKS is
    /// asked first to judge its insights again, which changes nothing in the cluster.
    pub async fn read_for_upgrade(
        &self,
        plan: &Plan,
        output: &dyn RunOutput,
    ) -> Result<Inventory, RunError> {
        let mut refresh = eks::InsightsRefreshOutcome::NotAsked;
        if self.cluster.version < plan.to && self.cluster.status == ClusterStatus::Active {
            let say = |text: &str| output.print_note(text);
            let ask = || refresh_insights(&self.aws, &self.cluster.name, &say);
            refresh = retry_throttled(ask).await?;
        }
        Ok(Inventory {
            insights_refresh: refresh,
            ..self.read_for_plan(plan).await?
        })
    }
}

/// Tries again what is throttled, for about a minute: others may be using up the account's rate. Whatever else fails
/// is told at once, as nothing has begun.
pub async fn retry_throttled<T, F>(call: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let schedule = RetrySchedule {
        first_wait: Duration::from_secs(2),
        max_retries: 5,
    };
    retry_call(schedule, |class| class == ErrorClass::Throttled, call).await
}
