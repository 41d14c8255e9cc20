//! Finds the cluster, and proves that the Kubernetes it reaches is that very cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::aws::AwsApi;
use crate::clients::cluster_identity::{KubeconfigCluster, prove_same_cluster};
use crate::clients::eks_token::EksTokenSource;
use crate::clients::endpoint_rotation::{ConnectWire, DescribeEndpoint, follow_endpoint};
use crate::clients::https;
use crate::clients::kube_client::{self as client, ClusterAuth};
use crate::k8s::KubeApi;
use crate::model::aws_status::ClusterStatus;
use crate::model::{ApiError, Clock, ErrorClass, eks};
use crate::wire::Wire;

/// An API server that does not answer is asked again: for moments, or, while EKS changes the cluster and so takes it away
/// (who takes up a run in the middle of a hop meets that), for as long as that may last.
const API_SERVER_TIMEOUT: Duration = Duration::from_secs(20);
const API_SERVER_TIMEOUT_DURING_UPDATE: Duration = Duration::from_secs(300);
const API_SERVER_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiServerAccess {
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
pub async fn connect_cluster(
    aws: &AwsApi,
    name: &str,
    way: &ApiServerAccess,
    clock: &Clock,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<(eks::Cluster, KubeApi), ApiError> {
    let cluster = find_cluster(aws, name).await?;
    // A run that is taken up in the middle of a hop meets an API server that is away (EKS-CP-4).
    let patience = match &cluster.status {
        ClusterStatus::Updating => API_SERVER_TIMEOUT_DURING_UPDATE,
        ClusterStatus::Creating
        | ClusterStatus::Active
        | ClusterStatus::Deleting
        | ClusterStatus::Failed
        | ClusterStatus::Pending
        | ClusterStatus::Other(_) => API_SERVER_TIMEOUT,
    };
    let kube = match way {
        // The address comes from EKS itself, so that it leads to this cluster needs no proof.
        ApiServerAccess::Eks => {
            let kube = follow_api_server(
                aws,
                &cluster,
                clock,
                Arc::new(https::build_https_wire),
                true,
            )?;
            let url = cluster.endpoint.as_deref().unwrap_or_default();
            wait_until_reachable(url, &kube, patience, say).await?;
            kube
        }
        ApiServerAccess::Kubeconfig { path, context } => {
            let config =
                client::config_from_kubeconfig(path.as_deref(), context.as_deref()).await?;
            let kube = KubeApi::new(client::client_over_wire(
                &config,
                ClusterAuth::Kubeconfig,
                aws.calls.count_requests(https::build_https_wire(&config)?),
            )?);
            wait_until_reachable(&config.cluster_url.to_string(), &kube, patience, say).await?;
            // A kubeconfig may lead anywhere. Until that is proved nothing is read for decisions.
            prove_kubeconfig(aws, &cluster, &config, &kube).await?;
            kube
        }
    };
    Ok((cluster, kube))
}

/// Reaches the API server of `cluster` over a given wire, with the same layers as production.
pub fn connect_over_wire(
    aws: &AwsApi,
    cluster: &eks::Cluster,
    clock: &Clock,
    wire: Wire,
) -> Result<KubeApi, ApiError> {
    follow_api_server(
        aws,
        cluster,
        clock,
        Arc::new(move |_| Ok(wire.clone())),
        false,
    )
}

/// Reaches the API server where EKS says it is, and follows it when its address or CA changes. `tls`: there is a CA to
/// prove anything.
fn follow_api_server(
    aws: &AwsApi,
    cluster: &eks::Cluster,
    clock: &Clock,
    connect: ConnectWire,
    tls: bool,
) -> Result<KubeApi, ApiError> {
    // Over a given wire there is no certificate to verify, and a CA would be refused beside plain HTTP.
    let bare = move |cluster: eks::Cluster| eks::Cluster {
        certificate_authority: cluster.certificate_authority.filter(|_| tls),
        ..cluster
    };
    let (config, auth) = eks_client_config(aws, &bare(cluster.clone()), clock)?;
    let calls = aws.calls.clone();
    let (aws, name) = (aws.clone(), cluster.name.clone());
    let describe: DescribeEndpoint = Arc::new(move || {
        let (aws, name) = (aws.clone(), name.clone());
        Box::pin(async move {
            let cluster = bare(aws.describe_cluster(&name).await?);
            client::config_from_eks(
                cluster.endpoint.as_deref().unwrap_or_default(),
                cluster.certificate_authority.as_deref(),
            )
        })
    });
    let wire = follow_endpoint(&config, describe, connect)?;
    let wire = calls.count_requests(wire);
    Ok(KubeApi::new(client::client_over_wire(&config, auth, wire)?))
}

/// The cluster, or the names of those there are.
pub async fn find_cluster(aws: &AwsApi, name: &str) -> Result<eks::Cluster, ApiError> {
    // Any other failure says nothing about whether the cluster exists.
    let error = match aws.describe_cluster(name).await {
        Ok(cluster) => return Ok(cluster),
        Err(error) if error.class == ErrorClass::Absent => error,
        Err(error) => return Err(error),
    };
    // The names cost one call more and are what a reader needs: mostly the region or the profile is the wrong one.
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
        Err(other) => format!(
            "and the names of its clusters could not be read ({})",
            other.message
        ),
    };
    Err(ApiError {
        message: format!(
            "there is no cluster `{name}` in region `{}`; {there}. Name another cluster with --cluster, or check --region and --profile.",
            aws.region
        ),
        ..error
    })
}

fn eks_client_config(
    aws: &AwsApi,
    cluster: &eks::Cluster,
    clock: &Clock,
) -> Result<(kube::Config, ClusterAuth), ApiError> {
    let refused = |why: &str| {
        ApiError::new(
            "connect to the cluster",
            ErrorClass::Invalid,
            format!("cluster `{}` {why}", cluster.name),
        )
    };
    // Each refusal says what is missing of the cluster: a person sees at once that it is still being created, or that
    // no credentials were found.
    let endpoint = cluster.endpoint.as_deref().ok_or_else(|| {
        refused(&format!(
            "has no API server address; it is {}",
            cluster.status
        ))
    })?;
    let credentials = aws
        .config
        .credentials_provider()
        .ok_or_else(|| refused("cannot be connected to: there are no AWS credentials"))?;
    let config = client::config_from_eks(endpoint, cluster.certificate_authority.as_deref())?;
    Ok((
        config,
        ClusterAuth::Eks(EksTokenSource::new(
            &cluster.name,
            &aws.region,
            credentials,
            clock.clone(),
        )),
    ))
}

/// Proves that what a kubeconfig reaches is `cluster`; only when address and CA do not, the nodes are looked at.
async fn prove_kubeconfig(
    aws: &AwsApi,
    cluster: &eks::Cluster,
    config: &kube::Config,
    kube: &KubeApi,
) -> Result<(), ApiError> {
    let url = config.cluster_url.to_string();
    let own = config.root_cert.clone().unwrap_or_default();
    // One that cannot be read proves nothing; the address or the nodes still can.
    let authorities = cluster
        .certificate_authority
        .as_deref()
        .and_then(|ca| https::decode_certificates(ca).ok())
        .unwrap_or_default();
    let mut reached = KubeconfigCluster {
        url: &url,
        authorities: &own,
        nodes: &[],
    };
    if prove_same_cluster(&reached, cluster, &authorities, &BTreeMap::new()).is_ok() {
        return Ok(());
    }
    let nodes = kube
        .list_nodes()
        .await
        .map_err(|e| unreachable_server_error(&url, e))?;
    let instances = instance_ids_by_group(aws, &cluster.name).await?;
    reached.nodes = &nodes;
    prove_same_cluster(&reached, cluster, &authorities, &instances)
}

/// Instance ids by node group.
async fn instance_ids_by_group(
    aws: &AwsApi,
    cluster: &str,
) -> Result<BTreeMap<String, BTreeSet<String>>, ApiError> {
    let mut all = BTreeMap::new();
    for name in aws.list_nodegroups(cluster).await? {
        let group = aws.describe_nodegroup(cluster, &name).await?;
        let asgs = aws.describe_asgs(&group.asgs).await?;
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
async fn wait_until_reachable(
    url: &str,
    kube: &KubeApi,
    patience: Duration,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<(), ApiError> {
    // No `retry_call`: the bound is a time and not a number of tries, the wait stays the same because a server that starts
    // is to be met soon, and a person is told of the first failure.
    let began = tokio::time::Instant::now();
    let mut said = false;
    loop {
        let Err(error) = kube.read_server_version().await else {
            return Ok(());
        };
        // Only what may pass is waited for. A refusal is told at once.
        if error.class != ErrorClass::Transient || began.elapsed() >= patience {
            return Err(unreachable_server_error(url, error));
        }
        if !std::mem::replace(&mut said, true) {
            say(format!(
                "the API server `{url}` does not answer ({}); trying again for up to {} s",
                error.message,
                patience.as_secs()
            ));
        }
        tokio::time::sleep(API_SERVER_RETRY_INTERVAL).await;
    }
}

fn unreachable_server_error(url: &str, error: ApiError) -> ApiError {
    let hint = match error.class {
        ErrorClass::Transient => {
            "; is the endpoint private, and this machine outside of its network (VPN, proxy, security group)?"
        }
        ErrorClass::Expired
        | ErrorClass::Absent
        | ErrorClass::Conflict
        | ErrorClass::Throttled
        | ErrorClass::Blocked
        | ErrorClass::Denied
        | ErrorClass::Invalid => "",
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
    use crate::clients::fake_wire::{answering_wire, json_answer as answer};
    use crate::clients::kube_client::{client_over_wire, config_from_eks};

    /// Reaches an API server that refuses the first `refuses` connections: how that ends, and what is said meanwhile.
    async fn reached(refuses: usize, patience: Duration) -> (Result<(), ApiError>, Vec<String>) {
        let (wire, _) = answering_wire(move |_, n| match n {
            n if n < refuses => Err("connection refused".into()),
            _ => answer(200, &json!({"gitVersion": "v1.29.1"})),
        });
        let config = config_from_eks("http://127.0.0.1:1", None).unwrap();
        let kube = KubeApi::new(client_over_wire(&config, ClusterAuth::Kubeconfig, wire).unwrap());
        let said = Mutex::new(Vec::new());
        let say = |text| said.lock().unwrap().push(text);
        let ended = wait_until_reachable("http://127.0.0.1:1", &kube, patience, &say).await;
        (ended, said.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_away_for_a_hop_is_waited_for_aloud() {
        let (ended, said) = reached(20, API_SERVER_TIMEOUT_DURING_UPDATE).await;
        ended.unwrap();
        assert!(
            matches!(said.as_slice(), [one] if one.contains("127.0.0.1") && one.contains("300 s")),
            "{said:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_stays_away_is_named_soon() {
        let start = tokio::time::Instant::now();
        let error = reached(usize::MAX, API_SERVER_TIMEOUT).await.0.unwrap_err();
        assert!(error.message.contains("http://127.0.0.1:1"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
