//! Service Quotas: what an account may have, and what refuses beyond it (EKS-NG-28, EC2-3).

use serde_json::{Value, json};

use super::call::{AwsService, Input};
use super::error::AwsError;
use super::page::cut_page;
use super::state::AwsAccount;
use super::unknown_operation;

/// What a quota is in an account that uses much; AWS raises them with use.
const LARGE_ACCOUNT_QUOTA: f64 = 100_000.0;

/// Quotas there are, as ListServiceQuotas shows them: service, code, name.
const LISTED_QUOTAS: &[(&str, &str, &str)] = &[
    (
        "ebs",
        "L-7A658B76",
        "Storage for General Purpose SSD (gp3) volumes, in TiB",
    ),
    (
        "ebs",
        "L-D18FCD1D",
        "Storage for General Purpose SSD (gp2) volumes, in TiB",
    ),
    (
        "ec2",
        "L-1216C47A",
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    ),
    ("ec2", "L-1945791B", "Running On-Demand Inf instances"),
    ("ec2", "L-2C3B7624", "Running On-Demand Trn instances"),
    (
        "ec2",
        "L-34B43A08",
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    ),
    ("ec2", "L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("ec2", "L-417A185B", "Running On-Demand P instances"),
    ("ec2", "L-6B0D517C", "All Trn Spot Instance Requests"),
    ("ec2", "L-6E869C2A", "Running On-Demand DL instances"),
    (
        "ec2",
        "L-7212CCBC",
        "All P4, P3 and P2 Spot Instance Requests",
    ),
    ("ec2", "L-7295265B", "Running On-Demand X instances"),
    ("ec2", "L-74FC7D96", "Running On-Demand F instances"),
    ("ec2", "L-85EED4F7", "All DL Spot Instance Requests"),
    ("ec2", "L-88CF9481", "All F Spot Instance Requests"),
    ("ec2", "L-B5D1601B", "All Inf Spot Instance Requests"),
    ("ec2", "L-C4BD4855", "All P5 Spot Instance Requests"),
    ("ec2", "L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("ec2", "L-E3A00192", "All X Spot Instance Requests"),
    ("ec2", "L-F7808C92", "Running On-Demand HPC instances"),
    (
        "autoscaling",
        "L-CDE20ADC",
        "Auto Scaling groups per region",
    ),
    ("eks", "L-6D54EA21", "Managed node groups per cluster"),
];

/// How many node groups a cluster may have.
pub const NODE_GROUPS_QUOTA: &str = "eks/L-6D54EA21";

/// How many Auto Scaling groups an account may have in a region.
pub const SCALING_GROUPS_QUOTA: &str = "autoscaling/L-CDE20ADC";

/// The On-Demand quota that an instance's vCPUs count for, by the families in the quotas' names.
pub fn cpu_quota(instance_type: &str) -> Option<String> {
    // The family is the letters in front of the first digit (EC2-4).
    let family = instance_type
        .split(|c: char| !c.is_ascii_alphabetic())
        .next();
    // Families with a quota of their own come first, because their letters begin like those of the standard ones.
    let code = match family? {
        "inf" => "L-1945791B",
        "trn" => "L-2C3B7624",
        "dl" => "L-6E869C2A",
        "hpc" => "L-F7808C92",
        // Hosts and high-memory instances are counted one by one.
        "mac" | "u" => return None,
        other => match other.chars().next()? {
            'g' | 'v' => "L-DB2E81BA",
            'p' => "L-417A185B",
            'f' => "L-74FC7D96",
            'x' => "L-7295265B",
            'a' | 'c' | 'd' | 'h' | 'i' | 'm' | 'r' | 't' | 'z' => "L-1216C47A",
            _ => return None,
        },
    };
    Some(format!("ec2/{code}"))
}

/// What an account has that asked for no more.
fn default_value(key: &str) -> f64 {
    if key == NODE_GROUPS_QUOTA {
        30.0
    } else {
        LARGE_ACCOUNT_QUOTA
    }
}

/// The value of a quota by `service/code`.
pub fn quota_value(cloud: &AwsAccount, key: &str) -> f64 {
    cloud.quotas.get(key).copied().unwrap_or(default_value(key))
}

/// The value that a caller is told: instances of others are not in the cloud and cannot be counted by it, so that what
/// they use is taken off.
fn reported_value(cloud: &AwsAccount, key: &str) -> f64 {
    let others = cloud.other_cpus.get(key).copied().unwrap_or(0);
    quota_value(cloud, key) - others as f64
}

fn show_quota(
    cloud: &AwsAccount,
    (service, code, name): (&str, &str, &str),
    applied: bool,
) -> Value {
    let key = format!("{service}/{code}");
    let (region, account) = (&cloud.region, &cloud.account);
    json!({
        "ServiceCode": service,
        "QuotaArn": format!("arn:aws:servicequotas:{region}:{account}:{service}/{code}"),
        "QuotaCode": code,
        "QuotaName": name,
        "Value": if applied { reported_value(cloud, &key) } else { default_value(&key) },
        "Unit": "None",
        "Adjustable": true,
        "GlobalQuota": false,
    })
}

/// Answers for Service Quotas.
pub fn run_operation(cloud: &AwsAccount, op: &str, input: Input) -> Result<Value, AwsError> {
    let applied = matches!(op, "GetServiceQuota" | "ListServiceQuotas");
    // A quota that the twin does not know is an error, so that a wrong code is seen.
    let missing = || {
        let message = "The request failed because the specified quota does not exist.";
        AwsError::new(400, "NoSuchResourceException", message)
    };
    match op {
        // The two ways of asking differ only in whether the applied value or AWS's default is shown.
        "GetServiceQuota" | "GetAWSDefaultServiceQuota" => {
            let (service, code) = (
                input.require_text("ServiceCode")?,
                input.require_text("QuotaCode")?,
            );
            let mut listed = LISTED_QUOTAS.iter();
            let quota = listed.find(|(s, c, _)| (*s, *c) == (service, code));
            let quota = *quota.ok_or_else(missing)?;
            Ok(json!({"Quota": show_quota(cloud, quota, applied)}))
        }
        "ListServiceQuotas" | "ListAWSDefaultServiceQuotas" => {
            let service = input.require_text("ServiceCode")?;
            let of_service = LISTED_QUOTAS.iter().filter(|(s, ..)| *s == service);
            let all: Vec<Value> = of_service.map(|q| show_quota(cloud, *q, applied)).collect();
            if all.is_empty() {
                return Err(missing());
            }
            let size = input.get_number("MaxResults").unwrap_or(100);
            let page = cut_page(all, input.get_text("NextToken"), size)?;
            Ok(json!({"Quotas": page.items, "NextToken": page.next}))
        }
        _ => Err(unknown_operation(AwsService::Quotas, op)),
    }
}
