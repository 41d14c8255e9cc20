//! EC2, what decides whether and how instances launch: images, types, zones, vCPUs in use, options of templates.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types;
use futures::future::try_join_all;

use crate::aws::AwsApi;
use crate::aws::ec2::{FILTER_VALUES_PER_CALL, Result, build_filter};
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::ec2::{InstanceSize, LaunchOptions};
use crate::model::image::AmiImage;
use crate::model::limits::cpu_class;
use crate::model::node_registration::NodeRegistration;

/// vCPUs of the account's running instances in the region, as their quotas count them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpusInUse {
    /// By the quota they count for; none where an instance does not tell how many it has, so that the sums are unknown.
    pub by_quota: Option<BTreeMap<String, i64>>,
    /// What one instance of a type has.
    pub by_type: BTreeMap<String, i64>,
}

/// GiB of the account's volumes in the region, and of those that end with certain instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageInUse {
    /// By volume type.
    pub by_type: BTreeMap<String, i64>,
    /// Of volumes that end with an instance, by instance and volume type.
    pub by_instance: BTreeMap<String, BTreeMap<String, i64>>,
}

/// How many volumes one page has, and how many pages are read: beyond, the sum would take too long.
const VOLUMES_PER_PAGE: i32 = 1000;
const VOLUME_PAGE_LIMIT: usize = 20;

impl AwsApi {
    /// Storage of the account in this region, and of these instances; none where there are too many volumes to count.
    pub async fn sum_storage_in_use(
        &self,
        instances: &BTreeSet<String>,
    ) -> Result<Option<StorageInUse>> {
        let mut in_use = StorageInUse::default();
        let mut next = None;
        // An account with more volumes than this is told as unknown, and not with a part of the sum.
        for _ in 0..VOLUME_PAGE_LIMIT {
            let page = self
                .ec2
                .describe_volumes()
                .max_results(VOLUMES_PER_PAGE)
                .set_next_token(next)
                .send()
                .await
                .map_err(|e| failed("ec2:DescribeVolumes", e))?;
            for volume in page.volumes.unwrap_or_default() {
                in_use.add_volume(&volume, instances);
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(Some(in_use));
            }
        }
        Ok(None)
    }

    /// Images; an id that does not exist, or that the account may not see, is absent from the answer.
    pub async fn describe_images(&self, ids: &[String]) -> Result<Vec<AmiImage>> {
        // By filter, not by id: one unknown id would fail the whole call.
        let each = ids.chunks(FILTER_VALUES_PER_CALL).map(async |ids| {
            let pages = self
                .ec2
                .describe_images()
                .filters(build_filter("image-id", ids))
                .into_paginator();
            let found: std::result::Result<Vec<_>, _> = pages.items().send().try_collect().await;
            found.map_err(|e| failed("ec2:DescribeImages", e))
        });
        let found = try_join_all(each).await?.into_iter().flatten();
        Ok(found.map(to_image).collect())
    }

    /// The zones that offer each of the types; a type that none offers has none.
    pub async fn read_type_offerings(
        &self,
        instance_types: &[String],
    ) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let each = instance_types
            .chunks(FILTER_VALUES_PER_CALL)
            .map(async |names| {
                let pages = self
                    .ec2
                    .describe_instance_type_offerings()
                    .location_type(types::LocationType::AvailabilityZone)
                    .filters(build_filter("instance-type", names))
                    .into_paginator();
                let found: std::result::Result<Vec<_>, _> =
                    pages.items().send().try_collect().await;
                found.map_err(|e| failed("ec2:DescribeInstanceTypeOfferings", e))
            });
        // Types that no zone offers are in the answer too, so that they are told from types that nobody asked about.
        let mut zones: BTreeMap<String, BTreeSet<String>> = instance_types
            .iter()
            .map(|t| (t.clone(), BTreeSet::new()))
            .collect();
        for offering in try_join_all(each).await?.into_iter().flatten() {
            if let (Some(name), Some(zone)) = (offering.instance_type, offering.location) {
                let of_type = zones.entry(name.as_str().to_owned()).or_default();
                of_type.insert(zone);
            }
        }
        Ok(zones)
    }

    /// Reads CPUs, memory and accelerators by instance type. A type that EC2 does not know is left out.
    pub async fn read_type_sizes(
        &self,
        instance_types: &[String],
    ) -> Result<BTreeMap<String, InstanceSize>> {
        let found = self.describe_instance_types(instance_types).await?;
        let size = |t: types::InstanceTypeInfo| {
            let gpus = t.gpu_info.and_then(|g| g.gpus).unwrap_or_default();
            // Only these two kinds are counted, because they are the ones whose device plugins make resources that pods
            // ask for.
            let nvidia = gpus
                .iter()
                .filter(|g| g.manufacturer.as_deref() == Some("NVIDIA"));
            let neuron = t.neuron_info.and_then(|n| n.neuron_devices);
            let neuron = neuron.unwrap_or_default();
            let size = InstanceSize {
                cpus: t.v_cpu_info?.default_v_cpus?.into(),
                memory_mib: t.memory_info?.size_in_mib?,
                nvidia_gpus: nvidia.map(|g| i64::from(g.count.unwrap_or(0))).sum(),
                neuron_devices: neuron.iter().map(|d| i64::from(d.count.unwrap_or(0))).sum(),
            };
            Some((t.instance_type?.as_str().to_owned(), size))
        };
        Ok(found.into_iter().filter_map(size).collect())
    }

    /// vCPUs of all instances of the account in this region that run or begin to.
    pub async fn sum_cpus_in_use(&self) -> Result<CpusInUse> {
        let pages = self
            .ec2
            .describe_instances()
            .filters(build_filter(
                "instance-state-name",
                &["pending".to_owned(), "running".to_owned()],
            ))
            .max_results(1000)
            .into_paginator();
        let found: std::result::Result<Vec<_>, _> = pages.items().send().try_collect().await;
        let found = found.map_err(|e| failed("ec2:DescribeInstances", e))?;
        let mut in_use = CpusInUse::default();
        let mut by_quota = Some(BTreeMap::<String, i64>::new());
        for instance in found
            .into_iter()
            .flat_map(|r| r.instances.unwrap_or_default())
        {
            let Some(name) = instance.instance_type.as_ref().map(|t| t.as_str()) else {
                continue;
            };
            let lifecycle = instance.instance_lifecycle.as_ref();
            // Capacity that was bought beforehand counts for no quota of running instances.
            if lifecycle == Some(&types::InstanceLifecycleType::CapacityBlock) {
                continue;
            }
            let spot = lifecycle == Some(&types::InstanceLifecycleType::Spot);
            // The instance's own options count: an instance launched with fewer cores or without hyperthreads takes
            // less of the quota than its type says.
            let cpus = instance
                .cpu_options
                .as_ref()
                .and_then(|c| Some(i64::from(c.core_count?) * i64::from(c.threads_per_core?)));
            let Some(class) = cpu_class(name, spot) else {
                continue;
            };
            let Some(cpus) = cpus else {
                by_quota = None;
                continue;
            };
            in_use.by_type.insert(name.to_owned(), cpus);
            if let Some(sums) = &mut by_quota {
                *sums.entry(class.quota.quota_key()).or_default() += cpus;
            }
        }
        in_use.by_quota = by_quota;
        Ok(in_use)
    }
}

impl StorageInUse {
    fn add_volume(&mut self, volume: &types::Volume, instances: &BTreeSet<String>) {
        let size = i64::from(volume.size.unwrap_or(0));
        let Some(kind) = volume.volume_type.as_ref().map(|t| t.as_str()) else {
            return;
        };
        *self.by_type.entry(kind.to_owned()).or_default() += size;
        for attachment in volume.attachments() {
            // Only volumes that end with their instance become free when it goes; data volumes stay and go on counting.
            let ends = attachment.delete_on_termination == Some(true);
            let instance = attachment.instance_id.as_ref();
            let Some(instance) = instance.filter(|i| ends && instances.contains(*i)) else {
                continue;
            };
            let of_instance = self.by_instance.entry(instance.clone()).or_default();
            *of_instance.entry(kind.to_owned()).or_default() += size;
        }
    }
}

fn to_image(i: types::Image) -> AmiImage {
    AmiImage {
        id: i.image_id.unwrap_or_default(),
        name: i.name.unwrap_or_default(),
        description: i.description,
        architecture: i.architecture.map(|a| a.as_str().to_owned()),
        metadata_support: i.imds_support.map(|s| s.as_str().to_owned()),
    }
}

/// The options of a template version's data.
pub(super) fn to_launch_options(data: &types::ResponseLaunchTemplateData) -> LaunchOptions {
    let metadata = data.metadata_options.as_ref();
    let target = data
        .capacity_reservation_specification
        .as_ref()
        .and_then(|c| c.capacity_reservation_target.as_ref());
    let market = data.instance_market_options.as_ref();
    LaunchOptions {
        metadata_hop_limit: metadata.and_then(|m| m.http_put_response_hop_limit),
        metadata_tokens: metadata
            .and_then(|m| m.http_tokens.as_ref())
            .map(|t| t.as_str().to_owned()),
        metadata_endpoint: metadata
            .and_then(|m| m.http_endpoint.as_ref())
            .map(|e| e.as_str().to_owned()),
        market: market
            .and_then(|m| m.market_type.as_ref())
            .map(|m| m.as_str().to_owned()),
        reservation: target.and_then(|t| {
            let group = t.capacity_reservation_resource_group_arn.as_ref();
            t.capacity_reservation_id.as_ref().or(group).cloned()
        }),
        instance_profile: data.iam_instance_profile.as_ref().and_then(|p| {
            let name = p.name.as_ref();
            p.arn.as_ref().or(name).cloned()
        }),
        user_data: None,
        // User data that cannot be read gives no registration, which is unknown; absent user data registers nothing,
        // which is known.
        registration: match &data.user_data {
            Some(text) => NodeRegistration::from_user_data(text),
            None => Some(NodeRegistration::default()),
        },
    }
}
