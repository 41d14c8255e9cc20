//! Warm pools of Auto Scaling groups: read, set up and deleted.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types;
use futures::{StreamExt, TryStreamExt, stream};

use super::asg::to_asg_instance;
use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi};
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::asg::{Asg, WarmPoolReading};
use crate::model::warm_pool::WarmPool;
use crate::model::{ApiError, absent_is_none};

type Result<T> = std::result::Result<T, ApiError>;

/// What PutWarmPool takes for a pool whose largest size is the group's: left out, the value of before would stay (ASG-17).
const NO_PREPARED_LIMIT: i32 = -1;
/// What a pool keeps its instances in where nothing is said.
const DEFAULT_POOL_STATE: &str = "Stopped";

impl AwsApi {
    /// The group's warm pool with its instances; none where it has no pool.
    ///
    /// # Errors
    /// Those of DescribeWarmPool; Absent when there is no such group.
    pub async fn describe_warm_pool(&self, asg: &str) -> Result<Option<WarmPoolReading>> {
        let mut reading: Option<WarmPoolReading> = None;
        let mut next = None;
        loop {
            let call = self.asg.describe_warm_pool().auto_scaling_group_name(asg);
            let sent = call.set_next_token(next).send().await;
            let page = sent.map_err(|e| failed("autoscaling:DescribeWarmPool", e))?;
            let Some(pool) = page.warm_pool_configuration else {
                return Ok(None);
            };
            let known = reading.get_or_insert_with(|| to_warm_pool(pool));
            let instances = page.instances.unwrap_or_default().into_iter();
            known.instances.extend(instances.map(to_asg_instance));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                known.instances.sort_by(|a, b| a.id.cmp(&b.id));
                return Ok(reading);
            }
        }
    }

    /// The warm pools of those groups that have one, by group.
    ///
    /// # Errors
    /// Those of DescribeWarmPool.
    pub async fn describe_warm_pools(
        &self,
        asgs: &[Asg],
    ) -> Result<BTreeMap<String, WarmPoolReading>> {
        let with_pool = asgs.iter().filter(|g| g.warm_pool.is_some());
        let each = with_pool.map(async |group| {
            let found = absent_is_none(self.describe_warm_pool(&group.name).await)?;
            Ok::<_, ApiError>(found.flatten().map(|found| (group.name.clone(), found)))
        });
        let found: Vec<Option<(String, WarmPoolReading)>> = stream::iter(each)
            .buffered(AWS_CALL_CONCURRENCY)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Gives the group this warm pool, or changes the one it has. Every member is sent, so that none of before stays.
    ///
    /// # Errors
    /// Those of PutWarmPool.
    pub async fn put_warm_pool(&self, asg: &str, pool: &WarmPool) -> Result<()> {
        let reuse = types::InstanceReusePolicy::builder().reuse_on_scale_in(pool.reuse);
        self.asg
            .put_warm_pool()
            .auto_scaling_group_name(asg)
            .min_size(pool.min)
            .max_group_prepared_capacity(pool.max_prepared.unwrap_or(NO_PREPARED_LIMIT))
            .pool_state(pool.state.as_str().into())
            .instance_reuse_policy(reuse.build())
            .send()
            .await
            .map_err(|e| failed("autoscaling:PutWarmPool", e))?;
        Ok(())
    }

    /// Deletes a warm pool that has no instances. Auto Scaling refuses one that has: it is never forced.
    ///
    /// # Errors
    /// Those of DeleteWarmPool; Absent when the group has none.
    pub async fn delete_empty_warm_pool(&self, asg: &str) -> Result<()> {
        self.asg
            .delete_warm_pool()
            .auto_scaling_group_name(asg)
            .send()
            .await
            .map_err(|e| failed("autoscaling:DeleteWarmPool", e))?;
        Ok(())
    }
}

/// The pool as DescribeAutoScalingGroups and DescribeWarmPool tell it, without its instances.
pub(super) fn to_warm_pool(pool: types::WarmPoolConfiguration) -> WarmPoolReading {
    let state = pool.pool_state.as_ref().map(|s| s.as_str());
    let reuse = pool.instance_reuse_policy.and_then(|p| p.reuse_on_scale_in);
    WarmPoolReading {
        deleting: pool.status == Some(types::WarmPoolStatus::PendingDelete),
        pool: WarmPool {
            min: pool.min_size.unwrap_or(0),
            max_prepared: pool.max_group_prepared_capacity.filter(|n| *n >= 0),
            state: state.unwrap_or(DEFAULT_POOL_STATE).to_owned(),
            reuse: reuse.unwrap_or(false),
        },
        instances: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_removed_is_none_and_what_is_not_said_is_the_default() {
        let told = types::WarmPoolConfiguration::builder()
            .max_group_prepared_capacity(NO_PREPARED_LIMIT)
            .build();
        let pool = to_warm_pool(told).pool;
        assert_eq!((pool.min, pool.max_prepared), (0, None));
        assert_eq!((pool.state.as_str(), pool.reuse), ("Stopped", false));
        let told = types::WarmPoolConfiguration::builder()
            .max_group_prepared_capacity(0)
            .status(types::WarmPoolStatus::PendingDelete)
            .build();
        let reading = to_warm_pool(told);
        assert!(reading.deleting && reading.pool.keeps_none());
    }
}
