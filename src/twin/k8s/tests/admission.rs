//! Admission of pods: who is refused, in which words, and what its controller says. The words are a real API server's.

use serde_json::{Value, json};

use super::*;

const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn enforce(bench: &Bench, level: &str) {
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let (code, said) = bench
        .patch("/api/v1/namespaces/default", MERGE, labels)
        .await;
    assert_eq!(code, 200, "{said}");
}

/// Makes a pod of this specification; what is said against it.
async fn refusal(bench: &Bench, spec: Value) -> String {
    let pod = json!({"metadata": {"name": "one"}, "spec": spec});
    let (code, said) = bench.post(PODS, pod).await;
    assert_eq!(code, 403, "{said}");
    said["message"].as_str().unwrap().to_owned()
}

/// Why the pods of a deployment are refused, as its replica set and itself say.
async fn failure(bench: &Bench, name: &str) -> Option<String> {
    let path = "/apis/apps/v1/namespaces/default";
    let sets = format!("{path}/replicasets?labelSelector=app%3D{name}");
    let sets = bench.get(&sets).await;
    let deployment = bench.get(&format!("{path}/deployments/{name}")).await;
    let said = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let failure = conditions.find(|c| c["type"] == "ReplicaFailure")?;
        assert_eq!(
            (&failure["status"], &failure["reason"]),
            (&json!("True"), &json!("FailedCreate"))
        );
        Some(failure["message"].as_str().unwrap().to_owned())
    };
    let of_set = said(&sets["items"][0]);
    assert_eq!(of_set, said(&deployment));
    of_set
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_class_that_is_gone_is_not_made_again_until_it_is_back() {
    let bench = Bench::with_nodes(&["a"]).await;
    let class = json!({"metadata": {"name": "shop"}, "value": 1000});
    bench.make(CLASSES, class.clone()).await;
    let mut web = deployment("web", 1, json!({}));
    web["spec"]["template"]["spec"]["priorityClassName"] = json!("shop");
    bench
        .make("/apis/apps/v1/namespaces/default/deployments", web)
        .await;
    bench.sleep(5.0).await;
    let first = bench.pods("web").await;
    assert_eq!(first[0]["spec"]["priority"], 1000);
    bench
        .call("DELETE", &format!("{CLASSES}/shop"), "", Value::Null)
        .await;
    assert!(is_ready(&bench.pods("web").await[0]), "what runs stays");
    bench.evict("default", name_of(&first[0])).await;
    bench.sleep(60.0).await;
    assert!(bench.pods("web").await.is_empty());
    let said = failure(&bench, "web").await.unwrap();
    assert!(
        said.ends_with("-\" is forbidden: no PriorityClass with name shop was found"),
        "{said}"
    );
    bench.make(CLASSES, class).await;
    bench.sleep(20.0).await;
    assert!(is_ready(&bench.pods("web").await[0]));
    assert_eq!(failure(&bench, "web").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_full_quota_lets_a_pod_be_replaced_and_an_overdrawn_one_does_not() {
    let bench = Bench::with_nodes(&["a"]).await;
    let hard = |cpu: &str| json!({"metadata": {"name": "team"}, "spec": {"hard": {"requests.cpu": cpu, "pods": "9"}}});
    bench.make(QUOTAS, hard("100m")).await;
    let pods = bench.deploy("web", 2, json!({})).await;
    assert_eq!(pods.len(), 2);
    let quota = bench.get(&format!("{QUOTAS}/team")).await;
    assert_eq!(
        quota["status"]["used"],
        json!({"requests.cpu": "100m", "pods": "2"})
    );
    let said = refusal(&bench, pod_spec()).await;
    assert_eq!(
        said,
        "pods \"one\" is forbidden: exceeded quota: team, requested: requests.cpu=50m, used: requests.cpu=100m, limited: requests.cpu=100m"
    );
    bench.evict("default", name_of(&pods[0])).await;
    bench.sleep(90.0).await;
    let again = bench.pods("web").await;
    assert!(again.len() == 2 && again.iter().all(is_ready), "{again:?}");
    let lower = json!({"spec": {"hard": {"requests.cpu": "90m"}}});
    bench.patch(&format!("{QUOTAS}/team"), MERGE, lower).await;
    bench.evict("default", name_of(&again[0])).await;
    bench.sleep(120.0).await;
    assert_eq!(bench.pods("web").await.len(), 1);
    let said = failure(&bench, "web").await.unwrap();
    assert!(
        said.contains("exceeded quota: team, requested: requests.cpu=50m"),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_quota_counts_pods_of_its_scopes_and_wants_what_it_counts_to_be_stated() {
    let bench = Bench::with_nodes(&["a"]).await;
    let best_effort = json!({"metadata": {"name": "be"}, "spec": {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}});
    bench.make(QUOTAS, best_effort).await;
    assert_eq!(bench.deploy("web", 1, json!({})).await.len(), 1);
    let bare = json!({"containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}]});
    let said = refusal(&bench, bare.clone()).await;
    assert!(
        said.contains("exceeded quota: be, requested: pods=1, used: pods=0, limited: pods=0"),
        "{said}"
    );
    bench
        .call("DELETE", &format!("{QUOTAS}/be"), "", Value::Null)
        .await;
    let team = json!({"metadata": {"name": "team"}, "spec": {"hard": {"requests.cpu": "9", "limits.memory": "9Gi"}}});
    bench.make(QUOTAS, team).await;
    let said = refusal(&bench, bare.clone()).await;
    assert_eq!(
        said,
        "pods \"one\" is forbidden: failed quota: team: must specify limits.memory for: c,d; requests.cpu for: c,d"
    );
    let range = json!({"metadata": {"name": "given"}, "spec": {"limits": [
        {"type": "Container", "default": {"memory": "64Mi"}, "defaultRequest": {"cpu": "10m", "memory": "64Mi"}}]}});
    bench
        .make("/api/v1/namespaces/default/limitranges", range)
        .await;
    let made = bench
        .make(PODS, json!({"metadata": {"name": "one"}, "spec": bare}))
        .await;
    let given = &made["spec"]["containers"][0]["resources"];
    assert_eq!(given["limits"], json!({"memory": "64Mi"}));
    assert_eq!(given["requests"], json!({"cpu": "10m", "memory": "64Mi"}));
}

#[tokio::test(start_paused = true)]
async fn a_level_of_pod_security_names_every_rule_that_a_pod_breaks() {
    let bench = Bench::with_nodes(&["a"]).await;
    let pods = bench.deploy("web", 1, json!({})).await;
    enforce(&bench, "restricted").await;
    assert!(is_ready(&bench.pods("web").await[0]), "what runs stays");
    let plain = json!({"volumes": [{"name": "nn", "nfs": {"server": "a", "path": "/b"}}],
        "containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}]});
    assert_eq!(
        refusal(&bench, plain.clone()).await,
        "pods \"one\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (containers \"c\", \"d\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"c\", \"d\" must set securityContext.capabilities.drop=[\"ALL\"]), restricted volume types (volume \"nn\" uses restricted volume type \"nfs\"), runAsNonRoot != true (pod or containers \"c\", \"d\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"c\", \"d\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    bench.evict("default", name_of(&pods[0])).await;
    bench.sleep(60.0).await;
    let said = failure(&bench, "web").await.unwrap();
    assert!(
        said.contains("violates PodSecurity \"restricted:latest\""),
        "{said}"
    );
    enforce(&bench, "baseline").await;
    bench.sleep(20.0).await;
    assert!(is_ready(&bench.pods("web").await[0]));
    bench
        .make(PODS, json!({"metadata": {"name": "plain"}, "spec": plain}))
        .await;
    let bad = json!({
        "hostNetwork": true, "hostPID": true,
        "securityContext": {"seLinuxOptions": {"type": "custom", "user": "u"}, "sysctls": [{"name": "kernel.msgmax", "value": "1"}],
            "seccompProfile": {"type": "Unconfined"}, "runAsUser": 0},
        "volumes": [{"name": "h", "hostPath": {"path": "/x"}}, {"name": "g", "hostPath": {"path": "/y"}}],
        "containers": [
            {"name": "c", "image": "x", "ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 81}],
                "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "NET_ADMIN"]}, "seccompProfile": {"type": "Unconfined"}}},
            {"name": "d", "image": "x", "securityContext": {"privileged": true}}],
        "initContainers": [{"name": "i", "image": "x", "securityContext": {"capabilities": {"add": ["SYS_TIME"]}}}],
    });
    let said = refusal(&bench, bad).await;
    for rule in [
        "non-default capabilities (containers \"i\", \"c\" must not include \"NET_ADMIN\", \"SYS_ADMIN\", \"SYS_TIME\" in securityContext.capabilities.add)",
        "host namespaces (hostNetwork=true, hostPID=true)",
        "hostPath volumes (volumes \"h\", \"g\")",
        "hostPort (container \"c\" uses hostPorts 80, 81)",
        "privileged (containers \"c\", \"d\" must not set securityContext.privileged=true)",
        "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"custom\"; user may not be set)",
        "seccompProfile (pod and container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        "forbidden sysctls (kernel.msgmax)",
    ] {
        assert!(said.contains(rule), "{rule}: {said}");
    }
}
