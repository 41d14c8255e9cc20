//! EKS.

use crate::aws::Aws;
use crate::model::eks::{
    Addon, AddonChange, AddonOffer, Cluster, ClusterVersion, Insight, NewNodegroup, Nodegroup,
    NodegroupChange, Update, UpdateOf,
};
use crate::model::{AddonVersion, ApiError, Minor};

type Result<T> = std::result::Result<T, ApiError>;

impl Aws {
    pub async fn describe_cluster(&self, name: &str) -> Result<Cluster> {
        todo!()
    }
    /// Returns the update's id.
    pub async fn update_cluster_version(
        &self,
        cluster: &str,
        to: Minor,
        token: &str,
    ) -> Result<Update> {
        todo!()
    }
    pub async fn describe_update(
        &self,
        cluster: &str,
        of: UpdateOf<'_>,
        id: &str,
    ) -> Result<Update> {
        todo!()
    }
    /// Ids, newest first where the server says so.
    pub async fn list_updates(&self, cluster: &str, of: UpdateOf<'_>) -> Result<Vec<String>> {
        todo!()
    }
    pub async fn cluster_versions(&self) -> Result<Vec<ClusterVersion>> {
        todo!()
    }
    /// Insights of every category; those that do not pass are described in full.
    pub async fn insights(&self, cluster: &str) -> Result<Vec<Insight>> {
        todo!()
    }
    pub async fn list_nodegroups(&self, cluster: &str) -> Result<Vec<String>> {
        todo!()
    }
    pub async fn describe_nodegroup(&self, cluster: &str, name: &str) -> Result<Nodegroup> {
        todo!()
    }
    pub async fn create_nodegroup(
        &self,
        cluster: &str,
        group: &NewNodegroup,
        token: &str,
    ) -> Result<Nodegroup> {
        todo!()
    }
    pub async fn update_nodegroup(
        &self,
        cluster: &str,
        name: &str,
        change: &NodegroupChange,
        token: &str,
    ) -> Result<Update> {
        todo!()
    }
    pub async fn delete_nodegroup(&self, cluster: &str, name: &str) -> Result<()> {
        todo!()
    }
    pub async fn list_fargate_profiles(&self, cluster: &str) -> Result<Vec<String>> {
        todo!()
    }
    pub async fn list_addons(&self, cluster: &str) -> Result<Vec<String>> {
        todo!()
    }
    pub async fn describe_addon(&self, cluster: &str, name: &str) -> Result<Addon> {
        todo!()
    }
    /// Newest first.
    pub async fn addon_offers(
        &self,
        minor: Minor,
        names: &[String],
    ) -> Result<std::collections::BTreeMap<String, Vec<AddonOffer>>> {
        todo!()
    }
    /// The JSON Schema an add-on's configuration must satisfy; None when it takes none.
    pub async fn addon_schema(&self, name: &str, version: &AddonVersion) -> Result<Option<String>> {
        todo!()
    }
    pub async fn update_addon(
        &self,
        cluster: &str,
        change: &AddonChange,
        token: &str,
    ) -> Result<Update> {
        todo!()
    }
}
