//! The cluster: its objects, its time, its chance, and how objects are created, changed and deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::KubeEvent;
use super::access::AccessControl;
use super::autoscaler_state::Autoscaler;
use super::controller_work::ControllerWork;
use super::defaults;
use super::fargate_state::FargateState;
use super::json::{find_label, flag_at, list_at, number_at, remove_at, set_at, text_at, value_at};
use super::kinds::{KindId, NAMESPACES, NODES, PODS};
use super::kubelet_settings::{KubeletTimings, POD_NETWORK_SIZE, POD_NETWORK_START};
use super::pod_credentials;
use super::pod_requests::{ResourceAmounts, other_amounts};
use super::pool_rules;
use super::pool_state::PoolMemory;
use super::rbac::RbacAuthorizer;
use super::revisions::Revisions;
use super::status::ApiFailure;
use super::store::{ObjectKey, ObjectName, ObjectStore, StoredObject};
use crate::model::{Clock, Inventory, Minor};

/// The cluster's API objects and those who act on them.
#[derive(Clone)]
pub struct SimCluster {
    pub(super) store: ObjectStore,
    pub(super) now: Timestamp,
    pub(super) rng: fastrand::Rng,
    pub(super) version: Minor,
    pub(super) access: AccessControl,
    pub(super) pace: KubeletTimings,
    /// The API server refuses connections until then.
    pub(super) down_until: Option<Timestamp>,
    /// Nodes whose kubelet no longer works.
    pub(super) dead: BTreeSet<String>,
    /// By node: images that need no pull.
    pub(super) images: BTreeMap<String, BTreeSet<String>>,
    /// Images that can no longer be pulled.
    pub(super) unpullable: BTreeSet<String>,
    /// Workloads whose new pods never become ready.
    pub(super) never_ready: BTreeSet<ObjectName>,
    /// Workloads whose new pods end as soon as they have started.
    pub(super) crash_loop: BTreeSet<ObjectName>,
    /// Kinds of owners whose operator makes no pods.
    pub(super) operators_down: BTreeSet<String>,
    /// Budgets of instance managers that Longhorn took away, by pod.
    pub(super) longhorn_budgets: BTreeMap<ObjectName, Value>,
    /// Pods that an operator is to make again, by name; it would make them under the same name.
    pub(super) operator_pods: BTreeMap<ObjectName, StoredObject>,
    /// By kind of owner: how many pods were made again in place of an operator that is not known.
    pub(super) stand_ins: BTreeMap<String, u32>,
    /// Evictions that are still to get no further than their entry in the budget.
    pub(super) half_evictions: u32,
    /// Node groups on whose nodes no pod but DaemonSets' is ready.
    pub(super) failing_groups: BTreeSet<String>,
    /// Node groups whose nodes can pull no image but DaemonSets'.
    pub(super) imageless_groups: BTreeSet<String>,
    /// Budgets that somebody has changed, as they were.
    pub(super) tightened: BTreeMap<ObjectName, Value>,
    /// Nodes from which answers of the instance metadata service travel one hop.
    pub(super) short_hop_nodes: BTreeSet<String>,
    /// Service accounts whose pods have credentials of their own.
    pub(super) own_credentials: BTreeSet<ObjectName>,
    /// Service accounts whose pods were seen to do without the metadata service.
    pub(super) without_metadata: BTreeSet<ObjectName>,
    /// By node: taints that somebody takes off once its agents run.
    pub(super) startup_taints: BTreeMap<String, Vec<(String, String)>>,
    /// By instance type: what device plugins and the VPC's controller told of its nodes.
    pub(super) devices: BTreeMap<String, ResourceAmounts>,
    /// Nodes whose image has no drivers for the devices of their type.
    pub(super) driverless_nodes: BTreeSet<String>,
    /// Whether the snapshot had a list of webhooks.
    pub(super) knows_webhooks: bool,
    /// Whether the snapshot had a list of priority classes.
    pub(super) knows_priority_classes: bool,
    /// Pods that their kubelets have taken, by uid, as long as they are Pending.
    pub(super) admitted: BTreeSet<String>,
    /// Work that is queued already.
    pub(super) queued: BTreeSet<ControllerWork>,
    pub(super) next_ip: u32,
    pub(super) revisions: Revisions,
    /// By job: pods that went before their end.
    pub(super) lost: BTreeMap<String, i64>,
    /// Deployments whose deadline is being watched.
    pub(super) deadlines: BTreeSet<ObjectName>,
    /// What the cluster autoscaler knows, where there is one.
    pub(super) autoscaler: Autoscaler,
    pub(super) fargate: FargateState,
    /// By Windows node: how many pods get an address.
    pub(super) windows_addresses: BTreeMap<String, i64>,
    /// Of which version Auto Mode's nodes are to be, where it is not the control plane's.
    pub(super) auto_mode_version: Option<Minor>,
    /// What Karpenter and Auto Mode know, where there are node pools.
    pub(super) pools: PoolMemory,
    outbox: Vec<(Duration, KubeEvent)>,
    awake: bool,
}

impl Default for SimCluster {
    fn default() -> Self {
        Self::new_empty(Minor::new(29))
    }
}

impl SimCluster {
    /// A cluster of version `version` that has only its own namespaces.
    pub fn new_empty(version: Minor) -> Self {
        let mut cluster = Self {
            store: ObjectStore::default(),
            now: Timestamp::UNIX_EPOCH,
            rng: fastrand::Rng::with_seed(0),
            version,
            access: AccessControl::default(),
            pace: KubeletTimings::default(),
            down_until: None,
            dead: BTreeSet::new(),
            images: BTreeMap::new(),
            unpullable: BTreeSet::new(),
            never_ready: BTreeSet::new(),
            crash_loop: BTreeSet::new(),
            operators_down: BTreeSet::new(),
            operator_pods: BTreeMap::new(),
            longhorn_budgets: BTreeMap::new(),
            stand_ins: BTreeMap::new(),
            half_evictions: 0,
            failing_groups: BTreeSet::new(),
            imageless_groups: BTreeSet::new(),
            tightened: BTreeMap::new(),
            short_hop_nodes: BTreeSet::new(),
            own_credentials: BTreeSet::new(),
            without_metadata: BTreeSet::new(),
            startup_taints: BTreeMap::new(),
            devices: BTreeMap::new(),
            driverless_nodes: BTreeSet::new(),
            knows_webhooks: true,
            knows_priority_classes: true,
            admitted: BTreeSet::new(),
            queued: BTreeSet::new(),
            next_ip: 0,
            revisions: Revisions::default(),
            lost: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            autoscaler: Autoscaler::default(),
            fargate: FargateState::default(),
            windows_addresses: BTreeMap::new(),
            auto_mode_version: None,
            pools: PoolMemory::default(),
            outbox: Vec::new(),
            awake: false,
        };
        // The API server makes these four by itself; their UIDs are fixed so that runs with one seed are alike.
        for (n, name) in ["default", "kube-node-lease", "kube-public", "kube-system"]
            .into_iter()
            .enumerate()
        {
            cluster.store.seed_object(
                NAMESPACES,
                json!({
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": {
                        "name": name, "uid": format!("00000000-0000-4000-8000-00000000000{n}"),
                        "resourceVersion": (n + 1).to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
                        "labels": {"kubernetes.io/metadata.name": name},
                    },
                    "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
                }),
            );
        }
        cluster
    }

    /// The cluster of a snapshot: the objects of its lists as they were, its version.
    pub fn from_lists(inventory: &Inventory, lists: BTreeMap<String, Vec<Value>>) -> Self {
        let mut cluster = Self::new_empty(inventory.cluster.version);
        let webhooks = |path: &String| path.ends_with("/validatingwebhookconfigurations");
        cluster.knows_webhooks = lists.keys().any(webhooks);
        let classes = |path: &String| path.ends_with("/priorityclasses");
        cluster.knows_priority_classes = lists.keys().any(classes);
        for identity in inventory.pod_identities.iter().flatten() {
            let account = ObjectName::new(&*identity.namespace, &*identity.service_account);
            cluster.own_credentials.insert(account);
        }
        for (path, items) in lists {
            cluster.seed_items(&path, items);
        }
        cluster
    }

    /// Seeds the items of a list, by the list's path.
    pub fn seed_list(&mut self, path: &str, items: &[Value]) {
        self.seed_items(path, items.to_vec());
    }

    fn seed_items(&mut self, path: &str, items: Vec<Value>) {
        // A kind that was never seen is learned from its list; an empty list teaches nothing.
        let Some(res) = self.store.kinds.learn_kind(path, &items) else {
            return;
        };
        let kind = self.store.kinds.get(res).clone();
        for mut item in items {
            set_at(&mut item, "apiVersion", kind.api_version());
            set_at(&mut item, "kind", kind.kind.to_string());
            // Some objects of a snapshot have no UID, but owners and watches need one.
            if text_at(&item, "metadata.uid").is_empty() {
                let uid = self.new_uid();
                set_at(&mut item, "metadata.uid", uid);
            }
            match res {
                PODS => self.seed_pod(&item),
                NODES => self.learn_devices(&item),
                _ => {}
            }
            self.store.seed_object(res, item);
        }
    }

    /// Notes which devices a node of its type has.
    fn learn_devices(&mut self, node: &Value) {
        let instance_type =
            find_label(node, "node.kubernetes.io/instance-type").unwrap_or_default();
        let mut amounts = other_amounts(value_at(node, "status.allocatable"));
        amounts.retain(|name, amount| name.contains('/') && *amount > 0);
        if !amounts.is_empty() {
            self.devices.insert(instance_type.to_owned(), amounts);
        }
    }

    fn seed_pod(&mut self, pod: &Value) {
        // The webhooks of EKS give credentials to pods as they are made, not to templates.
        self.own_credentials
            .extend(pod_credentials::account_with_credentials(pod));
        let images = list_at(pod, "spec.containers")
            .iter()
            .map(|c| text_at(c, "image").to_owned());
        self.images
            .entry(text_at(pod, "spec.nodeName").to_owned())
            .or_default()
            .extend(images);
        // New addresses begin after those that are taken.
        let ip: Option<std::net::Ipv4Addr> = text_at(pod, "status.podIP").parse().ok();
        if let Some(ip) = ip.map(u32::from)
            && (POD_NETWORK_START..POD_NETWORK_START + POD_NETWORK_SIZE).contains(&ip)
        {
            self.next_ip = self.next_ip.max(ip - POD_NETWORK_START);
        }
    }

    /// Tokens are judged by the clock of those who make them, not by the cluster's.
    pub fn with_callers_clock(mut self, clock: Clock) -> Self {
        self.access.callers_clock = Some(clock);
        self
    }

    /// Lets anybody in, with or without a token.
    pub fn allow_anonymous(mut self) -> Self {
        self.access.anonymous = true;
        self
    }

    /// Lets in whoever shows `token`, beside those who show a signed one.
    #[cfg(test)]
    pub fn allow_token(mut self, token: impl Into<String>) -> Self {
        self.access.token = Some(token.into());
        self
    }

    /// Lets whoever comes in do what `rbac` allows, and nothing else.
    pub fn restrict_to(&mut self, rbac: RbacAuthorizer) {
        self.access.rbac = Some(rbac);
    }

    /// What who comes in may do; None: everything.
    pub fn rbac(&self) -> Option<&RbacAuthorizer> {
        self.access.rbac.as_ref()
    }

    /// Takes containers' and nodes' times from `pace`.
    #[cfg(test)]
    pub fn with_pace(mut self, pace: KubeletTimings) -> Self {
        self.pace = pace;
        self
    }

    /// Runs `f` at `now`, lets the controllers hear of what it wrote, and returns what is to happen later.
    pub(super) fn run_at<T>(
        &mut self,
        now: Timestamp,
        chance: &mut fastrand::Rng,
        f: impl FnOnce(&mut Self) -> T,
    ) -> (T, Vec<(Duration, KubeEvent)>) {
        self.now = now;
        self.store.now = now;
        if !self.awake {
            self.awake = true;
            self.rng = fastrand::Rng::with_seed(chance.u64(..));
            self.resume_snapshot_work();
        }
        let out = f(self);
        self.react_to_changes();
        (out, std::mem::take(&mut self.outbox))
    }

    /// Lets `due` happen after `wait`.
    pub(super) fn schedule_after(&mut self, wait: Duration, due: KubeEvent) {
        self.outbox.push((wait, due));
    }

    /// A time between `from` and `to` milliseconds, by chance.
    pub(super) fn random_delay(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(if to > from {
            self.rng.u64(from..=to)
        } else {
            from
        })
    }

    /// The time as objects carry it.
    pub(super) fn timestamp_text(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// A new uid.
    pub(super) fn new_uid(&mut self) -> String {
        let n = (self.rng.u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{n:032x}");
        [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-")
    }

    /// The end of a generated name.
    pub(super) fn name_suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5)
            .map(|_| char::from(ALPHABET[self.rng.usize(..ALPHABET.len())]))
            .collect()
    }

    /// Creates an object as a client or controller does.
    pub(super) fn create_object(
        &mut self,
        res: KindId,
        mut object: Value,
        dry: bool,
    ) -> Result<StoredObject, ApiFailure> {
        let kind = self.store.kinds.get(res).clone();
        // A generated name gets a random suffix; without either name the object is refused as the API server does it.
        let prefix = text_at(&object, "metadata.generateName").to_owned();
        if text_at(&object, "metadata.name").is_empty() {
            if prefix.is_empty() {
                let why = "Required value: name or generateName is required";
                return Err(ApiFailure::invalid_field(&kind, "", "metadata.name", why));
            }
            let name = format!("{prefix}{}", self.name_suffix());
            set_at(&mut object, "metadata.name", name);
        }
        let at_name = ObjectName::of_object(&object);
        // A namespace that is missing and one that is being deleted have different answers (404 and 403).
        if kind.namespaced {
            self.check_namespace(&kind.qualified_resource(), &at_name)
                .map_err(|f| {
                    f.unwrap_or_else(|| {
                        ApiFailure::not_found(self.store.kinds.get(NAMESPACES), &at_name.ns)
                    })
                })?;
        }
        if self.store.find_object(res, &at_name).is_some() {
            return Err(ApiFailure::already_exists(&kind, &at_name.name));
        }
        // What the client says of these fields is passed over: they are the server's own.
        let (uid, stamp) = (self.new_uid(), self.timestamp_text());
        set_at(&mut object, "apiVersion", kind.api_version());
        set_at(&mut object, "kind", kind.kind.to_string());
        set_at(&mut object, "metadata.uid", uid);
        set_at(&mut object, "metadata.creationTimestamp", stamp);
        remove_at(&mut object, "metadata.deletionTimestamp");
        if object.get("spec").is_some() {
            set_at(&mut object, "metadata.generation", 1);
        }
        // Defaults come before a dry run ends, because its answer shows them.
        defaults::fill_defaults(&self.store, &mut self.rng, res, &mut object);
        if pool_rules::has_rules(&kind) {
            // The status is a subresource: what a client sends of it with a creation is not kept.
            remove_at(&mut object, "status");
            pool_rules::fill_defaults(&kind, &mut object);
            pool_rules::check_object(self.version, &kind, &object)?;
        }
        if dry {
            return Ok(object.into());
        }
        Ok(self.store.write_object(res, object))
    }

    /// Whether something may be created in a namespace; the inner `None` says that there is no such namespace.
    pub(super) fn check_namespace(
        &self,
        resource: &str,
        at_name: &ObjectName,
    ) -> Result<(), Option<ApiFailure>> {
        let Some(namespace) = self
            .store
            .find_object(NAMESPACES, &ObjectName::new("", &at_name.ns))
        else {
            return Err(None);
        };
        // Reads and deletions still work in a namespace that is being deleted; only creation is refused.
        if text_at(namespace, "status.phase") != "Terminating" {
            return Ok(());
        }
        let (ns, name) = (&at_name.ns, &at_name.name);
        let why = format!(
            "unable to create new content in namespace {ns} because it is being terminated"
        );
        let message = format!("{resource} \"{name}\" is forbidden: {why}");
        let details = json!({
            "name": name, "kind": resource.split('.').next(),
            "causes": [{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {ns} is being terminated"),
                "field": "metadata.namespace",
            }],
        });
        Err(Some(ApiFailure {
            details: Some(details),
            ..ApiFailure::new(403, "Forbidden", message)
        }))
    }

    /// Writes `status` when it says something new.
    pub(super) fn write_status(&mut self, key: &ObjectKey, status: &[(&str, Value)]) {
        let now = self.store.get_object(key).and_then(|o| o.get("status"));
        if now.is_some_and(|now| status.iter().all(|(field, v)| now.get(field) == Some(v))) {
            return;
        }
        self.change_object(key, |o| {
            for (field, value) in status {
                set_at(o, &format!("status.{field}"), value.clone());
            }
        });
    }

    /// Changes an object; nothing is written when `f` changes nothing. Returns the object as it is then.
    pub(super) fn change_object(
        &mut self,
        key: &ObjectKey,
        f: impl FnOnce(&mut Value),
    ) -> Option<StoredObject> {
        let old = self.store.get_object(key)?.clone();
        let mut new = Value::clone(&old);
        f(&mut new);
        Some(self.replace_object(key.res, &old, new))
    }

    /// Writes `new` over `old`: counts the generation up when the spec differs, lets the object go when its last
    /// finalizer does, and writes nothing when nothing differs.
    pub(super) fn replace_object(
        &mut self,
        res: KindId,
        old: &StoredObject,
        mut new: Value,
    ) -> StoredObject {
        // A write without a difference makes no new resource version, so no watch hears of it.
        if is_same_but_bookkeeping(old, &new) {
            return old.clone();
        }
        // Only a change of the spec counts the generation up; controllers tell by it what they have seen.
        let differs = |key: &str| old.get(key) != new.get(key);
        if differs("spec") && value_at(old, "metadata.generation").is_some() {
            let generation = number_at(old, "metadata.generation").unwrap_or(0) + 1;
            set_at(&mut new, "metadata.generation", generation);
        }
        // An object goes with its last finalizer; a namespace waits for its content, a pod for its grace period.
        let going = value_at(&new, "metadata.deletionTimestamp").is_some();
        let waits = res == NAMESPACES
            || (res == PODS && number_at(&new, "metadata.deletionGracePeriodSeconds") != Some(0));
        let new = self.store.write_object(res, new);
        if going && !waits && list_at(&new, "metadata.finalizers").is_empty() {
            return self
                .store
                .remove_object(&ObjectKey {
                    res,
                    at: ObjectName::of_object(&new),
                })
                .unwrap_or(new);
        }
        new
    }

    /// Deletes an object: at once, or after its grace period or finalizers. Returns it as it was last.
    pub(super) fn delete_object(
        &mut self,
        key: &ObjectKey,
        grace: Option<i64>,
    ) -> Option<StoredObject> {
        let object = self.store.get_object(key)?.clone();
        // Only pods have a grace period; for everything else zero is meant, whatever the request says.
        let going = value_at(&object, "metadata.deletionTimestamp").is_some();
        let grace = match key.res {
            PODS => self.grace_period(&object, grace),
            _ => 0,
        };
        // A namespace is held by its content, as if it had a finalizer.
        let held = !list_at(&object, "metadata.finalizers").is_empty() || key.res == NAMESPACES;
        if grace == 0 && !held {
            return self.store.remove_object(key);
        }
        // A second deletion can only make the grace period shorter.
        if going
            && number_at(&object, "metadata.deletionGracePeriodSeconds").is_some_and(|g| g <= grace)
        {
            return Some(object);
        }
        // A grace period that is made shorter counts from when the deletion was first asked for
        // (K8S staging/src/k8s.io/apiserver/pkg/registry/rest/delete.go).
        let asked_at = || {
            let since: jiff::Timestamp = text_at(&object, "metadata.deletionTimestamp")
                .parse()
                .ok()?;
            let granted = number_at(&object, "metadata.deletionGracePeriodSeconds")?;
            since
                .checked_sub(jiff::SignedDuration::from_secs(granted))
                .ok()
        };
        let until = asked_at()
            .unwrap_or(self.now)
            .saturating_add(jiff::SignedDuration::from_secs(grace))
            .unwrap_or(self.now);
        let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // A deletion changes the generation, so controllers take the object up again.
        self.change_object(key, |o| {
            set_at(o, "metadata.deletionTimestamp", until);
            set_at(o, "metadata.deletionGracePeriodSeconds", grace);
            if key.res == NAMESPACES {
                set_at(o, "status.phase", "Terminating");
            } else if let Some(generation) = number_at(o, "metadata.generation") {
                set_at(o, "metadata.generation", generation + 1);
            }
        })
    }

    fn grace_period(&self, pod: &Value, asked: Option<i64>) -> i64 {
        let finished = matches!(text_at(pod, "status.phase"), "Succeeded" | "Failed");
        if text_at(pod, "spec.nodeName").is_empty() || finished {
            return 0;
        }
        asked
            .or_else(|| number_at(pod, "spec.terminationGracePeriodSeconds"))
            .unwrap_or(30)
            .max(0)
    }

    /// Whether the kubelet of `node` works.
    pub(super) fn is_kubelet_alive(&self, node: &str) -> bool {
        self.store.index.nodes.contains_key(node) && !self.dead.contains(node)
    }
}

/// Whether two versions of an object differ in nothing a client would see.
fn is_same_but_bookkeeping(old: &Value, new: &Value) -> bool {
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else {
        return false;
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|((ka, va), (kb, vb))| {
            ka == kb
                && if ka == "metadata" {
                    is_same_metadata(va, vb)
                } else {
                    va == vb
                }
        })
}

/// The same, of their metadata: the version does not count, nor does an empty list of managers.
fn is_same_metadata(old: &Value, new: &Value) -> bool {
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    let told = |(key, value): &(&String, &Value)| match key.as_str() {
        "resourceVersion" => false,
        "managedFields" => value.as_array().is_some_and(|list| !list.is_empty()),
        _ => true,
    };
    a.iter().filter(told).eq(b.iter().filter(told))
}

/// Whether `object` is held by nothing but its own end.
pub(super) fn is_immutable(object: &Value) -> bool {
    flag_at(object, "immutable")
}
