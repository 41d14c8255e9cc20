//! Sorts the errors of AWS calls by what one does about them.
//!
//! The only place that looks at error codes; where a service says something only in its message, the fact is named
//! beside the check.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::model::{ApiError, Class};
use crate::wire::BoxError;

/// What to do when no credentials are found.
const FIND_CREDENTIALS: &str = "name a profile with --profile, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `aws sts get-caller-identity` shows whether they work";
/// Where the SDK looks for credentials, in its order.
const CHAIN: &str = "the environment (AWS_ACCESS_KEY_ID), the profile (--profile, AWS_PROFILE or `default`) of ~/.aws/config and ~/.aws/credentials with its keys, single sign-on, role or process, a web identity (AWS_WEB_IDENTITY_TOKEN_FILE), the container's endpoint (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI) and the instance's metadata";
/// What to do when credentials have run out.
const RENEW_CREDENTIALS: &str =
    "renew them (with single sign-on: `aws sso login`) and run the same command again";

/// How providers say that a session is over.
const SESSION_OVER: [&str; 5] = [
    "expired",
    "sso session",
    "sso/cache/",
    "session token not found or invalid",
    "invalidgrantexception",
];

/// What CreateNodegroup says when the caller may not launch from the group's launch template.
const LAUNCH: &str = "not authorized to launch instances with this launch template";

/// Turns an SDK error into one with a class. `op` is the operation as IAM names it, such as `eks:DescribeCluster`.
pub fn aws<E>(op: &str, error: SdkError<E, HttpResponse>) -> ApiError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (class, message) = match &error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = service.err().meta().code().unwrap_or_default();
            let message = service.err().meta().message().unwrap_or_default();
            let class = class_of(status, code, message);
            (class, words(class, status, code, message))
        }
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            // A success that cannot be read was spoilt on its way: asked again, it may be whole.
            let class = if response.raw().status().is_success() {
                Class::Transient
            } else {
                class_of(status, "", "")
            };
            (
                class,
                format!(
                    "the answer (HTTP {status}) could not be read: {}",
                    chain(&error)
                ),
            )
        }
        SdkError::TimeoutError(_) => (Class::Transient, "no answer in time".to_owned()),
        SdkError::ConstructionFailure(_) => (
            Class::Invalid,
            format!("the request could not be built: {}", chain(&error)),
        ),
        _ => on_the_way(&error),
    };
    // A failure of the credentials comes wrapped as one of dispatch or of construction.
    let (class, message) = match find::<CredentialsError>(&error) {
        Some(credentials) => of_credentials(credentials),
        None => (class, message),
    };
    let retry_after = error
        .raw_response()
        .and_then(|r| r.headers().get("retry-after"))
        .and_then(seconds);
    ApiError {
        op: op.to_owned(),
        class,
        message,
        retry_after,
        source: Some(Box::new(error)),
    }
}

/// Whether a call failed because the caller's own credentials could not be had: AWS was never asked.
pub fn is_of_credentials(error: &ApiError) -> bool {
    let source = error.source.as_deref();
    source.is_some_and(|source| find::<CredentialsError>(source).is_some())
}

/// Turns a failure of the credentials into one with a class.
pub fn credentials(op: &str, error: CredentialsError) -> ApiError {
    let (class, message) = of_credentials(&error);
    ApiError {
        op: op.to_owned(),
        class,
        message,
        retry_after: None,
        source: Some(Box::new(error)),
    }
}

/// Reads a `Retry-After` of seconds.
pub fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The class of an answer that is an error, by its code first and its status second.
pub fn class_of(status: u16, code: &str, message: &str) -> Class {
    // Query services send `Client.` and `Server.` before some codes; JSON services a namespace.
    let code = code.rsplit(['#', ':']).next().unwrap_or(code);
    let code = code
        .strip_prefix("Client.")
        .or_else(|| code.strip_prefix("Server."))
        .unwrap_or(code);
    match code {
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
            Class::Expired
        }
        // What the services say of temporary credentials whose session is over; the way out is the same.
        "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" => Class::Expired,
        "UnauthorizedOperation"
        | "OptInRequired"
        | "NotAuthorized"
        | "UnauthorizedException"
        | "Forbidden"
        | "ForbiddenException" => Class::Denied,
        "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "RequestTimeTooSkewed"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => Class::Denied,
        "UnknownOperationException"
        | "NotImplemented"
        | "NotImplementedException"
        | "InvalidAction"
        | "UnknownAction" => Class::Invalid,
        "ResourceInUseException"
        | "ResourceInUse"
        | "ResourceContention"
        | "ResourceContentionFault"
        | "ScalingActivityInProgress"
        | "InstanceRefreshInProgress"
        | "OperationInProgress"
        | "OperationInProgressException" => Class::Conflict,
        "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown"
        | "PriorRequestNotComplete" => Class::Throttled,
        "ServerException"
        | "InternalFailure"
        | "InternalError"
        | "InternalServerError"
        | "InternalServerException"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "Unavailable" => Class::Transient,
        // EKS answers a second update with InvalidRequestException or InvalidParameterException and only says why in
        // words (seen: "currently has update <id> in progress", "is not in ACTIVE status").
        _ if message.contains("currently has update")
            || message.contains("is not in ACTIVE status") =>
        {
            Class::Conflict
        }
        // CreateNodegroup answers InvalidRequestException for what it may not do with the caller's rights.
        _ if message.contains(LAUNCH) || message.contains("due to missing permissions for") => {
            Class::Denied
        }
        // RegisterTargets, for an instance that does not exist or is not running any more.
        "InvalidTarget" | "InvalidTargetException" => Class::Absent,
        // Auto Scaling has no code for a group that does not exist.
        "ValidationError" if message.contains("not found") => Class::Absent,
        _ if code.starts_with("AccessDenied") => Class::Denied,
        _ if code.contains("NotFound") => Class::Absent,
        _ if code.contains("Throttl") => Class::Throttled,
        _ if code.starts_with("ServiceUnavailable") => Class::Transient,
        _ if code.contains("Conflict") => Class::Conflict,
        _ => class_of_status(status),
    }
}

fn class_of_status(status: u16) -> Class {
    match status {
        401 | 403 => Class::Denied,
        409 => Class::Conflict,
        429 => Class::Throttled,
        501 => Class::Invalid,
        500.. => Class::Transient,
        // A bare 404 is an endpoint that does not know the operation, never an object that does not exist.
        _ => Class::Invalid,
    }
}

/// The server's words, with a way out where there is one.
fn words(class: Class, status: u16, code: &str, message: &str) -> String {
    // EC2 appends a blob that only the account's owner can decode.
    let message = message
        .split(" Encoded authorization failure message:")
        .next()
        .unwrap_or(message);
    let said = match (code, message) {
        ("", "") if status == 404 || status == 501 => {
            format!("the endpoint does not know this operation (HTTP {status})")
        }
        ("", "") => format!("HTTP {status}"),
        ("", message) => message.to_owned(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{message} ({code})"),
    };
    match (class, code) {
        (Class::Expired, _) => {
            format!("{said}; the credentials have expired or are not valid: {RENEW_CREDENTIALS}")
        }
        (
            Class::Denied,
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed",
        ) => {
            format!("{said}; check the secret key and this machine's clock")
        }
        // EKS hands on what EC2 said, with the action only in the blob.
        (Class::Denied, _) if message.contains(LAUNCH) => {
            format!(
                "{said}; EKS tries out the launch with the caller's rights: allow ec2:RunInstances and ec2:CreateTags"
            )
        }
        _ => said,
    }
}

/// A failure before any answer came.
fn on_the_way<E: Error + 'static>(error: &E) -> (Class, String) {
    let said = chain(error);
    match tls(&said) {
        Some(why) => (Class::Invalid, why),
        None => (Class::Transient, format!("no answer: {said}")),
    }
}

fn of_credentials(error: &CredentialsError) -> (Class, String) {
    let said = chain(error);
    let lower = said.to_lowercase();
    match error {
        CredentialsError::CredentialsNotLoaded(_) => (
            Class::Denied,
            format!("no AWS credentials were found; looked in {CHAIN}; {FIND_CREDENTIALS}"),
        ),
        CredentialsError::ProviderTimedOut(_) => (
            Class::Transient,
            format!("the credentials provider did not answer in time: {said}"),
        ),
        // Providers (single sign-on, web identity, a process) say only in words that a session is over; signing out
        // removes the cached token.
        _ if SESSION_OVER.iter().any(|words| lower.contains(words)) => (
            Class::Expired,
            format!("the AWS credentials have expired: {said}; {RENEW_CREDENTIALS}"),
        ),
        // The service that hands them out is away, which passes as any other's absence does.
        _ if find::<ConnectorError>(error).is_some()
            || lower.contains("throttl")
            || lower.contains("service unavailable") =>
        {
            (
                Class::Transient,
                format!("the service that hands out the AWS credentials did not answer: {said}"),
            )
        }
        _ => (
            Class::Denied,
            format!("the AWS credentials could not be loaded: {said}; {FIND_CREDENTIALS}"),
        ),
    }
}

/// Names a TLS failure as such. The TLS library's errors reach us only as text in the chain.
pub fn tls(chain: &str) -> Option<String> {
    if !(chain.contains("certificate") || chain.contains("TLS") || chain.contains("tls")) {
        return None;
    }
    let why = if chain.contains("UnknownIssuer") || chain.contains("BadSignature") {
        "TLS: the server's certificate is not signed by the expected authority (a wrong CA, or a proxy that opens TLS)"
    } else if chain.contains("NotValidForName") || chain.contains("not valid for name") {
        "TLS: the server's certificate is for another name"
    } else if chain.contains("Expired") || chain.contains("NotValidYet") {
        "TLS: the server's certificate is out of date, or this machine's clock is"
    } else if chain.contains("invalid peer certificate") {
        "TLS: the server's certificate cannot be trusted"
    } else {
        return None;
    };
    Some(format!("{why}: {chain}"))
}

/// The messages of an error and of those underneath, each once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !text.is_empty() && !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

/// The first error of type `T` in the chain.
pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An [`ApiError`] that passed through a client's layers as a mere error comes out as it went in.
pub fn unwrap(op: &str, error: &(dyn Error + 'static)) -> Option<ApiError> {
    let inner = find::<ApiError>(error)?;
    Some(ApiError {
        op: op.to_owned(),
        class: inner.class,
        message: format!("{}: {}", inner.op, inner.message),
        retry_after: inner.retry_after,
        source: None,
    })
}

/// A failure of the wire, which has no class of its own.
pub fn wire(op: &str, error: BoxError) -> ApiError {
    if let Some(known) = unwrap(op, error.as_ref()) {
        return known;
    }
    let said = chain(error.as_ref());
    let (class, message) = match tls(&said) {
        Some(why) => (Class::Invalid, why),
        None => (Class::Transient, format!("no answer: {said}")),
    };
    ApiError {
        op: op.to_owned(),
        class,
        message,
        retry_after: None,
        source: Some(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_decides_the_class_before_the_status_does() {
        let table = [
            (400, "ExpiredTokenException", "", Class::Expired),
            (403, "ExpiredToken", "", Class::Expired),
            (400, "RequestExpired", "", Class::Expired),
            (400, "UnrecognizedClientException", "", Class::Expired),
            (403, "InvalidClientTokenId", "", Class::Expired),
            (403, "AccessDeniedException", "", Class::Denied),
            (403, "AccessDenied", "", Class::Denied),
            (403, "UnauthorizedOperation", "", Class::Denied),
            (403, "Client.UnauthorizedOperation", "", Class::Denied),
            (403, "SignatureDoesNotMatch", "", Class::Denied),
            (404, "ResourceNotFoundException", "", Class::Absent),
            (400, "TargetGroupNotFound", "", Class::Absent),
            (400, "InvalidTarget", "", Class::Absent),
            (400, "InvalidInstanceID.NotFound", "", Class::Absent),
            (400, "InvalidLaunchTemplateId.NotFound", "", Class::Absent),
            (400, "ParameterNotFound", "", Class::Absent),
            (
                400,
                "ValidationError",
                "AutoScalingGroup name not found - no such group",
                Class::Absent,
            ),
            (
                400,
                "ValidationError",
                "1 validation error detected",
                Class::Invalid,
            ),
            (409, "ResourceInUseException", "", Class::Conflict),
            (
                400,
                "InvalidRequestException",
                "because cluster demo currently has update 1 in progress",
                Class::Conflict,
            ),
            (
                400,
                "InvalidParameterException",
                "Cluster 'demo' is not in ACTIVE status",
                Class::Conflict,
            ),
            (
                400,
                "InvalidRequestException",
                "You are not authorized to launch instances with this launch template. Encoded authorization failure message: x",
                Class::Denied,
            ),
            (
                400,
                "InvalidRequestException",
                "Failed to validate if SLR: AWSServiceRoleForAmazonEKSNodegroup already exists due to missing permissions for 'iam:GetRole'",
                Class::Denied,
            ),
            (400, "Throttling", "", Class::Throttled),
            (400, "ThrottlingException", "", Class::Throttled),
            (503, "RequestLimitExceeded", "", Class::Throttled),
            (429, "TooManyRequestsException", "", Class::Throttled),
            (
                400,
                "InvalidParameterException",
                "Unsupported Kubernetes minor version update",
                Class::Invalid,
            ),
            (400, "InvalidStateException", "", Class::Invalid),
            (400, "ResourceLimitExceededException", "", Class::Invalid),
            (501, "NotImplemented", "", Class::Invalid),
            (404, "UnknownOperationException", "", Class::Invalid),
            (400, "InvalidAction", "", Class::Invalid),
            (500, "ServerException", "", Class::Transient),
            (503, "ServiceUnavailableException", "", Class::Transient),
        ];
        for (status, code, message, class) in table {
            assert_eq!(
                class_of(status, code, message),
                class,
                "{status} {code} {message}"
            );
        }
    }

    #[test]
    fn without_a_code_the_status_decides_and_a_bare_404_is_no_absence() {
        let table = [
            (401, Class::Denied),
            (403, Class::Denied),
            (404, Class::Invalid),
            (409, Class::Conflict),
            (429, Class::Throttled),
            (501, Class::Invalid),
            (502, Class::Transient),
        ];
        for (status, class) in table {
            assert_eq!(class_of(status, "", ""), class, "{status}");
        }
    }

    #[test]
    fn a_session_that_is_over_is_told_from_a_service_that_is_away_and_from_keys_that_are_missing() {
        let failed = |text: &str| CredentialsError::provider_error(text.to_owned());
        let table = [
            (
                failed("the SSO token has expired and cannot be refreshed"),
                Class::Expired,
            ),
            (
                failed("failed to open `/home/a/.aws/sso/cache/1.json`"),
                Class::Expired,
            ),
            (
                failed("UnauthorizedException: Session token not found or invalid"),
                Class::Expired,
            ),
            (
                failed("ExpiredTokenException: Token expired: current date/time"),
                Class::Expired,
            ),
            (
                CredentialsError::provider_error(ConnectorError::io("connection reset".into())),
                Class::Transient,
            ),
            (
                CredentialsError::provider_timed_out(Duration::from_secs(5)),
                Class::Transient,
            ),
            (
                failed("AccessDenied: not authorized to assume"),
                Class::Denied,
            ),
            (CredentialsError::not_loaded("nothing"), Class::Denied),
        ];
        for (error, class) in table {
            let (found, said) = of_credentials(&error);
            assert_eq!(found, class, "{said}");
        }
    }

    #[test]
    fn a_wrong_authority_is_named_and_other_failures_are_not_taken_for_tls() {
        assert!(
            tls("client error (Connect): invalid peer certificate: UnknownIssuer")
                .unwrap()
                .starts_with("TLS: the server's certificate is not signed")
        );
        assert!(tls("tcp connect error: Connection refused").is_none());
        assert!(tls("tls handshake eof").is_none());
    }
}
