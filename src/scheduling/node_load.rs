//! What a node has left, by the requests of its pods.

use std::collections::BTreeMap;

use super::refusal::Refusal;
use super::volumes::VolumesByDriver;
use crate::model::kube::{Node, Pod, Resources};
use crate::model::scheduling::HostPort;
use crate::model::volumes::volume_resource;

/// What pods take of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeLoad {
    pub requests: Resources,
    /// Of other resources than CPU, memory and pods.
    pub others: BTreeMap<String, i64>,
    pub host_ports: Vec<HostPort>,
    /// By CSI driver: its volumes that are attached, and how many pods have each.
    attached: BTreeMap<String, BTreeMap<String, u32>>,
}

impl NodeLoad {
    /// Adds a pod; `times` is -1 where it leaves.
    pub fn add_pod(&mut self, pod: &Pod, times: i64) {
        self.add_requests(pod.requests, &pod.scheduling.other_requests, times);
        for port in &pod.scheduling.host_ports {
            if times > 0 {
                self.host_ports.push(port.clone());
            } else if let Some(at) = self.host_ports.iter().position(|p| p == port) {
                self.host_ports.swap_remove(at);
            }
        }
    }

    /// Adds the requests of one pod; `times` is -1 where it leaves.
    pub fn add_requests(
        &mut self,
        requests: Resources,
        others: &BTreeMap<String, i64>,
        times: i64,
    ) {
        self.requests.cpu_millis += requests.cpu_millis * times;
        self.requests.memory_bytes += requests.memory_bytes * times;
        self.requests.pods += times;
        for (resource, amount) in others {
            match self.others.get_mut(resource) {
                Some(taken) => *taken += amount * times,
                None => {
                    self.others.insert(resource.clone(), amount * times);
                }
            }
        }
    }

    /// Whether the node has room for one pod more.
    pub fn has_room(&self, node: &Node, pod: &Pod) -> bool {
        let left = |all: i64, taken: i64, asked: i64| asked == 0 || asked <= all - taken;
        let (all, taken, asked) = (&node.allocatable, &self.requests, &pod.requests);
        taken.pods < all.pods
            && left(all.cpu_millis, taken.cpu_millis, asked.cpu_millis)
            && left(all.memory_bytes, taken.memory_bytes, asked.memory_bytes)
            && pod.scheduling.other_requests.iter().all(|(name, asked)| {
                let of = |list: &BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
                left(of(&node.other_allocatable), of(&self.others), *asked)
            })
    }

    /// What the node has too little of for one pod more.
    pub fn find_shortages(&self, node: &Node, pod: &Pod) -> Vec<Refusal> {
        let (all, taken, asked) = (&node.allocatable, &self.requests, &pod.requests);
        let mut short = Vec::new();
        if taken.pods >= all.pods {
            short.push(Refusal::TooManyPods);
        }
        // A resource that is not asked for is never short, even on a node that has none of it.
        let mut check = |resource: &str, all: i64, taken: i64, asked: i64| {
            if asked > 0 && asked > all - taken {
                short.push(Refusal::Insufficient {
                    resource: resource.to_owned(),
                });
            }
        };
        check("cpu", all.cpu_millis, taken.cpu_millis, asked.cpu_millis);
        let memory = (all.memory_bytes, taken.memory_bytes);
        check("memory", memory.0, memory.1, asked.memory_bytes);
        for (name, asked) in &pod.scheduling.other_requests {
            let of = |list: &BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
            check(name, of(&node.other_allocatable), of(&self.others), *asked);
        }
        short
    }

    /// Adds the volumes of a pod that comes. Several pods of one node share one attachment.
    pub fn attach_volumes(&mut self, volumes: &VolumesByDriver<'_>) {
        for (driver, names) in volumes {
            let attached = self.attached.entry(driver.clone()).or_default();
            for name in names {
                *attached.entry((*name).to_owned()).or_default() += 1;
            }
        }
    }

    /// Takes off the volumes of a pod that leaves.
    pub fn detach_volumes(&mut self, volumes: &VolumesByDriver<'_>) {
        for (driver, names) in volumes {
            let Some(attached) = self.attached.get_mut(driver) else {
                continue;
            };
            for name in names {
                if let Some(pods) = attached.get_mut(*name) {
                    *pods -= 1;
                }
            }
            attached.retain(|_, pods| *pods > 0);
        }
    }

    /// Whether the node takes these volumes too. What is attached already costs nothing, and a node that does not say how
    /// many it takes, takes any (K8S-SCHED-5).
    pub fn takes_volumes(&self, node: &Node, volumes: &VolumesByDriver<'_>) -> bool {
        let none = BTreeMap::new();
        volumes.iter().all(|(driver, names)| {
            let attached = self.attached.get(driver).unwrap_or(&none);
            let new = names.iter().filter(|n| !attached.contains_key(**n)).count();
            let limit = node.other_allocatable.get(&volume_resource(driver));
            let all = i64::try_from(attached.len() + new).unwrap_or(i64::MAX);
            new == 0 || limit.is_none_or(|limit| all <= *limit)
        })
    }

    /// Whether a pod there has one of the pod's host ports.
    pub fn port_is_taken(&self, pod: &Pod) -> bool {
        let taken = |wanted: &HostPort| self.host_ports.iter().any(|p| p.conflicts_with(wanted));
        pod.scheduling.host_ports.iter().any(taken)
    }
}
