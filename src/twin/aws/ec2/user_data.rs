//! What a launch template's user data does on the image it meets (EKS-NG-8, EKS-NG-9, EKS-NG-29).

use std::collections::BTreeMap;

use base64::Engine;
use serde_json::Value;

use crate::twin::aws::state::{AwsAccount, InstanceLaunch};

/// The user data as text; None where there is none, or it is no text.
pub fn decode_user_data(launch: &InstanceLaunch) -> Option<String> {
    let encoded = launch.user_data.as_deref()?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()?;
    String::from_utf8(bytes).ok()
}

/// EKS's reason against user data that it has to merge with its own: Bottlerocket takes TOML, Amazon Linux MIME parts.
pub fn merge_refusal(
    _cloud: &AwsAccount,
    launch: &InstanceLaunch,
    ami_type: &str,
) -> Option<String> {
    let text = decode_user_data(launch).filter(|t| !t.trim().is_empty())?;
    if launch.custom || ami_type.starts_with("WINDOWS") {
        return None;
    }
    if ami_type.starts_with("BOTTLEROCKET") {
        return (!is_toml(&text)).then(|| "User data was not in the TOML format.".to_owned());
    }
    (!is_multipart(&text)).then(|| "User data was not in the MIME multipart format.".to_owned())
}

fn is_multipart(text: &str) -> bool {
    let headers = text.split("\n\n").next().unwrap_or_default();
    let headers = headers.split("\r\n\r\n").next().unwrap_or_default();
    let headers = headers.to_ascii_lowercase();
    headers.contains("content-type: multipart/") || headers.contains("content-type:multipart/")
}

/// Whether a text reads as TOML, as far as that shows in its lines.
fn is_toml(text: &str) -> bool {
    let mut open_list = false;
    let mut open_text = false;
    text.lines().map(str::trim).all(|line| {
        // Inside a text of several lines or an open list nothing is looked at until it is closed.
        if open_text {
            open_text = !line.contains("\"\"\"") && !line.contains("'''");
            return true;
        }
        if open_list {
            open_list = !line.ends_with(']');
            return true;
        }
        // A comment is fine, but a script or cloud-config begins with what looks like one.
        if line.is_empty() || line.starts_with('#') {
            return !line.starts_with("#!") && !line.starts_with("#cloud-config");
        }
        if line.starts_with('[') {
            return line.ends_with(']') || line.contains("] #");
        }
        // Everything else has to be a key with a value.
        let Some((key, value)) = line.split_once('=') else {
            return false;
        };
        let value = value.trim();
        open_list = value.starts_with('[') && !value.ends_with(']');
        open_text = value.matches("\"\"\"").count() == 1 || value.matches("'''").count() == 1;
        let bare = |c: char| c.is_ascii_alphanumeric() || "-_.\"'/: ".contains(c);
        !key.trim().is_empty() && key.chars().all(bare)
    })
}

/// What a kubelet registers its node with, beside what EKS gives it.
#[derive(Debug, Default, PartialEq)]
pub struct KubeletRegistration {
    pub labels: BTreeMap<String, String>,
    /// Key, value and effect.
    pub taints: Vec<(String, String, String)>,
}

/// What the user data tells the kubelet to register with: by flags (`bootstrap.sh`, nodeadm), by nodeadm's kubelet
/// configuration or by Bottlerocket's settings.
pub fn read_registration(launch: &InstanceLaunch) -> KubeletRegistration {
    let mut found = KubeletRegistration::default();
    let Some(text) = decode_user_data(launch) else {
        return found;
    };
    // Flags stand in the arguments of `bootstrap.sh` or of nodeadm, in the same form.
    for flag in flag_values(&text, "--register-with-taints=") {
        found.taints.extend(flag.split(',').filter_map(read_taint));
    }
    for flag in flag_values(&text, "--node-labels=") {
        let pairs = flag.split(',').filter_map(|p| p.split_once('='));
        found
            .labels
            .extend(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
    // Nodeadm's configuration is one MIME part, and its kubelet section can name taints as well.
    for part in text.split("\n--") {
        let Some(start) = part.find("apiVersion: node.eks.aws") else {
            continue;
        };
        let config: Value = serde_saphyr::from_str(&part[start..]).unwrap_or_default();
        let taints = config.pointer("/spec/kubelet/config/registerWithTaints");
        for taint in taints.and_then(Value::as_array).into_iter().flatten() {
            let of = |member: &str| taint[member].as_str().unwrap_or_default().to_owned();
            found.taints.push((of("key"), of("value"), of("effect")));
        }
    }
    // Bottlerocket's settings are read line by line: only two of its tables matter here.
    let mut table = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']);
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let bare = |s: &str| s.trim().trim_matches(['"', '\'']).to_owned();
        match table {
            "settings.kubernetes.node-labels" => {
                found.labels.insert(bare(key), bare(value));
            }
            // A taint is written as `key = ["value:effect"]`.
            "settings.kubernetes.node-taints" => {
                let values = value.trim().trim_matches(['[', ']']).split(',');
                let taints = values.filter_map(|v| {
                    let v = bare(v);
                    let (value, effect) = v.split_once(':')?;
                    Some((bare(key), value.to_owned(), effect.to_owned()))
                });
                found.taints.extend(taints);
            }
            _ => {}
        }
    }
    // The same taint can stand in several places, and is registered once.
    found.taints.sort();
    found.taints.dedup();
    found
}

/// The values of a flag, wherever it stands.
pub fn flag_values<'t>(text: &'t str, flag: &'t str) -> impl Iterator<Item = &'t str> {
    let end = |c: char| c.is_whitespace() || "\"'\\".contains(c);
    text.match_indices(flag).filter_map(move |(at, _)| {
        let value = &text[at + flag.len()..];
        value.split(end).next()
    })
}

/// Reads `key=value:Effect` or `key:Effect`.
fn read_taint(text: &str) -> Option<(String, String, String)> {
    let (left, effect) = text.rsplit_once(':')?;
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    Some((key.to_owned(), value.to_owned(), effect.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(text: &str, custom: bool) -> InstanceLaunch {
        InstanceLaunch {
            template: String::new(),
            version: 1,
            image: "ami-0".into(),
            instance_type: "m5.large".into(),
            custom,
            user_data: Some(base64::engine::general_purpose::STANDARD.encode(text)),
            hop_limit: None,
            ..InstanceLaunch::default()
        }
    }

    #[test]
    fn a_node_registers_with_what_its_user_data_says() {
        let one =
            |key: &str, value: &str| (key.to_owned(), value.to_owned(), "NoSchedule".to_owned());
        for text in [
            "/etc/eks/bootstrap.sh c --kubelet-extra-args '--node-labels=team=a --register-with-taints=dedicated=db:NoSchedule,x:NoSchedule'\n",
            "--//\nContent-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  kubelet:\n    flags:\n      - --node-labels=team=a\n    config:\n      registerWithTaints:\n        - key: dedicated\n          value: db\n          effect: NoSchedule\n        - key: x\n          effect: NoSchedule\n\n--//--\n",
            "[settings.kubernetes.node-labels]\n\"team\" = \"a\"\n[settings.kubernetes.node-taints]\ndedicated = [\"db:NoSchedule\"]\n\"x\" = \":NoSchedule\"\n",
        ] {
            let found = read_registration(&launch(text, true));
            assert_eq!(
                found.taints,
                [one("dedicated", "db"), one("x", "")],
                "{text}"
            );
            assert_eq!(found.labels["team"], "a", "{text}");
        }
    }

    #[test]
    fn each_image_wants_its_own_form() {
        let script = "#!/bin/bash\necho hello\n";
        let parts =
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\n\n--//--\n";
        let settings = "# nodes\n[settings.kubernetes]\nmax-pods = 50\n\"a.b/c\" = [\n \"x\",\n]\n";
        let refused = |text: &str, ami_type: &str| {
            merge_refusal(&AwsAccount::default(), &launch(text, false), ami_type)
        };
        for ami_type in ["AL2_x86_64", "AL2023_x86_64_STANDARD"] {
            assert_eq!(refused(parts, ami_type), None);
            for other in [script, settings] {
                let why = refused(other, ami_type).unwrap();
                assert_eq!(why, "User data was not in the MIME multipart format.");
            }
        }
        assert_eq!(refused(settings, "BOTTLEROCKET_x86_64"), None);
        for other in [script, parts] {
            assert!(refused(other, "BOTTLEROCKET_x86_64").is_some(), "{other}");
        }
        let own = merge_refusal(&AwsAccount::default(), &launch(script, true), "CUSTOM");
        assert_eq!(own, None, "EKS does not look into a custom image's");
    }
}
