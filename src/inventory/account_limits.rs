//! What the account may have and the region has of what green needs.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::read::UnreadNotes;
use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi};
use crate::model::ec2::Instance;
use crate::model::limits::{Limits, NODE_GROUPS, cpu_class, storage_quota};
use crate::model::{ApiError, ErrorClass};

type Result<T> = std::result::Result<T, ApiError>;

/// Reads the limits for node groups of these instance types.
pub(super) async fn read_limits(
    aws: &AwsApi,
    types: &[String],
    instances: &[Instance],
    notes: &UnreadNotes,
) -> Result<Limits> {
    let ids: BTreeSet<String> = instances.iter().map(|i| i.id.clone()).collect();
    let offerings = async {
        if types.is_empty() {
            return Ok(None);
        }
        notes.or_none(aws.read_type_offerings(types)).await
    };
    // Each of them may be denied or too large to read. What is not known stays absent, and a note says so.
    let (in_use, storage, offerings) = futures::try_join!(
        Box::pin(notes.or_none(aws.sum_cpus_in_use())),
        Box::pin(notes.or_none(aws.sum_storage_in_use(&ids))),
        Box::pin(offerings),
    )?;
    let mut limits = Limits {
        offerings: offerings.unwrap_or_default(),
        ..Limits::default()
    };
    // A sum that leaves one instance out would be too small, so there is none then.
    if let Some(in_use) = in_use {
        limits.cpus = in_use.by_type;
        if in_use.by_quota.is_none() {
            notes.add_note(
                "ec2:DescribeInstances",
                "a running instance tells no CPU options, so how many vCPUs are in use is not known",
            );
        }
        limits.cpus_in_use = in_use.by_quota;
    }
    // More volumes than are counted leave the sum unknown, and not at what was counted.
    match storage {
        Some(Some(storage)) => {
            limits.storage_in_use = Some(storage.by_type);
            limits.storage_of = storage.by_instance;
        }
        Some(None) => notes.add_note(
            "ec2:DescribeVolumes",
            "there are more volumes than eksup counts, so it is unknown whether green's volumes fit into the quota",
        ),
        None => {}
    }
    add_type_sizes(aws, types, notes, &mut limits).await?;
    add_quotas(aws, types, notes, &mut limits).await?;
    Ok(limits)
}

/// What instances of these types have.
pub(super) async fn add_type_sizes(
    aws: &AwsApi,
    types: &[String],
    notes: &UnreadNotes,
    limits: &mut Limits,
) -> Result<()> {
    // A plan adds types to those that blue has, and only these are asked about.
    let unknown: Vec<String> = types
        .iter()
        .filter(|t| !limits.sizes.contains_key(*t))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        let sizes = notes.or_default(aws.read_type_sizes(&unknown)).await?;
        let cpus = sizes.iter().map(|(name, size)| (name.clone(), size.cpus));
        limits.cpus.extend(cpus);
        limits.sizes.extend(sizes);
    }
    Ok(())
}

/// The quotas that count for these types, by demand and as spot instances, and that of node groups.
pub(super) async fn add_quotas(
    aws: &AwsApi,
    types: &[String],
    notes: &UnreadNotes,
    limits: &mut Limits,
) -> Result<()> {
    let classes = types
        .iter()
        .flat_map(|t| [false, true].map(|spot| cpu_class(t, spot)))
        .flatten()
        .map(|class| class.quota);
    let volumes: BTreeSet<&String> = limits.storage_of.values().flat_map(|s| s.keys()).collect();
    let storage = volumes.into_iter().filter_map(|kind| storage_quota(kind));
    // By demand and as spot instances both: which of them green uses is not looked at here.
    let wanted: BTreeSet<_> = classes.chain(storage).chain([NODE_GROUPS]).collect();
    let missing = wanted
        .into_iter()
        .filter(|q| !limits.quotas.contains_key(&q.quota_key()));
    let each = missing.map(async |quota| {
        // Nothing rests on a quota but what is foreseen: where Service Quotas cannot be reached, that is told.
        let value = match aws.read_quota(quota).await {
            Err(error) if error.class != ErrorClass::Expired => {
                notes.add_note(&error.op, &error.message);
                None
            }
            answer => answer?,
        };
        Ok::<_, ApiError>((quota.quota_key(), value))
    });
    let found: Vec<(String, Option<f64>)> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    let known = found
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    limits.quotas.extend(known);
    Ok(())
}
