//! What a pod asks of a node's resources and ports, summed up as the scheduler does (K8S-SCHED-4).

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{cpu_millis, flag_at, list_at, number_at, quantity_units, text_at, value_at};

/// Amounts of resources other than CPU and memory, by name.
pub type ResourceAmounts = BTreeMap<String, i64>;

/// What is set aside for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRequests {
    /// In thousandths of a CPU.
    pub cpu: i64,
    pub memory: i64,
    pub others: ResourceAmounts,
}

impl PodRequests {
    /// Sums up a pod's spec: its containers with the sidecars, or more where an init container needs more; then what the
    /// pod states as a whole, and its overhead.
    pub fn from_spec(spec: &Value) -> Self {
        let mut sum = Self::default();
        // Containers run side by side, so their requests are added.
        for container in list_at(spec, "containers") {
            sum.add_requests(&Self::from_container(container));
        }
        // Init containers run one after the other beside the sidecars that were started before them; the largest of
        // these moments counts.
        let (mut sidecars, mut most) = (Self::default(), Self::default());
        for container in list_at(spec, "initContainers") {
            let mut asked = Self::from_container(container);
            if text_at(container, "restartPolicy") == "Always" {
                sum.add_requests(&asked);
                sidecars.add_requests(&asked);
                asked = sidecars.clone();
            } else {
                asked.add_requests(&sidecars);
            }
            most.raise_to(&asked);
        }
        sum.raise_to(&most);
        // What the pod states as a whole stands in place of the sum, but only for CPU, memory and huge pages.
        if let Some(whole) = value_at(spec, "resources.requests") {
            let stated = Self::from_map(Some(whole));
            if whole.get("cpu").is_some() {
                sum.cpu = stated.cpu;
            }
            if whole.get("memory").is_some() {
                sum.memory = stated.memory;
            }
            let pages = stated.others.into_iter();
            sum.others
                .extend(pages.filter(|(name, _)| name.starts_with("hugepages-")));
        }
        // The overhead of a runtime class is added to whatever the rest came to.
        sum.add_requests(&Self::from_map(value_at(spec, "overhead")));
        sum
    }

    /// A container's requests; the API server takes a limit for a request that is not stated.
    fn from_container(container: &Value) -> Self {
        let mut asked = Self::from_map(value_at(container, "resources.limits"));
        let stated = value_at(container, "resources.requests");
        let requests = Self::from_map(stated);
        let has = |name| stated.and_then(|s| s.get(name)).is_some();
        if has("cpu") {
            asked.cpu = requests.cpu;
        }
        if has("memory") {
            asked.memory = requests.memory;
        }
        asked.others.extend(requests.others);
        asked
    }

    fn from_map(map: Option<&Value>) -> Self {
        Self {
            cpu: cpu_millis(map.and_then(|m| m.get("cpu"))),
            memory: quantity_units(map.and_then(|m| m.get("memory"))),
            others: other_amounts(map),
        }
    }

    fn add_requests(&mut self, more: &Self) {
        self.cpu += more.cpu;
        self.memory += more.memory;
        for (name, amount) in &more.others {
            *self.others.entry(name.clone()).or_default() += amount;
        }
    }

    fn raise_to(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }
}

/// The amounts in a resource list, but for CPU, memory and the number of pods.
pub fn other_amounts(map: Option<&Value>) -> ResourceAmounts {
    let map = map.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory" | "pods"))
        .map(|(name, amount)| (name.clone(), quantity_units(Some(amount))))
        .collect()
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodHostPort {
    /// `0.0.0.0` is every address.
    pub ip: String,
    pub protocol: String,
    pub port: i64,
}

impl PodHostPort {
    /// Whether both cannot be taken on one node.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        const ANY_ADDRESS: &str = "0.0.0.0";
        (self.port, &self.protocol) == (other.port, &other.protocol)
            && (self.ip == other.ip || self.ip == ANY_ADDRESS || other.ip == ANY_ADDRESS)
    }
}

/// The host ports of a pod's spec: of its containers and sidecars; on the host's network every port is the host's.
pub fn host_ports(spec: &Value) -> Vec<PodHostPort> {
    let on_host = flag_at(spec, "hostNetwork");
    let sidecars = list_at(spec, "initContainers").iter();
    // Sidecars run as long as the pod does; other init containers take no port beside it.
    let sidecars = sidecars.filter(|c| text_at(c, "restartPolicy") == "Always");
    let containers = list_at(spec, "containers").iter().chain(sidecars);
    let or = |value: &str, unset: &str| if value.is_empty() { unset } else { value }.to_owned();
    containers
        .flat_map(|c| list_at(c, "ports"))
        .filter_map(|p| {
            // On the host's network every port of a container is a port of the node.
            let own = number_at(p, "hostPort").filter(|n| *n > 0);
            let port = own.or_else(|| number_at(p, "containerPort").filter(|_| on_host))?;
            Some(PodHostPort {
                ip: or(text_at(p, "hostIP"), "0.0.0.0"),
                protocol: or(text_at(p, "protocol"), "TCP"),
                port,
            })
        })
        .filter(|p| p.port > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sidecars_init_containers_limits_and_overhead_are_summed_as_the_scheduler_does() {
        let requests = |cpu: &str| json!({"requests": {"cpu": cpu, "ephemeral-storage": "1Gi"}});
        let spec = json!({
            "containers": [
                {"resources": requests("100m")},
                {"resources": {"limits": {"cpu": "200m", "nvidia.com/gpu": "1"}}},
            ],
            "initContainers": [
                {"restartPolicy": "Always", "resources": requests("50m")},
                {"resources": requests("900m")},
            ],
            "overhead": {"cpu": "10m"},
        });
        let sum = PodRequests::from_spec(&spec);
        // The init container of 900m runs beside the sidecar, and before the containers (300m).
        assert_eq!(sum.cpu, 960);
        assert_eq!(sum.others["nvidia.com/gpu"], 1);
        assert_eq!(sum.others["ephemeral-storage"], 2 << 30);
        let whole =
            json!({"containers": spec["containers"], "resources": {"requests": {"cpu": "1"}}});
        assert_eq!(PodRequests::from_spec(&whole).cpu, 1000);
    }

    #[test]
    fn ports_conflict_by_number_protocol_and_address() {
        let port = |ip: &str, protocol: &str, port| PodHostPort {
            ip: ip.to_owned(),
            protocol: protocol.to_owned(),
            port,
        };
        let every = port("0.0.0.0", "TCP", 80);
        assert!(every.conflicts_with(&port("10.0.0.1", "TCP", 80)));
        assert!(!every.conflicts_with(&port("0.0.0.0", "UDP", 80)));
        assert!(!every.conflicts_with(&port("0.0.0.0", "TCP", 81)));
        assert!(!port("10.0.0.2", "TCP", 80).conflicts_with(&port("10.0.0.1", "TCP", 80)));
        let spec = json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 53, "protocol": "UDP"}]}]});
        assert_eq!(host_ports(&spec), [port("0.0.0.0", "UDP", 53)]);
        let spec = json!({"containers": [{"ports": [{"containerPort": 53}]}]});
        assert!(host_ports(&spec).is_empty());
    }
}
