//! The Kubernetes client: one stack of layers for production and for a given wire.
//!
//! The library's own stack is not used: it hides a hard-wired transport, retries a budget's refusal for minutes, and
//! has no hook for an EKS token.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http_body_util::BodyExt;
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::{ServiceBuilder, ServiceExt};

use super::aws_error::error_chain;
use super::eks_token::EksTokenSource;
use super::https;
use super::request_log::log_requests;
use crate::model::{ApiError, ErrorClass};
use crate::wire::{BoxError, Request, Wire};

/// How long a server may take to begin its answer. A watch begins at once and then streams.
const RESPONSE_START_TIMEOUT: Duration = Duration::from_secs(30);

/// Who the client says it is.
pub enum ClusterAuth {
    /// An EKS token, minted in process.
    Eks(EksTokenSource),
    /// Whatever the kubeconfig says: a certificate, a token, a plugin.
    Kubeconfig,
}

/// A client of the server that `config` describes, over HTTPS.
pub fn client_over_https(
    config: &kube::Config,
    auth: ClusterAuth,
) -> Result<kube::Client, ApiError> {
    client_over_wire(config, auth, https::build_https_wire(config)?)
}

/// Returns a client of the server that `config` describes, over `wire`, which says how its endpoint is reached and
/// followed when it moves.
pub fn client_over_wire(
    config: &kube::Config,
    auth: ClusterAuth,
    wire: Wire,
) -> Result<kube::Client, ApiError> {
    let failed = |e: kube::Error| {
        ApiError::new(
            "connect to the cluster",
            ErrorClass::Denied,
            format!("the kubeconfig's user cannot be used: {}", error_chain(&e)),
        )
    };
    let mut config = config.clone();
    config.headers.push((
        USER_AGENT,
        HeaderValue::from_static(concat!("eksup/", env!("CARGO_PKG_VERSION"))),
    ));
    let wire = Wire::new(
        ServiceBuilder::new()
            .layer(config.extra_headers_layer().map_err(failed)?)
            .service(wire),
    );
    // From the outside in, a request gets its address, its line in the log and its deadline, and is signed last, each
    // time that it is sent.
    let wire = match auth {
        ClusterAuth::Eks(tokens) => with_eks_token(wire, tokens),
        ClusterAuth::Kubeconfig => match config.auth_layer().map_err(failed)? {
            Some(layer) => with_kubeconfig_auth(wire, layer),
            None => wire,
        },
    };
    let wire = Wire::new(
        ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .service(log_requests(with_response_deadline(wire))),
    );
    // Bodies are read whole, so that a request can be sent again with another token.
    let whole = tower::service_fn(move |request: http::Request<Body>| {
        let wire = wire.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            wire.oneshot(http::Request::from_parts(parts, body)).await
        }
    });
    Ok(kube::Client::new(whole, config.default_namespace))
}

/// What EKS says of a cluster, as a configuration.
pub fn config_from_eks(
    endpoint: &str,
    certificate_authority: Option<&str>,
) -> Result<kube::Config, ApiError> {
    let url = endpoint.parse().map_err(|e| {
        ApiError::new(
            "connect to the cluster",
            ErrorClass::Invalid,
            format!("the API server's address `{endpoint}` is not valid: {e}"),
        )
    })?;
    let mut config = kube::Config::new(url);
    // Plain HTTP, which only a loopback address may speak, has no certificate to prove.
    let authority = certificate_authority.filter(|_| !endpoint.starts_with("http://"));
    config.root_cert = authority.map(https::decode_certificates).transpose()?;
    config.default_retry = false;
    Ok(config)
}

/// The configuration of a kubeconfig file; without `path`, of `KUBECONFIG` or `~/.kube/config`.
pub async fn config_from_kubeconfig(
    path: Option<&std::path::Path>,
    context: Option<&str>,
) -> Result<kube::Config, ApiError> {
    let shown = path.map_or_else(
        || "the kubeconfig".to_owned(),
        |p| format!("the kubeconfig `{}`", p.display()),
    );
    let failed = |e: kube::config::KubeconfigError| {
        ApiError::new(
            "connect to the cluster",
            ErrorClass::Invalid,
            format!("{shown} cannot be used: {}", error_chain(&e)),
        )
    };
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        cluster: None,
        user: None,
    };
    let file = match path {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    }
    .map_err(failed)?;
    // This is asked of the file itself, because the library's configuration does not say where its proxy came from.
    let names_proxy = names_own_proxy(&file, context);
    let mut config = kube::Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(failed)?;
    // The library puts HTTPS_PROXY of the environment here and does not look at NO_PROXY; the wire looks at both.
    if !names_proxy {
        config.proxy_url = None;
    }
    config.default_retry = false;
    Ok(config)
}

/// Whether the context's cluster has a `proxy-url` of its own.
fn names_own_proxy(file: &Kubeconfig, context: Option<&str>) -> bool {
    let wanted = context.or(file.current_context.as_deref());
    let context = file
        .contexts
        .iter()
        .find(|c| Some(c.name.as_str()) == wanted);
    let cluster = context.and_then(|c| c.context.as_ref()).map(|c| &c.cluster);
    let named = file.clusters.iter().find(|c| Some(&c.name) == cluster);
    let proxy = named.and_then(|c| c.cluster.as_ref()?.proxy_url.as_deref());
    proxy.is_some_and(|url| !url.is_empty())
}

/// Signs each request with a good token; a token the server refuses is replaced once.
fn with_eks_token(wire: Wire, tokens: EksTokenSource) -> Wire {
    Wire::new(tower::service_fn(move |request: Request| {
        let (wire, tokens) = (wire.clone(), tokens.clone());
        async move {
            let token = tokens.current_token().await?;
            let response = wire
                .clone()
                .oneshot(with_bearer_token(&request, &token)?)
                .await?;
            // Refused once, it may have been too old by the server's clock. A fresh one that is refused too says
            // something else.
            if response.status() != http::StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            tokens.forget_refused(&token).await;
            let token = tokens.current_token().await?;
            wire.oneshot(with_bearer_token(&request, &token)?).await
        }
    }))
}

fn with_bearer_token(request: &Request, token: &str) -> Result<Request, BoxError> {
    let mut request = request.clone();
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
    value.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(request)
}

/// Lets the library's own layer sign each request. It wants a body type of its own kind, hence the two conversions.
fn with_kubeconfig_auth(wire: Wire, layer: kube::client::middleware::AuthLayer) -> Wire {
    let back = tower::service_fn(move |request: http::Request<http_body_util::Full<Bytes>>| {
        let wire = wire.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|never| match never {})?
                .to_bytes();
            wire.oneshot(http::Request::from_parts(parts, body)).await
        }
    });
    let signing = ServiceBuilder::new().layer(layer).service(back);
    Wire::new(
        ServiceBuilder::new()
            .map_request(|request: Request| request.map(http_body_util::Full::new))
            .service(signing),
    )
}

/// Gives up on a server that does not begin to answer.
fn with_response_deadline(wire: Wire) -> Wire {
    Wire::new(tower::service_fn(move |request: Request| {
        let wire = wire.clone();
        async move {
            match tokio::time::timeout(RESPONSE_START_TIMEOUT, wire.oneshot(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!(
                    "the API server did not answer within {} s",
                    RESPONSE_START_TIMEOUT.as_secs()
                )
                .into()),
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use serde_json::json as j;

    use super::*;
    use crate::clients::fake_wire::{answering_wire, build_answer, json_answer, test_clock};
    use crate::k8s::KubeApi;

    fn kube(wire: Wire) -> KubeApi {
        let credentials = SharedCredentialsProvider::new(Credentials::new(
            "AKIDEXAMPLE",
            "secret",
            None,
            None,
            "test",
        ));
        let tokens = EksTokenSource::new("demo", "us-west-2", credentials, test_clock());
        let config = config_from_eks("https://abc.gr7.us-west-2.eks.amazonaws.com", None).unwrap();
        KubeApi::new(client_over_wire(&config, ClusterAuth::Eks(tokens), wire).unwrap())
    }

    #[test]
    fn only_a_proxy_that_the_contexts_own_cluster_names_is_the_kubeconfigs() {
        let file: Kubeconfig = serde_saphyr::from_str(
            "current-context: past\n\
             contexts:\n\
             - {name: past, context: {cluster: a, user: u}}\n\
             - {name: through, context: {cluster: b, user: u}}\n\
             clusters:\n\
             - {name: a, cluster: {server: 'https://a.example'}}\n\
             - {name: b, cluster: {server: 'https://b.example', proxy-url: 'http://bastion:8888'}}\n",
        )
        .unwrap();
        assert!(!names_own_proxy(&file, None));
        assert!(names_own_proxy(&file, Some("through")));
        assert!(!names_own_proxy(&file, Some("nobody")));
    }

    fn version() -> serde_json::Value {
        j!({"major": "1", "minor": "29+", "gitVersion": "v1.29.3-eks-adc7111"})
    }

    #[tokio::test(start_paused = true)]
    async fn requests_go_to_the_endpoint_with_a_token_and_our_name() {
        let (wire, asked) = answering_wire(|_, _| json_answer(200, &version()));
        assert_eq!(
            kube(wire).read_server_version().await.unwrap().to_string(),
            "1.29"
        );
        let all = asked.all_requests();
        assert_eq!(
            all[0].uri().to_string(),
            "https://abc.gr7.us-west-2.eks.amazonaws.com/version"
        );
        assert!(
            all[0].headers()["authorization"]
                .to_str()
                .unwrap()
                .starts_with("Bearer k8s-aws-v1.")
        );
        assert!(
            all[0].headers()["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("eksup/")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_replaced_once() {
        let refused = j!({"kind": "Status", "message": "Unauthorized", "reason": "Unauthorized", "code": 401});
        let said = refused.clone();
        let (once, asked) = answering_wire(move |_, n| {
            if n == 0 {
                json_answer(401, &said)
            } else {
                json_answer(200, &version())
            }
        });
        kube(once).read_server_version().await.unwrap();
        assert_eq!(asked.all_requests().len(), 2);

        let (always, asked) = answering_wire(move |_, _| json_answer(401, &refused));
        let error = kube(always).read_server_version().await.unwrap_err();
        assert_eq!(
            (error.class, asked.all_requests().len()),
            (ErrorClass::Expired, 2)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_retried_behind_our_back() {
        for status in [429, 500, 503, 504] {
            let (wire, asked) =
                answering_wire(move |_, _| build_answer(status, "text/plain", "busy"));
            kube(wire).read_server_version().await.unwrap_err();
            assert_eq!(asked.all_requests().len(), 1, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_given_up_on_after_thirty_seconds() {
        let silent = Wire::new(tower::service_fn(|_| std::future::pending()));
        let start = tokio::time::Instant::now();
        let error = kube(silent).read_server_version().await.unwrap_err();
        assert_eq!(
            (error.class, start.elapsed()),
            (ErrorClass::Transient, Duration::from_secs(30))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_the_credentials_keeps_its_class() {
        let (wire, asked) = answering_wire(|_, _| json_answer(200, &version()));
        #[derive(Debug)]
        struct Over;
        impl aws_credential_types::provider::ProvideCredentials for Over {
            fn provide_credentials<'a>(
                &'a self,
            ) -> aws_credential_types::provider::future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                let why = aws_credential_types::provider::error::CredentialsError::provider_error(
                    "the SSO session has expired",
                );
                aws_credential_types::provider::future::ProvideCredentials::ready(Err(why))
            }
        }
        let tokens = EksTokenSource::new(
            "demo",
            "us-west-2",
            SharedCredentialsProvider::new(Over),
            test_clock(),
        );
        let config = config_from_eks("https://abc.gr7.us-west-2.eks.amazonaws.com", None).unwrap();
        let kube = KubeApi::new(client_over_wire(&config, ClusterAuth::Eks(tokens), wire).unwrap());
        let error = kube.read_server_version().await.unwrap_err();
        assert_eq!(
            (error.class, asked.all_requests().len()),
            (ErrorClass::Expired, 0),
            "{}",
            error.message
        );
        assert!(error.message.contains("aws sso login"), "{}", error.message);
    }
}
