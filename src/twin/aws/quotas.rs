//! Service Quotas: what the account may have.

use serde_json::{Value, json};

use super::call::{Input, Service};
use super::error::AwsError;
use super::state::Cloud;
use super::unknown;
use crate::model::limits::{DEFAULT_NODE_GROUPS, NODE_GROUPS};

/// What a quota is in an account that uses much; AWS raises them with use.
const LARGE: f64 = 100_000.0;

/// Answers for Service Quotas.
pub fn run(cloud: &Cloud, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "GetServiceQuota" => {
            let (service, code) = (input.need("ServiceCode")?, input.need("QuotaCode")?);
            if !code.starts_with("L-") {
                return Err(AwsError::new(
                    400,
                    "NoSuchResourceException",
                    "The request failed because the specified quota does not exist.",
                ));
            }
            let (region, account) = (&cloud.region, &cloud.account);
            Ok(json!({"Quota": {
                "ServiceCode": service,
                "QuotaArn": format!("arn:aws:servicequotas:{region}:{account}:{service}/{code}"),
                "QuotaCode": code,
                "Value": value(cloud, &format!("{service}/{code}")),
                "Unit": "None",
                "Adjustable": true,
                "GlobalQuota": false,
            }}))
        }
        _ => Err(unknown(Service::ServiceQuotas, op)),
    }
}

/// The value of a quota by `service/code`.
pub fn value(cloud: &Cloud, key: &str) -> f64 {
    let default = if key == NODE_GROUPS.key() {
        DEFAULT_NODE_GROUPS as f64
    } else {
        LARGE
    };
    cloud.quotas.get(key).copied().unwrap_or(default)
}
