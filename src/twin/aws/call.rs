//! A request to AWS, read: which service, which region, which operation, with what input.
//!
//! Whatever the protocol (REST with JSON, JSON, query, EC2's query), the input becomes one JSON value in the shape the
//! API model gives it, so that an operation is a function from a value to a value. Query parameters are always text,
//! hence the lenient readers on [`Input`].

use percent::decode_query;
use serde_json::{Map, Value};

use super::eks_routes;
use super::error::AwsError;
use crate::wire::Request;

/// The services the twin answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AwsService {
    Eks,
    Ec2,
    Elb,
    Autoscaling,
    Sts,
    Ssm,
    Sns,
    Iam,
    Quotas,
    CloudFormation,
}

impl AwsService {
    /// By the name in a signature's scope, which is also the first label of the host.
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "eks" => Self::Eks,
            "ec2" => Self::Ec2,
            "elasticloadbalancing" => Self::Elb,
            "autoscaling" => Self::Autoscaling,
            "sts" => Self::Sts,
            "ssm" => Self::Ssm,
            "sns" => Self::Sns,
            "iam" => Self::Iam,
            "servicequotas" => Self::Quotas,
            "cloudformation" => Self::CloudFormation,
            _ => return None,
        })
    }

    /// The name fault rules use.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Eks => "eks",
            Self::Ec2 => "ec2",
            Self::Elb => "elb",
            Self::Autoscaling => "asg",
            Self::Sts => "sts",
            Self::Ssm => "ssm",
            Self::Sns => "sns",
            Self::Iam => "iam",
            Self::Quotas => "servicequotas",
            Self::CloudFormation => "cloudformation",
        }
    }

    /// The name IAM's actions begin with.
    pub fn iam_prefix(self) -> &'static str {
        match self {
            Self::Elb => "elasticloadbalancing",
            Self::Autoscaling => "autoscaling",
            // As SNS itself spells it in its refusals; actions are compared without regard to case.
            Self::Sns => "SNS",
            other => other.short_name(),
        }
    }

    /// How the service spells answers.
    pub fn protocol(self) -> WireProtocol {
        match self {
            Self::Eks => WireProtocol::RestJson,
            Self::Ssm | Self::Quotas => WireProtocol::Json,
            Self::Ec2 => WireProtocol::Ec2,
            Self::Elb
            | Self::Autoscaling
            | Self::Sts
            | Self::Sns
            | Self::Iam
            | Self::CloudFormation => WireProtocol::Query,
        }
    }

    /// The XML name space of a query service's answers.
    pub fn xml_namespace(self) -> &'static str {
        match self {
            Self::Elb => "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/",
            Self::Autoscaling => "http://autoscaling.amazonaws.com/doc/2011-01-01/",
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
            Self::Sns => "http://sns.amazonaws.com/doc/2010-03-31/",
            Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
            Self::Ec2 => "http://ec2.amazonaws.com/doc/2016-11-15/",
            Self::CloudFormation => "http://cloudformation.amazonaws.com/doc/2010-05-15/",
            Self::Eks | Self::Ssm | Self::Quotas => "",
        }
    }
}

/// How a service spells its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireProtocol {
    RestJson,
    Json,
    Query,
    Ec2,
}

/// Who signed a request, for which service where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSigner {
    pub access_key: String,
    pub region: String,
    pub service: String,
}

/// A request to AWS, read.
#[derive(Clone, Debug)]
pub struct AwsCall {
    pub service: AwsService,
    /// None when the request is not signed.
    pub signer: Option<RequestSigner>,
    /// Empty when the request names no operation the service has.
    pub op: String,
    pub input: Value,
}

impl AwsCall {
    /// The XML name space of the answer; classic load balancers have an API version of their own.
    pub fn xml_namespace(&self) -> &'static str {
        match self.is_classic() {
            true => "http://elasticloadbalancing.amazonaws.com/doc/2012-06-01/",
            false => self.service.xml_namespace(),
        }
    }

    /// Whether it is a request of the API of classic load balancers, some of whose operations have the names of others.
    pub fn is_classic(&self) -> bool {
        self.service == AwsService::Elb
            && Input(&self.input).get_text("Version") == Some("2012-06-01")
    }

    /// Reads `request`; None when neither signature nor host names a service the twin knows.
    pub fn from_request(request: &Request) -> Option<Self> {
        // The signature says which service is meant; the host alone does for a caller that signs nothing.
        let signer = read_signer(request);
        let host = request
            .uri()
            .host()
            .or_else(|| request.headers().get("host")?.to_str().ok())
            .unwrap_or_default();
        let service = match &signer {
            Some(signer) => AwsService::by_name(&signer.service)?,
            None => AwsService::by_name(host.split('.').next().unwrap_or_default())?,
        };
        // Each protocol names its operation in another place: the path, a header, or a parameter.
        let (op, input) = match service.protocol() {
            WireProtocol::RestJson => eks_routes::read_operation(request),
            WireProtocol::Json => {
                let target = request
                    .headers()
                    .get("x-amz-target")
                    .and_then(|t| t.to_str().ok())
                    .unwrap_or_default();
                let op = target.rsplit('.').next().unwrap_or_default().to_owned();
                (
                    op,
                    serde_json::from_slice(request.body()).unwrap_or(Value::Null),
                )
            }
            // A query can stand in the URL and in the body; a presigned request has only the URL.
            WireProtocol::Query | WireProtocol::Ec2 => {
                let mut input = nest_query(request.uri().query().unwrap_or_default());
                merge_values(
                    &mut input,
                    nest_query(&String::from_utf8_lossy(request.body())),
                );
                let op = Input(&input)
                    .get_text("Action")
                    .unwrap_or_default()
                    .to_owned();
                (op, input)
            }
        };
        Some(Self {
            service,
            signer,
            op,
            input,
        })
    }
}

/// Reads who signed, from the header or from a presigned URL.
fn read_signer(request: &Request) -> Option<RequestSigner> {
    // The scope is the same text in the header and in a presigned URL.
    let scope = match request
        .headers()
        .get("authorization")
        .and_then(|v| v.to_str().ok())
    {
        Some(header) => header
            .strip_prefix("AWS4-HMAC-SHA256")?
            .split(['=', ',', ' '])
            .skip_while(|w| *w != "Credential")
            .nth(1)?
            .to_owned(),
        None => {
            let pairs = decode_pairs(request.uri().query().unwrap_or_default());
            pairs.into_iter().find(|(k, _)| k == "X-Amz-Credential")?.1
        }
    };
    // It is read from the end, because an access key may contain anything.
    let mut parts = scope.rsplit('/');
    let (_terminator, service, region, _date) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let access_key = parts.next()?.to_owned();
    Some(RequestSigner {
        access_key,
        region: region.to_owned(),
        service: service.to_owned(),
    })
}

/// Whether AWS's signature is on the request.
pub fn is_signed(request: &Request) -> bool {
    read_signer(request).is_some()
}

/// Splits a query string or form body into decoded pairs.
pub fn decode_pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_query(key), decode_query(value))
        })
        .collect()
}

/// Reads query parameters into nested values: `A.member.2.B=x` becomes `{"A": [.., {"B": "x"}]}`.
fn nest_query(text: &str) -> Value {
    let mut root = Value::Object(Map::new());
    for (key, value) in decode_pairs(text) {
        let path: Vec<&str> = key.split('.').filter(|part| *part != "member").collect();
        insert_nested(&mut root, &path, value);
    }
    root
}

fn insert_nested(into: &mut Value, path: &[&str], value: String) {
    // The path is used up: what is left is the value.
    let Some((first, rest)) = path.split_first() else {
        *into = Value::String(value);
        return;
    };
    // No list in a request the twin answers is longer; an index beyond would only eat memory.
    const MAX_LIST_LENGTH: usize = 4096;
    // A number from 1 on is a place in a list, as EC2 and the query protocol write lists.
    match first.parse::<usize>() {
        Ok(index) if (1..=MAX_LIST_LENGTH).contains(&index) => {
            if !into.is_array() {
                *into = Value::Array(Vec::new());
            }
            if let Value::Array(items) = into {
                while items.len() < index {
                    items.push(Value::Null);
                }
                insert_nested(&mut items[index - 1], rest, value);
            }
        }
        // Everything else is the name of a member; a list that turns out to be a map is replaced.
        _ => {
            if !into.is_object() {
                *into = Value::Object(Map::new());
            }
            if let Value::Object(map) = into {
                insert_nested(
                    map.entry((*first).to_owned()).or_insert(Value::Null),
                    rest,
                    value,
                );
            }
        }
    }
}

fn merge_values(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// An operation's input, with readers that take text for numbers, as the query protocols send it.
#[derive(Clone, Copy)]
pub struct Input<'a>(pub &'a Value);

impl<'a> Input<'a> {
    /// A member of the input.
    pub fn get_member(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    /// A member that is an input of its own.
    pub fn get_input(self, name: &str) -> Option<Input<'a>> {
        self.get_member(name).map(Input)
    }

    /// A text.
    pub fn get_text(self, name: &str) -> Option<&'a str> {
        self.get_member(name)?.as_str()
    }

    /// A text that must be there.
    pub fn require_text(self, name: &str) -> Result<&'a str, AwsError> {
        self.get_text(name)
            .filter(|t| !t.is_empty())
            .ok_or_else(|| AwsError::missing_member(name))
    }

    /// A number.
    pub fn get_number(self, name: &str) -> Option<i64> {
        parse_number(self.get_member(name)?)
    }

    /// A truth.
    pub fn get_bool(self, name: &str) -> Option<bool> {
        parse_bool(self.get_member(name)?)
    }

    /// A list; what is absent is empty.
    pub fn get_list(self, name: &str) -> &'a [Value] {
        self.get_member(name)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// A list of texts.
    pub fn get_text_list(self, name: &str) -> Vec<String> {
        self.get_list(name)
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    }

    /// A map of texts.
    pub fn get_text_map(self, name: &str) -> std::collections::BTreeMap<String, String> {
        let entries = self.get_member(name).and_then(Value::as_object);
        entries
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect()
    }
}

/// Reads a number that may be text.
pub fn parse_number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Reads a truth that may be text.
pub fn parse_bool(value: &Value) -> Option<bool> {
    value
        .as_bool()
        .or_else(|| value.as_str()?.to_ascii_lowercase().parse().ok())
}

mod percent {
    fn decode_hex_byte(bytes: &[u8], at: usize) -> Option<u8> {
        let two = std::str::from_utf8(bytes.get(at..at + 2)?).ok()?;
        u8::from_str_radix(two, 16).ok()
    }

    /// Decodes `%XX` and `+`.
    pub fn decode_query(text: &str) -> String {
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let byte = match bytes[at] {
                b'%' => decode_hex_byte(bytes, at + 1)
                    .inspect(|_| at += 2)
                    .unwrap_or(b'%'),
                b'+' => b' ',
                byte => byte,
            };
            out.push(byte);
            at += 1;
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Decodes a segment of a path, where a plus is a plus.
pub fn decode_path(text: &str) -> String {
    decode_query(&text.replace('+', "%2B"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn query_parameters_become_the_shape_of_the_api_model() {
        let value = nest_query(
            "Action=ModifyRule&Actions.member.1.ForwardConfig.TargetGroups.member.2.Weight=5&Filter.1.Value.1=a%2Fb+c",
        );
        assert_eq!(
            value,
            json!({
                "Action": "ModifyRule",
                "Actions": [{"ForwardConfig": {"TargetGroups": [null, {"Weight": "5"}]}}],
                "Filter": [{"Value": ["a/b c"]}],
            })
        );
    }

    #[test]
    fn the_signature_names_key_region_and_service_in_header_and_in_url() {
        let header = http::Request::builder()
            .uri("http://127.0.0.1:1/clusters")
            .header("authorization", "AWS4-HMAC-SHA256 Credential=AKID/20261121/us-east-1/eks/aws4_request, SignedHeaders=host, Signature=00")
            .body(bytes::Bytes::new())
            .unwrap();
        let url = http::Request::builder()
            .uri("https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity&X-Amz-Credential=AKID%2F20261121%2Fus-east-1%2Fsts%2Faws4_request")
            .body(bytes::Bytes::new())
            .unwrap();
        assert_eq!(
            AwsCall::from_request(&header).unwrap().signer.unwrap(),
            RequestSigner {
                access_key: "AKID".into(),
                region: "us-east-1".into(),
                service: "eks".into()
            }
        );
        let call = AwsCall::from_request(&url).unwrap();
        assert_eq!(
            (call.service, call.op.as_str()),
            (AwsService::Sts, "GetCallerIdentity")
        );
    }
}
