//! An error as a service of AWS answers it, in each protocol's own shape.

use serde_json::{Map, Value, json};

use super::call::{Protocol, Service};
use super::xml::escape;
use crate::twin::answer::{Answer, respond};

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
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// A member of the request is missing.
    pub fn missing(name: &str) -> Self {
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
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }

    /// The request is not signed.
    pub fn unsigned(service: Service) -> Self {
        let code = if service.protocol() == Protocol::Query {
            "MissingAuthenticationToken"
        } else {
            "MissingAuthenticationTokenException"
        };
        let code = if service == Service::Ec2 {
            "MissingParameter"
        } else {
            code
        };
        match service {
            Service::Ec2 => Self::new(
                400,
                code,
                "The request must contain the parameter AWSAccessKeyId",
            ),
            _ => Self::new(403, code, "Missing Authentication Token"),
        }
    }

    /// The credentials have expired, in the service's words.
    pub fn expired(service: Service) -> Self {
        const EXPIRED: &str = "The security token included in the request is expired";
        match service.protocol() {
            Protocol::RestJson => Self::new(403, "ExpiredTokenException", EXPIRED),
            Protocol::Json => Self::new(400, "ExpiredTokenException", EXPIRED),
            Protocol::Query => Self::new(403, "ExpiredToken", EXPIRED),
            Protocol::Ec2 => Self::new(400, "RequestExpired", "Request has expired."),
        }
    }

    /// Too many requests, in the service's words.
    pub fn throttled(service: Service) -> Self {
        match service.protocol() {
            Protocol::RestJson => Self::new(429, "ThrottlingException", "Rate exceeded"),
            Protocol::Json => Self::new(400, "ThrottlingException", "Rate exceeded"),
            Protocol::Query => Self::new(400, "Throttling", "Rate exceeded"),
            Protocol::Ec2 => Self::new(503, "RequestLimitExceeded", "Request limit exceeded."),
        }
    }

    /// The service failed inside, in its own words.
    pub fn internal(service: Service) -> Self {
        match service.protocol() {
            Protocol::RestJson => Self::new(500, "ServerException", "Internal server error"),
            Protocol::Json => Self::new(
                500,
                "InternalServerError",
                "An error occurred on the server side.",
            ),
            Protocol::Query => Self::new(500, "InternalFailure", "An internal error occurred."),
            Protocol::Ec2 => Self::new(500, "InternalError", "An internal error has occurred"),
        }
    }

    /// Spells the error as `service` does.
    pub fn answer(&self, service: Service, request_id: &str) -> Answer {
        let Self {
            status,
            code,
            message,
            members,
        } = self;
        match service.protocol() {
            Protocol::RestJson => {
                let mut body = members.clone();
                body.insert("message".into(), json!(message));
                let mut answer =
                    respond(*status, "application/json", Value::Object(body).to_string());
                if let (Answer::Whole(response), Ok(code)) =
                    (&mut answer, http::HeaderValue::from_str(code))
                {
                    response.headers_mut().insert("x-amzn-errortype", code);
                }
                answer
            }
            Protocol::Json => respond(
                *status,
                "application/x-amz-json-1.1",
                json!({"__type": code, "message": message}).to_string(),
            ),
            Protocol::Query => {
                let kind = if *status < 500 { "Sender" } else { "Receiver" };
                let body = format!(
                    "<ErrorResponse xmlns=\"{}\"><Error><Type>{kind}</Type><Code>{}</Code><Message>{}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>",
                    service.namespace(),
                    escape(code),
                    escape(message)
                );
                respond(*status, "text/xml", body)
            }
            Protocol::Ec2 => {
                let body = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>",
                    escape(code),
                    escape(message)
                );
                respond(*status, "text/xml;charset=UTF-8", body)
            }
        }
    }
}
