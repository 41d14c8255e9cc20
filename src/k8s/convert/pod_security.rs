//! The rules of the Pod Security Standards, as Kubernetes' admission reads them (K8S-ADM-4). Where versions of Kubernetes
//! differ, what any of them allows is no violation; the rule for hosts of probes has its version with it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1;

use crate::model::pod_admission::SecurityViolation;

/// Capabilities that the level baseline lets containers add.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

const CONTAINER_SELINUX_TYPES: &[&str] = &[
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

const APPARMOR_ANNOTATION_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Finds the rules that a pod breaks, in the order in which the API server names them.
pub fn find_violations(
    annotations: &BTreeMap<String, String>,
    spec: &v1::PodSpec,
) -> Vec<SecurityViolation> {
    let pod = spec.security_context.clone().unwrap_or_default();
    // Init containers count as the others: the API server looks at both.
    let inits = spec.init_containers.iter().flatten();
    let all = PodParts {
        spec,
        pod: &pod,
        containers: inits.chain(&spec.containers).collect(),
    };
    // Rules about Linux do not hold for pods of Windows.
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    // From 1.35 on a user namespace of its own makes root harmless.
    let own_users = spec.host_users == Some(false);
    // Each profile's rules in the API server's own order, so that a message names them as its refusal will.
    let rules = [
        (
            SecurityViolation::AppArmor,
            all.has_forbidden_apparmor(annotations),
        ),
        (
            SecurityViolation::AddedCapabilities,
            all.adds_beyond(DEFAULT_CAPABILITIES),
        ),
        (
            SecurityViolation::HostNamespaces,
            all.uses_host_namespaces(),
        ),
        (
            SecurityViolation::HostPathVolumes,
            all.mounts(|v| v.host_path.is_some()),
        ),
        (SecurityViolation::HostPorts, all.takes_host_ports()),
        (SecurityViolation::ProbeHosts, all.names_probe_hosts()),
        (
            SecurityViolation::Privileged,
            all.any(|s| s.privileged == Some(true)),
        ),
        (
            SecurityViolation::ProcMount,
            !own_users && all.any(|s| s.proc_mount.as_deref().is_some_and(|m| m != "Default")),
        ),
        (
            SecurityViolation::SeLinuxOptions,
            all.has_forbidden_selinux(),
        ),
        (
            SecurityViolation::SeccompUnconfined,
            all.has_forbidden_seccomp(),
        ),
        (SecurityViolation::Sysctls, all.sets_unsafe_sysctls()),
        (SecurityViolation::WindowsHostProcess, all.is_host_process()),
        // From here on the rules of the profile `restricted`, which has those of `baseline` too.
        (
            SecurityViolation::PrivilegeEscalation,
            !windows && !all.each(|s| s.allow_privilege_escalation == Some(false)),
        ),
        (
            SecurityViolation::KeptCapabilities,
            !windows && (!all.drops_all() || all.adds_beyond(&["NET_BIND_SERVICE"])),
        ),
        (
            SecurityViolation::VolumeTypes,
            all.mounts(|v| !is_restricted_type(v)),
        ),
        (
            SecurityViolation::MayRunAsRoot,
            !own_users && all.may_run_as_root(),
        ),
        (
            SecurityViolation::RunsAsRoot,
            !own_users && (pod.run_as_user == Some(0) || all.any(|s| s.run_as_user == Some(0))),
        ),
        (
            SecurityViolation::SeccompUnset,
            !windows && all.lacks_seccomp(),
        ),
    ];
    let broken = rules.into_iter().filter(|(_, broken)| *broken);
    broken.map(|(violation, _)| violation).collect()
}

/// A pod's specification, its own security context, its containers with the init containers.
struct PodParts<'a> {
    spec: &'a v1::PodSpec,
    pod: &'a v1::PodSecurityContext,
    containers: Vec<&'a v1::Container>,
}

impl PodParts<'_> {
    /// Whether a container's security context is so.
    fn any(&self, is: impl Fn(&v1::SecurityContext) -> bool) -> bool {
        let mut contexts = self.containers.iter();
        contexts.any(|c| c.security_context.as_ref().is_some_and(&is))
    }

    /// Whether every container has a security context that is so.
    fn each(&self, is: impl Fn(&v1::SecurityContext) -> bool) -> bool {
        let mut contexts = self.containers.iter();
        contexts.all(|c| c.security_context.as_ref().is_some_and(&is))
    }

    fn mounts(&self, is: impl Fn(&v1::Volume) -> bool) -> bool {
        self.spec.volumes.iter().flatten().any(is)
    }

    fn has_forbidden_apparmor(&self, annotations: &BTreeMap<String, String>) -> bool {
        let bad = |p: &Option<v1::AppArmorProfile>| {
            let profile = p.as_ref().map(|p| p.type_.as_str());
            profile.is_some_and(|t| !matches!(t, "RuntimeDefault" | "Localhost"))
        };
        let mut noted = annotations
            .iter()
            .filter(|(key, _)| key.starts_with(APPARMOR_ANNOTATION_PREFIX));
        bad(&self.pod.app_armor_profile)
            || self.any(|s| bad(&s.app_armor_profile))
            || noted.any(|(_, v)| {
                !v.is_empty() && v != "runtime/default" && !v.starts_with("localhost/")
            })
    }

    fn adds_beyond(&self, allowed: &[&str]) -> bool {
        self.any(|s| {
            let capabilities = s.capabilities.as_ref();
            let mut added = capabilities.iter().flat_map(|c| c.add.iter().flatten());
            added.any(|c| !allowed.contains(&c.as_str()))
        })
    }

    fn drops_all(&self) -> bool {
        self.each(|s| {
            let capabilities = s.capabilities.as_ref();
            let mut dropped = capabilities.iter().flat_map(|c| c.drop.iter().flatten());
            dropped.any(|c| c == "ALL")
        })
    }

    fn uses_host_namespaces(&self) -> bool {
        let spec = self.spec;
        [spec.host_network, spec.host_pid, spec.host_ipc].contains(&Some(true))
    }

    fn takes_host_ports(&self) -> bool {
        let ports = self
            .containers
            .iter()
            .flat_map(|c| c.ports.iter().flatten());
        ports
            .into_iter()
            .any(|p| p.host_port.is_some_and(|p| p != 0))
    }

    fn names_probe_hosts(&self) -> bool {
        let get = |g: &Option<v1::HTTPGetAction>| {
            let host = g.as_ref().and_then(|g| g.host.as_deref());
            host.is_some_and(|h| !h.is_empty())
        };
        let socket = |s: &Option<v1::TCPSocketAction>| {
            let host = s.as_ref().and_then(|s| s.host.as_deref());
            host.is_some_and(|h| !h.is_empty())
        };
        let probe = |p: &Option<v1::Probe>| {
            let probe = p.as_ref();
            probe.is_some_and(|p| get(&p.http_get) || socket(&p.tcp_socket))
        };
        let handler = |h: &Option<v1::LifecycleHandler>| {
            let handler = h.as_ref();
            handler.is_some_and(|h| get(&h.http_get) || socket(&h.tcp_socket))
        };
        let lifecycle = |l: &v1::Lifecycle| handler(&l.post_start) || handler(&l.pre_stop);
        // Every probe and hook counts, because each may send requests to another host.
        self.containers.iter().any(|c| {
            probe(&c.liveness_probe)
                || probe(&c.readiness_probe)
                || probe(&c.startup_probe)
                || c.lifecycle.as_ref().is_some_and(lifecycle)
        })
    }

    fn has_forbidden_selinux(&self) -> bool {
        let set = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
        let bad = |o: &Option<v1::SELinuxOptions>| {
            o.as_ref().is_some_and(|o| {
                let own = o.type_.as_deref().unwrap_or_default();
                !CONTAINER_SELINUX_TYPES.contains(&own) || set(&o.user) || set(&o.role)
            })
        };
        bad(&self.pod.se_linux_options) || self.any(|s| bad(&s.se_linux_options))
    }

    fn has_forbidden_seccomp(&self) -> bool {
        let bad =
            |p: &Option<v1::SeccompProfile>| p.as_ref().is_some_and(|p| !is_seccomp_confined(p));
        bad(&self.pod.seccomp_profile) || self.any(|s| bad(&s.seccomp_profile))
    }

    fn lacks_seccomp(&self) -> bool {
        let whole = self
            .pod
            .seccomp_profile
            .as_ref()
            .is_some_and(is_seccomp_confined);
        let unset = |c: &&v1::Container| {
            let context = c.security_context.as_ref();
            context.is_none_or(|s| s.seccomp_profile.is_none())
        };
        self.has_forbidden_seccomp() || !whole && self.containers.iter().any(unset)
    }

    fn sets_unsafe_sysctls(&self) -> bool {
        let mut set = self.pod.sysctls.iter().flatten();
        set.any(|s| !SAFE_SYSCTLS.contains(&s.name.as_str()))
    }

    fn is_host_process(&self) -> bool {
        let is = |o: &Option<v1::WindowsSecurityContextOptions>| {
            o.as_ref().is_some_and(|o| o.host_process == Some(true))
        };
        is(&self.pod.windows_options) || self.any(|s| is(&s.windows_options))
    }

    fn may_run_as_root(&self) -> bool {
        let whole = self.pod.run_as_non_root;
        let of = |c: &&v1::Container| c.security_context.as_ref().and_then(|s| s.run_as_non_root);
        let may = |c: &&v1::Container| !of(c).or(whole).unwrap_or(false);
        whole == Some(false) || self.containers.iter().any(may)
    }
}

fn is_seccomp_confined(profile: &v1::SeccompProfile) -> bool {
    matches!(profile.type_.as_str(), "RuntimeDefault" | "Localhost")
}

/// Whether the level restricted allows the type of the volume.
fn is_restricted_type(v: &v1::Volume) -> bool {
    v.config_map.is_some()
        || v.csi.is_some()
        || v.downward_api.is_some()
        || v.empty_dir.is_some()
        || v.ephemeral.is_some()
        || v.image.is_some()
        || v.persistent_volume_claim.is_some()
        || v.projected.is_some()
        || v.secret.is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::pod_admission::SecurityLevel;

    fn words(spec: Value, level: SecurityLevel) -> Vec<&'static str> {
        let spec = serde_json::from_value(spec).unwrap();
        let found = find_violations(&BTreeMap::new(), &spec);
        let at = found.into_iter().filter(|v| v.is_forbidden_at(level));
        at.map(SecurityViolation::as_str).collect()
    }

    #[test]
    fn a_pod_breaks_what_the_api_server_was_seen_to_say_that_it_breaks() {
        let bad = json!({
            "hostNetwork": true, "hostPID": true,
            "securityContext": {"seLinuxOptions": {"type": "custom", "user": "u"}, "runAsUser": 0,
                "sysctls": [{"name": "kernel.msgmax", "value": "1"}], "seccompProfile": {"type": "Unconfined"}},
            "volumes": [{"name": "h", "hostPath": {"path": "/x"}}],
            "containers": [
                {"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}],
                    "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}}},
                {"name": "d", "securityContext": {"allowPrivilegeEscalation": true, "runAsNonRoot": false}}],
            "initContainers": [{"name": "i", "securityContext": {"capabilities": {"add": ["SYS_TIME"]}}}],
        });
        let both = [
            "host namespaces",
            "hostPort",
            "privileged",
            "seLinuxOptions",
            "forbidden sysctls",
        ];
        let baseline = [
            "non-default capabilities",
            "hostPath volumes",
            "seccompProfile",
        ];
        let restricted = [
            "allowPrivilegeEscalation != false",
            "unrestricted capabilities",
            "restricted volume types",
            "runAsNonRoot != true",
            "runAsUser=0",
            "seccompProfile",
        ];
        for (level, more) in [
            (SecurityLevel::Baseline, baseline.as_slice()),
            (SecurityLevel::Restricted, &restricted),
        ] {
            let mut said = words(bad.clone(), level);
            let mut expected = [both.as_slice(), more].concat();
            said.sort_unstable();
            expected.sort_unstable();
            assert_eq!(said, expected);
        }
        let plain = json!({"volumes": [{"name": "n", "nfs": {"server": "a", "path": "/b"}}], "containers": [{"name": "c"}]});
        assert!(words(plain.clone(), SecurityLevel::Baseline).is_empty());
        let said = words(plain, SecurityLevel::Restricted);
        let said: Vec<&str> = said.into_iter().filter(|w| *w != "runAsUser=0").collect();
        let expected: Vec<&str> = restricted
            .into_iter()
            .filter(|w| *w != "runAsUser=0")
            .collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn a_pod_that_conforms_breaks_no_rule() {
        let good = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "e", "emptyDir": {}}],
            "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        });
        assert!(words(good, SecurityLevel::Restricted).is_empty());
        // Windows knows none of the three.
        let windows = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true},
            "containers": [{"name": "c"}]});
        assert!(words(windows, SecurityLevel::Restricted).is_empty());
    }
}
