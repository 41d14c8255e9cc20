//! The production wire to an API server: HTTPS, always verified.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::ConfigExt;

use crate::model::{ApiError, ErrorClass};
use crate::wire::{BoxError, Request, Wire};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon the kernel asks a silent peer whether it is still there: the endpoint moves during an upgrade.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A wire to the server that `config` describes: through the proxy that its kubeconfig names, or else through that of the
/// environment, unless NO_PROXY lets the server be reached past it.
pub fn build_https_wire(config: &kube::Config) -> Result<Wire, ApiError> {
    check_transport_security(config)?;
    let failed = |e: &dyn std::error::Error| {
        invalid_connection(format!(
            "the connection to `{}` cannot be set up: {e}",
            config.cluster_url
        ))
    };
    let mut tcp = HttpConnector::new();
    // The connector below TLS sees `https` addresses.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // A hop moves the API server's addresses (EKS-CP-4), and the old ones may fall silent without closing a connection.
    tcp.set_keepalive(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
    tcp.set_keepalive_retries(Some(3));
    let own = config.proxy_url.as_ref();
    match proxy_for_server(&config.cluster_url, own, &Matcher::from_env())? {
        None => Ok(wire_over_connector(
            config
                .rustls_https_connector_with_connector(tcp)
                .map_err(|e| failed(&e))?,
        )),
        Some(proxy) => {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            Ok(wire_over_connector(
                config
                    .rustls_https_connector_with_connector(tunnel)
                    .map_err(|e| failed(&e))?,
            ))
        }
    }
}

/// The proxy to `server`, with the credentials to show to it: the kubeconfig's `own`, which NO_PROXY does not touch (as with
/// kubectl), or that of the environment.
fn proxy_for_server(
    server: &http::Uri,
    own: Option<&http::Uri>,
    environment: &Matcher,
) -> Result<Option<Intercept>, ApiError> {
    let unsupported = |url: &http::Uri, from: &str| {
        invalid_connection(format!(
            "the proxy `{}` of {from} is not supported; only http:// proxies are",
            without_userinfo(url)
        ))
    };
    // The kubeconfig's own proxy is meant for this cluster, so NO_PROXY does not speak of it.
    let (proxy, from) = match own {
        Some(url) => {
            let from = "the kubeconfig (`proxy-url`)";
            let matcher = Matcher::builder().all(url.to_string()).build();
            let proxy = matcher.intercept(server);
            (Some(proxy.ok_or_else(|| unsupported(url, from))?), from)
        }
        None => (
            environment.intercept(server),
            "the environment (HTTPS_PROXY; NO_PROXY lists exceptions)",
        ),
    };
    match proxy {
        Some(proxy) if proxy.uri().scheme_str() != Some("http") => {
            Err(unsupported(proxy.uri(), from))
        }
        proxy => Ok(proxy),
    }
}

fn wire_over_connector<C>(connector: C) -> Wire
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
fn check_transport_security(config: &kube::Config) -> Result<(), ApiError> {
    let url = &config.cluster_url;
    if config.accept_invalid_certs {
        return Err(invalid_connection(format!(
            "the kubeconfig turns TLS verification off for `{url}` (insecure-skip-tls-verify); eksup refuses such a connection: set the cluster's CA instead"
        )));
    }
    let loopback = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        _ => Err(invalid_connection(format!(
            "the API server's address `{url}` is not https://"
        ))),
    }
}

fn invalid_connection(message: String) -> ApiError {
    ApiError::new("connect to the cluster", ErrorClass::Invalid, message)
}

fn without_userinfo(url: &http::Uri) -> String {
    format!(
        "{}://{}",
        url.scheme_str().unwrap_or_default(),
        url.host().unwrap_or_default()
    )
}

/// Turns the base64 of a PEM bundle, as EKS answers it, into certificates.
pub fn decode_certificates(base64_pem: &str) -> Result<Vec<Vec<u8>>, ApiError> {
    use base64::Engine;
    let standard = &base64::engine::general_purpose::STANDARD;
    let bad = |e: &dyn std::error::Error| {
        invalid_connection(format!(
            "the cluster's certificate authority cannot be read: {}",
            e
        ))
    };
    let pem = standard.decode(base64_pem.trim()).map_err(|e| bad(&e))?;
    let pem = String::from_utf8(pem).map_err(|e| bad(&e))?;
    let mut certificates = Vec::new();
    // Read by hand, because the bundle may hold several certificates, as while the authority is rotated.
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
        return Err(invalid_connection(
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
            decode_certificates(&encoded).unwrap(),
            vec![vec![1, 2, 3, 4], vec![5, 6, 7]]
        );
        assert!(decode_certificates("").is_err());
        assert!(decode_certificates("!!").is_err());
    }

    fn uri(text: &str) -> http::Uri {
        text.parse().unwrap()
    }

    #[test]
    fn no_proxy_goes_past_the_environments_proxy_and_not_past_the_kubeconfigs() {
        let server = uri("https://abc.gr7.eu-west-1.eks.amazonaws.com");
        let environment = |no: &'static str| {
            let builder = Matcher::builder().https("http://proxy:3128");
            builder.no(no).build()
        };
        let host = |proxy: Option<Intercept>| proxy.map(|p| p.uri().host().unwrap().to_owned());
        let through = |own: Option<&http::Uri>, no| {
            host(proxy_for_server(&server, own, &environment(no)).unwrap())
        };
        assert_eq!(through(None, "").as_deref(), Some("proxy"));
        assert_eq!(through(None, "localhost,.eks.amazonaws.com"), None);
        let own = uri("http://bastion:8888");
        for no in ["", ".eks.amazonaws.com"] {
            assert_eq!(through(Some(&own), no).as_deref(), Some("bastion"));
        }
        for unsupported in [
            "https://proxy:3128",
            "socks5://proxy:1080",
            "ftp://proxy:21",
        ] {
            let error =
                proxy_for_server(&server, Some(&uri(unsupported)), &environment("")).unwrap_err();
            assert!(error.message.contains("proxy-url"), "{error}");
        }
    }

    /// What a proxy on loopback is sent first, until the end of the request's head.
    async fn head_at_proxy(listener: tokio::net::TcpListener) -> String {
        use tokio::io::AsyncReadExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn a_proxy_that_the_kubeconfig_names_is_shown_its_user_and_password() {
        use tower::ServiceExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut config = kube::Config::new(uri("https://api.example:6443"));
        config.proxy_url = Some(uri(&format!("http://ci:p%40ss@127.0.0.1:{port}")));
        let key = rcgen::generate_simple_self_signed(["api.example".to_owned()]).unwrap();
        config.root_cert = Some(vec![key.cert.der().to_vec()]);
        let request = http::Request::get("https://api.example:6443/version")
            .body(Bytes::new())
            .unwrap();
        let asked = build_https_wire(&config).unwrap().oneshot(request);
        let (head, answer) = tokio::join!(head_at_proxy(listener), asked);
        assert!(answer.is_err(), "the proxy hangs up");
        assert!(head.starts_with("CONNECT api.example:6443 "), "{head}");
        // `ci:p@ss`
        let shown = head
            .to_lowercase()
            .contains("proxy-authorization: basic y2k6cebzcw==");
        assert!(shown, "{head}");
    }

    #[test]
    fn a_token_is_never_sent_in_the_clear_or_to_an_unproven_server() {
        let config = |url: &str| kube::Config::new(url.parse().unwrap());
        assert!(
            check_transport_security(&config("https://abc.gr7.eu-west-1.eks.amazonaws.com"))
                .is_ok()
        );
        assert!(check_transport_security(&config("http://127.0.0.1:8080")).is_ok());
        assert!(check_transport_security(&config("http://10.0.0.1:8080")).is_err());
        let mut unverified = config("https://abc.gr7.eu-west-1.eks.amazonaws.com");
        unverified.accept_invalid_certs = true;
        assert!(
            check_transport_security(&unverified)
                .unwrap_err()
                .message
                .contains("insecure-skip-tls-verify")
        );
    }
}
