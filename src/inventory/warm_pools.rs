//! Warm pools of self-managed Auto Scaling groups, with their instances.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};

use super::read::UnreadNotes;
use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi};
use crate::model::warm_pool::WarmPoolReading;
use crate::model::{ApiError, asg};

type Result<T> = std::result::Result<T, ApiError>;

/// By group; one of which it could not be read is left out. Those of self-managed groups: the pool of a managed node group is EKS's own.
pub(super) async fn read_warm_pools(
    aws: &AwsApi,
    self_managed: &[asg::Asg],
    notes: &UnreadNotes,
) -> Result<BTreeMap<String, WarmPoolReading>> {
    let with_pool = self_managed.iter().filter(|g| g.warm_pool.is_some());
    let each = with_pool.map(async |group| {
        let found = notes.or_none(aws.describe_warm_pool(&group.name)).await?;
        Ok::<_, ApiError>(found.flatten().map(|found| (group.name.clone(), found)))
    });
    let found: Vec<Option<(String, WarmPoolReading)>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}
