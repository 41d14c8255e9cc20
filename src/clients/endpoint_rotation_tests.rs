//! A cluster's CA is rotated under a real TLS connection: a server on loopback, first with a certificate of one authority,
//! then of another.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::endpoint_rotation::{DescribeEndpoint, follow_endpoint};
use super::https;
use super::kube_client::{ClusterAuth, client_over_wire, config_from_eks};
use crate::k8s::KubeApi;
use crate::model::ErrorClass;

/// An authority: its certificate as EKS answers it, and what a server needs to prove itself by it.
fn authority() -> (String, Arc<ServerConfig>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&own, &issuer).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(own.serialize_der()).into(),
        )
        .unwrap();
    let standard = &base64::engine::general_purpose::STANDARD;
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        standard.encode(der)
    );
    (standard.encode(pem), Arc::new(config))
}

/// A server that proves itself by whatever is in `by` at the time, and closes each connection after one answer.
async fn serve(listener: TcpListener, by: Arc<Mutex<Arc<ServerConfig>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(by.lock().unwrap().clone());
        tokio::spawn(async move {
            // A client that does not trust the certificate goes away; that is its answer.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let body = r#"{"major":"1","minor":"29","gitVersion":"v1.29.3"}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        });
    }
}

#[tokio::test]
async fn a_rotated_authority_is_taken_from_the_clusters_description_and_no_other_is_trusted() {
    let (first, second, strange) = (authority(), authority(), authority());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let by = Arc::new(Mutex::new(first.1.clone()));
    tokio::spawn(serve(listener, by.clone()));
    let described = Arc::new(AtomicU32::new(0));
    let says = Arc::new(Mutex::new(first.0.clone()));
    let describe: DescribeEndpoint = {
        let (says, url, described) = (says.clone(), url.clone(), described.clone());
        Arc::new(move || {
            described.fetch_add(1, Ordering::SeqCst);
            let (ca, url) = (says.lock().unwrap().clone(), url.clone());
            Box::pin(async move { config_from_eks(&url, Some(&ca)) })
        })
    };
    let config = config_from_eks(&url, Some(&first.0)).unwrap();
    let wire = follow_endpoint(&config, describe, Arc::new(https::build_https_wire)).unwrap();
    let kube = KubeApi::new(client_over_wire(&config, ClusterAuth::Kubeconfig, wire).unwrap());
    assert_eq!(
        kube.read_server_version().await.unwrap().to_string(),
        "1.29"
    );
    assert_eq!(described.load(Ordering::SeqCst), 0);

    *by.lock().unwrap() = second.1.clone();
    *says.lock().unwrap() = second.0.clone();
    assert_eq!(
        kube.read_server_version().await.unwrap().to_string(),
        "1.29"
    );
    assert_eq!(
        kube.read_server_version().await.unwrap().to_string(),
        "1.29"
    );
    assert_eq!(described.load(Ordering::SeqCst), 1);

    // A server of an authority that the description does not name is not talked to.
    *by.lock().unwrap() = strange.1;
    let error = kube.read_server_version().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Invalid, "{error}");
    assert!(
        error
            .message
            .contains("not signed by the expected authority"),
        "{error}"
    );
}
