//! What a level of Pod Security forbids: over pods drawn at random, the API server refuses exactly those of which the program
//! says so, and names the same rules.

use std::collections::BTreeSet;

use eksup::k8s::convert;
use eksup::model::pod_admission::SecurityLevel;
use fastrand::Rng;
use serde_json::{Value, json};

use super::call::Arm;

const ROUNDS: u64 = 150;

/// One of a few values, the first of which leaves it unset.
fn draw(rng: &mut Rng, values: &[Value]) -> Value {
    values[rng.usize(..values.len())].clone()
}

/// The names of rules in `... violates PodSecurity "LEVEL:VERSION": RULE (DETAIL), RULE (DETAIL)`.
fn rules_in(message: &str) -> BTreeSet<String> {
    let (_, told) = message.split_once("violates PodSecurity ").unwrap();
    let (_, told) = told.split_once("\": ").unwrap();
    let mut rules = BTreeSet::new();
    let (mut depth, mut rule) = (0, String::new());
    for c in told.chars().chain([',']) {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                rules.insert(one_wording(rule.trim()));
                rule.clear();
            }
            _ if depth == 0 => rule.push(c),
            _ => {}
        }
    }
    rules
}

/// One wording for one and for several.
fn one_wording(rule: &str) -> String {
    rule.replace("profiles", "profile")
}

fn security_context(rng: &mut Rng, of_pod: bool) -> Value {
    let mut context = json!({
        "runAsNonRoot": draw(rng, &[Value::Null, Value::Null, json!(true), json!(true), json!(false)]),
        "runAsUser": draw(rng, &[Value::Null, Value::Null, json!(1000), json!(0)]),
        "seccompProfile": draw(rng, &[Value::Null, json!({"type": "RuntimeDefault"}), json!({"type": "RuntimeDefault"}),
            json!({"type": "Unconfined"}), json!({"type": "Localhost", "localhostProfile": "p.json"})]),
        "seLinuxOptions": draw(rng, &[Value::Null, Value::Null, Value::Null, json!({"type": "container_t"}),
            json!({"type": "spc_t"}), json!({"role": "r"})]),
        "appArmorProfile": draw(rng, &[Value::Null, Value::Null, json!({"type": "RuntimeDefault"}), json!({"type": "Unconfined"})]),
    });
    if of_pod {
        context["sysctls"] = draw(
            rng,
            &[
                Value::Null,
                Value::Null,
                json!([{"name": "kernel.shm_rmid_forced", "value": "1"}]),
                json!([{"name": "kernel.msgmax", "value": "1"}]),
            ],
        );
        return context;
    }
    context["capabilities"] = draw(
        rng,
        &[
            Value::Null,
            json!({"drop": ["ALL"]}),
            json!({"drop": ["ALL"]}),
            json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
            json!({"drop": ["ALL"], "add": ["CHOWN"]}),
            json!({"add": ["SYS_TIME", "CHOWN"]}),
            json!({"drop": ["KILL"]}),
        ],
    );
    let privileged = [Value::Null, Value::Null, Value::Null, json!(true)];
    context["privileged"] = draw(rng, &privileged);
    if context["privileged"].is_null() {
        let escalation = [json!(false), json!(false), json!(true), Value::Null];
        context["allowPrivilegeEscalation"] = draw(rng, &escalation);
    }
    context
}

fn container(rng: &mut Rng, name: &str) -> Value {
    let mut container = json!({"name": name, "image": "registry.k8s.io/pause:3.10"});
    if rng.u32(..5) > 0 {
        container["securityContext"] = security_context(rng, false);
    }
    if rng.u32(..6) == 0 {
        container["ports"] = json!([{"containerPort": 8080, "hostPort": 8080}]);
    }
    container
}

fn pod(rng: &mut Rng) -> Value {
    let mut spec =
        json!({"nodeSelector": {"no.such/label": "x"}, "containers": [container(rng, "c")]});
    if rng.bool() {
        spec["initContainers"] = json!([container(rng, "i")]);
    }
    if rng.u32(..4) > 0 {
        spec["securityContext"] = security_context(rng, true);
    }
    for flag in ["hostNetwork", "hostPID", "hostIPC"] {
        if rng.u32(..10) == 0 {
            spec[flag] = json!(true);
        }
    }
    if rng.u32(..8) == 0 {
        spec["hostUsers"] = json!(false);
    }
    let volumes = [
        json!({"emptyDir": {}}),
        json!({"hostPath": {"path": "/var/log"}}),
        json!({"nfs": {"server": "a", "path": "/b"}}),
        json!({"configMap": {"name": "m"}}),
        json!({"persistentVolumeClaim": {"claimName": "c"}}),
    ];
    if rng.bool() {
        let mut volume = draw(rng, &volumes);
        volume["name"] = json!("v");
        spec["volumes"] = json!([volume]);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "drawn"}, "spec": spec})
}

#[expect(clippy::print_stdout, reason = "seen with --nocapture")]
pub async fn a_level_of_pod_security_refuses_exactly_the_pods_that_are_said_to_violate_it(
    arm: &Arm,
) {
    let namespace = format!("/api/v1/namespaces/{}", arm.namespace);
    let (mut different, mut refused, mut admitted, mut invalid) = (Vec::new(), 0, 0, 0);
    for (level, name) in [
        (SecurityLevel::Baseline, "baseline"),
        (SecurityLevel::Restricted, "restricted"),
    ] {
        let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": name}}});
        assert_eq!(arm.merge(&namespace, &labels).await.code, 200);
        // The server's admission reads namespaces from a watch, which lags behind the answer.
        let forbidden = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
            "spec": {"hostPID": true, "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}});
        let level_words = format!("PodSecurity \"{name}:");
        arm.until("the level to be enforced", async || {
            let said = arm.post(&arm.core("pods"), &forbidden).await;
            said.message().contains(&level_words).then_some(())
        })
        .await;
        for seed in 0..ROUNDS {
            let body = pod(&mut Rng::with_seed(seed));
            let said = arm.post(&arm.core("pods"), &body).await;
            let theirs = match said.code {
                201 => {
                    admitted += 1;
                    arm.delete(&arm.core("pods/drawn?gracePeriodSeconds=0"))
                        .await;
                    BTreeSet::new()
                }
                403 => {
                    refused += 1;
                    rules_in(said.message())
                }
                // What no version of the API takes says nothing of the level.
                422 => {
                    invalid += 1;
                    continue;
                }
                other => panic!("{other}: {said:?}"),
            };
            let known = convert::to_pod(serde_json::from_value(body.clone()).unwrap());
            let broken = known.admission.violations.iter();
            let broken = broken.filter(|v| v.is_forbidden_at(level));
            let own: BTreeSet<String> = broken.map(|v| v.as_str().to_owned()).collect();
            if own != theirs {
                different.push(format!(
                    "{name}, seed {seed}: own {own:?}, theirs {theirs:?}: {}",
                    body["spec"]
                ));
            }
        }
    }
    println!("{admitted} admitted, {refused} refused, {invalid} invalid");
    assert!(admitted > 5 && refused > 50, "{admitted}, {refused}");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
