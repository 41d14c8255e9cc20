//! STS, SSM and SNS: a call or two of each.

use serde_json::{Value, json};

use super::call::{AwsService, Input, RequestSigner};
use super::error::AwsError;
use super::{ec2, iam, unknown_operation};
use crate::twin::world::SimWorld;

/// Answers for STS.
pub fn run_sts(
    world: &SimWorld,
    op: &str,
    _input: Input,
    signer: Option<&RequestSigner>,
) -> Result<Value, AwsError> {
    let account = &world.cloud.account;
    match op {
        "GetCallerIdentity" => Ok(json!({
            "UserId": signer.map_or("AIDATWIN", |s| s.access_key.as_str()),
            "Account": account,
            "Arn": iam::caller_arn(account),
        })),
        _ => Err(unknown_operation(AwsService::Sts, op)),
    }
}

/// Answers for SSM: the public parameters that name EKS's AMIs.
pub fn run_ssm(world: &SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    // The value of a parameter is worked out from its name, so every minor and family has its own.
    let found = |name: &str| {
        let value = ec2::images::parameter_value(&world.cloud, name)?;
        let kind = if name.contains("image_id") {
            "aws:ec2:image"
        } else {
            "text"
        };
        Some(json!({
            "Name": name, "Type": "String", "Value": value, "Version": 1, "DataType": kind,
            "ARN": format!("arn:aws:ssm:{}::parameter{name}", world.cloud.region),
            "LastModifiedDate": world.now().as_second(),
        }))
    };
    match op {
        "GetParameter" => {
            let name = input.require_text("Name")?;
            let parameter = found(name).ok_or_else(|| {
                AwsError::new(
                    400,
                    "ParameterNotFound",
                    format!("Parameter {name} not found."),
                )
            })?;
            Ok(json!({"Parameter": parameter}))
        }
        "GetParameters" => {
            // A request of several names ten at most, as in the real API.
            let names = input.get_text_list("Names");
            if names.is_empty() || names.len() > 10 {
                return Err(AwsError::new(
                    400,
                    "ValidationException",
                    "Member must have length less than or equal to 10",
                ));
            }
            // Names that are not known are told apart from those that are, without an error.
            let (known, unknown): (Vec<_>, Vec<_>) =
                names.into_iter().partition(|name| found(name).is_some());
            Ok(
                json!({"Parameters": known.iter().filter_map(|n| found(n)).collect::<Vec<_>>(), "InvalidParameters": unknown}),
            )
        }
        _ => Err(unknown_operation(AwsService::Ssm, op)),
    }
}

/// Answers for SNS: keeps what was published.
pub fn run_sns(world: &mut SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "Publish" => {
            // A topic and a target are the same here.
            let topic = input
                .get_text("TopicArn")
                .or(input.get_text("TargetArn"))
                .unwrap_or_default();
            // The identifier is not looked up, but has to look like one.
            if !topic.starts_with("arn:") {
                return Err(AwsError::new(
                    400,
                    "InvalidParameter",
                    "Invalid parameter: TopicArn",
                ));
            }
            // What was published is kept, so a test can read it.
            let message = input.get_text("Message").unwrap_or_default();
            world
                .cloud
                .published
                .push((topic.to_owned(), message.to_owned()));
            Ok(json!({"MessageId": world.new_uuid()}))
        }
        _ => Err(unknown_operation(AwsService::Sns, op)),
    }
}
