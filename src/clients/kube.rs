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

use super::error::chain;
use super::https;
use super::token::Tokens;
use crate::model::{ApiError, Class};
use crate::wire::{BoxError, Request, Wire};

/// How long a server may take to begin its answer. A watch begins at once and then streams.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// Who the client says it is.
pub enum Auth {
    /// An EKS token, minted in process.
    Eks(Tokens),
    /// Whatever the kubeconfig says: a certificate, a token, a plugin.
    Kubeconfig,
}

/// A client of the server that `config` describes, over HTTPS.
pub fn production(config: &kube::Config, auth: Auth) -> Result<kube::Client, ApiError> {
    over(config, auth, https::wire(config)?)
}

/// The same over a given wire.
pub fn over(config: &kube::Config, auth: Auth, wire: Wire) -> Result<kube::Client, ApiError> {
    let failed = |e: kube::Error| {
        ApiError::new(
            "connect to the cluster",
            Class::Denied,
            format!("the kubeconfig's user cannot be used: {}", chain(&e)),
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
    let wire = match auth {
        Auth::Eks(tokens) => with_eks_token(wire, tokens),
        Auth::Kubeconfig => match config.auth_layer().map_err(failed)? {
            Some(layer) => with_kubeconfig_auth(wire, layer),
            None => wire,
        },
    };
    let wire = Wire::new(
        ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .service(with_deadline(wire)),
    );
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
pub fn config_of(
    endpoint: &str,
    certificate_authority: Option<&str>,
) -> Result<kube::Config, ApiError> {
    let url = endpoint.parse().map_err(|e| {
        ApiError::new(
            "connect to the cluster",
            Class::Invalid,
            format!("the API server's address `{endpoint}` is no address: {e}"),
        )
    })?;
    let mut config = kube::Config::new(url);
    config.root_cert = certificate_authority.map(https::certificates).transpose()?;
    config.default_retry = false;
    Ok(config)
}

/// The configuration of a kubeconfig file; without `path`, of `KUBECONFIG` or `~/.kube/config`.
pub async fn config_from(
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
            Class::Invalid,
            format!("{shown} cannot be used: {}", chain(&e)),
        )
    };
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        cluster: None,
        user: None,
    };
    let mut config = match path {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            kube::Config::from_custom_kubeconfig(file, &options).await
        }
        None => kube::Config::from_kubeconfig(&options).await,
    }
    .map_err(failed)?;
    config.default_retry = false;
    Ok(config)
}

/// Signs each request with a good token; a token the server refuses is replaced once.
fn with_eks_token(wire: Wire, tokens: Tokens) -> Wire {
    Wire::new(tower::service_fn(move |request: Request| {
        let (wire, tokens) = (wire.clone(), tokens.clone());
        async move {
            let token = tokens.token().await?;
            let response = wire.clone().oneshot(signed(&request, &token)?).await?;
            if response.status() != http::StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            tokens.refused(&token).await;
            let token = tokens.token().await?;
            wire.oneshot(signed(&request, &token)?).await
        }
    }))
}

fn signed(request: &Request, token: &str) -> Result<Request, BoxError> {
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
fn with_deadline(wire: Wire) -> Wire {
    Wire::new(tower::service_fn(move |request: Request| {
        let wire = wire.clone();
        async move {
            match tokio::time::timeout(FIRST_BYTE, wire.oneshot(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!(
                    "the API server did not answer within {} s",
                    FIRST_BYTE.as_secs()
                )
                .into()),
            }
        }
    }))
}
