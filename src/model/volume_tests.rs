use super::*;

fn mount(path: &str) -> VolumeMount {
    VolumeMount {
        path: path.to_owned(),
        read_only: false,
        init: false,
    }
}

fn empty_dir(name: &str, mounts: &[&str]) -> NodeVolume {
    NodeVolume {
        name: name.to_owned(),
        source: NodeVolumeSource::EmptyDir {
            medium: String::new(),
            size_limited: false,
        },
        mounts: mounts.iter().map(|p| mount(p)).collect(),
    }
}

fn limited(name: &str, mounts: &[&str]) -> NodeVolume {
    let mut volume = empty_dir(name, mounts);
    volume.source = NodeVolumeSource::EmptyDir {
        medium: String::new(),
        size_limited: true,
    };
    volume
}

fn host_path(path: &str, path_type: &str) -> NodeVolume {
    NodeVolume {
        name: "host".to_owned(),
        source: NodeVolumeSource::HostPath {
            path: path.to_owned(),
            path_type: path_type.to_owned(),
        },
        mounts: vec![mount("/host")],
    }
}

/// As public manifests have them.
#[test]
fn scratch_sockets_and_what_is_made_at_start_are_no_data() {
    for volume in [
        empty_dir("tmp", &["/tmp"]),
        empty_dir("anything", &["/tmp"]),
        empty_dir("tmp-dir", &[]),
        empty_dir("scratch-data", &["/controller"]),
        empty_dir("socket-dir", &["/csi", "/var/lib/csi/sockets/pluginproxy/"]),
        empty_dir("shared-socket", &["/run/haproxy"]),
        empty_dir("nginx-cache", &["/var/cache/nginx/"]),
        empty_dir("nginx-config", &["/var/config/nginx/"]),
        empty_dir("var-run", &["/var/run/"]),
        empty_dir("gpg-keyring", &["/app/config/gpg/keys"]),
        empty_dir("helm-working-dir", &["/helm-working-dir"]),
        empty_dir("plugins", &["/home/argocd/cmp-server/plugins"]),
        empty_dir("static-files", &["/shared"]),
        empty_dir("config-out", &["/etc/prometheus/config_out"]),
        empty_dir("wlp-output", &["/opt/ibm/wlp/output"]),
        empty_dir("rabbitmq-erlang-cookie", &["/var/lib/rabbitmq/"]),
        empty_dir("redis-cache", &["/data"]),
        empty_dir("istio-data", &["/var/lib/istio/data"]),
        empty_dir("data", &["/usr/local/etc/haproxy"]),
        limited("ready-files", &["/var/opt/kafka"]),
    ] {
        assert!(!volume.is_empty_dir_with_data(), "{volume:?}");
    }
}

#[test]
fn what_servers_keep_their_data_in_is_data() {
    for volume in [
        empty_dir("prometheus-k8s-db", &["/prometheus"]),
        empty_dir("redis-data", &["/data"]),
        empty_dir("data-db", &["/data/db"]),
        empty_dir("var-lib-mysql", &["/var/lib/mysql"]),
        empty_dir("grafana-storage", &["/var/lib/grafana"]),
        empty_dir("rethinkdb-storage", &["/data/rethinkdb_data"]),
        empty_dir("data", &[]),
        empty_dir("unheard-of", &["/somewhere"]),
        // A limit does not make a database's directory scratch, and neither does a name that says two things.
        limited("data", &["/var/lib/postgresql"]),
        limited("files", &["/var/lib/app/storage"]),
        empty_dir("config-db", &["/srv"]),
        empty_dir("run", &["/data"]),
        // One mount of two is scratch.
        empty_dir("shared", &["/tmp", "/var/lib/mysql"]),
    ] {
        assert!(volume.is_empty_dir_with_data(), "{volume:?}");
    }
}

#[test]
fn memory_and_what_only_init_containers_write_is_no_data() {
    let mut volume = empty_dir("data", &["/data"]);
    assert!(volume.is_empty_dir_with_data());
    volume.mounts[0].read_only = true;
    volume.mounts.push(VolumeMount {
        init: true,
        ..mount("/data")
    });
    assert!(!volume.is_empty_dir_with_data());
    // A second container writes to it.
    volume.mounts.push(mount("/data"));
    assert!(volume.is_empty_dir_with_data());
    volume.source = NodeVolumeSource::EmptyDir {
        medium: "Memory".to_owned(),
        size_limited: false,
    };
    assert!(!volume.is_empty_dir_with_data());
}

#[test]
fn a_directory_of_the_node_that_is_written_to_is_data() {
    for (path, path_type) in [
        ("/mnt/prometheus", "DirectoryOrCreate"),
        ("/var/lib/longhorn", ""),
        ("/data", "Directory"),
        ("/", ""),
        ("/devices", ""),
        ("/var/runtime", ""),
    ] {
        let mut volume = host_path(path, path_type);
        assert!(volume.is_host_path_with_data(), "{path}");
        // Nothing is seen of its mounts: it may be written to.
        volume.mounts.clear();
        assert!(volume.is_host_path_with_data(), "{path}");
        volume.mounts = vec![VolumeMount {
            read_only: true,
            ..mount("/host")
        }];
        assert!(!volume.is_host_path_with_data(), "{path}, read only");
    }
    for (path, path_type) in [
        ("/dev", ""),
        ("/sys/fs/cgroup", ""),
        ("/proc", "Directory"),
        ("/var/run/docker.sock", ""),
        ("/opt/agent/agent.sock", ""),
        ("/srv/agent", "Socket"),
        ("/etc/localtime", "File"),
        ("/usr/share/zoneinfo/", ""),
        ("/etc/ssl/certs", ""),
        ("/lib/modules", ""),
    ] {
        assert!(
            !host_path(path, path_type).is_host_path_with_data(),
            "{path}"
        );
    }
}
