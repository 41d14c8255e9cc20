//! Whether an instance's user data makes a node of this cluster (SELF-1, SELF-2, EKS-NG-8).
//!
//! EKS adds nothing to the user data of an image that the user brings, nor to that of a self-managed group: it has to say
//! which cluster to join, in the form that the image reads.

use serde_json::Value;

use super::user_data::decode_user_data;
use crate::twin::aws::state::{AwsAccount, InstanceLaunch};

/// What stands in user data that a snapshot has left out: nothing but its form is known.
pub const LEFT_OUT: &str = "# left out of the snapshot";

/// How to reach the cluster, as user data has to say it.
struct ClusterFacts<'c> {
    name: &'c str,
    /// Where the API server is; a served twin is at a port as well.
    endpoints: Vec<&'c str>,
    authority: &'c str,
}

impl<'c> ClusterFacts<'c> {
    fn of(cloud: &'c AwsAccount) -> Option<Self> {
        let eks = cloud.eks.as_ref()?;
        let authority = eks.rest.get("certificateAuthority");
        Some(Self {
            name: &eks.name,
            endpoints: cloud
                .endpoint
                .iter()
                .chain([&eks.endpoint])
                .map(String::as_str)
                .collect(),
            authority: authority
                .and_then(|a| a["data"].as_str())
                .unwrap_or_default(),
        })
    }

    fn is_endpoint(&self, text: &str) -> bool {
        self.endpoints
            .iter()
            .any(|e| e.trim_end_matches('/') == text.trim_end_matches('/'))
    }
}

/// Whether an instance's kubelet starts and asks this cluster; `managed` by a node group of EKS.
pub fn starts_kubelet(cloud: &AwsAccount, launch: &InstanceLaunch, managed: bool) -> bool {
    // Where EKS brings the image, it brings the user data too.
    if !launch.custom {
        return true;
    }
    let text = decode_user_data(launch);
    let image = cloud.images.get(&launch.image);
    let kind = image.map_or("", |i| i.kind.as_str());
    let (Some(facts), Some(text)) = (ClusterFacts::of(cloud), text) else {
        // Without user data a published image starts nothing; what another one does by itself nobody knows. A managed
        // group's user data may have been left out of its snapshot.
        return kind.is_empty() || managed;
    };
    let known_by_form = text.contains(LEFT_OUT);
    let joins = if kind.starts_with("AL2023_") {
        if known_by_form {
            text.contains("node.eks.aws")
        } else {
            node_config_joins(&text, &facts)
        }
    } else if kind.starts_with("AL2_") {
        if known_by_form {
            text.contains("bootstrap.sh")
        } else {
            bootstrap_joins(&text, &facts).unwrap_or(false)
        }
    } else if kind.starts_with("BOTTLEROCKET_") {
        if known_by_form {
            text.contains("settings.kubernetes")
        } else {
            settings_join(&text, &facts)
        }
    } else if kind.starts_with("WINDOWS_") {
        known_by_form || powershell_joins(&text, &facts)
    } else {
        // An image of somebody's own may join by itself; it does not where its user data names another cluster.
        bootstrap_joins(&text, &facts).unwrap_or(true)
    };
    joins && !has_refused_labels(&text)
}

/// Whether user data asks for the instance's lifecycle state and starts no kubelet while it warms, as public scripts do
/// (ASG-19).
pub fn waits_for_service(launch: &InstanceLaunch) -> bool {
    let text = decode_user_data(launch);
    text.is_some_and(|text| text.contains("Warmed:"))
}

/// A NodeConfig that names the cluster whole: nodeadm asks for all four (SELF-1).
fn node_config_joins(text: &str, facts: &ClusterFacts) -> bool {
    let mut cluster = serde_json::Map::new();
    for config in node_configs(text) {
        // Several documents are laid over one another.
        let of = config.pointer("/spec/cluster").and_then(Value::as_object);
        cluster.extend(of.cloned().unwrap_or_default());
    }
    let is = |member: &str, fits: &dyn Fn(&str) -> bool| {
        cluster
            .get(member)
            .and_then(Value::as_str)
            .is_some_and(fits)
    };
    is("name", &|v| v == facts.name)
        && is("apiServerEndpoint", &|v| facts.is_endpoint(v))
        && is("certificateAuthority", &|v| v == facts.authority)
        && is("cidr", &|v| v.contains('/'))
}

/// The NodeConfig documents of user data: parts of MIME, or all of it.
fn node_configs(text: &str) -> Vec<Value> {
    let parts = text.split("\n--");
    parts
        .filter_map(|part| {
            let start = part.find("apiVersion: node.eks.aws")?;
            serde_saphyr::from_str(&part[start..]).ok()
        })
        .collect()
}

/// Lines that do something, with those that end in a backslash joined to the next.
fn live_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn unquote(word: &str) -> &str {
    word.trim_matches(['"', '\''])
}

/// Whether `/etc/eks/bootstrap.sh` is called for this cluster; None where it is not called (SELF-1).
fn bootstrap_joins(text: &str, facts: &ClusterFacts) -> Option<bool> {
    let lines = live_lines(text);
    let call = lines.iter().find_map(|line| {
        let at = line.find("/etc/eks/bootstrap.sh")?;
        Some(&line[at + "/etc/eks/bootstrap.sh".len()..])
    })?;
    // Words in quotes may hold blanks; only flags of bootstrap.sh take a value in the next word.
    let mut words = split_words(call).into_iter();
    let (mut cluster, mut endpoint, mut authority) = (None, None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--apiserver-endpoint" => endpoint = words.next(),
            "--b64-cluster-ca" => authority = words.next(),
            "--use-max-pods"
            | "--kubelet-extra-args"
            | "--dns-cluster-ip"
            | "--container-runtime"
            | "--ip-family"
            | "--service-ipv6-cidr"
            | "--pause-container-account"
            | "--pause-container-version"
            | "--aws-api-retry-attempts"
            | "--docker-config-json"
            | "--containerd-config-file"
            | "--cluster-id"
            | "--mount-bpf-fs"
            | "--local-disks" => {
                words.next();
            }
            flag if flag.starts_with("--") => {}
            ";" | "||" | "&&" | "|" => break,
            name => {
                cluster.get_or_insert_with(|| name.to_owned());
            }
        }
    }
    // What a variable holds is not known here.
    let fits = |found: Option<String>, fits: &dyn Fn(&str) -> bool| {
        found.is_none_or(|v| v.starts_with('$') || fits(&v))
    };
    let named = cluster.is_some_and(|name| name.starts_with('$') || name == facts.name);
    Some(
        named
            && fits(endpoint, &|v| facts.is_endpoint(v))
            && fits(authority, &|v| v == facts.authority),
    )
}

/// Splits as a shell does, as far as quotes go.
fn split_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Bottlerocket's settings name the cluster, its API server and its certificate (SELF-1).
fn settings_join(text: &str, facts: &ClusterFacts) -> bool {
    let (mut table, mut found) = (String::new(), Vec::new());
    for line in live_lines(text) {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).replace('"', "");
        } else if let Some((key, value)) = line.split_once('=') {
            found.push((
                format!("{table}.{}", unquote(key.trim())),
                unquote(value.trim()).to_owned(),
            ));
        }
    }
    let is = |key: &str, fits: &dyn Fn(&str) -> bool| {
        let mut of_key = found
            .iter()
            .filter(|(k, _)| *k == format!("settings.kubernetes.{key}"));
        of_key.next().is_some_and(|(_, v)| fits(v))
    };
    is("cluster-name", &|v| v == facts.name)
        && is("api-server", &|v| facts.is_endpoint(v))
        && is("cluster-certificate", &|v| v == facts.authority)
}

/// `Start-EKSBootstrap.ps1`, whose path is often in a variable, is called with the cluster's name.
fn powershell_joins(text: &str, facts: &ClusterFacts) -> bool {
    let lines = live_lines(text);
    let words = lines
        .iter()
        .flat_map(|l| split_words(l))
        .collect::<Vec<_>>();
    let called = text.contains("Start-EKSBootstrap.ps1");
    let name = words
        .windows(2)
        .find(|w| w[0].eq_ignore_ascii_case("-EKSClusterName"));
    called && name.is_some_and(|w| w[1].starts_with('$') || w[1] == facts.name)
}

/// A kubelet does not start with labels of Kubernetes's own domains beyond those that a node may give itself (SELF-2).
fn has_refused_labels(text: &str) -> bool {
    const ALLOWED: &[&str] = &[
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let refused = |key: &str| {
        let Some((domain, _)) = key.split_once('/') else {
            return false;
        };
        let within = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
        (within("kubernetes.io") || within("k8s.io"))
            && !within("kubelet.kubernetes.io")
            && !within("node.kubernetes.io")
            && !ALLOWED.contains(&key)
    };
    super::user_data::flag_values(text, "--node-labels=")
        .flat_map(|flag| flag.split(','))
        .filter_map(|pair| pair.split('=').next())
        .any(refused)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::twin::aws::ec2::images;
    use crate::twin::aws::seed_account;
    use crate::twin::scenario;

    fn joins(kind: &str, text: &str) -> bool {
        let snapshot = scenario::expense_dev();
        let cloud = seed_account(&snapshot);
        let launch = InstanceLaunch {
            template: "lt-1".into(),
            image: images::image_id(crate::model::Minor::new(27), kind),
            instance_type: "t3.large".into(),
            custom: true,
            user_data: Some(base64::engine::general_purpose::STANDARD.encode(text)),
            ..InstanceLaunch::default()
        };
        starts_kubelet(&cloud, &launch, false)
    }

    const ENDPOINT: &str =
        "https://5B1C0F2E9A7D4C3B8E6F1A2B3C4D5E6F.gr7.us-east-1.eks.amazonaws.com";
    const AUTHORITY: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==";

    #[test]
    fn bootstrap_sh_has_to_name_this_cluster() {
        let al2 = |text: &str| joins("AL2_x86_64", text);
        assert!(al2(
            "#!/bin/bash\nset -ex\n/etc/eks/bootstrap.sh expense-dev --kubelet-extra-args '--node-labels=team=a --max-pods=20'\n"
        ));
        assert!(al2(&format!(
            "#!/bin/bash\n/etc/eks/bootstrap.sh --b64-cluster-ca {AUTHORITY} \\\n  --apiserver-endpoint {ENDPOINT} expense-dev\n"
        )));
        assert!(al2(
            "#!/bin/bash\nCLUSTER=x\n/etc/eks/bootstrap.sh \"${CLUSTER}\"\n"
        ));
        for (text, why) in [
            (
                "#!/bin/bash\n/etc/eks/bootstrap.sh other\n",
                "another cluster",
            ),
            (
                "#!/bin/bash\n# /etc/eks/bootstrap.sh expense-dev\n",
                "a comment",
            ),
            (
                "#!/bin/bash\n/etc/eks/bootstrap.sh expense-dev --apiserver-endpoint https://other\n",
                "another endpoint",
            ),
            (
                "#!/bin/bash\n/etc/eks/bootstrap.sh --use-max-pods false\n",
                "no name",
            ),
            (
                "#!/bin/bash\n/etc/eks/bootstrap.sh expense-dev --kubelet-extra-args '--node-labels=node-role.kubernetes.io/worker=x'\n",
                "a label that kubelets refuse",
            ),
            ("[settings.kubernetes]\n", "settings of Bottlerocket"),
            ("", "nothing"),
        ] {
            assert!(!al2(text), "{why}");
        }
    }

    #[test]
    fn a_node_config_has_to_name_the_cluster_whole() {
        let config = |name: &str, endpoint: &str, rest: &str| {
            format!(
                "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\nContent-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: {name}\n    apiServerEndpoint: {endpoint}\n{rest}\n--//--\n"
            )
        };
        let rest = format!("    certificateAuthority: {AUTHORITY}\n    cidr: 172.20.0.0/16");
        let al2023 = |text: &str| joins("AL2023_x86_64_STANDARD", text);
        assert!(al2023(&config("expense-dev", ENDPOINT, &rest)));
        assert!(!al2023(&config("other", ENDPOINT, &rest)));
        assert!(!al2023(&config("expense-dev", "https://other", &rest)));
        assert!(!al2023(&config(
            "expense-dev",
            ENDPOINT,
            "    cidr: 172.20.0.0/16"
        )));
        let no_range = format!("    certificateAuthority: {AUTHORITY}");
        assert!(!al2023(&config("expense-dev", ENDPOINT, &no_range)));
        assert!(
            !al2023("#!/bin/bash\n/etc/eks/bootstrap.sh expense-dev\n"),
            "EKS-NG-8"
        );
    }

    #[test]
    fn bottlerocket_and_windows_read_their_own_forms() {
        let settings = |name: &str| {
            format!(
                "[settings.kubernetes]\ncluster-name = \"{name}\"\napi-server = \"{ENDPOINT}\"\ncluster-certificate = \"{AUTHORITY}\"\n[settings.kubernetes.node-labels]\nteam = \"a\"\n"
            )
        };
        assert!(joins("BOTTLEROCKET_x86_64", &settings("expense-dev")));
        assert!(!joins("BOTTLEROCKET_x86_64", &settings("other")));
        assert!(!joins(
            "BOTTLEROCKET_x86_64",
            "[settings.kubernetes]\ncluster-name = \"expense-dev\"\n"
        ));
        let script = |name: &str| {
            format!(
                "<powershell>\n[string]$EKSBootstrapScriptFile = \"$env:ProgramFiles\\Amazon\\EKS\\Start-EKSBootstrap.ps1\"\n& $EKSBootstrapScriptFile -EKSClusterName \"{name}\" 3>&1\n</powershell>\n"
            )
        };
        assert!(joins("WINDOWS_CORE_2022_x86_64", &script("expense-dev")));
        assert!(!joins("WINDOWS_CORE_2022_x86_64", &script("other")));
    }
}
