//! What EC2 says of subnets, instances and launch templates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::node_registration::NodeRegistration;
use super::user_data::UserDataTraits;

/// A subnet, as DescribeSubnets answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Subnet {
    pub id: String,
    pub zone: String,
    pub zone_id: Option<String>,
    pub vpc: Option<String>,
    pub cidr: Option<String>,
    pub free_ips: i32,
}

/// An instance, as DescribeInstances answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Instance {
    pub id: String,
    pub instance_type: String,
    pub zone: String,
    pub image: Option<String>,
    /// pending running shutting-down terminated stopping stopped.
    pub state: String,
    pub private_dns: Option<String>,
    pub subnet: Option<String>,
    pub tags: BTreeMap<String, String>,
}

/// DescribeInstanceTypes: how many network interfaces a type has, and how many IPv4 addresses each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceLimits {
    pub interfaces: i64,
    pub addresses: i64,
}

/// DescribeInstanceTypes: what an instance of a type has for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InstanceSize {
    pub cpus: i64,
    pub memory_mib: i64,
    pub nvidia_gpus: i64,
    pub neuron_devices: i64,
}

/// A launch template, without its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchTemplate {
    pub id: String,
    pub name: String,
    pub tags: BTreeMap<String, String>,
}

/// One version of a launch template, or a launch configuration, with what of it decides about nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LaunchTemplateVersion {
    pub id: String,
    pub name: Option<String>,
    pub version: i64,
    pub description: Option<String>,
    pub image: Option<String>,
    pub instance_type: Option<String>,
    /// Base64, as EC2 answers it. Left out of snapshots: user data can hold secrets.
    #[serde(skip_serializing, default)]
    pub user_data: Option<String>,
    #[serde(default)]
    pub options: LaunchOptions,
}

/// What else of a template version decides how instances run, or whether two groups of them can stand at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LaunchOptions {
    /// How many hops an answer of the metadata service may take: containers are the second.
    pub metadata_hop_limit: Option<i32>,
    /// Whether the metadata service asks for session tokens: optional or required.
    pub metadata_tokens: Option<String>,
    /// Whether there is a metadata service: enabled or disabled.
    pub metadata_endpoint: Option<String>,
    /// spot or capacity-block.
    pub market: Option<String>,
    /// The capacity reservation, or the group of them, that instances must run in.
    pub reservation: Option<String>,
    /// Name or ARN of the instance profile.
    pub instance_profile: Option<String>,
    /// What the user data does; kept where the user data itself is not.
    pub user_data: Option<UserDataTraits>,
    /// What nodes register themselves with; none where it was not read.
    pub registration: Option<NodeRegistration>,
}

impl LaunchTemplateVersion {
    /// What the user data does; nothing where there is none.
    pub fn user_data_traits(&self) -> UserDataTraits {
        match &self.user_data {
            Some(text) => UserDataTraits::from_user_data(text),
            None => self.options.user_data.unwrap_or_default(),
        }
    }
}
