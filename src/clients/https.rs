//! The production wire to an API server: HTTPS, always verified.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::ConfigExt;

use crate::model::{ApiError, Class};
use crate::wire::{BoxError, Request, Wire};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(10);
/// How soon the kernel asks a silent peer whether it is still there: the endpoint moves during an upgrade.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A wire to the server that `config` describes, through the proxy of the environment if it names one.
pub fn wire(config: &kube::Config) -> Result<Wire, ApiError> {
    allowed(config)?;
    let failed = |e: &dyn std::error::Error| {
        invalid(format!(
            "the connection to `{}` cannot be set up: {e}",
            config.cluster_url
        ))
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
    tcp.set_keepalive_retries(Some(3));
    let proxy = Matcher::from_env().intercept(&config.cluster_url);
    let proxy_url = config
        .proxy_url
        .clone()
        .or_else(|| proxy.as_ref().map(|p| p.uri().clone()));
    match proxy_url {
        None => Ok(over(
            config
                .rustls_https_connector_with_connector(tcp)
                .map_err(|e| failed(&e))?,
        )),
        Some(url) if url.scheme_str() == Some("http") => {
            let mut tunnel = Tunnel::new(url, tcp);
            if let Some(auth) = proxy.as_ref().and_then(|p| p.basic_auth()) {
                tunnel = tunnel.with_auth(auth.clone());
            }
            Ok(over(
                config
                    .rustls_https_connector_with_connector(tunnel)
                    .map_err(|e| failed(&e))?,
            ))
        }
        Some(url) => Err(invalid(format!(
            "the proxy `{}` is not supported; only http:// proxies are (HTTPS_PROXY, or NO_PROXY to go past it)",
            without_userinfo(&url)
        ))),
    }
}

fn over<C>(connector: C) -> Wire
where
    C: hyper_util::client::legacy::connect::Connect + Clone + Send + Sync + 'static,
{
    let client: Client<C, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .build(connector);
    Wire::new(tower::service_fn(move |request: Request| {
        let client = client.clone();
        async move {
            let response = client
                .request(request.map(Full::new))
                .await
                .map_err(BoxError::from)?;
            Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        }
    }))
}

/// Refuses what would send a token in the clear or to a server that proved nothing.
fn allowed(config: &kube::Config) -> Result<(), ApiError> {
    let url = &config.cluster_url;
    if config.accept_invalid_certs {
        return Err(invalid(format!(
            "the kubeconfig turns TLS verification off for `{url}` (insecure-skip-tls-verify); eksup does not connect so: put the cluster's CA in its place"
        )));
    }
    let loopback = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        _ => Err(invalid(format!(
            "the API server's address `{url}` is not https://"
        ))),
    }
}

fn invalid(message: String) -> ApiError {
    ApiError::new("connect to the cluster", Class::Invalid, message)
}

fn without_userinfo(url: &http::Uri) -> String {
    format!(
        "{}://{}",
        url.scheme_str().unwrap_or_default(),
        url.host().unwrap_or_default()
    )
}

/// Turns the base64 of a PEM bundle, as EKS answers it, into certificates.
pub fn certificates(base64_pem: &str) -> Result<Vec<Vec<u8>>, ApiError> {
    use base64::Engine;
    let standard = &base64::engine::general_purpose::STANDARD;
    let bad = |e: &dyn std::error::Error| {
        invalid(format!(
            "the cluster's certificate authority cannot be read: {}",
            e
        ))
    };
    let pem = standard.decode(base64_pem.trim()).map_err(|e| bad(&e))?;
    let pem = String::from_utf8(pem).map_err(|e| bad(&e))?;
    let mut certificates = Vec::new();
    for block in pem.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let body: String = block
            .split("-----END")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        certificates.push(standard.decode(body).map_err(|e| bad(&e))?);
    }
    if certificates.is_empty() {
        return Err(invalid(
            "the cluster's certificate authority holds no certificate".to_owned(),
        ));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    #[test]
    fn a_bundle_of_two_certificates_is_read_as_two() {
        let pem = "-----BEGIN CERTIFICATE-----\nAQID\nBA==\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nBQYH\n-----END CERTIFICATE-----\n";
        let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
        assert_eq!(
            certificates(&encoded).unwrap(),
            vec![vec![1, 2, 3, 4], vec![5, 6, 7]]
        );
        assert!(certificates("").is_err());
        assert!(certificates("!!").is_err());
    }

    #[test]
    fn a_token_is_never_sent_in_the_clear_or_to_an_unproven_server() {
        let config = |url: &str| kube::Config::new(url.parse().unwrap());
        assert!(allowed(&config("https://abc.gr7.eu-west-1.eks.amazonaws.com")).is_ok());
        assert!(allowed(&config("http://127.0.0.1:8080")).is_ok());
        assert!(allowed(&config("http://10.0.0.1:8080")).is_err());
        let mut unverified = config("https://abc.gr7.eu-west-1.eks.amazonaws.com");
        unverified.accept_invalid_certs = true;
        assert!(
            allowed(&unverified)
                .unwrap_err()
                .message
                .contains("insecure-skip-tls-verify")
        );
    }
}
