//! The wire: the one seam between this program and any server.
//!
//! A wire takes a request with its whole body and gives a response whose body may stream. Production puts HTTPS
//! here, rehearsals put the twin, tests put a recorder or a fault injector around either. Nothing above it knows.

use bytes::Bytes;
use http_body_util::BodyExt;

/// An error of the wire itself: no answer came.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body; a watch streams through it.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// A request as it leaves the program.
pub type Request = http::Request<Bytes>;

/// A response as it reaches the program.
pub type Response = http::Response<Body>;

/// Anything that answers requests.
pub type Wire = tower::util::BoxCloneSyncService<Request, Response, BoxError>;

/// Returns a body that is already whole.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}
