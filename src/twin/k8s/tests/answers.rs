//! What a real API server answered to evictions, row by row (`tests/data/api-server-answers.json`).

use super::*;

fn answers() -> Value {
    serde_json::from_str(include_str!(
        "../../../../tests/data/api-server-answers.json"
    ))
    .unwrap()
}

/// The recorded row, with the recorded pod's name and uid replaced by this one's.
fn recorded(row: &str, names: &[(&str, &str)]) -> Value {
    let mut text = answers()["eviction"][row].to_string();
    for (theirs, ours) in names {
        text = text.replace(theirs, ours);
    }
    serde_json::from_str(&text).unwrap()
}

/// Everything the record says must be said, word for word.
fn assert_same(row: &Value, (code, answer): &(u16, Value)) {
    assert_eq!(row["code"], *code, "{answer}");
    for key in ["status", "reason", "message", "details"] {
        assert_eq!(row.get(key), answer.get(key), "{key} of {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_gives_the_verdict_and_spends_nothing() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    let pods = bench.deploy("dry", 2, json!({})).await;
    bench.budget("dry", "dry", json!({"minAvailable": 1})).await;
    let row = recorded("dry_run", &[]);
    assert_same(
        &row,
        &bench
            .evict_as("default", name_of(&pods[0]), "?dryRun=All", json!({}))
            .await,
    );
    let status = bench.budget_status("dry").await;
    for key in ["currentHealthy", "disruptionsAllowed"] {
        assert_eq!(status[key], row["pdb_after"][key], "{key}");
    }
    assert!(status.get("disruptedPods").is_none());
    assert_eq!(bench.pods("dry").await, pods, "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_uid_is_a_conflict_that_spends_the_budget_for_two_minutes() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    let pods = bench.deploy("uid", 2, json!({})).await;
    bench.budget("uid", "uid", json!({"minAvailable": 1})).await;
    let (name, uid) = (
        name_of(&pods[0]),
        pods[0]["metadata"]["uid"].as_str().unwrap(),
    );
    let row = recorded(
        "wrong_uid",
        &[
            ("uid-858b57c9d7-6f5vc", name),
            ("4247edbe-b918-4b5a-bdd7-c202ad2b93af", uid),
        ],
    );
    let wrong = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
    assert_same(&row, &bench.evict_as("default", name, "", wrong).await);
    bench.sleep(1.0).await;
    let status = bench.budget_status("uid").await;
    assert_eq!(
        status["currentHealthy"],
        row["pdb_after_1s"]["currentHealthy"]
    );
    assert_eq!(
        status["disruptionsAllowed"],
        row["pdb_after_1s"]["disruptionsAllowed"]
    );
    assert!(status["disruptedPods"][name].is_string());
    assert_same(
        &row["next_eviction"],
        &bench.evict("default", name_of(&pods[1])).await,
    );
    bench
        .sleep(row["budget_back_after_s"].as_f64().unwrap())
        .await;
    let status = bench.budget_status("uid").await;
    assert_eq!(
        (&status["currentHealthy"], &status["disruptionsAllowed"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        bench.pods("uid").await[0],
        pods[0],
        "the pod itself was never touched"
    );
}

#[tokio::test(start_paused = true)]
async fn one_eviction_is_accepted_again_while_it_goes_and_the_next_pod_is_refused() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    let pods = bench.deploy("ok", 2, json!({})).await;
    bench.budget("ok", "ok", json!({"minAvailable": 1})).await;
    let (first, second) = (name_of(&pods[0]), name_of(&pods[1]));
    assert_same(
        &recorded("accepted", &[]),
        &bench.evict("default", first).await,
    );
    assert_same(
        &recorded("again_while_terminating", &[]),
        &bench.evict("default", first).await,
    );
    bench.sleep(0.03).await;
    assert_same(
        &recorded("second_pod_at_once", &[]),
        &bench.evict("default", second).await,
    );
    let going = bench
        .get(&format!("/api/v1/namespaces/default/pods/{first}"))
        .await;
    let why = going["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "DisruptionTarget");
    assert_eq!(why.unwrap()["reason"], "EvictionByEvictionAPI");
    bench.sleep(5.0).await;
    let row = recorded("pod_not_found", &[("ok-d9ddb9bcc-8ks45", first)]);
    assert_same(&row, &bench.evict("default", first).await);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_needs_all_refuses_forever() {
    let bench = Bench::with_nodes(&["a"]).await;
    let pods = bench.deploy("dead", 1, json!({})).await;
    bench
        .budget("dead", "dead", json!({"minAvailable": 1}))
        .await;
    for _ in 0..3 {
        let answer = bench.evict("default", name_of(&pods[0])).await;
        assert_same(&recorded("refused_forever", &[]), &answer);
        bench.sleep(600.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_budgets_over_a_pod_are_a_server_error() {
    let bench = Bench::with_nodes(&["a"]).await;
    let pods = bench.deploy("two", 2, json!({})).await;
    bench.budget("one", "two", json!({"minAvailable": 1})).await;
    bench
        .budget("other", "two", json!({"maxUnavailable": 1}))
        .await;
    assert_same(
        &recorded("two_pdbs", &[]),
        &bench.evict("default", name_of(&pods[0])).await,
    );
}

#[tokio::test(start_paused = true)]
async fn a_budget_changed_and_not_yet_looked_at_asks_to_come_back_in_ten_seconds() {
    let bench = Bench::with_nodes(&["a"]).await;
    let pods = bench.deploy("new", 2, json!({})).await;
    bench.budget("new", "new", json!({"minAvailable": 1})).await;
    // The controller is quick: to meet it at work, the budget is changed and the pod evicted in one instant.
    let answer = bench.twin.with_world(|world| {
        let name = name_of(&pods[0]);
        let send = |world: &mut SimWorld, method: &str, path: String, body: Value| {
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", MERGE);
            super::super::handle_request(world, &request.body(body.to_string().into()).unwrap())
        };
        let budget = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/new".to_owned();
        send(world, "PATCH", budget, json!({"spec": {"minAvailable": 2}}));
        send(
            world,
            "POST",
            format!("/api/v1/namespaces/default/pods/{name}/eviction"),
            json!({}),
        )
    });
    let crate::twin::answer::Answer::Whole(response) = answer else {
        panic!("an answer")
    };
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "10");
    let body: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(body["details"]["retryAfterSeconds"], 10);
    assert_eq!(
        body["details"]["causes"][0]["message"],
        "The disruption budget new is still being processed by the server."
    );
    // What the real server was caught at: by then its controller had looked.
    bench
        .budget("later", "later", json!({"minAvailable": 1}))
        .await;
    let pods = bench.deploy("later", 2, json!({})).await;
    assert_same(
        &recorded("pdb_not_yet_observed", &[]),
        &bench.evict("default", name_of(&pods[0])).await,
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_ready_goes_only_as_the_budgets_policy_says() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let never = json!({"twin.eksup.dev/never-ready": "true"});
    let pods = bench.deploy("sick", 2, never.clone()).await;
    let policy = json!({"minAvailable": 1, "unhealthyPodEvictionPolicy": "IfHealthyBudget"});
    bench.budget("sick-ifhealthybudget", "sick", policy).await;
    let row = recorded("never_ready_IfHealthyBudget", &[]);
    assert_same(&row, &bench.evict("default", name_of(&pods[0])).await);

    let pods = bench.deploy("let-go", 2, never).await;
    bench
        .budget(
            "always",
            "let-go",
            json!({"minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"}),
        )
        .await;
    assert_same(
        &recorded("never_ready_AlwaysAllow", &[]),
        &bench.evict("default", name_of(&pods[0])).await,
    );

    let pods = bench
        .deploy("crash", 2, json!({"twin.eksup.dev/crash-loop": "true"}))
        .await;
    bench
        .budget("crash", "crash", json!({"minAvailable": 1}))
        .await;
    assert_eq!(
        pods[0]["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        "CrashLoopBackOff"
    );
    assert_same(
        &recorded("crash_loop_default_policy", &[]),
        &bench.evict("default", name_of(&pods[0])).await,
    );
}

#[tokio::test(start_paused = true)]
async fn pods_that_serve_nobody_go_without_asking() {
    let bench = Bench::with_nodes(&["a"]).await;
    let mut waiting = deployment("waits", 1, json!({}));
    waiting["spec"]["template"]["spec"]["nodeSelector"] = json!({"colour": "none"});
    bench
        .make("/apis/apps/v1/namespaces/default/deployments", waiting)
        .await;
    bench
        .budget("waits", "waits", json!({"minAvailable": 1}))
        .await;
    bench.sleep(1.0).await;
    let pods = bench.pods("waits").await;
    assert_eq!(
        pods[0]["status"]["conditions"][0]["reason"],
        "Unschedulable"
    );
    assert_same(
        &recorded("pending_unscheduled", &[]),
        &bench.evict("default", name_of(&pods[0])).await,
    );

    let mut spec = pod_spec();
    spec["restartPolicy"] = json!("Never");
    let notes = json!({"twin.eksup.dev/runs-for": "2s"});
    let finished = json!({"metadata": {"name": "done", "labels": {"app": "done"}, "annotations": notes}, "spec": spec});
    bench
        .make("/api/v1/namespaces/default/pods", finished)
        .await;
    bench
        .budget("done", "done", json!({"minAvailable": 1}))
        .await;
    bench.sleep(10.0).await;
    assert_eq!(bench.pods("done").await[0]["status"]["phase"], "Succeeded");
    assert_same(
        &recorded("finished_pod", &[]),
        &bench.evict("default", "done").await,
    );
    assert!(bench.pods("done").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_percentage_over_a_pod_without_a_controller_allows_nothing() {
    let bench = Bench::with_nodes(&["a"]).await;
    let bare = json!({"metadata": {"name": "bare", "labels": {"app": "bare"}}, "spec": pod_spec()});
    bench.make("/api/v1/namespaces/default/pods", bare).await;
    bench.sleep(5.0).await;
    let status = bench
        .budget("bare", "bare", json!({"maxUnavailable": "50%"}))
        .await;
    let row = recorded("bare_pod_percent_pdb", &[]);
    assert_same(&row, &bench.evict("default", "bare").await);
    for key in ["type", "status", "reason", "message"] {
        assert_eq!(status["conditions"][0][key], row["pdb_conditions"][0][key]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_s_pod_is_back_on_its_cordoned_node_within_seconds() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let set = json!({
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod_spec()},
        },
    });
    bench
        .make("/apis/apps/v1/namespaces/default/daemonsets", set)
        .await;
    bench.sleep(5.0).await;
    bench
        .patch(
            "/api/v1/nodes/a",
            STRATEGIC,
            json!({"spec": {"unschedulable": true}}),
        )
        .await;
    bench.sleep(1.0).await;
    let on_a = |pods: Vec<Value>| pods.into_iter().find(|p| p["spec"]["nodeName"] == "a");
    let old = on_a(bench.pods("agent").await).unwrap();
    assert_same(
        &recorded("daemonset_pod_on_cordoned_node", &[]),
        &bench.evict("default", name_of(&old)).await,
    );
    bench.sleep(2.0).await;
    let new = on_a(bench.pods("agent").await).unwrap();
    assert_ne!(new["metadata"]["uid"], old["metadata"]["uid"]);
}

#[tokio::test(start_paused = true)]
async fn of_ten_evictions_at_once_a_budget_of_two_lets_two_go() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    let pods = bench.deploy("ten", 10, json!({})).await;
    bench.budget("ten", "ten", json!({"minAvailable": 8})).await;
    let answers =
        futures::future::join_all(pods.iter().map(|p| bench.evict("default", name_of(p)))).await;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (code, answer) in answers {
        let told = |key: &str| {
            answer
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        *counts
            .entry(format!("{code} {} {}", told("reason"), told("message")))
            .or_default() += 1;
    }
    assert_eq!(
        json!(counts),
        self::answers()["eviction"]["ten_at_once_budget_2"]
    );
}

/// Whether `seconds` is what was measured, within a factor that a client cannot tell apart from load.
fn assert_near(seconds: f64, measured: &Value, what: &str) {
    let measured = measured.as_f64().unwrap();
    assert!(
        seconds <= measured * 1.5 + 0.1 && seconds >= measured / 3.0 - 0.1,
        "{what}: {seconds} s, measured {measured} s"
    );
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_is_replaced_as_fast_as_by_the_real_controllers() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    let pods = bench.deploy("web", 3, json!({})).await;
    bench.budget("web", "web", json!({"minAvailable": 2})).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    bench
        .make("/api/v1/namespaces/default/services", service)
        .await;
    bench.sleep(1.0).await;
    let victim = name_of(&pods[0]).to_owned();
    let begin = tokio::time::Instant::now();
    bench.evict("default", &victim).await;
    let mut seen: BTreeMap<&str, f64> = BTreeMap::new();
    while seen.len() < 5 && begin.elapsed() < Duration::from_secs(20) {
        let now = bench.pods("web").await;
        let slices = bench
            .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
            .await;
        let status = bench.budget_status("web").await;
        let elapsed = begin.elapsed().as_secs_f64();
        let mut note = |what, is: bool| {
            if is {
                seen.entry(what).or_insert(elapsed);
            }
        };
        let new = now
            .iter()
            .find(|p| !pods.iter().any(|old| name_of(old) == name_of(p)));
        note("replacement_created", new.is_some());
        note(
            "replacement_scheduled",
            new.is_some_and(|p| p["spec"]["nodeName"].is_string()),
        );
        note("replacement_ready", new.is_some_and(is_ready));
        note("victim_gone", !now.iter().any(|p| name_of(p) == victim));
        let endpoints = slices["items"][0]["endpoints"].as_array().unwrap();
        let its = endpoints
            .iter()
            .find(|e| e["targetRef"]["name"] == victim.as_str());
        note(
            "endpointslice_victim_not_ready",
            its.is_none_or(|e| e["conditions"]["ready"] == false),
        );
        if new.is_some_and(is_ready) {
            bench.sleep(0.02).await;
            assert_eq!(bench.budget_status("web").await["disruptionsAllowed"], 1);
        } else if elapsed > 0.06 {
            assert_eq!(status["disruptionsAllowed"], 0);
        }
        bench.sleep(0.001).await;
    }
    let timing = &answers()["timing_s"];
    for (what, seconds) in seen {
        assert_near(seconds, &timing[what], what);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_waits_for_the_old_pod_to_be_gone() {
    let bench = Bench::with_nodes(&["a"]).await;
    let set = json!({
        "metadata": {"name": "db"},
        "spec": {
            "replicas": 1, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec()},
        },
    });
    bench
        .make("/apis/apps/v1/namespaces/default/statefulsets", set)
        .await;
    bench.sleep(5.0).await;
    let old = bench.pods("db").await.remove(0);
    bench.evict("default", "db-0").await;
    let begin = tokio::time::Instant::now();
    let (mut gone, mut created, mut ready) = (None, None, None);
    while ready.is_none() && begin.elapsed() < Duration::from_secs(20) {
        let now = bench.pods("db").await;
        assert!(now.len() < 2, "never two of one name");
        let elapsed = begin.elapsed().as_secs_f64();
        let new = now
            .iter()
            .find(|p| p["metadata"]["uid"] != old["metadata"]["uid"]);
        if now.is_empty() || new.is_some() {
            gone.get_or_insert(elapsed);
        }
        if new.is_some() {
            created.get_or_insert(elapsed);
        }
        if new.is_some_and(is_ready) {
            ready = Some(elapsed);
        }
        bench.sleep(0.005).await;
    }
    let timing = &answers()["timing_s"]["statefulset"];
    assert_near(gone.unwrap(), &timing["old_gone"], "gone");
    assert_near(created.unwrap(), &timing["new_created"], "created");
    assert_near(ready.unwrap(), &timing["new_ready"], "ready");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_api_server_cuts_watches_refuses_connections_and_forgets() {
    let bench = Bench::with_nodes(&["a"]).await;
    let record = &answers()["apiserver_restart"];
    let rv = bench.get("/api/v1/pods").await["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut watch = watches::Watch::open(
        &bench,
        &format!("/api/v1/pods?watch=1&resourceVersion={rv}"),
    )
    .await;
    let outage = Duration::from_secs_f64(record["outage_s"].as_f64().unwrap());
    bench
        .twin
        .with_world(|world| super::super::cloud_hooks::start_outage(world, outage));
    assert!(
        watch.next().await.is_err(),
        "{}",
        record["watch_ended_with"]["error"]
    );
    let request = || {
        http::Request::get(format!("{HOST}/api/v1/pods"))
            .body(Bytes::new())
            .unwrap()
    };
    let refused = bench.twin.wire().oneshot(request()).await;
    assert!(refused.is_err_and(|e| e.to_string().contains("Connection refused")));
    tokio::time::sleep(outage).await;
    // Something happens meanwhile, so that the version asked for is truly behind.
    bench.deploy("x", 1, json!({})).await;
    let mut again = watches::Watch::open(
        &bench,
        &format!(
            "/api/v1/pods?watch=1&resourceVersion={}",
            rv.parse::<u64>().unwrap() - 1
        ),
    )
    .await;
    let first = again.next().await.unwrap().unwrap();
    let expected = &record["watch_resume_from_old_rv"];
    assert_eq!(
        (again.code, &first["type"], &first["object"]["code"]),
        (200, &expected["first"]["type"], &expected["first"]["code"])
    );
    assert_eq!(expected["http"], 200);
}
