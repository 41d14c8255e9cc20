//! Volumes that live on a pod's node: emptyDir and hostPath, how they are mounted, and whether what they hold is lost
//! when the pod leaves its node.

use serde::{Deserialize, Serialize};

/// The name under which a node offers volumes of a CSI driver, as kubelets once did.
pub fn volume_resource(driver: &str) -> String {
    format!("attachable-volumes-csi-{driver}")
}

/// An emptyDir or hostPath volume of a pod (K8S-VOL-4, K8S-VOL-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeVolume {
    pub name: String,
    pub source: NodeVolumeSource,
    /// Where the containers see it; empty where none does.
    pub mounts: Vec<VolumeMount>,
}

/// Where a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum NodeVolumeSource {
    /// A directory that is made with the pod and removed with it.
    #[serde(rename_all = "camelCase")]
    EmptyDir {
        /// Empty for the node's disk; `Memory` or `HugePages-...`.
        medium: String,
        /// Has a `sizeLimit`: the kubelet evicts a pod that writes more.
        size_limited: bool,
    },
    /// A path of the node.
    #[serde(rename_all = "camelCase")]
    HostPath {
        path: String,
        /// Such as `DirectoryOrCreate` or `Socket`; empty where nothing is checked.
        path_type: String,
    },
}

/// One container's mount of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    pub path: String,
    pub read_only: bool,
    /// Of an init container that ends before the pod's containers start.
    pub init: bool,
}

impl NodeVolume {
    /// Whether it is an emptyDir whose files somebody may miss.
    pub fn is_empty_dir_with_data(&self) -> bool {
        match &self.source {
            NodeVolumeSource::EmptyDir {
                medium,
                size_limited,
            } => medium.is_empty() && !self.filled_at_start() && !self.is_scratch(*size_limited),
            NodeVolumeSource::HostPath { .. } => false,
        }
    }

    /// Whether it is a path of the node that the pod writes to, and that is no part of the operating system.
    pub fn is_host_path_with_data(&self) -> bool {
        match &self.source {
            NodeVolumeSource::HostPath { path, path_type } => {
                let reads_only = !self.mounts.is_empty() && self.mounts.iter().all(|m| m.read_only);
                !reads_only
                    && !matches!(path_type.as_str(), "Socket" | "CharDevice" | "BlockDevice")
                    && !belongs_to_system(path)
            }
            NodeVolumeSource::EmptyDir { .. } => false,
        }
    }

    /// The volume for a message: its name, and where it is.
    pub fn describe(&self) -> String {
        match &self.source {
            NodeVolumeSource::HostPath { path, .. } => {
                format!("{} ({path} of the node)", self.name)
            }
            NodeVolumeSource::EmptyDir { .. } => match self.mounts.iter().find(|m| !m.init) {
                Some(mount) => format!("{} (at {})", self.name, mount.path),
                None => self.name.clone(),
            },
        }
    }

    /// Whether only init containers write to it: the next pod's do so again.
    fn filled_at_start(&self) -> bool {
        let mut running = self.mounts.iter().filter(|m| !m.init).peekable();
        running.peek().is_some() && running.all(|m| m.read_only)
    }

    /// Whether its name or its mounts say that nobody misses what is in it, or a size limit does so and nothing says
    /// otherwise.
    fn is_scratch(&self, size_limited: bool) -> bool {
        // What an init container calls it matters only where no other container has it.
        let in_use = self.mounts.iter().any(|m| !m.init);
        let mounts = self.mounts.iter().filter(|m| !in_use || !m.init);
        let paths: Vec<&str> = mounts.map(|m| m.path.as_str()).collect();
        let name = split_words(&self.name);
        let data_by_path = paths.iter().any(|p| says_data(p) && !is_scratch_path(p));
        let data_by_name = name.iter().any(|w| is_data_word(w));
        let by_path = !paths.is_empty() && paths.iter().all(|p| is_scratch_path(p));
        let by_name = name.iter().any(|w| is_scratch_word(w)) && (!data_by_path || is_cache(&name))
            || name.iter().any(|w| is_made_at_start(w)) && !data_by_path && !data_by_name;
        by_path || by_name || (size_limited && !data_by_path && !data_by_name)
    }
}

/// Whether a path of a node is the operating system's: devices, kernel, sockets, the time zone, certificates.
fn belongs_to_system(path: &str) -> bool {
    const SYSTEM_PATHS: &[&str] = &[
        "/dev",
        "/sys",
        "/proc",
        "/run",
        "/var/run",
        "/etc/localtime",
        "/etc/timezone",
        "/usr/share/zoneinfo",
        "/etc/ssl",
        "/etc/pki",
        "/etc/ca-certificates",
        "/usr/share/ca-certificates",
        "/usr/local/share/ca-certificates",
        "/etc/kubernetes/pki",
        "/etc/cni",
        "/opt/cni",
        "/lib/modules",
        "/usr/lib/modules",
        "/usr/src",
        "/boot",
        "/var/lib/kubelet",
        "/etc/machine-id",
        "/etc/os-release",
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/passwd",
        "/etc/group",
    ];
    // Sockets count by their ending: they may be anywhere.
    let path = path.trim_end_matches('/');
    SYSTEM_PATHS.iter().any(|system| is_below(path, system))
        || std::path::Path::new(path)
            .extension()
            .is_some_and(|e| e == "sock" || e == "socket")
}

/// Whether `path` is `directory` or something in it.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a program keeps under this path what it makes again when it starts.
fn is_scratch_path(path: &str) -> bool {
    const SCRATCH_PATHS: &[&str] = &[
        "/tmp",
        "/var/tmp",
        "/run",
        "/var/run",
        "/var/lock",
        "/var/cache",
        "/cache",
        "/dev",
        "/etc",
        "/var/log",
        "/csi",
        "/plugin",
        "/var/lib/kubelet",
        "/var/lib/csi",
        "/usr",
        "/bin",
        // Of well-known software: a proxy's, a web server's, an application server's work area.
        "/var/lib/istio",
        "/var/lib/nginx",
        "/opt/ibm/wlp/output",
        "/home/argocd",
    ];
    let word = |w: &String| is_scratch_word(w) || is_made_at_start(w);
    SCRATCH_PATHS
        .iter()
        .any(|directory| is_below(path, directory))
        || (!says_data(path)
            && path
                .split('/')
                .any(|part| split_words(part).iter().any(word)))
}

/// Whether a mount's path is one of those under which servers keep their data.
fn says_data(path: &str) -> bool {
    path.split('/')
        .any(|part| split_words(part).iter().any(|w| is_data_word(w)))
}

/// The words of a volume's name or of a part of a path, in small letters.
fn split_words(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_ascii_lowercase)
        .collect()
}

fn is_data_word(word: &str) -> bool {
    const DATA_WORDS: &[&str] = &[
        "data",
        "db",
        "database",
        "storage",
        "store",
        "wal",
        "repo",
        "repository",
        "uploads",
        "backup",
        "backups",
        "queue",
        "journal",
        "pgdata",
        "datadir",
        "persistent",
    ];
    // `data0` and `data1` are disks of one store.
    DATA_WORDS.contains(&word.trim_end_matches(|c: char| c.is_ascii_digit()))
}

fn is_cache(words: &[String]) -> bool {
    words
        .iter()
        .any(|w| w.contains("cache") || w == "tmp" || w == "scratch")
}

/// Words of scratch space, sockets and locks.
fn is_scratch_word(word: &str) -> bool {
    const SCRATCH_WORDS: &[&str] = &[
        "tmp", "temp", "tmpfs", "cache", "caches", "scratch", "run", "sock", "socks", "socket",
        "sockets", "uds", "shm", "dshm", "lock", "locks", "pid", "workdir", "working",
    ];
    const SCRATCH_PREFIXES: &[&str] = &["tmp", "cache", "scratch", "socket"];
    const SCRATCH_SUFFIXES: &[&str] = &["tmp", "cache", "sock", "socket"];
    SCRATCH_WORDS.contains(&word)
        || SCRATCH_PREFIXES.iter().any(|b| word.starts_with(b))
        || SCRATCH_SUFFIXES.iter().any(|e| word.ends_with(e))
}

/// Words of what a pod writes when it starts: configuration, certificates, programs.
fn is_made_at_start(word: &str) -> bool {
    const STARTUP_WORDS: &[&str] = &[
        "config",
        "conf",
        "cfg",
        "configuration",
        "cert",
        "certs",
        "certificate",
        "certificates",
        "tls",
        "ssl",
        "ca",
        "gpg",
        "keyring",
        "secret",
        "secrets",
        "token",
        "tokens",
        "plugin",
        "plugins",
        "bin",
        "binaries",
        "tools",
        "assets",
        "static",
        "cookie",
        "envoy",
        "out",
        "rendered",
        "dexconfig",
        "xtables",
    ];
    // Whole words only: `toolsdata` is no word of the list.
    STARTUP_WORDS.contains(&word)
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
