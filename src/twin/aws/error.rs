//! An error as a service of AWS answers it, in each protocol's own shape.

use serde_json::{Map, Value, json};

use super::call::{AwsService, WireProtocol};
use super::xml::escape_text;
use crate::twin::answer::{Answer, answer_with};

/// An error as a service answers it.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsError {
    pub status: u16,
    /// The code as the API model spells it, such as `ResourceNotFoundException`.
    pub code: String,
    pub message: String,
    /// Members some of EKS's errors carry beside the message, such as `clusterName`.
    pub members: Map<String, Value>,
}

impl AwsError {
    /// An error with nothing but a message.
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            members: Map::new(),
        }
    }

    /// With one more member.
    pub fn with_member(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// A member of the request is missing.
    pub fn missing_member(name: &str) -> Self {
        Self::new(
            400,
            "ValidationError",
            format!(
                "1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must not be null"
            ),
        )
    }

    /// EKS's 400 for a parameter.
    pub fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterException", message)
    }

    /// EKS's 400 for a request that does not fit the state.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidRequestException", message)
    }

    /// EKS's 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "ResourceNotFoundException", message)
    }

    /// EKS's 409.
    pub fn in_use(message: impl Into<String>) -> Self {
        Self::new(409, "ResourceInUseException", message)
    }

    /// The query services' 400 for a parameter.
    pub fn validation_error(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }

    /// The request is not signed.
    pub fn unsigned_request(service: AwsService) -> Self {
        let code = if service.protocol() == WireProtocol::Query {
            "MissingAuthenticationToken"
        } else {
            "MissingAuthenticationTokenException"
        };
        if service == AwsService::Ec2 {
            return Self::new(
                400,
                "MissingParameter",
                "The request must contain the parameter AWSAccessKeyId",
            );
        }
        Self::new(403, code, "Missing Authentication Token")
    }

    /// The credentials have expired, in the service's words.
    pub fn expired_token(service: AwsService) -> Self {
        const EXPIRED_MESSAGE: &str = "The security token included in the request is expired";
        match service.protocol() {
            WireProtocol::RestJson => Self::new(403, "ExpiredTokenException", EXPIRED_MESSAGE),
            WireProtocol::Json => Self::new(400, "ExpiredTokenException", EXPIRED_MESSAGE),
            WireProtocol::Query => Self::new(403, "ExpiredToken", EXPIRED_MESSAGE),
            WireProtocol::Ec2 => Self::new(400, "RequestExpired", "Request has expired."),
        }
    }

    /// Too many requests, in the service's words.
    pub fn throttled_request(service: AwsService) -> Self {
        match service.protocol() {
            WireProtocol::RestJson => Self::new(429, "ThrottlingException", "Rate exceeded"),
            WireProtocol::Json => Self::new(400, "ThrottlingException", "Rate exceeded"),
            WireProtocol::Query => Self::new(400, "Throttling", "Rate exceeded"),
            WireProtocol::Ec2 => Self::new(503, "RequestLimitExceeded", "Request limit exceeded."),
        }
    }

    /// The service failed inside, in its own words.
    pub fn internal_error(service: AwsService) -> Self {
        match service.protocol() {
            WireProtocol::RestJson => Self::new(500, "ServerException", "Internal server error"),
            WireProtocol::Json => Self::new(
                500,
                "InternalServerError",
                "An error occurred on the server side.",
            ),
            WireProtocol::Query => Self::new(500, "InternalFailure", "An internal error occurred."),
            WireProtocol::Ec2 => Self::new(500, "InternalError", "An internal error has occurred"),
        }
    }

    /// Spells the error as `service` does.
    pub fn to_answer(&self, service: AwsService, request_id: &str) -> Answer {
        let Self {
            status,
            code,
            message,
            members,
        } = self;
        // Each protocol has a shape of its own for an error; the code and the message are the same.
        match service.protocol() {
            WireProtocol::RestJson => {
                let mut body = members.clone();
                body.insert("message".into(), json!(message));
                let mut answer =
                    answer_with(*status, "application/json", Value::Object(body).to_string());
                // The code is in a header, as the REST protocol has it.
                if let (Answer::Whole(response), Ok(code)) =
                    (&mut answer, http::HeaderValue::from_str(code))
                {
                    response.headers_mut().insert("x-amzn-errortype", code);
                }
                answer
            }
            WireProtocol::Json => answer_with(
                *status,
                "application/x-amz-json-1.1",
                json!({"__type": code, "message": message}).to_string(),
            ),
            WireProtocol::Query => {
                // The type says whose fault it is, and follows from the status.
                let kind = if *status < 500 { "Sender" } else { "Receiver" };
                let body = format!(
                    "<ErrorResponse xmlns=\"{}\"><Error><Type>{kind}</Type><Code>{}</Code><Message>{}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>",
                    service.xml_namespace(),
                    escape_text(code),
                    escape_text(message)
                );
                answer_with(*status, "text/xml", body)
            }
            WireProtocol::Ec2 => {
                let body = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>",
                    escape_text(code),
                    escape_text(message)
                );
                answer_with(*status, "text/xml;charset=UTF-8", body)
            }
        }
    }
}
