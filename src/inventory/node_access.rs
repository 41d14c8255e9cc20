//! Whether the nodes of an instance profile may join; asked only about profiles of which nothing else shows it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};

use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi};
use crate::k8s::KubeApi;
use crate::model::node_access::{AccessReading, AccessSources, NodeAccess, RoleMapping};
use crate::model::{ApiError, ErrorClass, Inventory};

type Result<T> = std::result::Result<T, ApiError>;

/// How long one answer may take. In a network without a way to IAM, it never answers.
const ACCESS_READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Adds what lets the nodes of these instance profiles in. A reading that fails is kept with the reason.
///
/// # Errors
/// The credentials have expired.
pub async fn read_node_access(
    aws: &AwsApi,
    kube: &KubeApi,
    profiles: &BTreeSet<String>,
    mut inventory: Inventory,
) -> Result<Inventory> {
    let cluster = &inventory.cluster;
    let sources = AccessSources::of_mode(cluster.authentication_mode.as_deref());
    let each = profiles.iter().map(async |profile| {
        let role = keep_failure("iam:GetInstanceProfile", aws.read_profile_role(profile)).await?;
        // A profile without a role gives its instances none, as one that does not exist.
        let mut access = NodeAccess {
            role: match role {
                AccessReading::Found(Some(role)) => AccessReading::Found(role),
                AccessReading::Found(None) | AccessReading::Missing => AccessReading::Missing,
                AccessReading::NotAsked => AccessReading::NotAsked,
                AccessReading::Unread(why) => AccessReading::Unread(why),
            },
            ..NodeAccess::default()
        };
        if let (AccessReading::Found(role), Some(sources)) = (&access.role, sources) {
            if sources.entries {
                let call = aws.read_access_type(&cluster.name, role);
                access.entry = keep_failure("eks:DescribeAccessEntry", call).await?;
            }
            // The role's entry decides, whatever aws-auth says of it (SELF-5).
            if sources.aws_auth && !matches!(access.entry, AccessReading::Found(_)) {
                access.rows = rows_of_role(kube, role).await?;
            }
        }
        Ok::<_, ApiError>((profile.clone(), access))
    });
    inventory.node_access = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    Ok(inventory)
}

/// The rows of aws-auth that name the role, rightly or not; those of others are nobody's business.
async fn rows_of_role(kube: &KubeApi, role: &str) -> Result<AccessReading<Vec<RoleMapping>>> {
    let rows = match keep_failure("get configmaps", kube.read_role_mappings()).await? {
        AccessReading::Found(Some(rows)) => rows,
        AccessReading::Found(None) | AccessReading::Missing => return Ok(AccessReading::Missing),
        AccessReading::NotAsked => return Ok(AccessReading::NotAsked),
        AccessReading::Unread(why) => return Ok(AccessReading::Unread(why)),
    };
    let rows = rows.into_iter().filter(|row| row.resembles(role));
    Ok(AccessReading::Found(rows.collect()))
}

/// The answer, that there is nothing, or why it could not be had: nothing rests on it but a finding.
async fn keep_failure<T>(
    op: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<AccessReading<T>> {
    let Ok(answer) = tokio::time::timeout(ACCESS_READ_TIMEOUT, call).await else {
        let seconds = ACCESS_READ_TIMEOUT.as_secs();
        return Ok(AccessReading::Unread(format!(
            "{op}: no answer within {seconds} s"
        )));
    };
    match answer {
        Ok(answer) => Ok(AccessReading::Found(answer)),
        Err(error) if error.class == ErrorClass::Absent => Ok(AccessReading::Missing),
        Err(error) if error.class == ErrorClass::Expired => Err(error),
        Err(error) => Ok(AccessReading::Unread(error.to_string())),
    }
}
