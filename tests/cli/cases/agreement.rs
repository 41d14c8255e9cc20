//! Where `check` and the rehearsal once disagreed, or were wrong together: what is ready ends done, and what blocks has a way
//! out that goes through.

use serde_json::{Value, json};

use super::{Case, of};

const NODES: [&str; 3] = [
    "ip-10-0-0-4.ec2.internal",
    "ip-10-0-32-4.ec2.internal",
    "ip-10-0-64-4.ec2.internal",
];

/// Writes the plan again with something in its node group and in `drain`.
pub fn plan(case: &Case, group: &str, drain: &str) {
    let text = case.plan("plan.yaml");
    let text = text.replace("expense-green}", &format!("expense-green{group}}}"));
    let text = text.replace("bake: 10s}\nretire", &format!("bake: 10s{drain}}}\nretire"));
    case.write_plan("plan.yaml", &text);
}

/// It is ready, and the rehearsal ends done.
pub fn goes_through(case: &Case) {
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 0, "{found:#?}");
    let ended = case.rehearse("plan.yaml", "snapshot.json", &[]);
    assert_eq!(ended.code, 0, "{}", ended.said());
}

/// `check` blocks with this code alone; what it says.
pub fn is_blocked(case: &Case, code: &str) -> String {
    let (exit, found) = case.check("plan.yaml", "snapshot.json");
    let blockers: Vec<_> = found.iter().filter(|f| f.severity == "blocker").collect();
    assert_eq!(exit, 4, "{found:#?}");
    assert!(
        blockers.iter().all(|f| f.code.ends_with(code)),
        "{blockers:#?}"
    );
    format!("{blockers:?}")
}

pub fn push(kube: &mut Value, path: &str, object: Value) {
    let lists = kube.as_object_mut().unwrap();
    let list = lists.entry(path).or_insert_with(|| json!([]));
    list.as_array_mut().unwrap().push(object);
}

/// A Ready pod as a snapshot has it.
fn pod(name: &str, node: &str, owner: Value, labels: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "expense", "uid": format!("uid-{name}"), "labels": labels,
            "creationTimestamp": "2026-11-21T08:15:00Z", "resourceVersion": "9001", "ownerReferences": [owner]},
        "spec": {"nodeName": node, "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "priority": 0,
            "schedulerName": "default-scheduler", "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "registry.local/c:1",
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}]},
        "status": {"phase": "Running", "startTime": "2026-11-21T08:15:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T08:15:00Z"},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-21T08:15:00Z"}],
            "containerStatuses": [{"name": "c", "image": "registry.local/c:1", "imageID": "x", "ready": true,
                "restartCount": 0, "started": true, "lastState": {},
                "state": {"running": {"startedAt": "2026-11-21T08:15:00Z"}}}]},
    })
}

fn stateful_set(kube: &mut Value, name: &str, nodes: &[&str]) {
    let labels = json!({"app": name});
    let template = pod("t", "", json!({}), labels.clone());
    let mut spec = template["spec"].clone();
    spec.as_object_mut().unwrap().remove("nodeName");
    push(
        kube,
        "/apis/apps/v1/statefulsets",
        json!({
            "metadata": {"name": name, "namespace": "expense", "uid": format!("uid-{name}"), "generation": 1,
                "resourceVersion": "9000", "creationTimestamp": "2026-11-21T08:15:00Z"},
            "spec": {"replicas": nodes.len(), "serviceName": name, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec}},
            "status": {"replicas": nodes.len(), "readyReplicas": nodes.len(), "availableReplicas": nodes.len(),
                "observedGeneration": 1},
        }),
    );
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": format!("uid-{name}"),
        "controller": true});
    for (n, node) in nodes.iter().enumerate() {
        let pod = pod(&format!("{name}-{n}"), node, owner.clone(), labels.clone());
        push(kube, "/api/v1/pods", pod);
    }
}

#[test]
fn a_degraded_group_with_nodes_moves_by_consent() {
    let case = Case::healthy();
    case.change(|inventory, _| {
        let group = &mut inventory["nodegroups"][0];
        group["status"] = json!("DEGRADED");
        group["health"] = json!([{"code": "AsgInstanceLaunchFailures", "message": "VcpuLimitExceeded", "resourceIds": []}]);
    });
    let said = is_blocked(&case, "N002");
    assert!(said.contains("acceptDegraded: true"), "{said}");
    plan(&case, ", acceptDegraded: true", "");
    goes_through(&case);
}

#[test]
fn a_degraded_group_without_a_reason_is_found_too() {
    let case = Case::healthy();
    case.change(|inventory, _| inventory["nodegroups"][0]["status"] = json!("DEGRADED"));
    assert!(is_blocked(&case, "N002").contains("gives no reason"));
}

#[test]
fn a_subnet_that_was_deleted_is_found_before_the_hop() {
    let case = Case::healthy();
    case.change(|inventory, _| {
        inventory["nodegroups"][0]["subnets"][2] = json!("subnet-0deadbeef");
    });
    assert!(is_blocked(&case, "N031").contains("subnet-0deadbeef"));
}

#[test]
fn all_batches_of_groups_that_fit_the_quota_are_named() {
    let case = Case::new("21-many-groups");
    let said = is_blocked(&case, "N097");
    for part in ["expense-blue, team00", "; then ", "team15"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_role_by_annotation_counts_for_pods_that_are_older() {
    let case = Case::new("11-imds-hop");
    is_blocked(&case, "N091");
    let name = "aws-load-balancer-controller";
    case.change(|_, kube| {
        let pods = kube["/api/v1/pods"].as_array().unwrap();
        let prefix = |p: &&Value| p["metadata"]["name"].as_str().unwrap().starts_with(name);
        let of_controller = pods.iter().find(prefix).unwrap();
        let account = of_controller["spec"]["serviceAccountName"].clone();
        push(
            kube,
            "/api/v1/serviceaccounts",
            json!({"metadata": {"name": account, "namespace": "kube-system", "uid": "uid-sa",
                "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/lbc"}}}),
        );
    });
    // It has credentials now, and does not know its VPC still.
    let said = is_blocked(&case, "N091");
    assert!(said.contains("--aws-vpc-id"), "{said}");
}

#[test]
fn what_ami_type_accepts_to_lose_is_not_waited_for() {
    let case = Case::new("11-imds-hop");
    plan(&case, ", amiType: AL2023_x86_64_STANDARD", "");
    goes_through(&case);
}

#[test]
fn ami_type_does_not_carry_what_the_drain_itself_needs() {
    let case = Case::new("11-imds-hop");
    plan(&case, ", amiType: AL2023_x86_64_STANDARD", "");
    case.change(|_, kube| {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "ebs-csi-controller-abc", "uid": "uid-rs",
            "controller": true});
        let mut pod = pod("ebs-csi-controller-abc-1", NODES[0], owner, json!({"app": "ebs-csi-controller"}));
        pod["spec"]["containers"][0]["image"] = json!("public.ecr.aws/ebs-csi-driver/aws-ebs-csi-driver:v1.38.1");
        push(kube, "/api/v1/pods", pod);
    });
    let said = is_blocked(&case, "N091");
    assert!(
        said.contains("the upgrade itself needs Deployment expense/ebs-csi-controller"),
        "{said}"
    );
}

#[test]
fn longhorn_lets_its_instance_managers_go_once_their_node_is_closed() {
    for restart in ["Always", "Never"] {
        let case = Case::new("26-longhorn");
        case.change(|_, kube| {
            for pod in kube["/api/v1/pods"].as_array_mut().unwrap() {
                if pod["metadata"]["namespace"] == "longhorn-system" {
                    pod["metadata"]["labels"]["longhorn.io/component"] = json!("instance-manager");
                    pod["spec"]["restartPolicy"] = json!(restart);
                }
            }
        });
        let consents =
            ", budgets: {\"longhorn-system/*\": wait}, hostPath: {evict: [\"longhorn-system/*\"]}";
        plan(&case, "", consents);
        goes_through(&case);
    }
}

#[test]
fn what_a_snapshot_could_not_read_is_unknown_in_its_rehearsal_too() {
    let case = Case::healthy();
    case.change(|inventory, _| {
        inventory["unread"] = json!([{"op": "list services", "why": "forbidden"}]);
    });
    is_blocked(&case, "U001");
    let ended = case.rehearse("plan.yaml", "snapshot.json", &[]);
    assert_eq!(ended.code, 4, "{}", ended.said());
}

#[test]
fn a_taint_that_agents_take_off_is_none_of_green() {
    let case = Case::healthy();
    case.change(|inventory, _| {
        inventory["nodegroups"][0]["taints"] =
            json!([{"key": "node.cilium.io/agent-not-ready", "value": "true", "effect": "NO_EXECUTE"}]);
    });
    goes_through(&case);
}

#[test]
fn a_degraded_add_on_that_the_plan_skips_stops_nothing() {
    let case = Case::healthy();
    case.change(|inventory, _| {
        inventory["addons"][0]["status"] = json!("DEGRADED");
    });
    let said = is_blocked(&case, "A001");
    assert!(said.contains("addons.skip"), "{said}");
    let skip = "addons: {skip: [aws-ebs-csi-driver]}\n";
    case.write_plan("plan.yaml", &(case.plan("plan.yaml") + skip));
    goes_through(&case);
}

#[test]
fn a_stateful_set_that_waits_for_a_sick_pod_makes_no_later_one_again() {
    let case = Case::healthy();
    case.change(|_, kube| {
        stateful_set(kube, "ord", &NODES);
        let sets = kube["/apis/apps/v1/statefulsets"].as_array_mut().unwrap();
        sets.last_mut().unwrap()["status"]["readyReplicas"] = json!(2);
        let pods = kube["/api/v1/pods"].as_array_mut().unwrap();
        let first = pods
            .iter_mut()
            .find(|p| p["metadata"]["name"] == "ord-0")
            .unwrap();
        first["status"]["conditions"][0]["status"] = json!("False");
        first["status"]["containerStatuses"][0]["ready"] = json!(false);
        first["status"]["containerStatuses"][0]["state"] =
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
    });
    let said = is_blocked(&case, "P016");
    assert!(said.contains("ord-0 (CrashLoopBackOff"), "{said}");
}

#[test]
fn as_many_volumes_fit_on_a_node_as_its_csi_node_says() {
    let case = Case::healthy();
    // Seven on one node of zone a, of which a node takes as many as `limit`.
    let with_limit = |limit: i64| {
        case.change(|_, kube| {
            kube["/apis/storage.k8s.io/v1/csinodes"] = json!([]);
            for node in NODES {
                push(
                    kube,
                    "/apis/storage.k8s.io/v1/csinodes",
                    json!({"metadata": {"name": node, "uid": format!("csi-{node}")},
                        "spec": {"drivers": [{"name": "ebs.csi.aws.com", "nodeID": "i", "topologyKeys": [],
                            "allocatable": {"count": limit}}]}}),
                );
            }
        });
    };
    case.change(|inventory, kube| {
        inventory["nodegroups"][0]["scaling"]["max"] = json!(3);
        stateful_set(kube, "db", &[NODES[0]; 7]);
        let sets = kube["/apis/apps/v1/statefulsets"].as_array_mut().unwrap();
        sets.last_mut().unwrap()["spec"]["podManagementPolicy"] = json!("Parallel");
        let claim = |n: usize| format!("data-db-{n}");
        for n in 0..7 {
            let pods = kube["/api/v1/pods"].as_array_mut().unwrap();
            let pod = pods
                .iter_mut()
                .find(|p| p["metadata"]["name"] == json!(format!("db-{n}")));
            pod.unwrap()["spec"]["volumes"] =
                json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim(n)}}]);
            let mut volume = kube["/api/v1/persistentvolumes"][0].clone();
            volume["metadata"]["name"] = json!(format!("pv-{n}"));
            volume["metadata"]["uid"] = json!(format!("uid-pv-{n}"));
            volume["spec"]["claimRef"]["name"] = json!(claim(n));
            volume["spec"]["csi"]["volumeHandle"] = json!(format!("vol-{n}"));
            push(kube, "/api/v1/persistentvolumes", volume);
            let mut made = kube["/api/v1/persistentvolumeclaims"][0].clone();
            made["metadata"]["name"] = json!(claim(n));
            made["metadata"]["uid"] = json!(format!("uid-claim-{n}"));
            made["spec"]["volumeName"] = json!(format!("pv-{n}"));
            push(kube, "/api/v1/persistentvolumeclaims", made);
        }
    });
    with_limit(3);
    let said = is_blocked(&case, "N006");
    assert!(said.contains("exceed max volume count"), "{said}");
    with_limit(25);
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 0, "{found:#?}");
}

#[test]
fn pods_that_an_operator_put_on_a_node_by_name_are_told() {
    let case = Case::healthy();
    case.change(|_, kube| {
        let owner = json!({"apiVersion": "ci.example.com/v1", "kind": "AgentPool", "name": "w", "uid": "uid-w", "controller": true});
        let mut pod = pod("w-0", NODES[0], owner, json!({"app": "w"}));
        pod["metadata"]["managedFields"] = json!([{"manager": "agent-operator", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:nodeName": {}}}}]);
        push(kube, "/api/v1/pods", pod);
    });
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    let named = of(&found, "P042");
    assert_eq!((code, named.len()), (0, 1), "{found:#?}");
    assert!(named[0].detail.contains("agent-operator"), "{named:?}");
}
