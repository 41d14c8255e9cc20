//! The rules of the Pod Security Standards with what the API server says of who breaks one (K8S-ADM-4).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::json::{flag_at, list_at, number_at, text_at, value_at};

/// A rule: nothing where it is kept, else what is said of it.
type Rule = fn(&SecuredPod<'_>) -> Option<String>;

/// In the order of the API server.
const BASELINE_RULES: &[Rule] = &[
    apparmor,
    added_capabilities,
    host_namespaces,
    host_paths,
    host_ports,
    privileged,
    proc_mount,
    selinux,
    seccomp_unconfined,
    sysctls,
    host_process,
];
/// Stricter ones take the place of some.
const RESTRICTED_RULES: &[Rule] = &[
    apparmor,
    host_namespaces,
    host_ports,
    privileged,
    proc_mount,
    selinux,
    sysctls,
    host_process,
    privilege_escalation,
    capabilities,
    volume_types,
    run_as_non_root,
    run_as_user,
    seccomp,
];

/// What a pod breaks, each with its details.
pub fn broken_rules(
    spec: &Value,
    annotations: &BTreeMap<String, String>,
    restricted: bool,
) -> Vec<String> {
    let inits = list_at(spec, "initContainers").iter();
    let pod = SecuredPod {
        spec,
        annotations,
        containers: inits.chain(list_at(spec, "containers")).collect(),
    };
    let rules = match restricted {
        true => RESTRICTED_RULES,
        false => BASELINE_RULES,
    };
    rules.iter().filter_map(|rule| rule(&pod)).collect()
}

/// A pod's specification and annotations, and its containers with the init containers first.
struct SecuredPod<'a> {
    spec: &'a Value,
    annotations: &'a BTreeMap<String, String>,
    containers: Vec<&'a Value>,
}

impl<'a> SecuredPod<'a> {
    /// Names of the containers that are so.
    fn names(&self, is: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        let which = self.containers.iter().filter(|c| is(c));
        which.map(|c| text_at(c, "name")).collect()
    }

    /// Who sets in its security context what is bad: the pod, and containers.
    fn setters(&self, path: &str, bad: impl Fn(&Value) -> bool) -> Option<String> {
        let path = format!("securityContext.{path}");
        let sets = |part: &Value| value_at(part, &path).is_some_and(&bad);
        let mut who = Vec::new();
        if sets(self.spec) {
            who.push("pod".to_owned());
        }
        let names = self.names(sets);
        if !names.is_empty() {
            who.push(some("container", &names));
        }
        (!who.is_empty()).then(|| who.join(" and "))
    }

    /// All the values at a path of the security contexts.
    fn values(&self, path: &str) -> impl Iterator<Item = &'a Value> {
        let path = format!("securityContext.{path}");
        let parts = std::iter::once(self.spec).chain(self.containers.clone());
        parts.filter_map(move |part| value_at(part, &path))
    }

    fn windows(&self) -> bool {
        text_at(self.spec, "os.name") == "windows"
    }

    /// With users of its own, root is none of the node's.
    fn own_users(&self) -> bool {
        value_at(self.spec, "hostUsers").is_some_and(|v| v == &Value::Bool(false))
    }
}

/// `container "a"`, or `containers "a", "b"`.
fn some(what: &str, names: &[&str]) -> String {
    let many = if names.len() == 1 { "" } else { "s" };
    format!("{what}{many} {}", quoted(names))
}

fn quoted(names: &[&str]) -> String {
    let all: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
    all.join(", ")
}

/// Texts in order, each once.
fn sorted<'v>(texts: impl Iterator<Item = &'v str>) -> Vec<&'v str> {
    texts.collect::<BTreeSet<_>>().into_iter().collect()
}

fn apparmor(pod: &SecuredPod<'_>) -> Option<String> {
    let bad = |v: &Value| !matches!(v.as_str(), Some("RuntimeDefault" | "Localhost"));
    let mut who: Vec<String> = pod
        .setters("appArmorProfile.type", bad)
        .into_iter()
        .collect();
    // Fields and annotations are one rule with one message: first the values of fields, then the annotations.
    let values = pod.values("appArmorProfile.type").filter(|v| bad(v));
    let values = sorted(values.filter_map(Value::as_str));
    let mut values: Vec<String> = values.into_iter().map(str::to_owned).collect();
    let noted = pod.annotations.iter().filter(|(key, v)| {
        key.starts_with("container.apparmor.security.beta.kubernetes.io/")
            && !(v.is_empty() || *v == "runtime/default" || v.starts_with("localhost/"))
    });
    let noted: Vec<String> = noted.map(|(key, v)| format!("{key}=\"{v}\"")).collect();
    if !noted.is_empty() {
        let many = if noted.len() == 1 { "" } else { "s" };
        who.push(format!("annotation{many}"));
        values.extend(noted);
    }
    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
    let many = if texts.len() == 1 { "" } else { "s" };
    (!who.is_empty()).then(|| {
        format!(
            "forbidden AppArmor profile{many} ({} must not set AppArmor profile type to {})",
            who.join(" and "),
            quoted(&texts)
        )
    })
}

/// Containers that add other capabilities than these, and which.
fn adding<'a>(pod: &SecuredPod<'a>, allowed: &[&str]) -> Option<(Vec<&'a str>, Vec<&'a str>)> {
    let added = |c: &'a Value| {
        let all = list_at(c, "securityContext.capabilities.add").iter();
        all.filter_map(Value::as_str)
            .filter(|one| !allowed.contains(one))
    };
    let who = pod.containers.iter().filter(|c| added(c).next().is_some());
    let who: Vec<&str> = who.map(|c| text_at(c, "name")).collect();
    let what = sorted(pod.containers.iter().flat_map(|c| added(c)));
    (!who.is_empty()).then_some((who, what))
}

fn added_capabilities(pod: &SecuredPod<'_>) -> Option<String> {
    const DEFAULTS: [&str; 13] = [
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
    let (who, what) = adding(pod, &DEFAULTS)?;
    Some(format!(
        "non-default capabilities ({} must not include {} in securityContext.capabilities.add)",
        some("container", &who),
        quoted(&what)
    ))
}

fn host_namespaces(pod: &SecuredPod<'_>) -> Option<String> {
    let all = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let used: Vec<String> = all
        .filter(|name| flag_at(pod.spec, name))
        .map(|name| format!("{name}=true"))
        .collect();
    (!used.is_empty()).then(|| format!("host namespaces ({})", used.join(", ")))
}

fn host_paths(pod: &SecuredPod<'_>) -> Option<String> {
    let volumes = list_at(pod.spec, "volumes").iter();
    let of_host = volumes.filter(|v| v.get("hostPath").is_some());
    let names: Vec<&str> = of_host.map(|v| text_at(v, "name")).collect();
    (!names.is_empty()).then(|| format!("hostPath volumes ({})", some("volume", &names)))
}

fn host_ports(pod: &SecuredPod<'_>) -> Option<String> {
    let ports = |c: &Value| {
        let ports = list_at(c, "ports").iter();
        let ports = ports.filter_map(|p| number_at(p, "hostPort").filter(|n| *n != 0));
        ports.map(|n| n.to_string()).collect::<Vec<_>>()
    };
    let who = pod.names(|c| !ports(c).is_empty());
    // The ports are sorted as text, as the API server's sets are.
    let all: BTreeSet<String> = pod.containers.iter().flat_map(|c| ports(c)).collect();
    let all: Vec<String> = all.into_iter().collect();
    let verb = if who.len() == 1 { "uses" } else { "use" };
    let many = if all.len() == 1 { "" } else { "s" };
    (!who.is_empty()).then(|| {
        format!(
            "hostPort ({} {verb} hostPort{many} {})",
            some("container", &who),
            all.join(", ")
        )
    })
}

fn privileged(pod: &SecuredPod<'_>) -> Option<String> {
    let who = pod.names(|c| flag_at(c, "securityContext.privileged"));
    (!who.is_empty()).then(|| {
        let who = some("container", &who);
        format!("privileged ({who} must not set securityContext.privileged=true)")
    })
}

fn proc_mount(pod: &SecuredPod<'_>) -> Option<String> {
    let is = |c: &Value| !matches!(text_at(c, "securityContext.procMount"), "" | "Default");
    let who = pod.names(is);
    (!who.is_empty() && !pod.own_users()).then(|| {
        format!(
            "procMount ({} must not set securityContext.procMount to \"Unmasked\")",
            some("container", &who)
        )
    })
}

fn selinux(pod: &SecuredPod<'_>) -> Option<String> {
    let bad_type = |t: &str| {
        !matches!(
            t,
            "" | "container_t" | "container_init_t" | "container_kvm_t" | "container_engine_t"
        )
    };
    let has = |o: &Value, key: &str| !text_at(o, key).is_empty();
    let bad = |o: &Value| bad_type(text_at(o, "type")) || has(o, "user") || has(o, "role");
    let who = pod.setters("seLinuxOptions", bad)?;
    let all: Vec<&Value> = pod.values("seLinuxOptions").collect();
    let types = sorted(
        all.iter()
            .map(|o| text_at(o, "type"))
            .filter(|t| bad_type(t)),
    );
    // The message names the forbidden types first, then that a user or a role is set.
    let mut said = Vec::new();
    if !types.is_empty() {
        said.push(some("type", &types));
    }
    for key in ["user", "role"] {
        if all.iter().any(|o| has(o, key)) {
            said.push(format!("{key} may not be set"));
        }
    }
    Some(format!(
        "seLinuxOptions ({who} set forbidden securityContext.seLinuxOptions: {})",
        said.join("; ")
    ))
}

fn is_unconfined(profile: &Value) -> bool {
    !matches!(profile.as_str(), Some("RuntimeDefault" | "Localhost"))
}

fn seccomp_unconfined(pod: &SecuredPod<'_>) -> Option<String> {
    let who = pod.setters("seccompProfile.type", is_unconfined)?;
    let values = pod.values("seccompProfile.type");
    let values = sorted(
        values
            .filter(|v| is_unconfined(v))
            .filter_map(Value::as_str),
    );
    Some(format!(
        "seccompProfile ({who} must not set securityContext.seccompProfile.type to {})",
        quoted(&values)
    ))
}

fn sysctls(pod: &SecuredPod<'_>) -> Option<String> {
    // The safe sysctls are those that are namespaced to the pod: one of the kernel's and some of `net.ipv4.`.
    let safe = |name: &str| {
        matches!(
            name.strip_prefix("net.ipv4.").unwrap_or(name),
            "kernel.shm_rmid_forced"
                | "ip_local_port_range"
                | "tcp_syncookies"
                | "ping_group_range"
                | "ip_unprivileged_port_start"
                | "ip_local_reserved_ports"
                | "tcp_keepalive_time"
                | "tcp_fin_timeout"
                | "tcp_keepalive_intvl"
                | "tcp_keepalive_probes"
                | "tcp_rmem"
                | "tcp_wmem"
        )
    };
    let set = list_at(pod.spec, "securityContext.sysctls").iter();
    let names = set.map(|s| text_at(s, "name")).filter(|n| !safe(n));
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| format!("forbidden sysctls ({})", names.join(", ")))
}

fn host_process(pod: &SecuredPod<'_>) -> Option<String> {
    let who = pod.setters("windowsOptions.hostProcess", |v| v == &Value::Bool(true))?;
    Some(format!(
        "hostProcess ({who} must not set securityContext.windowsOptions.hostProcess=true)"
    ))
}

fn privilege_escalation(pod: &SecuredPod<'_>) -> Option<String> {
    let path = "securityContext.allowPrivilegeEscalation";
    let who = pod.names(|c| value_at(c, path) != Some(&Value::Bool(false)));
    (!who.is_empty() && !pod.windows()).then(|| {
        let who = some("container", &who);
        format!("allowPrivilegeEscalation != false ({who} must set {path}=false)")
    })
}

fn capabilities(pod: &SecuredPod<'_>) -> Option<String> {
    let dropped = |c: &Value| {
        let mut all = list_at(c, "securityContext.capabilities.drop").iter();
        all.any(|one| one == "ALL")
    };
    let keeping = pod.names(|c| !dropped(c));
    // The rule has two parts that are told in one message: all capabilities are dropped, and only one may be added.
    let mut said = Vec::new();
    if !keeping.is_empty() {
        let who = some("container", &keeping);
        said.push(format!(
            "{who} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    if let Some((who, what)) = adding(pod, &["NET_BIND_SERVICE"]) {
        said.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            some("container", &who),
            quoted(&what)
        ));
    }
    // The rule does not apply to Windows pods, which have no capabilities.
    (!said.is_empty() && !pod.windows())
        .then(|| format!("unrestricted capabilities ({})", said.join("; ")))
}

fn volume_types(pod: &SecuredPod<'_>) -> Option<String> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    // A volume without any type is told as "unknown", as the API server does.
    let type_of = |v: &'_ Value| {
        let keys = v
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone());
        keys.into_iter().find(|key| key != "name")
    };
    let allowed = |v: &&Value| ALLOWED.iter().any(|name| v.get(*name).is_some());
    let volumes = list_at(pod.spec, "volumes").iter();
    let bad: Vec<&Value> = volumes.filter(|v| !allowed(v)).collect();
    let names: Vec<&str> = bad.iter().map(|v| text_at(v, "name")).collect();
    let types: BTreeSet<String> = bad
        .iter()
        .map(|v| type_of(v).unwrap_or_else(|| "unknown".to_owned()))
        .collect();
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    (!names.is_empty()).then(|| {
        format!(
            "restricted volume types ({} {verb} {})",
            some("volume", &names),
            some("restricted volume type", &types)
        )
    })
}

fn run_as_non_root(pod: &SecuredPod<'_>) -> Option<String> {
    if pod.own_users() {
        return None;
    }
    let path = "securityContext.runAsNonRoot";
    if let Some(who) = pod.setters("runAsNonRoot", |v| v == &Value::Bool(false)) {
        return Some(format!(
            "runAsNonRoot != true ({who} must not set {path}=false)"
        ));
    }
    let unset = pod.names(|c| value_at(c, path).is_none());
    (!unset.is_empty() && !flag_at(pod.spec, path)).then(|| {
        let who = some("container", &unset);
        format!("runAsNonRoot != true (pod or {who} must set {path}=true)")
    })
}

fn run_as_user(pod: &SecuredPod<'_>) -> Option<String> {
    let who = pod.setters("runAsUser", |v| v.as_i64() == Some(0))?;
    (!pod.own_users()).then(|| format!("runAsUser=0 ({who} must not set runAsUser=0)"))
}

fn seccomp(pod: &SecuredPod<'_>) -> Option<String> {
    if pod.windows() {
        return None;
    }
    if let Some(said) = seccomp_unconfined(pod) {
        return Some(said);
    }
    let path = "securityContext.seccompProfile.type";
    let unset = pod.names(|c| value_at(c, path).is_none());
    (!unset.is_empty() && value_at(pod.spec, path).is_none()).then(|| {
        format!(
            "seccompProfile (pod or {} must set {path} to \"RuntimeDefault\" or \"Localhost\")",
            some("container", &unset)
        )
    })
}
