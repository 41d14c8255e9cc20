//! EKS.

use std::collections::BTreeMap;

use aws_sdk_eks::types;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};

use crate::aws::convert_eks as convert;
use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi};
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::aws_status::InsightStatus;
use crate::model::eks::{
    Addon, AddonChange, AddonOffer, Cluster, ClusterVersion, Insight, NewNodegroup, Nodegroup,
    NodegroupChange, Update, UpdateOf,
};
use crate::model::pod_identity::PodIdentityAssociation;
use crate::model::{AddonVersion, ApiError, ErrorClass, Minor};

type Result<T> = std::result::Result<T, ApiError>;

impl AwsApi {
    /// Names of the region's clusters.
    pub async fn list_clusters(&self) -> Result<Vec<String>> {
        self.eks
            .list_clusters()
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("eks:ListClusters", e))
    }

    /// Reads a cluster. Absent where the region has none of that name.
    pub async fn describe_cluster(&self, name: &str) -> Result<Cluster> {
        let op = "eks:DescribeCluster";
        let out = self
            .eks
            .describe_cluster()
            .name(name)
            .send()
            .await
            .map_err(|e| failed(op, e))?;
        convert::to_cluster(require_answer(op, out.cluster)?)
    }

    /// The type of a principal's access entry, such as EC2_LINUX.
    ///
    /// # Errors
    /// Absent where the principal has none; those of DescribeAccessEntry.
    pub async fn read_access_type(&self, cluster: &str, principal: &str) -> Result<String> {
        let op = "eks:DescribeAccessEntry";
        let call = self.eks.describe_access_entry().cluster_name(cluster);
        let sent = call.principal_arn(principal).send().await;
        let found = sent.map_err(|e| failed(op, e))?.access_entry;
        require_answer(op, found.and_then(|entry| entry.r#type))
    }

    /// Starts the control plane's way to `to`, one minor up (or down, where EKS still can).
    pub async fn update_cluster_version(
        &self,
        cluster: &str,
        to: Minor,
        token: &str,
    ) -> Result<Update> {
        let op = "eks:UpdateClusterVersion";
        let out = self
            .eks
            .update_cluster_version()
            .name(cluster)
            .version(to.to_string())
            .client_request_token(token)
            .send()
            .await;
        convert::to_update(
            op,
            require_answer(op, out.map_err(|e| failed(op, e))?.update)?,
        )
    }

    /// How far an update has come.
    pub async fn describe_update(
        &self,
        cluster: &str,
        of: UpdateOf<'_>,
        id: &str,
    ) -> Result<Update> {
        let op = "eks:DescribeUpdate";
        let (nodegroup, addon) = names_of_update(&of);
        let out = self
            .eks
            .describe_update()
            .name(cluster)
            .update_id(id)
            .set_nodegroup_name(nodegroup)
            .set_addon_name(addon)
            .send()
            .await;
        convert::to_update(
            op,
            require_answer(op, out.map_err(|e| failed(op, e))?.update)?,
        )
    }

    /// Ids, newest first where the server says so.
    pub async fn list_updates(&self, cluster: &str, of: UpdateOf<'_>) -> Result<Vec<String>> {
        let (nodegroup, addon) = names_of_update(&of);
        let pages = self
            .eks
            .list_updates()
            .name(cluster)
            .set_nodegroup_name(nodegroup)
            .set_addon_name(addon)
            .into_paginator();
        pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("eks:ListUpdates", e))
    }

    /// Every version EKS knows, those out of support included.
    pub async fn list_cluster_versions(&self) -> Result<Vec<ClusterVersion>> {
        let pages = self
            .eks
            .describe_cluster_versions()
            .include_all(true)
            .into_paginator();
        let all = pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("eks:DescribeClusterVersions", e))?;
        Ok(all
            .into_iter()
            .filter_map(convert::to_cluster_version)
            .collect())
    }

    /// Insights of every category; those that do not pass are described in full.
    pub async fn list_insights(&self, cluster: &str) -> Result<Vec<Insight>> {
        let pages = self
            .eks
            .list_insights()
            .cluster_name(cluster)
            .into_paginator();
        let all = pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("eks:ListInsights", e))?;
        let mut insights: Vec<Insight> = all.into_iter().map(convert::to_insight).collect();
        // Collected first: a future that holds the closures could not be sent between threads.
        let full: Vec<_> = insights
            .iter()
            .filter(|i| i.status != InsightStatus::Passing)
            .map(|i| self.describe_insight(cluster, &i.id))
            .collect();
        let full: Vec<_> = stream::iter(full)
            .buffered(AWS_CALL_CONCURRENCY)
            .try_collect()
            .await?;
        let mut full: BTreeMap<String, types::Insight> = full.into_iter().flatten().collect();
        for insight in &mut insights {
            if let Some(full) = full.remove(&insight.id) {
                insight.recommendation = full.recommendation.clone();
                insight.resources = convert::list_insight_resources(&full);
            }
        }
        Ok(insights)
    }

    /// One insight in full; none when it went away after it was listed.
    async fn describe_insight(
        &self,
        cluster: &str,
        id: &str,
    ) -> Result<Option<(String, types::Insight)>> {
        match self
            .eks
            .describe_insight()
            .cluster_name(cluster)
            .id(id)
            .send()
            .await
            .map_err(|e| failed("eks:DescribeInsight", e))
        {
            Ok(out) => Ok(out.insight.map(|full| (id.to_owned(), full))),
            Err(error) if error.class == ErrorClass::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names of the managed node groups.
    pub async fn list_nodegroups(&self, cluster: &str) -> Result<Vec<String>> {
        let pages = self
            .eks
            .list_nodegroups()
            .cluster_name(cluster)
            .into_paginator();
        pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("eks:ListNodegroups", e))
    }

    /// Reads a managed node group. Absent where it is gone (EKS-NG-17).
    pub async fn describe_nodegroup(&self, cluster: &str, name: &str) -> Result<Nodegroup> {
        let op = "eks:DescribeNodegroup";
        let out = self
            .eks
            .describe_nodegroup()
            .cluster_name(cluster)
            .nodegroup_name(name)
            .send()
            .await
            .map_err(|e| failed(op, e))?;
        convert::to_nodegroup(op, require_answer(op, out.nodegroup)?)
    }

    /// Creates a managed node group; the answer comes long before its nodes.
    pub async fn create_nodegroup(
        &self,
        cluster: &str,
        group: &NewNodegroup,
        token: &str,
    ) -> Result<Nodegroup> {
        let op = "eks:CreateNodegroup";
        // Every field by name: one that is added to the model and not sent would be lost in silence.
        let NewNodegroup {
            name,
            scaling,
            subnets,
            node_role,
            instance_types,
            ami_type,
            capacity_type,
            disk_size,
            remote_access,
            labels,
            taints,
            tags,
            update_config,
            node_repair_config,
            warm_pool_config,
            launch_template,
            release_version,
        } = group;
        // The token makes a repeated call the same call: after a lost answer EKS answers with the group that it has
        // begun, and not that the name is taken.
        let call = self
            .eks
            .create_nodegroup()
            .cluster_name(cluster)
            .client_request_token(token)
            .nodegroup_name(name)
            .scaling_config(convert::to_sdk_scaling(scaling))
            .set_subnets(Some(subnets.clone()))
            .node_role(node_role)
            // An empty list is left out: EKS has a default for what the caller does not name.
            .set_instance_types(none_if_empty(instance_types))
            .set_ami_type(ami_type.as_deref().map(types::AmiTypes::from))
            .set_capacity_type(capacity_type.as_deref().map(types::CapacityTypes::from))
            .set_disk_size(*disk_size)
            .set_remote_access(remote_access.as_ref().map(convert::to_sdk_remote_access))
            .set_labels((!labels.is_empty()).then(|| labels.clone().into_iter().collect()))
            .set_taints(
                none_if_empty(taints)
                    .map(|taints| taints.iter().map(convert::to_sdk_taint).collect()),
            )
            .set_tags((!tags.is_empty()).then(|| tags.clone().into_iter().collect()))
            .set_update_config(update_config.as_ref().map(convert::to_sdk_update_config))
            .set_node_repair_config(
                node_repair_config
                    .as_ref()
                    .map(convert::to_sdk_node_repair_config),
            )
            .set_warm_pool_config(
                warm_pool_config
                    .as_ref()
                    .map(convert::to_sdk_warm_pool_config),
            )
            .set_launch_template(
                launch_template
                    .as_ref()
                    .map(convert::to_sdk_launch_template),
            )
            .set_release_version(release_version.clone());
        // The answer is a group that is CREATING: its nodes, and failures to launch them, come later.
        let out = call.send().await.map_err(|e| failed(op, e))?;
        convert::to_nodegroup(op, require_answer(op, out.nodegroup)?)
    }

    /// Changes sizes and taints of a managed node group, of its nodes to come as of those that are there.
    pub async fn update_nodegroup(
        &self,
        cluster: &str,
        name: &str,
        change: &NodegroupChange,
        token: &str,
    ) -> Result<Update> {
        // Every field by name, so that one that is added to the model is not lost in silence.
        let op = "eks:UpdateNodegroupConfig";
        let NodegroupChange {
            min,
            max,
            desired,
            add_taints,
            remove_taints,
        } = change;
        // What is not named stays as it is, so an empty list is left out.
        let taints = (!add_taints.is_empty() || !remove_taints.is_empty()).then(|| {
            types::UpdateTaintsPayload::builder()
                .set_add_or_update_taints(
                    none_if_empty(add_taints)
                        .map(|t| t.iter().map(convert::to_sdk_taint).collect()),
                )
                .set_remove_taints(
                    none_if_empty(remove_taints)
                        .map(|t| t.iter().map(convert::to_sdk_taint).collect()),
                )
                .build()
        });
        let call = self
            .eks
            .update_nodegroup_config()
            .cluster_name(cluster)
            .nodegroup_name(name)
            .client_request_token(token);
        // A scaling configuration without any size would be refused.
        let out = call
            .set_scaling_config(
                (min.is_some() || max.is_some() || desired.is_some()).then(|| {
                    types::NodegroupScalingConfig::builder()
                        .set_min_size(*min)
                        .set_max_size(*max)
                        .set_desired_size(*desired)
                        .build()
                }),
            )
            .set_taints(taints)
            .send()
            .await;
        convert::to_update(
            op,
            require_answer(op, out.map_err(|e| failed(op, e))?.update)?,
        )
    }

    /// Deletes a managed node group with all its nodes at once.
    pub async fn delete_nodegroup(&self, cluster: &str, name: &str) -> Result<()> {
        self.eks
            .delete_nodegroup()
            .cluster_name(cluster)
            .nodegroup_name(name)
            .send()
            .await
            .map_err(|e| failed("eks:DeleteNodegroup", e))?;
        Ok(())
    }

    /// Names of the Fargate profiles.
    pub async fn list_fargate_profiles(&self, cluster: &str) -> Result<Vec<String>> {
        let pages = self
            .eks
            .list_fargate_profiles()
            .cluster_name(cluster)
            .into_paginator();
        pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("eks:ListFargateProfiles", e))
    }

    /// Service accounts whose pods get a role by Pod Identity.
    pub async fn list_pod_identities(&self, cluster: &str) -> Result<Vec<PodIdentityAssociation>> {
        let pages = self
            .eks
            .list_pod_identity_associations()
            .cluster_name(cluster)
            .into_paginator();
        let found: Vec<_> = pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("eks:ListPodIdentityAssociations", e))?;
        let association = |a: types::PodIdentityAssociationSummary| {
            Some(PodIdentityAssociation {
                namespace: a.namespace?,
                service_account: a.service_account?,
            })
        };
        Ok(found.into_iter().filter_map(association).collect())
    }

    /// Names of the add-ons that EKS manages.
    pub async fn list_addons(&self, cluster: &str) -> Result<Vec<String>> {
        self.eks
            .list_addons()
            .cluster_name(cluster)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("eks:ListAddons", e))
    }

    /// Reads an add-on that EKS manages, with what somebody configured.
    pub async fn describe_addon(&self, cluster: &str, name: &str) -> Result<Addon> {
        let op = "eks:DescribeAddon";
        let out = self
            .eks
            .describe_addon()
            .cluster_name(cluster)
            .addon_name(name)
            .send()
            .await
            .map_err(|e| failed(op, e))?;
        convert::to_addon(op, require_answer(op, out.addon)?)
    }

    /// Newest first. A name the catalogue does not have on this minor has no versions.
    pub async fn list_addon_offers(
        &self,
        minor: Minor,
        names: &[String],
    ) -> Result<BTreeMap<String, Vec<AddonOffer>>> {
        let each = names.iter().map(async |name| {
            let pages = self
                .eks
                .describe_addon_versions()
                .kubernetes_version(minor.to_string())
                .addon_name(name)
                .into_paginator();
            let found: std::result::Result<Vec<types::AddonInfo>, _> =
                pages.items().send().try_collect().await;
            match found {
                Ok(found) => Ok((name.clone(), convert::to_addon_offers(minor, name, found))),
                // EKS answers with either error for names that its catalogue does not have on this minor, such as
                // self-managed add-ons. All other errors end the reading, because an empty list would read as no way to
                // upgrade.
                Err(error)
                    if error.as_service_error().is_some_and(|e| {
                        e.is_resource_not_found_exception() || e.is_invalid_parameter_exception()
                    }) =>
                {
                    Ok((name.clone(), Vec::new()))
                }
                Err(error) => Err(failed("eks:DescribeAddonVersions", error)),
            }
        });
        Ok(try_join_all(each).await?.into_iter().collect())
    }

    /// The JSON Schema an add-on's configuration must satisfy; None when it takes none.
    pub async fn describe_addon_schema(
        &self,
        name: &str,
        version: &AddonVersion,
    ) -> Result<Option<String>> {
        let out = self
            .eks
            .describe_addon_configuration()
            .addon_name(name)
            .addon_version(version.as_str())
            .send()
            .await;
        let out = out.map_err(|e| failed("eks:DescribeAddonConfiguration", e))?;
        Ok(out
            .configuration_schema
            .filter(|schema| !schema.trim().is_empty()))
    }

    /// Starts an add-on's way to another version.
    pub async fn update_addon(
        &self,
        cluster: &str,
        change: &AddonChange,
        configuration: Option<&str>,
        token: &str,
    ) -> Result<Update> {
        let op = "eks:UpdateAddon";
        let AddonChange {
            name,
            version,
            resolve_conflicts,
            service_account_role_arn,
        } = change;
        let call = self
            .eks
            .update_addon()
            .cluster_name(cluster)
            .client_request_token(token)
            .addon_name(name)
            .addon_version(version.as_str())
            .resolve_conflicts(resolve_conflicts.as_str().into())
            .set_service_account_role_arn(service_account_role_arn.clone())
            .set_configuration_values(configuration.map(str::to_owned));
        let out = call.send().await.map_err(|e| failed(op, e))?;
        convert::to_update(op, require_answer(op, out.update)?)
    }
}

/// What an answer must hold.
fn require_answer<T>(op: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| ApiError::new(op, ErrorClass::Transient, "the answer is empty"))
}

fn none_if_empty<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn names_of_update(of: &UpdateOf<'_>) -> (Option<String>, Option<String>) {
    match of {
        UpdateOf::Cluster => (None, None),
        UpdateOf::Nodegroup(name) => (Some((*name).to_owned()), None),
        UpdateOf::Addon(name) => (None, Some((*name).to_owned())),
    }
}
