//! EC2.

use std::collections::BTreeMap;

use aws_sdk_ec2::types;
use futures::future::try_join_all;

use crate::aws::AwsApi;
use crate::aws::ec2_launch::to_launch_options;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::ec2::{Instance, InterfaceLimits, LaunchTemplateVersion, Subnet};
use crate::model::{ApiError, ErrorClass};

pub(super) type Result<T> = std::result::Result<T, ApiError>;

/// How many instance types one request names.
const INSTANCE_TYPES_PER_CALL: usize = 100;
/// How many values one filter takes.
pub(super) const FILTER_VALUES_PER_CALL: usize = 200;

impl AwsApi {
    /// Subnets; an id that does not exist is absent from the answer.
    pub async fn describe_subnets(&self, ids: &[String]) -> Result<Vec<Subnet>> {
        let each = ids.chunks(FILTER_VALUES_PER_CALL).map(async |ids| {
            let pages = self
                .ec2
                .describe_subnets()
                .filters(build_filter("subnet-id", ids))
                .into_paginator();
            let found: std::result::Result<Vec<_>, _> = pages.items().send().try_collect().await;
            found.map_err(|e| failed("ec2:DescribeSubnets", e))
        });
        Ok(try_join_all(each)
            .await?
            .into_iter()
            .flatten()
            .map(to_subnet)
            .collect())
    }

    /// In batches; an id that does not exist is absent from the answer.
    pub async fn describe_instances(&self, ids: &[String]) -> Result<Vec<Instance>> {
        // By filter, not by id: one unknown id would fail the whole call.
        let each = ids.chunks(FILTER_VALUES_PER_CALL).map(async |ids| {
            let pages = self
                .ec2
                .describe_instances()
                .filters(build_filter("instance-id", ids))
                .into_paginator();
            let found: std::result::Result<Vec<_>, _> = pages.items().send().try_collect().await;
            found.map_err(|e| failed("ec2:DescribeInstances", e))
        });
        let reservations = try_join_all(each).await?.into_iter().flatten();
        Ok(reservations
            .flat_map(|r| r.instances.unwrap_or_default())
            .map(to_instance)
            .collect())
    }

    /// Network limits by instance type.
    pub async fn read_interface_limits(
        &self,
        instance_types: &[String],
    ) -> Result<BTreeMap<String, InterfaceLimits>> {
        let limits = |t: types::InstanceTypeInfo| {
            let network = t.network_info?;
            let limits = InterfaceLimits {
                interfaces: network.maximum_network_interfaces?.into(),
                addresses: network.ipv4_addresses_per_interface?.into(),
            };
            Some((t.instance_type?.as_str().to_owned(), limits))
        };
        let found = self.describe_instance_types(instance_types).await?;
        Ok(found.into_iter().filter_map(limits).collect())
    }

    /// What EC2 says of instance types.
    pub(super) async fn describe_instance_types(
        &self,
        names: &[String],
    ) -> Result<Vec<types::InstanceTypeInfo>> {
        let each = names.chunks(INSTANCE_TYPES_PER_CALL).map(async |names| {
            let names = names.iter().map(|n| types::InstanceType::from(n.as_str()));
            let asked = self
                .ec2
                .describe_instance_types()
                .set_instance_types(Some(names.collect()));
            let found: std::result::Result<Vec<_>, _> =
                asked.into_paginator().items().send().try_collect().await;
            found.map_err(|e| failed("ec2:DescribeInstanceTypes", e))
        });
        Ok(try_join_all(each).await?.into_iter().flatten().collect())
    }

    /// `version`: a number, `$Latest` or `$Default`.
    pub async fn describe_launch_template_version(
        &self,
        template: &str,
        version: &str,
    ) -> Result<LaunchTemplateVersion> {
        let op = "ec2:DescribeLaunchTemplateVersions";
        let out = self
            .ec2
            .describe_launch_template_versions()
            .launch_template_id(template)
            .versions(version)
            .send()
            .await;
        let found = out
            .map_err(|e| failed(op, e))?
            .launch_template_versions
            .unwrap_or_default();
        // EC2 answers an empty list for a version that was deleted; the caller must not go on as if the template had no
        // settings.
        let one = found.into_iter().next().map(to_template_version);
        one.ok_or_else(|| {
            ApiError::new(
                op,
                ErrorClass::Absent,
                format!("launch template `{template}` has no version `{version}`"),
            )
        })
    }

    /// Reads all versions of a launch template, the newest first.
    pub async fn describe_launch_template_versions(
        &self,
        template: &str,
    ) -> Result<Vec<LaunchTemplateVersion>> {
        let pages = self
            .ec2
            .describe_launch_template_versions()
            .launch_template_id(template)
            .into_paginator();
        let found: Vec<_> = pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("ec2:DescribeLaunchTemplateVersions", e))?;
        let mut versions: Vec<_> = found.into_iter().map(to_template_version).collect();
        versions.sort_by_key(|v| std::cmp::Reverse(v.version));
        Ok(versions)
    }

    /// A new version like `source` but for the image; `description` makes it findable after a crash.
    pub async fn create_launch_template_version(
        &self,
        template: &str,
        source: i64,
        image: &str,
        description: &str,
        token: &str,
    ) -> Result<LaunchTemplateVersion> {
        let op = "ec2:CreateLaunchTemplateVersion";
        let out = self
            .ec2
            .create_launch_template_version()
            .launch_template_id(template)
            .source_version(source.to_string())
            .version_description(description)
            .client_token(token)
            .launch_template_data(
                types::RequestLaunchTemplateData::builder()
                    .image_id(image)
                    .build(),
            )
            .send()
            .await
            .map_err(|e| failed(op, e))?;
        let created = out
            .launch_template_version
            .ok_or_else(|| ApiError::new(op, ErrorClass::Transient, "the answer is empty"))?;
        Ok(to_template_version(created))
    }
}

pub(super) fn build_filter(name: &str, values: &[String]) -> types::Filter {
    types::Filter::builder()
        .name(name)
        .set_values(Some(values.to_vec()))
        .build()
}

fn to_subnet(s: types::Subnet) -> Subnet {
    Subnet {
        id: s.subnet_id.unwrap_or_default(),
        zone: s.availability_zone.unwrap_or_default(),
        zone_id: s.availability_zone_id,
        vpc: s.vpc_id,
        cidr: s.cidr_block,
        free_ips: s.available_ip_address_count.unwrap_or(0),
    }
}

fn to_instance(i: types::Instance) -> Instance {
    let tags = i.tags.unwrap_or_default().into_iter();
    Instance {
        id: i.instance_id.unwrap_or_default(),
        instance_type: i
            .instance_type
            .map(|t| t.as_str().to_owned())
            .unwrap_or_default(),
        zone: i
            .placement
            .and_then(|p| p.availability_zone)
            .unwrap_or_default(),
        image: i.image_id,
        state: i
            .state
            .and_then(|s| s.name)
            .map(|s| s.as_str().to_owned())
            .unwrap_or_default(),
        // AWS answers an empty name for an instance that has none any more.
        private_dns: i.private_dns_name.filter(|name| !name.is_empty()),
        subnet: i.subnet_id,
        tags: tags
            .filter_map(|t| Some((t.key?, t.value.unwrap_or_default())))
            .collect(),
    }
}

fn to_template_version(v: types::LaunchTemplateVersion) -> LaunchTemplateVersion {
    let data = v.launch_template_data;
    LaunchTemplateVersion {
        id: v.launch_template_id.unwrap_or_default(),
        name: v.launch_template_name,
        version: v.version_number.unwrap_or(0),
        description: v.version_description,
        image: data.as_ref().and_then(|d| d.image_id.clone()),
        instance_type: data
            .as_ref()
            .and_then(|d| d.instance_type.as_ref())
            .map(|t| t.as_str().to_owned()),
        options: data.as_ref().map(to_launch_options).unwrap_or_default(),
        user_data: data.and_then(|d| d.user_data),
    }
}
