//! Finds the cluster, and proves that the Kubernetes it reaches is that very cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::aws::Aws;
use crate::clients::follow::{Connect, Describe, following};
use crate::clients::https;
use crate::clients::identity::{Reached, same_cluster};
use crate::clients::kube::{self as client, Auth};
use crate::clients::token::Tokens;
use crate::k8s::Kube;
use crate::model::{ApiError, Class, Clock, eks};
use crate::wire::Wire;

/// An API server that does not answer is asked again: for moments, or, while EKS changes the cluster and so takes it away
/// (who takes up a run in the middle of a hop meets that), for as long as that may last.
const BLINK: Duration = Duration::from_secs(20);
const HOP: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_secs(2);

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Endpoint and CA as EKS says them, with a token minted in process.
    Eks,
    /// A kubeconfig; no `path`: `KUBECONFIG` or the home folder's.
    Kubeconfig {
        path: Option<PathBuf>,
        context: Option<String>,
    },
}

/// Finds the cluster and reaches its API server.
///
/// # Errors
/// Names what is wrong: the clusters there are when this one is not, the address when it does not answer, both clusters
/// when a kubeconfig leads to another.
pub async fn connect(
    aws: &Aws,
    name: &str,
    way: &Way,
    clock: &Clock,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<(eks::Cluster, Kube), ApiError> {
    let cluster = find(aws, name).await?;
    let patience = match cluster.status.as_str() {
        "UPDATING" => HOP,
        _ => BLINK,
    };
    let kube = match way {
        Way::Eks => {
            let kube = followed(aws, &cluster, clock, Arc::new(https::wire), true)?;
            let url = cluster.endpoint.as_deref().unwrap_or_default();
            reachable(url, &kube, patience, say).await?;
            kube
        }
        Way::Kubeconfig { path, context } => {
            let config = client::config_from(path.as_deref(), context.as_deref()).await?;
            let kube = Kube {
                client: client::production(&config, Auth::Kubeconfig)?,
            };
            reachable(&config.cluster_url.to_string(), &kube, patience, say).await?;
            prove(aws, &cluster, &config, &kube).await?;
            kube
        }
    };
    Ok((cluster, kube))
}

/// Reaches the API server of `cluster` over a given wire, with the same layers as production.
pub fn over(
    aws: &Aws,
    cluster: &eks::Cluster,
    clock: &Clock,
    wire: Wire,
) -> Result<Kube, ApiError> {
    followed(
        aws,
        cluster,
        clock,
        Arc::new(move |_| Ok(wire.clone())),
        false,
    )
}

/// Reaches the API server where EKS says it is, and follows it when its address or CA changes. `tls`: there is a CA to
/// prove anything.
fn followed(
    aws: &Aws,
    cluster: &eks::Cluster,
    clock: &Clock,
    connect: Connect,
    tls: bool,
) -> Result<Kube, ApiError> {
    let bare = move |cluster: eks::Cluster| eks::Cluster {
        certificate_authority: cluster.certificate_authority.filter(|_| tls),
        ..cluster
    };
    let (config, auth) = by_eks(aws, &bare(cluster.clone()), clock)?;
    let (aws, name) = (aws.clone(), cluster.name.clone());
    let describe: Describe = Arc::new(move || {
        let (aws, name) = (aws.clone(), name.clone());
        Box::pin(async move {
            let cluster = bare(aws.describe_cluster(&name).await?);
            client::config_of(
                cluster.endpoint.as_deref().unwrap_or_default(),
                cluster.certificate_authority.as_deref(),
            )
        })
    });
    let wire = following(&config, describe, connect)?;
    Ok(Kube {
        client: client::over(&config, auth, wire)?,
    })
}

/// The cluster, or the names of those there are.
pub async fn find(aws: &Aws, name: &str) -> Result<eks::Cluster, ApiError> {
    let error = match aws.describe_cluster(name).await {
        Ok(cluster) => return Ok(cluster),
        Err(error) if error.class == Class::Absent => error,
        Err(error) => return Err(error),
    };
    let there = match aws.list_clusters().await {
        Ok(names) if names.is_empty() => {
            "there is no cluster in this region and account".to_owned()
        }
        Ok(names) => format!(
            "there are {}",
            names
                .iter()
                .map(|n| format!("`{n}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Err(other) => format!("and which there are could not be read ({})", other.message),
    };
    Err(ApiError {
        message: format!(
            "there is no cluster `{name}` in region `{}`; {there}. Name another with --cluster, or the right --region or --profile.",
            aws.region
        ),
        ..error
    })
}

fn by_eks(
    aws: &Aws,
    cluster: &eks::Cluster,
    clock: &Clock,
) -> Result<(kube::Config, Auth), ApiError> {
    let refused = |why: &str| {
        ApiError::new(
            "connect to the cluster",
            Class::Invalid,
            format!("cluster `{}` {why}", cluster.name),
        )
    };
    let endpoint = cluster.endpoint.as_deref().ok_or_else(|| {
        refused(&format!(
            "has no API server address; it is {}",
            cluster.status
        ))
    })?;
    let credentials = aws
        .config
        .credentials_provider()
        .ok_or_else(|| refused("cannot be signed in to: there are no AWS credentials"))?;
    let config = client::config_of(endpoint, cluster.certificate_authority.as_deref())?;
    Ok((
        config,
        Auth::Eks(Tokens::new(
            &cluster.name,
            &aws.region,
            credentials,
            clock.clone(),
        )),
    ))
}

/// Proves that what a kubeconfig reaches is `cluster`; only when address and CA do not, the nodes are looked at.
async fn prove(
    aws: &Aws,
    cluster: &eks::Cluster,
    config: &kube::Config,
    kube: &Kube,
) -> Result<(), ApiError> {
    let url = config.cluster_url.to_string();
    let own = config.root_cert.clone().unwrap_or_default();
    // One that cannot be read proves nothing; the address or the nodes still can.
    let authorities = cluster
        .certificate_authority
        .as_deref()
        .and_then(|ca| https::certificates(ca).ok())
        .unwrap_or_default();
    let mut reached = Reached {
        url: &url,
        authorities: &own,
        nodes: &[],
    };
    if same_cluster(&reached, cluster, &authorities, &BTreeMap::new()).is_ok() {
        return Ok(());
    }
    let nodes = kube
        .nodes()
        .await
        .map_err(|e| unreachable_server(&url, e))?;
    let instances = instances(aws, &cluster.name).await?;
    reached.nodes = &nodes;
    same_cluster(&reached, cluster, &authorities, &instances)
}

/// Instance ids by node group.
async fn instances(
    aws: &Aws,
    cluster: &str,
) -> Result<BTreeMap<String, BTreeSet<String>>, ApiError> {
    let mut all = BTreeMap::new();
    for name in aws.list_nodegroups(cluster).await? {
        let group = aws.describe_nodegroup(cluster, &name).await?;
        let asgs = aws.asgs(&group.asgs).await?;
        all.insert(
            name,
            asgs.into_values()
                .flat_map(|g| g.instances)
                .map(|i| i.id)
                .collect(),
        );
    }
    Ok(all)
}

/// Asks the API server for its version, so that what keeps us from it is said before anything is begun.
async fn reachable(
    url: &str,
    kube: &Kube,
    patience: Duration,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<(), ApiError> {
    let began = tokio::time::Instant::now();
    let mut said = false;
    loop {
        let error = match kube.server_version().await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if error.class != Class::Transient || began.elapsed() >= patience {
            return Err(unreachable_server(url, error));
        }
        if !std::mem::replace(&mut said, true) {
            say(format!(
                "the API server `{url}` does not answer ({}); trying again for up to {} s",
                error.message,
                patience.as_secs()
            ));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn unreachable_server(url: &str, error: ApiError) -> ApiError {
    let hint = match error.class {
        Class::Transient => {
            "; is the endpoint private, and this machine outside of its network (VPN, proxy, security group)?"
        }
        Class::Expired
        | Class::Absent
        | Class::Conflict
        | Class::Throttled
        | Class::Blocked
        | Class::Denied
        | Class::Invalid => "",
    };
    ApiError {
        op: "connect to the cluster".to_owned(),
        message: format!(
            "the API server `{url}` cannot be used: {}{hint}",
            error.message
        ),
        ..error
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::clients::kube::{config_of, over};
    use crate::clients::scripted::{json as answer, wire};

    /// Reaches an API server that refuses the first `refuses` connections: how that ends, and what is said meanwhile.
    async fn reached(refuses: usize, patience: Duration) -> (Result<(), ApiError>, Vec<String>) {
        let (wire, _) = wire(move |_, n| match n {
            n if n < refuses => Err("connection refused".into()),
            _ => answer(200, &json!({"gitVersion": "v1.29.1"})),
        });
        let config = config_of("http://127.0.0.1:1", None).unwrap();
        let kube = Kube {
            client: over(&config, Auth::Kubeconfig, wire).unwrap(),
        };
        let said = Mutex::new(Vec::new());
        let say = |text| said.lock().unwrap().push(text);
        let ended = reachable("http://127.0.0.1:1", &kube, patience, &say).await;
        (ended, said.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_away_for_a_hop_is_waited_for_aloud() {
        let (ended, said) = reached(20, HOP).await;
        ended.unwrap();
        assert!(
            matches!(said.as_slice(), [one] if one.contains("127.0.0.1") && one.contains("300 s")),
            "{said:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_stays_away_is_named_soon() {
        let start = tokio::time::Instant::now();
        let error = reached(usize::MAX, BLINK).await.0.unwrap_err();
        assert!(error.message.contains("http://127.0.0.1:1"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
