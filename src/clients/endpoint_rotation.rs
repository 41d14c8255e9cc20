//! Follows a cluster whose certificate authority or address changes while a run goes on.
//!
//! A run may last for days, and EKS lets a cluster's CA be rotated. When a certificate does not verify any more, the
//! server does not know us (401), or has not answered for a while, the cluster is described again; only where that says
//! something else is the request sent there, over a new connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::aws_error::{describe_tls_failure, error_chain};
use crate::model::ApiError;
use crate::wire::{BoxError, Request, Response, Wire};

/// A cluster that has just been described is not described again: an identity that is not let in stays so.
const REDESCRIBE_INTERVAL: Duration = Duration::from_secs(15);
/// A server is away for seconds whenever EKS replaces it; only one that is away for longer may be elsewhere.
const UNANSWERED_LIMIT: Duration = Duration::from_secs(30);
/// A description that takes longer is done without; whoever waits for the server has a deadline of their own.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Says where the cluster is now.
pub type DescribeEndpoint =
    Arc<dyn Fn() -> BoxFuture<'static, Result<kube::Config, ApiError>> + Send + Sync>;
/// Makes a wire to there.
pub type ConnectWire = Arc<dyn Fn(&kube::Config) -> Result<Wire, ApiError> + Send + Sync>;

/// Where requests go at present.
#[derive(Clone)]
struct ClusterEndpoint {
    wire: Wire,
    url: Uri,
    authorities: Option<Vec<Vec<u8>>>,
    /// How often it has changed.
    generation: u32,
}

struct FollowedCluster {
    endpoint: Mutex<ClusterEndpoint>,
    /// Since when requests have been sent and none was answered.
    unanswered_since: Mutex<Option<Instant>>,
    /// One at a time describes, and notes when.
    last_described: tokio::sync::Mutex<Option<Instant>>,
    describe: DescribeEndpoint,
    connect: ConnectWire,
}

/// A wire to the server of `first`, and to wherever `describe` says that it has gone.
pub fn follow_endpoint(
    first: &kube::Config,
    describe: DescribeEndpoint,
    connect: ConnectWire,
) -> Result<Wire, ApiError> {
    let cluster = Arc::new(FollowedCluster {
        endpoint: Mutex::new(ClusterEndpoint {
            wire: connect(first)?,
            url: first.cluster_url.clone(),
            authorities: first.root_cert.clone(),
            generation: 0,
        }),
        unanswered_since: Mutex::default(),
        last_described: tokio::sync::Mutex::default(),
        describe,
        connect,
    });
    Ok(Wire::new(tower::service_fn(move |request: Request| {
        let cluster = cluster.clone();
        async move {
            let mut place = lock_unpoisoned(&cluster.endpoint).clone();
            // The time counts from the first request that was not answered, over all of them.
            let since =
                *lock_unpoisoned(&cluster.unanswered_since).get_or_insert_with(Instant::now);
            if since.elapsed() >= UNANSWERED_LIMIT
                && let Some(new) = cluster.find_new_endpoint(place.generation).await
            {
                place = new;
            }
            // The generation is that of the place asked: when another request finds the new place meanwhile, this one
            // takes it and does not describe the cluster again.
            let moves = place.generation;
            let answer = place.send_request(&request).await;
            if answer.is_ok() {
                *lock_unpoisoned(&cluster.unanswered_since) = None;
            }
            // A certificate that does not fit, or an identity that the server does not know, is how a cluster answers
            // whose address now belongs to another. Other errors are left to the caller's retries.
            if !suggests_endpoint_change(&answer) {
                return answer;
            }
            match cluster.find_new_endpoint(moves).await {
                Some(new) => new.send_request(&request).await,
                None => answer,
            }
        }
    })))
}

fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn suggests_endpoint_change(answer: &Result<Response, BoxError>) -> bool {
    match answer {
        Ok(response) => response.status() == http::StatusCode::UNAUTHORIZED,
        Err(error) => describe_tls_failure(&error_chain(error.as_ref())).is_some(),
    }
}

impl ClusterEndpoint {
    async fn send_request(self, request: &Request) -> Result<Response, BoxError> {
        self.wire
            .oneshot(readdress_request(request, &self.url)?)
            .await
    }
}

impl FollowedCluster {
    /// Where the cluster is, if that is another place than the one after `moves` changes.
    async fn find_new_endpoint(&self, moves: u32) -> Option<ClusterEndpoint> {
        let mut described = self.last_described.lock().await;
        let place = lock_unpoisoned(&self.endpoint).clone();
        // Another request has found the new place meanwhile.
        if place.generation != moves {
            return Some(place);
        }
        if described.is_some_and(|at| at.elapsed() < REDESCRIBE_INTERVAL) {
            return None;
        }
        *described = Some(Instant::now());
        // What kept us from the server is told, not what kept us from asking where it is.
        let config = timeout(DESCRIBE_TIMEOUT, (self.describe)())
            .await
            .ok()?
            .ok()?;
        // The cluster is where it was, so the answer stands as it is and its error is told.
        if config.cluster_url == place.url && config.root_cert == place.authorities {
            return None;
        }
        let new = ClusterEndpoint {
            wire: (self.connect)(&config).ok()?,
            url: config.cluster_url,
            authorities: config.root_cert,
            generation: moves + 1,
        };
        *lock_unpoisoned(&self.endpoint) = new.clone();
        Some(new)
    }
}

/// The request, to the server at `url`.
fn readdress_request(request: &Request, url: &Uri) -> Result<Request, BoxError> {
    let mut request = request.clone();
    let mut parts = request.uri().clone().into_parts();
    if parts.authority.is_some() {
        parts.scheme = url.scheme().cloned();
        parts.authority = url.authority().cloned();
        *request.uri_mut() = Uri::from_parts(parts)?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clients::fake_wire::{RecordedRequests, answering_wire, build_answer};
    use crate::clients::kube_client::config_from_eks;

    const OLD: &str = "https://old.example";
    const NEW: &str = "https://new.example";

    /// Whatever the old server says goes wrong; the new one answers.
    fn cluster(
        wrong: fn() -> Result<Response, BoxError>,
        at: &'static str,
    ) -> (Wire, RecordedRequests, Arc<AtomicU32>) {
        let (wire, asked) = answering_wire(move |request, _| match request.uri().host() {
            Some("new.example") => build_answer(200, "text/plain", "ok"),
            _ => wrong(),
        });
        let described = Arc::new(AtomicU32::new(0));
        let count = described.clone();
        let describe: DescribeEndpoint = Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { config_from_eks(at, None) })
        });
        let first = config_from_eks(OLD, None).unwrap();
        let connect: ConnectWire = Arc::new(move |_| Ok(wire.clone()));
        let followed = follow_endpoint(&first, describe, connect).unwrap();
        (followed, asked, described)
    }

    async fn get(wire: &Wire) -> Result<u16, String> {
        let request = http::Request::get(format!("{OLD}/version?x=1"))
            .body(bytes::Bytes::new())
            .unwrap();
        let answer = wire.clone().oneshot(request).await;
        answer
            .map(|r| r.status().as_u16())
            .map_err(|e| e.to_string())
    }

    fn unverified() -> Result<Response, BoxError> {
        Err("client error (Connect): invalid peer certificate: UnknownIssuer".into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_does_not_verify_any_more_leads_to_where_the_cluster_is_now() {
        let (wire, asked, described) = cluster(unverified, NEW);
        assert_eq!(get(&wire).await, Ok(200));
        assert_eq!(get(&wire).await, Ok(200));
        assert_eq!(described.load(Ordering::SeqCst), 1);
        let all: Vec<String> = asked
            .all_requests()
            .iter()
            .map(|r| r.uri().to_string())
            .collect();
        assert_eq!(
            all,
            [
                "https://old.example/version?x=1",
                "https://new.example/version?x=1",
                "https://new.example/version?x=1"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_401_is_followed_too_and_one_that_stays_is_described_once() {
        let refused = || build_answer(401, "text/plain", "no");
        let (wire, ..) = cluster(refused, NEW);
        assert_eq!(get(&wire).await, Ok(200));
        let (wire, asked, described) = cluster(refused, OLD);
        for _ in 0..5 {
            assert_eq!(get(&wire).await, Ok(401));
        }
        assert_eq!(described.load(Ordering::SeqCst), 1);
        assert_eq!(
            asked.all_requests().len(),
            5,
            "nothing is sent twice for nothing"
        );
        tokio::time::sleep(REDESCRIBE_INTERVAL).await;
        assert_eq!(get(&wire).await, Ok(401));
        assert_eq!(described.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_for_seconds_is_not_looked_for_elsewhere_and_one_that_stays_away_is()
     {
        let gone = || Err("tcp connect error: Connection refused".into());
        let (wire, _, described) = cluster(gone, NEW);
        for _ in 0..5 {
            assert!(get(&wire).await.unwrap_err().contains("refused"));
            tokio::time::sleep(UNANSWERED_LIMIT / 5).await;
            assert_eq!(described.load(Ordering::SeqCst), 0);
        }
        assert_eq!(get(&wire).await, Ok(200));
        assert_eq!(described.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_falls_silent_is_looked_for_elsewhere_too() {
        let (silent, _) = answering_wire(|_, _| build_answer(200, "text/plain", "ok"));
        let silent = Wire::new(tower::service_fn(move |request: Request| {
            let (new, old) = (silent.clone(), request.uri().host() == Some("old.example"));
            async move {
                if old {
                    std::future::pending::<()>().await;
                }
                new.oneshot(request).await
            }
        }));
        let first = config_from_eks(OLD, None).unwrap();
        let describe: DescribeEndpoint =
            Arc::new(|| Box::pin(async { config_from_eks(NEW, None) }));
        let connect: ConnectWire = Arc::new(move |_| Ok(silent.clone()));
        let wire = follow_endpoint(&first, describe, connect).unwrap();
        assert!(timeout(UNANSWERED_LIMIT, get(&wire)).await.is_err());
        assert_eq!(get(&wire).await, Ok(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_description_that_does_not_come_keeps_no_request_from_a_server_that_is_back() {
        let (back, _) = answering_wire(|_, times| match times {
            0 => Err("tcp connect error: Connection refused".into()),
            _ => build_answer(200, "text/plain", "ok"),
        });
        let first = config_from_eks(OLD, None).unwrap();
        let describe: DescribeEndpoint = Arc::new(|| Box::pin(std::future::pending()));
        let connect: ConnectWire = Arc::new(move |_| Ok(back.clone()));
        let wire = follow_endpoint(&first, describe, connect).unwrap();
        assert!(get(&wire).await.is_err());
        tokio::time::sleep(UNANSWERED_LIMIT).await;
        let start = Instant::now();
        assert_eq!(get(&wire).await, Ok(200));
        assert_eq!(start.elapsed(), DESCRIBE_TIMEOUT);
    }
}
