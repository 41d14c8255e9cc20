//! What user data of a launch template does, as far as it depends on the image it runs on. Pure.

use base64::Engine;
use serde::{Deserialize, Serialize};

/// What user data does that only some images understand. Holds none of its text, which may have secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UserDataTraits {
    /// It runs Amazon Linux 2's /etc/eks/bootstrap.sh, which joins the node to the cluster.
    pub runs_bootstrap: bool,
    /// It reads or writes files of the kubelet that only Amazon Linux 2 has.
    pub edits_kubelet_files: bool,
    /// It has a NodeConfig, which nodeadm of Amazon Linux 2023 reads.
    pub has_node_config: bool,
    /// A NodeConfig says which cluster to join, which EKS does not add for a custom AMI.
    pub names_cluster: bool,
    /// It is settings in TOML, as Bottlerocket reads them, and nothing else.
    pub is_toml: bool,
    /// It has parts or scripts that cloud-init runs, which Bottlerocket lacks.
    pub has_scripts: bool,
    /// It could not be read: compressed, or no text.
    pub is_unreadable: bool,
}

/// Files of the kubelet and of containerd that images of Amazon Linux 2 have and those of 2023 lack or write themselves.
const AL2_FILES: &[&str] = &[
    "/etc/kubernetes/kubelet/kubelet-config.json",
    "/etc/eks/containerd/containerd-config.toml",
    "/etc/systemd/system/kubelet.service.d/",
    "/etc/eks/eni-max-pods.txt",
    "/etc/sysconfig/docker",
    "/etc/docker/daemon.json",
];

impl UserDataTraits {
    /// Reads user data as EC2 answers it, in base64.
    pub fn from_user_data(base64_text: &str) -> Self {
        let standard = &base64::engine::general_purpose::STANDARD;
        let compact: String = base64_text.split_whitespace().collect();
        let text = standard
            .decode(compact)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        text.map_or(
            Self {
                is_unreadable: true,
                ..Self::default()
            },
            |text| Self::of_text(&text),
        )
    }

    fn of_text(text: &str) -> Self {
        // What is commented out does nothing; a script's first line is none.
        let lines = text.lines().map(str::trim);
        let alive: Vec<&str> = lines
            .filter(|l| {
                !l.starts_with('#') || l.starts_with("#!") || l.starts_with("#cloud-config")
            })
            .collect();
        let alive = alive.join("\n");
        let has = |word: &str| alive.contains(word);
        let has_node_config = has("node.eks.aws/v1alpha1") || has("kind: NodeConfig");
        let mime = alive.to_ascii_lowercase().contains("content-type:");
        let has_scripts = alive.starts_with("#!") || has("\n#!") || has("#cloud-config") || mime;
        Self {
            runs_bootstrap: has("/etc/eks/bootstrap.sh"),
            edits_kubelet_files: AL2_FILES.iter().any(|file| has(file)),
            has_node_config,
            names_cluster: has_node_config && has("apiServerEndpoint"),
            is_toml: !has_scripts && !has_node_config && has("[settings"),
            has_scripts,
            is_unreadable: false,
        }
    }

    /// Text with the same traits, in base64, for where the user data itself was not kept.
    pub fn stand_in(&self) -> String {
        self.stand_in_with("")
    }

    /// The same, with more lines of text in it.
    pub fn stand_in_with(&self, more: &str) -> String {
        let mut text = String::new();
        // The traits are written as the shortest text that is read as having them, and no word of the original is
        // kept.
        if self.is_toml {
            text += "[settings.kubernetes]\n";
        } else if self.has_scripts || self.has_node_config {
            text +=
                "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"PART\"\n\n--PART\n";
            text += "Content-Type: text/x-shellscript\n\n#!/bin/bash\n";
        }
        if self.edits_kubelet_files {
            text += &format!("cat {}\n", AL2_FILES[0]);
        }
        if self.runs_bootstrap {
            text += "/etc/eks/bootstrap.sh\n";
        }
        if self.has_node_config {
            text += "--PART\nContent-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\n";
        }
        if self.names_cluster {
            text += "spec:\n  cluster:\n    apiServerEndpoint: left out\n";
        }
        text += more;
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    /// Whether it does anything that depends on the image.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> UserDataTraits {
        UserDataTraits::from_user_data(&base64::engine::general_purpose::STANDARD.encode(text))
    }

    #[test]
    fn what_depends_on_the_image_is_seen_in_scripts_parts_and_settings() {
        let script =
            read("#!/bin/bash\nset -e\n/etc/eks/bootstrap.sh dev --kubelet-extra-args ''\n");
        assert!(script.runs_bootstrap && script.has_scripts && !script.has_node_config);
        let commented = read("#!/bin/bash\n# /etc/eks/bootstrap.sh dev\necho hi\n");
        assert!(!commented.runs_bootstrap && commented.has_scripts);
        let edit = read(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n--B\nContent-Type: text/x-shellscript\n\n#!/bin/bash\nsed -i s/a/b/ /etc/kubernetes/kubelet/kubelet-config.json\n--B--\n",
        );
        assert!(edit.edits_kubelet_files && edit.has_scripts && !edit.runs_bootstrap);
        let config = read(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n--B\nContent-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: dev\n    apiServerEndpoint: https://x\n--B--\n",
        );
        assert!(config.has_node_config && config.names_cluster && !config.is_toml);
        let settings = read("[settings.kubernetes]\nmax-pods = 20\n");
        assert!(settings.is_toml && !settings.has_scripts);
        for traits in [script, edit, config, settings] {
            let again = UserDataTraits::from_user_data(&traits.stand_in());
            let again = UserDataTraits {
                has_scripts: traits.has_scripts,
                ..again
            };
            assert_eq!(again, traits);
        }
        assert!(read("").is_empty());
        assert!(UserDataTraits::from_user_data("H4sIAAAA////").is_unreadable);
    }
}
