//! The VPC CNI plugin's settings and ENIConfigs.

use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::Value;

use crate::model::cni::{CniSettings, EniConfig};

/// What DaemonSet aws-node is set to; none for another DaemonSet, and where a setting has no value of its own to read (it
/// comes from elsewhere, or a snapshot left it out).
pub fn to_cni_settings(d: DaemonSet) -> Option<CniSettings> {
    if d.metadata.name.as_deref() != Some("aws-node") {
        return None;
    }
    let containers = d.spec.template.spec.map(|s| s.containers);
    let mut settings = CniSettings::default();
    let variables = containers
        .into_iter()
        .flatten()
        .filter(|c| c.name == "aws-node");
    for variable in variables.flat_map(|c| c.env.unwrap_or_default()) {
        let yes = |value: Option<&str>| Some(value?.eq_ignore_ascii_case("true"));
        // What is no number counts as not set, as for the plugin itself.
        let number = |value: Option<&str>| Some(value?.parse::<i64>().ok());
        let value = variable.value.as_deref();
        match variable.name.as_str() {
            "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG" => settings.custom_networking = yes(value)?,
            "ENABLE_PREFIX_DELEGATION" => settings.prefix_delegation = yes(value)?,
            "WARM_ENI_TARGET" => settings.warm_interfaces = number(value)?,
            "WARM_IP_TARGET" => settings.warm_addresses = number(value)?,
            "MINIMUM_IP_TARGET" => settings.minimum_addresses = number(value)?,
            "WARM_PREFIX_TARGET" => settings.warm_prefixes = number(value)?,
            _ => {}
        }
    }
    Some(settings)
}

/// An ENIConfig, which no generated type describes.
pub fn to_eni_config(c: Value) -> EniConfig {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    EniConfig {
        name: text(&c["metadata"]["name"]).unwrap_or_default(),
        subnet: text(&c["spec"]["subnet"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn daemon(name: &str, env: Value) -> DaemonSet {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"selector": {}, "template": {"spec": {"containers": [
            {"name": "aws-node", "env": env}, {"name": "aws-eks-nodeagent", "env": [{"name": "WARM_ENI_TARGET", "value": "9"}]}
        ]}}}}))
        .unwrap()
    }

    #[test]
    fn the_plugins_settings_are_read_from_its_own_container() {
        let env = json!([
            {"name": "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "value": "true"},
            {"name": "ENABLE_PREFIX_DELEGATION", "value": "false"},
            {"name": "WARM_IP_TARGET", "value": "5"},
            {"name": "MINIMUM_IP_TARGET", "value": "no number"},
            {"name": "MY_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
        ]);
        let read = CniSettings {
            custom_networking: true,
            warm_addresses: Some(5),
            ..CniSettings::default()
        };
        assert_eq!(to_cni_settings(daemon("aws-node", env)), Some(read));
        let none = to_cni_settings(daemon("aws-node", json!([])));
        assert_eq!(none, Some(CniSettings::default()));
    }

    #[test]
    fn a_setting_whose_value_is_not_there_is_unknown_and_not_the_default() {
        let scrubbed = json!([{"name": "ENABLE_PREFIX_DELEGATION"}]);
        assert_eq!(to_cni_settings(daemon("aws-node", scrubbed)), None);
        assert_eq!(to_cni_settings(daemon("cilium", json!([]))), None);
    }
}
