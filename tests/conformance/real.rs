//! The real arm: a cluster named by `EKSUP_TEST_KUBECONFIG`.

use std::path::Path;

use serde_json::json;

use super::bodies;
use super::call::Arm;

/// Runs a body in a namespace of its own, or says why not.
async fn run(name: &str, body: impl AsyncFn(&Arm)) {
    let file =
        std::env::var("EKSUP_TEST_KUBECONFIG").expect("EKSUP_TEST_KUBECONFIG names a cluster");
    let config = eksup::clients::kube_client::config_from_kubeconfig(Some(Path::new(&file)), None)
        .await
        .unwrap();
    let client = eksup::clients::kube_client::client_over_https(
        &config,
        eksup::clients::kube_client::ClusterAuth::Kubeconfig,
    )
    .unwrap();
    let arm = Arm {
        client,
        namespace: format!(
            "eksup-{}",
            name.chars()
                .filter(|c| *c != '_')
                .take(40)
                .collect::<String>()
        ),
    };
    let path = format!("/api/v1/namespaces/{}", arm.namespace);
    arm.delete(&path).await;
    arm.until("the old namespace to go", async || {
        (arm.get(&path).await.code == 404).then_some(())
    })
    .await;
    arm.create(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": arm.namespace}}),
    )
    .await;
    arm.until("the namespace's service account", async || {
        (arm.get(&arm.core("serviceaccounts/default")).await.code == 200).then_some(())
    })
    .await;
    body(&arm).await;
    arm.delete(&path).await;
}

macro_rules! real {
    ($($body:ident),* $(,)?) => {$(
        #[tokio::test]
        #[ignore = "needs a cluster: EKSUP_TEST_KUBECONFIG=... cargo test --test conformance real:: -- --ignored --test-threads 1"]
        async fn $body() {
            run(stringify!($body), bodies::$body).await;
        }
    )*};
}

super::twin::all!(real);
