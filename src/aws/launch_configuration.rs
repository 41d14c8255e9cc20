//! Launch configurations, the older way to say what an Auto Scaling group launches, and launch templates made of them.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::{self as asg_types, LaunchConfiguration};
use aws_sdk_ec2::types as ec2_types;

use crate::aws::AwsApi;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::ec2::{LaunchOptions, LaunchTemplate, LaunchTemplateVersion};
use crate::model::eks::LaunchTemplateRef;
use crate::model::node_registration::NodeRegistration;
use crate::model::{ApiError, ErrorClass, absent_is_none};

type Result<T> = std::result::Result<T, ApiError>;

/// Why user data, image and the rest of a template that is made of a configuration are as they are.
#[derive(Clone, Debug)]
pub struct TemplateOfConfiguration<'a> {
    pub configuration: &'a str,
    /// The new template's name.
    pub name: &'a str,
    /// In place of the configuration's image.
    pub image: &'a str,
    /// The template's own tags; instances get none of them.
    pub tags: &'a BTreeMap<String, String>,
}

impl AwsApi {
    /// What a launch configuration says, as the version of a launch template that [`LaunchTemplateRef::of_configuration`]
    /// names.
    ///
    /// # Errors
    /// Absent where there is none of that name.
    pub async fn describe_launch_configuration(&self, name: &str) -> Result<LaunchTemplateVersion> {
        let found = self.read_launch_configuration(name).await?;
        Ok(to_template_version(name, found))
    }

    /// Whether there is a launch configuration of that name.
    ///
    /// # Errors
    /// Those of DescribeLaunchConfigurations.
    pub async fn has_launch_configuration(&self, name: &str) -> Result<bool> {
        Ok(absent_is_none(self.read_launch_configuration(name).await)?.is_some())
    }

    /// The launch template of that name; none where there is none.
    ///
    /// # Errors
    /// Those of DescribeLaunchTemplates.
    pub async fn find_launch_template(&self, name: &str) -> Result<Option<LaunchTemplate>> {
        let sent = self
            .ec2
            .describe_launch_templates()
            .launch_template_names(name)
            .send()
            .await
            .map_err(|e| failed("ec2:DescribeLaunchTemplates", e));
        let found = absent_is_none(sent)?.and_then(|out| out.launch_templates);
        let one = found.unwrap_or_default().into_iter().next();
        Ok(one.map(|t| LaunchTemplate {
            id: t.launch_template_id.unwrap_or_default(),
            name: t.launch_template_name.unwrap_or_default(),
            tags: t
                .tags
                .unwrap_or_default()
                .into_iter()
                .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
                .collect(),
        }))
    }

    /// Makes a launch template that launches what the configuration does, with another image.
    ///
    /// # Errors
    /// Absent where there is no such configuration; those of CreateLaunchTemplate.
    pub async fn create_template_of_configuration(
        &self,
        asked: &TemplateOfConfiguration<'_>,
        token: &str,
    ) -> Result<()> {
        let found = self.read_launch_configuration(asked.configuration).await?;
        let tags = asked.tags.iter();
        let tags = tags.map(|(k, v)| ec2_types::Tag::builder().key(k).value(v).build());
        let tags = ec2_types::TagSpecification::builder()
            .resource_type(ec2_types::ResourceType::LaunchTemplate)
            .set_tags(Some(tags.collect()));
        self.ec2
            .create_launch_template()
            .launch_template_name(asked.name)
            .version_description(format!(
                "eksup: launch configuration {} with image {}",
                asked.configuration, asked.image
            ))
            .launch_template_data(to_template_data(found, asked.image))
            .tag_specifications(tags.build())
            .client_token(token)
            .send()
            .await
            .map_err(|e| failed("ec2:CreateLaunchTemplate", e))?;
        Ok(())
    }

    /// Deletes a launch template with all its versions; one that is gone already is no error.
    ///
    /// # Errors
    /// Those of DeleteLaunchTemplate.
    pub async fn delete_launch_template(&self, id: &str) -> Result<()> {
        let call = self.ec2.delete_launch_template().launch_template_id(id);
        let sent = call.send().await;
        absent_is_none(sent.map_err(|e| failed("ec2:DeleteLaunchTemplate", e)))?;
        Ok(())
    }

    async fn read_launch_configuration(&self, name: &str) -> Result<LaunchConfiguration> {
        let op = "autoscaling:DescribeLaunchConfigurations";
        let call = self.asg.describe_launch_configurations();
        let sent = call.launch_configuration_names(name).send().await;
        let found = sent.map_err(|e| failed(op, e))?.launch_configurations;
        // A name that does not exist is absent from the answer.
        let one = found.unwrap_or_default().into_iter().next();
        let gone = || format!("there is no launch configuration `{name}`");
        one.ok_or_else(|| ApiError::new(op, ErrorClass::Absent, gone()))
    }
}

/// Where nothing is set, Auto Scaling answers an empty text.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|t| !t.is_empty())
}

fn to_template_version(name: &str, found: LaunchConfiguration) -> LaunchTemplateVersion {
    let of_configuration = LaunchTemplateRef::of_configuration(name);
    let metadata = found.metadata_options.as_ref();
    let user_data = given(found.user_data);
    LaunchTemplateVersion {
        id: of_configuration.id.unwrap_or_default(),
        name: Some(name.to_owned()),
        version: LaunchTemplateRef::CONFIGURATION_VERSION,
        description: None,
        image: given(found.image_id),
        instance_type: given(found.instance_type),
        options: LaunchOptions {
            metadata_hop_limit: metadata.and_then(|m| m.http_put_response_hop_limit),
            metadata_tokens: metadata
                .and_then(|m| m.http_tokens.as_ref())
                .map(|t| t.as_str().to_owned()),
            metadata_endpoint: metadata
                .and_then(|m| m.http_endpoint.as_ref())
                .map(|e| e.as_str().to_owned()),
            market: given(found.spot_price).map(|_| "spot".to_owned()),
            reservation: None,
            instance_profile: given(found.iam_instance_profile),
            user_data: None,
            registration: match &user_data {
                Some(text) => NodeRegistration::from_user_data(text),
                None => Some(NodeRegistration::default()),
            },
        },
        user_data,
    }
}

/// A launch template's data with all that the configuration says (ASG-14), and `image` in place of its image. Kernel, RAM
/// disk and ClassicLink are left out: they are of images and networks that EKS's nodes cannot have.
fn to_template_data(
    found: LaunchConfiguration,
    image: &str,
) -> ec2_types::RequestLaunchTemplateData {
    let groups = found.security_groups.unwrap_or_default();
    let mut data = ec2_types::RequestLaunchTemplateData::builder()
        .image_id(image)
        .set_instance_type(given(found.instance_type).map(|t| t.as_str().into()))
        .set_user_data(given(found.user_data))
        .set_key_name(given(found.key_name))
        // A template without it leaves the choice to the instance type, as a configuration without it does.
        .set_ebs_optimized(found.ebs_optimized.filter(|optimized| *optimized));
    if let Some(profile) = given(found.iam_instance_profile) {
        let builder = ec2_types::LaunchTemplateIamInstanceProfileSpecificationRequest::builder();
        let profile = match profile.starts_with("arn:") {
            true => builder.arn(profile),
            false => builder.name(profile),
        };
        data = data.iam_instance_profile(profile.build());
    }
    // A configuration without it has detailed monitoring, a template without it has not.
    let detailed = found.instance_monitoring.and_then(|m| m.enabled);
    data = data.monitoring(
        ec2_types::LaunchTemplatesMonitoringRequest::builder()
            .enabled(detailed.unwrap_or(true))
            .build(),
    );
    // A network interface that is described has to hold the security groups, and EC2 refuses them beside it.
    data = match found.associate_public_ip_address {
        Some(public) => data.network_interfaces(
            ec2_types::LaunchTemplateInstanceNetworkInterfaceSpecificationRequest::builder()
                .device_index(0)
                .associate_public_ip_address(public)
                .delete_on_termination(true)
                .set_groups((!groups.is_empty()).then_some(groups))
                .build(),
        ),
        None => data.set_security_group_ids((!groups.is_empty()).then_some(groups)),
    };
    for mapping in found.block_device_mappings.unwrap_or_default() {
        data = data.block_device_mappings(to_block_device(mapping));
    }
    if let Some(price) = given(found.spot_price) {
        let options = ec2_types::LaunchTemplateSpotMarketOptionsRequest::builder()
            .max_price(price)
            .spot_instance_type(ec2_types::SpotInstanceType::OneTime);
        let market = ec2_types::LaunchTemplateInstanceMarketOptionsRequest::builder()
            .market_type(ec2_types::MarketType::Spot)
            .spot_options(options.build());
        data = data.instance_market_options(market.build());
    }
    if let Some(tenancy) = given(found.placement_tenancy) {
        let placement = ec2_types::LaunchTemplatePlacementRequest::builder();
        data = data.placement(placement.tenancy(tenancy.as_str().into()).build());
    }
    if let Some(metadata) = found.metadata_options {
        data = data.metadata_options(
            ec2_types::LaunchTemplateInstanceMetadataOptionsRequest::builder()
                .set_http_tokens(metadata.http_tokens.map(|t| t.as_str().into()))
                .set_http_put_response_hop_limit(metadata.http_put_response_hop_limit)
                .set_http_endpoint(metadata.http_endpoint.map(|e| e.as_str().into()))
                .build(),
        );
    }
    data.build()
}

fn to_block_device(
    mapping: asg_types::BlockDeviceMapping,
) -> ec2_types::LaunchTemplateBlockDeviceMappingRequest {
    let ebs = mapping.ebs.map(|ebs| {
        // EC2 takes no word on encryption beside a snapshot, which says it itself.
        let encrypted = ebs.encrypted.filter(|e| *e && ebs.snapshot_id.is_none());
        ec2_types::LaunchTemplateEbsBlockDeviceRequest::builder()
            // The two services' defaults for a volume that says nothing are not the same.
            .delete_on_termination(ebs.delete_on_termination.unwrap_or(true))
            .set_encrypted(encrypted)
            .set_snapshot_id(ebs.snapshot_id)
            .set_volume_size(ebs.volume_size)
            .set_volume_type(ebs.volume_type.map(|t| t.as_str().into()))
            .set_iops(ebs.iops)
            .set_throughput(ebs.throughput)
            .build()
    });
    // EC2 takes an empty text for what Auto Scaling calls true.
    let omitted = mapping.no_device == Some(true);
    ec2_types::LaunchTemplateBlockDeviceMappingRequest::builder()
        .set_device_name(mapping.device_name)
        .set_virtual_name(given(mapping.virtual_name))
        .set_no_device(omitted.then(String::new))
        .set_ebs(ebs)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> LaunchConfiguration {
        let ebs = asg_types::Ebs::builder()
            .volume_size(50)
            .volume_type("gp3")
            .encrypted(true)
            .build();
        let of_snapshot = asg_types::Ebs::builder()
            .snapshot_id("snap-1")
            .encrypted(true)
            .delete_on_termination(false)
            .build();
        let device = |name: &str| asg_types::BlockDeviceMapping::builder().device_name(name);
        LaunchConfiguration::builder()
            .launch_configuration_name("nodes")
            .image_id("ami-old")
            .instance_type("m5.large")
            .key_name("")
            .kernel_id("aki-1")
            .user_data("IyEvYmluL2Jhc2gK")
            .iam_instance_profile("nodes")
            .security_groups("sg-1")
            .security_groups("sg-2")
            .block_device_mappings(device("/dev/xvda").ebs(ebs).build())
            .block_device_mappings(device("/dev/xvdb").ebs(of_snapshot).build())
            .block_device_mappings(device("/dev/xvdc").no_device(true).build())
            .ebs_optimized(false)
            .created_time(aws_smithy_types::DateTime::from_secs(0))
            .build()
    }

    #[test]
    fn all_that_a_configuration_says_is_in_its_template_but_for_the_image() {
        let data = to_template_data(configuration(), "ami-new");
        assert_eq!(data.image_id(), Some("ami-new"));
        assert_eq!(data.instance_type().unwrap().as_str(), "m5.large");
        assert_eq!(data.user_data(), Some("IyEvYmluL2Jhc2gK"));
        assert_eq!((data.key_name(), data.kernel_id()), (None, None));
        assert_eq!(data.iam_instance_profile().unwrap().name(), Some("nodes"));
        assert_eq!(data.security_group_ids(), ["sg-1", "sg-2"]);
        assert!(data.network_interfaces().is_empty());
        assert_eq!(data.ebs_optimized(), None);
        assert_eq!(data.monitoring().unwrap().enabled(), Some(true));
        let [root, data_disk, omitted] = data.block_device_mappings() else {
            panic!("{data:?}")
        };
        let ebs = root.ebs().unwrap();
        assert_eq!(
            (
                ebs.encrypted(),
                ebs.delete_on_termination(),
                ebs.volume_size()
            ),
            (Some(true), Some(true), Some(50))
        );
        let ebs = data_disk.ebs().unwrap();
        assert_eq!(
            (
                ebs.encrypted(),
                ebs.delete_on_termination(),
                ebs.snapshot_id()
            ),
            (None, Some(false), Some("snap-1"))
        );
        assert_eq!((omitted.no_device(), omitted.ebs()), (Some(""), None));
        assert!(data.metadata_options().is_none() && data.placement().is_none());
        assert!(data.instance_market_options().is_none());
    }

    #[test]
    fn what_a_configuration_says_of_addresses_price_tenancy_and_metadata_is_said_by_its_template() {
        let metadata = asg_types::InstanceMetadataOptions::builder()
            .http_tokens("required".into())
            .http_put_response_hop_limit(2)
            .http_endpoint("enabled".into())
            .build();
        let monitoring = asg_types::InstanceMonitoring::builder();
        let mut found = configuration();
        found.associate_public_ip_address = Some(false);
        found.spot_price = Some("0.05".to_owned());
        found.placement_tenancy = Some("dedicated".to_owned());
        found.iam_instance_profile = Some("arn:aws:iam::1:instance-profile/nodes".to_owned());
        found.metadata_options = Some(metadata);
        found.instance_monitoring = Some(monitoring.enabled(false).build());
        found.ebs_optimized = Some(true);
        found.key_name = Some("ops".to_owned());
        let version = to_template_version("nodes", found.clone());
        assert_eq!(version.image.as_deref(), Some("ami-old"));
        assert_eq!(version.options.market.as_deref(), Some("spot"));
        assert_eq!(version.options.metadata_hop_limit, Some(2));
        let of_configuration = LaunchTemplateRef::of_configuration("nodes");
        assert_eq!(Some(&version.id), of_configuration.id.as_ref());
        assert_eq!(of_configuration.configuration(), Some("nodes"));

        let data = to_template_data(found, "ami-new");
        let [interface] = data.network_interfaces() else {
            panic!("{data:?}")
        };
        assert_eq!(interface.groups(), ["sg-1", "sg-2"]);
        assert_eq!(
            (
                interface.device_index(),
                interface.associate_public_ip_address()
            ),
            (Some(0), Some(false))
        );
        assert!(data.security_group_ids().is_empty());
        let market = data.instance_market_options().unwrap();
        let spot = market.spot_options().unwrap();
        assert_eq!(spot.max_price(), Some("0.05"));
        assert_eq!(spot.spot_instance_type().unwrap().as_str(), "one-time");
        let tenancy = data.placement().unwrap().tenancy().unwrap();
        assert_eq!(tenancy.as_str(), "dedicated");
        let profile = data.iam_instance_profile().unwrap();
        assert_eq!(profile.arn(), Some("arn:aws:iam::1:instance-profile/nodes"));
        let metadata = data.metadata_options().unwrap();
        assert_eq!(metadata.http_tokens().unwrap().as_str(), "required");
        assert_eq!(metadata.http_put_response_hop_limit(), Some(2));
        assert_eq!(data.monitoring().unwrap().enabled(), Some(false));
        assert_eq!(
            (data.ebs_optimized(), data.key_name()),
            (Some(true), Some("ops"))
        );
    }
}
