//! The stack of a self-managed group as AWS's own template for nodes makes it, in YAML (CFN-26).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::format::plain_text;
use super::outputs::outputs_of;
use super::seed::{add_made_resource, derive_digits};
use super::seed_groups::{name_of_arn, own_security_group, template_id};
use super::template::read_template;
use crate::model::Minor;
use crate::twin::aws::ec2::{images, templates};
use crate::twin::aws::state::*;

/// Parts of the template that are not the same for all groups.
const USER_DATA_MARK: &str = "__USER_DATA__";
const LAUNCH_MARK: &str = "__LAUNCH__: {}";
const IMAGE_MARK: &str = "__IMAGE__";

const TEMPLATE: &str = include_str!("node_group.yaml");

/// What there is of a group that the template makes.
struct NodeParts<'c> {
    template: &'c Ec2LaunchTemplate,
    profile: String,
    /// ARN.
    role: String,
    security_group: String,
}

/// Makes `stack` what the template makes of a group; none where a part of the group is another stack's, or not known.
pub fn make_node_stack(
    cloud: &AwsAccount,
    mut stack: CloudFormationStack,
    taken: &mut BTreeSet<String>,
    asg: &AutoScalingGroup,
) -> Option<CloudFormationStack> {
    let parts = find_parts(cloud, &stack.name, taken, asg)?;
    let data = &parts.template.versions.last()?.data;
    let text = |member: &str| data.get(member).and_then(Value::as_str);
    let image = find_image(cloud, text("ImageId")?)?;
    let cluster = cloud.eks.as_ref()?.name.as_str();
    let user_data = read_user_data(text("UserData").unwrap_or_default())?;
    let launch = launch_lines(&asg.source);
    stack.template = TEMPLATE
        .replace(IMAGE_MARK, &image.path)
        .replace(USER_DATA_MARK, &block_of_text(&user_data, cluster))
        .replace(LAUNCH_MARK, &launch.join("\n      "));
    stack.parameters = given_parameters(cloud, asg, data, &image)?;
    let name = "NodeImageIdSSMParam".to_owned();
    stack.resolved_parameters.insert(name, image.resolved);
    let template = read_template(&stack.template).ok()?;
    let physical: BTreeMap<&str, &str> = [
        ("NodeGroup", asg.name.as_str()),
        ("NodeInstanceProfile", parts.profile.as_str()),
        ("NodeInstanceRole", name_of_arn(&parts.role)),
        ("NodeLaunchTemplate", parts.template.id.as_str()),
        ("NodeSecurityGroup", parts.security_group.as_str()),
    ]
    .into();
    for (logical, resource) in template.get("Resources")?.as_object()? {
        let rule = || {
            let of = format!("{} {logical}", stack.name);
            format!("sgr-{}", derive_digits(&of, 17))
        };
        let id = { physical.get(logical.as_str()) }.map_or_else(rule, |id| (*id).to_owned());
        let kind = resource.get("Type")?.as_str()?;
        add_made_resource(&mut stack, logical, kind, &id);
    }
    stack.outputs = outputs_of(cloud, &stack, &template);
    taken.extend([
        parts.template.id.clone(),
        parts.profile,
        parts.role,
        parts.security_group,
    ]);
    Some(stack)
}

fn find_parts<'c>(
    cloud: &'c AwsAccount,
    stack: &str,
    taken: &BTreeSet<String>,
    asg: &AutoScalingGroup,
) -> Option<NodeParts<'c>> {
    let template = templates::find_template(cloud, &template_id(asg)?)?;
    let profile = asg.launch.profile.clone()?;
    let role = cloud.role_of_profile(&profile);
    let is_free = |id: &String| !taken.contains(id);
    let all_free = [&template.id, &profile, &role].into_iter().all(is_free);
    all_free.then(|| NodeParts {
        template,
        security_group: own_security_group(cloud, stack, taken, asg),
        profile,
        role,
    })
}

/// The image of a launch template, and where Parameter Store has the published one.
struct NodeImage {
    path: String,
    /// What the stack has for the path: where the group has a published image, that one, though a newer one may be there.
    resolved: String,
    /// An image of the user's own.
    own: Option<String>,
}

fn find_image(cloud: &AwsAccount, id: &str) -> Option<NodeImage> {
    let known = cloud.images.get(id);
    let published = known.and_then(|image| {
        let minor: Vec<&str> = image.kubelet.split('.').take(2).collect();
        let path = stored_path(minor.join(".").parse().ok()?, &image.kind)?;
        images::parameter_value(cloud, &path)
            .is_some()
            .then_some(path)
    });
    if let Some(path) = published {
        return Some(NodeImage {
            path,
            resolved: id.to_owned(),
            own: None,
        });
    }
    let path = stored_path(cloud.eks.as_ref()?.version, "AL2023_x86_64_STANDARD")?;
    Some(NodeImage {
        resolved: images::parameter_value(cloud, &path)?,
        own: Some(id.to_owned()),
        path,
    })
}

/// Where Parameter Store has the id of the image of a minor and an AMI type, of Linux.
fn stored_path(minor: Minor, kind: &str) -> Option<String> {
    let arch = if kind.contains("ARM_64") {
        "arm64"
    } else {
        "x86_64"
    };
    let flavour = |prefix: &str| {
        let rest = kind.strip_prefix(prefix)?;
        let rest = rest
            .trim_start_matches("x86_64")
            .trim_start_matches("ARM_64");
        Some(rest.trim_start_matches('_').to_lowercase())
    };
    if let Some(flavour) = flavour("AL2023_") {
        return Some(format!(
            "/aws/service/eks/optimized-ami/{minor}/amazon-linux-2023/{arch}/{flavour}/recommended/image_id"
        ));
    }
    if let Some(flavour) = flavour("BOTTLEROCKET_") {
        let flavour = if flavour.is_empty() {
            flavour
        } else {
            format!("-{flavour}")
        };
        return Some(format!(
            "/aws/service/bottlerocket/aws-k8s-{minor}{flavour}/{arch}/latest/image_id"
        ));
    }
    let family = match kind {
        "AL2_x86_64" => "amazon-linux-2",
        "AL2_ARM_64" => "amazon-linux-2-arm64",
        "AL2_x86_64_GPU" => "amazon-linux-2-gpu",
        _ => return None,
    };
    Some(format!(
        "/aws/service/eks/optimized-ami/{minor}/{family}/recommended/image_id"
    ))
}

fn read_user_data(encoded: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()?;
    String::from_utf8(bytes).ok()
}

/// A text for `Fn::Sub`, as a block of lines where it can be one; the cluster's name is that of the parameter.
fn block_of_text(text: &str, cluster: &str) -> String {
    let text = text.replace("${", "${!").replace(cluster, "${ClusterName}");
    let is_space = |c: char| c.is_whitespace();
    let body = text.strip_suffix('\n').filter(|body| {
        let plain = |c: char| c == '\n' || !c.is_control();
        !body.is_empty()
            && !body.starts_with(is_space)
            && !body.ends_with(is_space)
            && body.chars().all(plain)
    });
    let Some(body) = body else {
        return json!(text).to_string();
    };
    let indent = |line: &str| match line.is_empty() {
        true => String::new(),
        false => format!("            {line}"),
    };
    let lines: Vec<String> = body.lines().map(indent).collect();
    format!("|\n{}", lines.join("\n"))
}

/// What the group starts its instances with.
fn launch_lines(source: &LaunchSource) -> Vec<String> {
    let reference = [
        "LaunchTemplateId: !Ref NodeLaunchTemplate",
        "Version: !GetAtt NodeLaunchTemplate.LatestVersionNumber",
    ];
    let LaunchSource::Mixed(policy) = source else {
        let head = ["LaunchTemplate:".to_owned()].into_iter();
        return head
            .chain(reference.map(|line| format!("  {line}")))
            .collect();
    };
    let mut lines = vec!["MixedInstancesPolicy:".to_owned()];
    if let Some(distribution) = policy.get("InstancesDistribution") {
        lines.push(format!("  InstancesDistribution: {distribution}"));
    }
    lines.push("  LaunchTemplate:".to_owned());
    lines.push("    LaunchTemplateSpecification:".to_owned());
    lines.extend(reference.map(|line| format!("      {line}")));
    if let Some(overrides) = policy.pointer("/LaunchTemplate/Overrides") {
        lines.push(format!("    Overrides: {overrides}"));
    }
    lines
}

fn given_parameters(
    cloud: &AwsAccount,
    asg: &AutoScalingGroup,
    data: &Map<String, Value>,
    image: &NodeImage,
) -> Option<BTreeMap<String, String>> {
    let eks = cloud.eks.as_ref()?;
    let vpc = eks.rest.get("resourcesVpcConfig");
    let of_vpc = |path: &str| {
        let value = vpc.and_then(|v| v.pointer(path)).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let control_plane = match of_vpc("/securityGroupIds/0") {
        none if none.is_empty() => of_vpc("/clusterSecurityGroupId"),
        group => group,
    };
    let data = Value::Object(data.clone());
    let at = |path: &str| data.pointer(path).cloned();
    let tokens = at("/MetadataOptions/HttpTokens");
    let size = at("/BlockDeviceMapping/0/Ebs/VolumeSize");
    let given = [
        ("ClusterControlPlaneSecurityGroup", control_plane),
        ("ClusterName", eks.name.clone()),
        (
            "DisableIMDSv1",
            (tokens == Some(json!("required"))).to_string(),
        ),
        (
            "NodeAutoScalingGroupDesiredCapacity",
            asg.desired.to_string(),
        ),
        ("NodeAutoScalingGroupMaxSize", asg.max.to_string()),
        ("NodeAutoScalingGroupMinSize", asg.min.to_string()),
        ("NodeGroupName", asg.name.clone()),
        ("NodeImageId", image.own.clone().unwrap_or_default()),
        ("NodeImageIdSSMParam", image.path.clone()),
        ("NodeInstanceType", asg.launch.instance_type.clone()),
        (
            "NodeVolumeSize",
            size.map_or_else(|| "20".to_owned(), |s| plain_text(&s)),
        ),
        ("Subnets", asg.subnets.join(",")),
        ("VpcId", of_vpc("/vpcId")),
    ];
    let given = given.into_iter();
    Some(
        given
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::scenario;

    #[test]
    fn text_comes_back_from_its_block_as_it_was() {
        for text in [
            "#!/bin/bash\nrun web --x \"$HOME\" ${Y}\n\n  indented\ttabs are no lines\n",
            "#!/bin/bash\nrun web ${Y}\n\nend\n",
            "no line feed",
            "two line feeds\n\n",
            " a space before\n",
            "carriage\r\nreturns\r\n",
            "",
        ] {
            let template = format!(
                "Text:\n  Of:\n    It: !Sub {}\n",
                block_of_text(text, "web")
            );
            let read = read_template(&template).unwrap();
            let found = read["Text"]["Of"]["It"]["Fn::Sub"].as_str().unwrap();
            let found = found.replace("${ClusterName}", "web").replace("${!", "${");
            assert_eq!(found, text);
        }
    }

    #[test]
    fn every_published_image_of_linux_has_its_path_in_parameter_store() {
        let world = scenario::load_world(&scenario::find_scenario("self-managed").unwrap(), 7);
        let cloud = &world.cloud;
        for kind in images::PUBLISHED_AMI_TYPES
            .iter()
            .filter(|k| !k.starts_with("WINDOWS_"))
        {
            let minor = Minor::new(27);
            let id = images::image_id(minor, kind);
            let image = find_image(cloud, &id).unwrap();
            assert_eq!(
                images::parameter_value(cloud, &image.path).as_ref(),
                Some(&id),
                "{kind}"
            );
            assert_eq!((image.resolved, image.own), (id, None));
        }
        let own = find_image(cloud, "ami-00000000000000003").unwrap();
        assert_eq!(own.own.as_deref(), Some("ami-00000000000000003"));
        assert!(own.path.contains("amazon-linux-2023"), "{}", own.path);
    }
}
