//! The same through a real client: kube's, over the twin's wire.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions::is_deleted};
use kube::runtime::watcher;

use super::*;

fn client(bench: &Bench) -> kube::Client {
    let wire = bench.twin.wire();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let wire = wire.clone();
        async move {
            let (mut parts, body) = request.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|e| -> crate::wire::BoxError { e.into() })?
                .to_bytes();
            parts.uri = format!("{HOST}{}", parts.uri).parse()?;
            wire.oneshot(http::Request::from_parts(parts, body)).await
        }
    });
    kube::Client::new(service, "default")
}

#[tokio::test(start_paused = true)]
async fn kube_lists_patches_and_deletes() {
    let bench = Bench::expense();
    let client = client(&bench);
    let nodes: Api<Node> = Api::all(client.clone());
    let names: Vec<_> = nodes
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|n| n.metadata.name)
        .collect();
    assert_eq!(names.len(), 3);
    nodes.cordon(&names[0]).await.unwrap();
    assert_eq!(
        nodes
            .get(&names[0])
            .await
            .unwrap()
            .spec
            .unwrap()
            .unschedulable,
        Some(true)
    );
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-system");
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "eksup"}, "data": {"run": "1"}});
    maps.patch(
        "eksup",
        &PatchParams::apply("eksup").force(),
        &Patch::Apply(&apply),
    )
    .await
    .unwrap();
    let mut map = maps.get("eksup").await.unwrap();
    map.data
        .get_or_insert_default()
        .insert("run".into(), "2".into());
    maps.replace("eksup", &PostParams::default(), &map)
        .await
        .unwrap();
    let stale = maps.replace("eksup", &PostParams::default(), &map).await;
    assert!(
        matches!(stale, Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "Conflict")
    );
    maps.delete("eksup", &DeleteParams::default())
        .await
        .unwrap();
    assert!(maps.get_opt("eksup").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn kube_watches_through_a_restart_of_the_api_server() {
    let bench = Bench::expense();
    let pods: Api<Pod> = Api::namespaced(client(&bench), "expense");
    let mut events = watcher(pods.clone(), watcher::Config::default()).boxed();
    let mut relists = 0;
    let mut cut = false;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(600);
    while let Ok(Some(event)) = tokio::time::timeout_at(deadline, events.next()).await {
        match event {
            Ok(watcher::Event::InitDone) => {
                relists += 1;
                if relists == 1 {
                    bench.twin.with_world(|w| {
                        crate::twin::k8s::cloud_hooks::start_outage(w, Duration::from_secs(1));
                    });
                    cut = true;
                } else {
                    break;
                }
            }
            Ok(_) => {}
            Err(_) => {
                // What happens meanwhile makes the old version too old.
                bench.twin.with_world(|w| {
                    crate::twin::k8s::cloud_hooks::delete_node_pods(w, "ip-10-0-0-4.ec2.internal");
                });
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
    assert!(cut && relists == 2, "it lists again and goes on: {relists}");
}

#[tokio::test(start_paused = true)]
async fn kube_waits_for_an_evicted_pod_to_be_gone() {
    let bench = Bench::expense();
    let pods: Api<Pod> = Api::namespaced(client(&bench), "expense");
    let all = pods
        .list(&ListParams::default().labels("app=backend"))
        .await
        .unwrap();
    let victim = all.items[0].metadata.clone();
    let name = victim.name.unwrap();
    assert_eq!(bench.evict("expense", &name).await.0, 201);
    await_condition(pods.clone(), &name, is_deleted(&victim.uid.unwrap()))
        .await
        .unwrap();
    let table: Vec<Pod> =
        futures::stream::iter(pods.list(&ListParams::default()).await.unwrap().items)
            .map(Ok::<_, kube::Error>)
            .try_collect()
            .await
            .unwrap();
    assert!(
        !table
            .iter()
            .any(|p| p.metadata.name.as_deref() == Some(&name))
    );
}
