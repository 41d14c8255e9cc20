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

use crate::model::{ApiError, ErrorClass};
use crate::wire::BoxError;

/// What to do when no credentials are found.
const FIND_CREDENTIALS: &str = "name a profile with --profile, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `aws sts get-caller-identity` shows whether they work";
/// Where the SDK looks for credentials, in its order.
const CREDENTIAL_SOURCES: &str = "the environment (AWS_ACCESS_KEY_ID), the profile (--profile, AWS_PROFILE or `default`) of ~/.aws/config and ~/.aws/credentials with its keys, single sign-on, role or process, a web identity (AWS_WEB_IDENTITY_TOKEN_FILE), the container's endpoint (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI) and the instance's metadata";
/// What to do when credentials have run out.
const RENEW_CREDENTIALS: &str =
    "renew them (with single sign-on: `aws sso login`) and run the same command again";

/// How providers say that a session is over.
const SESSION_EXPIRED_MARKERS: [&str; 5] = [
    "expired",
    "sso session",
    "sso/cache/",
    "session token not found or invalid",
    "invalidgrantexception",
];

/// What CreateNodegroup says when the caller may not launch from the group's launch template.
const LAUNCH_NOT_AUTHORIZED: &str = "not authorized to launch instances with this launch template";

/// Turns an SDK error into one with a class. `op` is the operation as IAM names it, such as `eks:DescribeCluster`.
pub fn classify_sdk_error<E>(op: &str, error: SdkError<E, HttpResponse>) -> ApiError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (class, message) = match &error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = service.err().meta().code().unwrap_or_default();
            let message = service.err().meta().message().unwrap_or_default();
            let class = classify_code(status, code, message);
            (class, message_with_remedy(class, status, code, message))
        }
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            // A success that cannot be read was spoilt on its way: asked again, it may be whole.
            let class = if response.raw().status().is_success() {
                ErrorClass::Transient
            } else {
                classify_code(status, "", "")
            };
            (
                class,
                format!(
                    "the answer (HTTP {status}) could not be read: {}",
                    error_chain(&error)
                ),
            )
        }
        SdkError::TimeoutError(_) => (ErrorClass::Transient, "no answer in time".to_owned()),
        SdkError::ConstructionFailure(_) => (
            ErrorClass::Invalid,
            format!("the request could not be built: {}", error_chain(&error)),
        ),
        _ => describe_transport_error(&error),
    };
    // A failure of the credentials comes wrapped as one of dispatch or of construction.
    let (class, message) = match find_in_chain::<CredentialsError>(&error) {
        Some(credentials) => describe_credentials_error(credentials),
        None => (class, message),
    };
    // The server's own time to wait goes before the engine's.
    let retry_after = error
        .raw_response()
        .and_then(|r| r.headers().get("retry-after"))
        .and_then(parse_retry_after);
    ApiError {
        op: op.to_owned(),
        class,
        message,
        retry_after,
        source: Some(Box::new(error)),
    }
}

/// Whether a call failed because the caller's own credentials could not be had: AWS was never asked.
pub fn is_credentials_error(error: &ApiError) -> bool {
    let source = error.source.as_deref();
    source.is_some_and(|source| find_in_chain::<CredentialsError>(source).is_some())
}

/// Turns a failure of the credentials into one with a class.
pub fn classify_credentials_error(op: &str, error: CredentialsError) -> ApiError {
    let (class, message) = describe_credentials_error(&error);
    ApiError {
        op: op.to_owned(),
        class,
        message,
        retry_after: None,
        source: Some(Box::new(error)),
    }
}

/// Reads a `Retry-After` of seconds.
pub fn parse_retry_after(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The class of an answer that is an error, by its code first and its status second.
pub fn classify_code(status: u16, code: &str, message: &str) -> ErrorClass {
    // Query services send `Client.` and `Server.` before some codes; JSON services a namespace.
    let code = code.rsplit(['#', ':']).next().unwrap_or(code);
    let code = code
        .strip_prefix("Client.")
        .or_else(|| code.strip_prefix("Server."))
        .unwrap_or(code);
    match code {
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
            ErrorClass::Expired
        }
        // What the services say of temporary credentials whose session is over; the way out is the same.
        "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" => {
            ErrorClass::Expired
        }
        "UnauthorizedOperation"
        | "OptInRequired"
        | "NotAuthorized"
        | "UnauthorizedException"
        | "Forbidden"
        | "ForbiddenException" => ErrorClass::Denied,
        // Not expired: new credentials change nothing about a wrong clock or a proxy that alters requests, and a person
        // has to look.
        "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "RequestTimeTooSkewed"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => ErrorClass::Denied,
        "UnknownOperationException"
        | "NotImplemented"
        | "NotImplementedException"
        | "InvalidAction"
        | "UnknownAction" => ErrorClass::Invalid,
        // Somebody else's change is under way; it ends by itself, and so it is waited for.
        // CreateAutoScalingGroup takes no token: a repeat after a lost reply meets its own group, which the next look knows.
        "ResourceInUseException"
        | "AlreadyExists"
        | "AlreadyExistsException"
        | "InvalidChangeSetStatus"
        | "AlreadyExistsFault"
        | "ResourceInUse"
        | "ResourceContention"
        | "ResourceContentionFault"
        | "ScalingActivityInProgress"
        | "InstanceRefreshInProgress"
        | "OperationInProgress"
        | "OperationInProgressException" => ErrorClass::Conflict,
        "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown"
        | "PriorRequestNotComplete" => ErrorClass::Throttled,
        "ServerException"
        | "InternalFailure"
        | "InternalError"
        | "InternalServerError"
        | "InternalServerException"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "Unavailable" => ErrorClass::Transient,
        // EKS answers a second update with InvalidRequestException or InvalidParameterException and only says why in
        // words (seen: "currently has update <id> in progress", "is not in ACTIVE status").
        _ if message.contains("currently has update")
            || message.contains("is not in ACTIVE status") =>
        {
            ErrorClass::Conflict
        }
        // CreateNodegroup answers InvalidRequestException for what it may not do with the caller's rights.
        _ if message.contains(LAUNCH_NOT_AUTHORIZED)
            || message.contains("due to missing permissions for") =>
        {
            ErrorClass::Denied
        }
        // RegisterTargets, for an instance that does not exist or is not running any more.
        "InvalidTarget" | "InvalidTargetException" => ErrorClass::Absent,
        // Auto Scaling has no code for a group that does not exist.
        "ValidationError" if message.contains("not found") => ErrorClass::Absent,
        // Nor has CloudFormation one for a stack that does not exist (CFN-1), or that is busy (CFN-3).
        "ValidationError" if message.starts_with("Stack") && message.contains("does not exist") => {
            ErrorClass::Absent
        }
        "ValidationError" if message.contains("while in status") => ErrorClass::Conflict,
        // Nor for a warm pool that does not exist.
        "ValidationError" if message.contains("No warm pool found") => ErrorClass::Absent,
        // IAM's own word, which is no "NotFound".
        "NoSuchEntity" => ErrorClass::Absent,
        _ if code.starts_with("AccessDenied") => ErrorClass::Denied,
        _ if code.contains("NotFound") => ErrorClass::Absent,
        _ if code.contains("Throttl") => ErrorClass::Throttled,
        _ if code.starts_with("ServiceUnavailable") => ErrorClass::Transient,
        _ if code.contains("Conflict") => ErrorClass::Conflict,
        _ => classify_http_status(status),
    }
}

fn classify_http_status(status: u16) -> ErrorClass {
    match status {
        401 | 403 => ErrorClass::Denied,
        409 => ErrorClass::Conflict,
        429 => ErrorClass::Throttled,
        501 => ErrorClass::Invalid,
        500.. => ErrorClass::Transient,
        // A bare 404 is an endpoint that does not know the operation, never an object that does not exist.
        _ => ErrorClass::Invalid,
    }
}

/// The server's words, with a way out where there is one.
fn message_with_remedy(class: ErrorClass, status: u16, code: &str, message: &str) -> String {
    // EC2 appends a blob that only the account's owner can decode.
    let message = message
        .split(" Encoded authorization failure message:")
        .next()
        .unwrap_or(message);
    // Some services answer with a code alone, some with a message alone, and a wrong endpoint with neither.
    let said = match (code, message) {
        ("", "") if status == 404 || status == 501 => {
            format!("the endpoint does not support this operation (HTTP {status})")
        }
        ("", "") => format!("HTTP {status}"),
        ("", message) => message.to_owned(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{message} ({code})"),
    };
    match (class, code) {
        (ErrorClass::Expired, _) => {
            format!("{said}; the credentials have expired or are not valid: {RENEW_CREDENTIALS}")
        }
        (
            ErrorClass::Denied,
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed",
        ) => {
            format!("{said}; check the secret key and this machine's clock")
        }
        // EKS hands on what EC2 said, with the action only in the blob.
        (ErrorClass::Denied, _) if message.contains(LAUNCH_NOT_AUTHORIZED) => {
            format!(
                "{said}; EKS tests the launch with the caller's permissions: allow ec2:RunInstances and ec2:CreateTags"
            )
        }
        _ => said,
    }
}

/// A failure before any answer came.
fn describe_transport_error<E: Error + 'static>(error: &E) -> (ErrorClass, String) {
    let said = error_chain(error);
    match describe_tls_failure(&said) {
        Some(why) => (ErrorClass::Invalid, why),
        None => (ErrorClass::Transient, format!("no answer: {said}")),
    }
}

fn describe_credentials_error(error: &CredentialsError) -> (ErrorClass, String) {
    let said = error_chain(error);
    let lower = said.to_lowercase();
    match error {
        CredentialsError::CredentialsNotLoaded(_) => (
            ErrorClass::Denied,
            format!(
                "no AWS credentials were found; looked in {CREDENTIAL_SOURCES}; {FIND_CREDENTIALS}"
            ),
        ),
        CredentialsError::ProviderTimedOut(_) => (
            ErrorClass::Transient,
            format!("the credentials provider did not answer in time: {said}"),
        ),
        // Providers (single sign-on, web identity, a process) say only in words that a session is over; signing out
        // removes the cached token.
        _ if SESSION_EXPIRED_MARKERS
            .iter()
            .any(|words| lower.contains(words)) =>
        {
            (
                ErrorClass::Expired,
                format!("the AWS credentials have expired: {said}; {RENEW_CREDENTIALS}"),
            )
        }
        // The service that hands them out is away, which passes as any other's absence does.
        _ if find_in_chain::<ConnectorError>(error).is_some()
            || lower.contains("throttl")
            || lower.contains("service unavailable") =>
        {
            (
                ErrorClass::Transient,
                format!("the service that provides the AWS credentials did not answer: {said}"),
            )
        }
        _ => (
            ErrorClass::Denied,
            format!("the AWS credentials could not be loaded: {said}; {FIND_CREDENTIALS}"),
        ),
    }
}

/// Names a TLS failure as such. The TLS library's errors reach us only as text in the chain.
pub fn describe_tls_failure(chain: &str) -> Option<String> {
    if !(chain.contains("certificate") || chain.contains("TLS") || chain.contains("tls")) {
        return None;
    }
    // The words are those of rustls. Others come out as they are, as a failure that may pass.
    let why = if chain.contains("UnknownIssuer") || chain.contains("BadSignature") {
        "TLS: the server's certificate is not signed by the expected authority (a wrong CA, or a proxy that intercepts TLS)"
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
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
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
pub fn find_in_chain<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
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
pub fn recover_api_error(op: &str, error: &(dyn Error + 'static)) -> Option<ApiError> {
    let inner = find_in_chain::<ApiError>(error)?;
    Some(ApiError {
        op: op.to_owned(),
        class: inner.class,
        message: format!("{}: {}", inner.op, inner.message),
        retry_after: inner.retry_after,
        source: None,
    })
}

/// A failure of the wire, which has no class of its own.
pub fn classify_wire_error(op: &str, error: BoxError) -> ApiError {
    if let Some(known) = recover_api_error(op, error.as_ref()) {
        return known;
    }
    let said = error_chain(error.as_ref());
    let (class, message) = match describe_tls_failure(&said) {
        Some(why) => (ErrorClass::Invalid, why),
        None => (ErrorClass::Transient, format!("no answer: {said}")),
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
            // The session is over or unknown to AWS: another sign-in helps, and no waiting does.
            (400, "ExpiredTokenException", "", ErrorClass::Expired),
            (403, "ExpiredToken", "", ErrorClass::Expired),
            (400, "RequestExpired", "", ErrorClass::Expired),
            (400, "UnrecognizedClientException", "", ErrorClass::Expired),
            (403, "InvalidClientTokenId", "", ErrorClass::Expired),
            // A policy has to change.
            (403, "AccessDeniedException", "", ErrorClass::Denied),
            (403, "AccessDenied", "", ErrorClass::Denied),
            (403, "UnauthorizedOperation", "", ErrorClass::Denied),
            (403, "Client.UnauthorizedOperation", "", ErrorClass::Denied),
            (403, "SignatureDoesNotMatch", "", ErrorClass::Denied),
            // Each service has its own code for what is not there, most with the status of a mistake in the request.
            (404, "ResourceNotFoundException", "", ErrorClass::Absent),
            (400, "TargetGroupNotFound", "", ErrorClass::Absent),
            (400, "InvalidTarget", "", ErrorClass::Absent),
            (400, "InvalidInstanceID.NotFound", "", ErrorClass::Absent),
            (
                400,
                "InvalidLaunchTemplateId.NotFound",
                "",
                ErrorClass::Absent,
            ),
            (400, "ParameterNotFound", "", ErrorClass::Absent),
            (404, "NoSuchEntity", "", ErrorClass::Absent),
            // Auto Scaling has one code for both: only the text tells them apart.
            (
                400,
                "ValidationError",
                "AutoScalingGroup name not found - no such group",
                ErrorClass::Absent,
            ),
            (
                400,
                "ValidationError",
                "1 validation error detected",
                ErrorClass::Invalid,
            ),
            // So has CloudFormation.
            (
                400,
                "ValidationError",
                "Stack with id nodes does not exist",
                ErrorClass::Absent,
            ),
            (
                400,
                "ValidationError",
                "Stack [nodes] cannot be deleted while in status UPDATE_IN_PROGRESS",
                ErrorClass::Conflict,
            ),
            (400, "AlreadyExistsException", "", ErrorClass::Conflict),
            (400, "InvalidChangeSetStatus", "", ErrorClass::Conflict),
            (409, "ResourceInUseException", "", ErrorClass::Conflict),
            (400, "AlreadyExists", "", ErrorClass::Conflict),
            // EKS says in words that another change is in progress.
            (
                400,
                "InvalidRequestException",
                "because cluster demo currently has update 1 in progress",
                ErrorClass::Conflict,
            ),
            (
                400,
                "InvalidParameterException",
                "Cluster 'demo' is not in ACTIVE status",
                ErrorClass::Conflict,
            ),
            // EKS passes on a refusal of EC2 or IAM as an invalid request.
            (
                400,
                "InvalidRequestException",
                "You are not authorized to launch instances with this launch template. Encoded authorization failure message: x",
                ErrorClass::Denied,
            ),
            (
                400,
                "InvalidRequestException",
                "Failed to validate if SLR: AWSServiceRoleForAmazonEKSNodegroup already exists due to missing permissions for 'iam:GetRole'",
                ErrorClass::Denied,
            ),
            // By code, as each service throttles with another status.
            (400, "Throttling", "", ErrorClass::Throttled),
            (400, "ThrottlingException", "", ErrorClass::Throttled),
            (503, "RequestLimitExceeded", "", ErrorClass::Throttled),
            (429, "TooManyRequestsException", "", ErrorClass::Throttled),
            // What no repeat makes right.
            (
                400,
                "InvalidParameterException",
                "Unsupported Kubernetes minor version update",
                ErrorClass::Invalid,
            ),
            (400, "InvalidStateException", "", ErrorClass::Invalid),
            (
                400,
                "ResourceLimitExceededException",
                "",
                ErrorClass::Invalid,
            ),
            (501, "NotImplemented", "", ErrorClass::Invalid),
            (404, "UnknownOperationException", "", ErrorClass::Invalid),
            (400, "InvalidAction", "", ErrorClass::Invalid),
            // What a repeat may make right.
            (500, "ServerException", "", ErrorClass::Transient),
            (
                503,
                "ServiceUnavailableException",
                "",
                ErrorClass::Transient,
            ),
        ];
        for (status, code, message, class) in table {
            assert_eq!(
                classify_code(status, code, message),
                class,
                "{status} {code} {message}"
            );
        }
    }

    #[test]
    fn without_a_code_the_status_decides_and_a_bare_404_is_no_absence() {
        let table = [
            (401, ErrorClass::Denied),
            (403, ErrorClass::Denied),
            (404, ErrorClass::Invalid),
            (409, ErrorClass::Conflict),
            (429, ErrorClass::Throttled),
            (501, ErrorClass::Invalid),
            (502, ErrorClass::Transient),
        ];
        for (status, class) in table {
            assert_eq!(classify_code(status, "", ""), class, "{status}");
        }
    }

    #[test]
    fn a_session_that_is_over_is_told_from_a_service_that_is_away_and_from_keys_that_are_missing() {
        let failed = |text: &str| CredentialsError::provider_error(text.to_owned());
        let table = [
            (
                failed("the SSO token has expired and cannot be refreshed"),
                ErrorClass::Expired,
            ),
            (
                failed("failed to open `/home/a/.aws/sso/cache/1.json`"),
                ErrorClass::Expired,
            ),
            (
                failed("UnauthorizedException: Session token not found or invalid"),
                ErrorClass::Expired,
            ),
            (
                failed("ExpiredTokenException: Token expired: current date/time"),
                ErrorClass::Expired,
            ),
            (
                CredentialsError::provider_error(ConnectorError::io("connection reset".into())),
                ErrorClass::Transient,
            ),
            (
                CredentialsError::provider_timed_out(Duration::from_secs(5)),
                ErrorClass::Transient,
            ),
            (
                failed("AccessDenied: not authorized to assume"),
                ErrorClass::Denied,
            ),
            (CredentialsError::not_loaded("nothing"), ErrorClass::Denied),
        ];
        for (error, class) in table {
            let (found, said) = describe_credentials_error(&error);
            assert_eq!(found, class, "{said}");
        }
    }

    #[test]
    fn a_wrong_authority_is_named_and_other_failures_are_not_taken_for_tls() {
        assert!(
            describe_tls_failure("client error (Connect): invalid peer certificate: UnknownIssuer")
                .unwrap()
                .starts_with("TLS: the server's certificate is not signed")
        );
        assert!(describe_tls_failure("tcp connect error: Connection refused").is_none());
        assert!(describe_tls_failure("tls handshake eof").is_none());
    }
}
