//! The twin on a loopback port, in real time: AWS and the Kubernetes API on the same one, so that `aws`, `kubectl`,
//! `eksctl` and the program itself can be pointed at it.
//!
//! Plain HTTP on purpose: nothing here is worth a certificate, and every client takes a `http://` endpoint. The API server lets anybody in then,
//! because `kubectl` sends no token over plain HTTP; who can reach the loopback interface can already do more.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::Twin;
use crate::wire::{self, Body, Wire};

/// A twin that is being served; it stops when this is dropped.
#[derive(Debug)]
pub struct ServedTwin {
    address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl ServedTwin {
    /// Where it answers: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves for as long as the process lives.
    pub async fn serve_forever(mut self) {
        // The task ends only when it is aborted, and nobody else has its handle.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for ServedTwin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves `twin` on a port of the loopback interface; 0 takes a free one. From then on DescribeCluster names this port
/// as the cluster's endpoint.
pub async fn serve_twin(twin: &Twin, port: u16) -> std::io::Result<ServedTwin> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    twin.with_world(|world| {
        world.cloud.endpoint = Some(format!("http://{address}"));
        world.kube = std::mem::take(&mut world.kube).allow_anonymous();
    });
    let wire = twin.wire();
    let accepting = tokio::spawn(accept_connections(listener, wire));
    Ok(ServedTwin { address, accepting })
}

async fn accept_connections(listener: TcpListener, wire: Wire) {
    let wire = Arc::new(wire);
    loop {
        // A failed accept concerns one client, or passes when it has fewer connections open.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let wire = wire.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer_request(wire.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // The client went away, or a fault rule broke the connection: nothing to tell anybody.
            let _ = connection.await;
        });
    }
}

/// Answers one request. A broken answer becomes a broken connection: the error makes hyper close it.
async fn answer_request(
    wire: Arc<Wire>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, wire::BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let wire: Wire = (*wire).clone();
    wire.oneshot(http::Request::from_parts(parts, body)).await
}

/// A kubeconfig that leads `kubectl` to a served twin.
pub fn write_kubeconfig(url: &str, cluster: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {cluster}\nclusters:\n- name: {cluster}\n  cluster:\n    server: {url}\ncontexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {cluster}\nusers:\n- name: {cluster}\n  user: {{}}\n"
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::twin::scenario;

    async fn ask(served: &ServedTwin, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(served.address)
            .await
            .unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn one_port_answers_for_aws_and_for_the_cluster() {
        let twin = Twin::start(scenario::load_world(&scenario::expense_dev(), 1));
        let served = serve_twin(&twin, 0).await.unwrap();
        let signed = "GET /clusters/expense-dev HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKID/20261121/us-east-1/eks/aws4_request, SignedHeaders=host, Signature=00\r\n\r\n";
        let cluster = ask(&served, signed).await;
        assert!(
            cluster.contains(&format!("\"endpoint\":\"{}\"", served.url())),
            "{cluster}"
        );
        let version = ask(
            &served,
            "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(version.contains("v1.27"), "{version}");
        let unsigned = ask(
            &served,
            "GET /clusters HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(unsigned.starts_with("HTTP/1.1 403"), "{unsigned}");
    }

    #[tokio::test]
    async fn a_broken_answer_is_a_broken_connection() {
        let mut world = scenario::load_world(&scenario::expense_dev(), 1);
        crate::twin::fault::add_rules(&mut world, vec!["drop-before:k8s:*:1".parse().unwrap()]);
        let served = serve_twin(&Twin::start(world), 0).await.unwrap();
        assert_eq!(
            ask(&served, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await,
            ""
        );
    }
}
