//! The same through `kubectl`, in real time, over a port.

use std::process::Command;

use super::*;
use crate::twin::serve::{serve_twin, write_kubeconfig};

/// A served twin and a kubectl that talks to it.
struct Kubectl {
    config: tempfile::NamedTempFile,
}

impl Kubectl {
    /// Runs it; its output when it succeeds.
    async fn run(&self, args: &str) -> Result<String, String> {
        self.with(args, String::new()).await
    }

    async fn with(&self, args: &str, manifest: String) -> Result<String, String> {
        let (config, args) = (self.config.path().to_owned(), args.to_owned());
        let done = tokio::task::spawn_blocking(move || {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), manifest).unwrap();
            let args = args.replace("MANIFEST", &file.path().to_string_lossy());
            Command::new("kubectl")
                .arg("--kubeconfig")
                .arg(config)
                .args(args.split_whitespace())
                .output()
                .unwrap()
        });
        let done = done.await.unwrap();
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        let err = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            Ok(out + &err)
        } else {
            Err(out + &err)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kubectl and real time"]
async fn kubectl_reads_drains_applies_and_deletes() {
    let bench = Bench::expense();
    let served = serve_twin(&bench.twin, 0).await.unwrap();
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), write_kubeconfig(&served.url(), "expense")).unwrap();
    let kubectl = Kubectl { config };
    let ok = async |args: &str| {
        kubectl
            .run(args)
            .await
            .unwrap_or_else(|e| panic!("kubectl {args}: {e}"))
    };

    let version = ok("version").await;
    assert!(version.contains("v1.27."), "{version}");
    let nodes = ok("get nodes").await;
    assert!(
        nodes.contains("STATUS") && nodes.contains("ip-10-0-0-4.ec2.internal"),
        "{nodes}"
    );
    assert_eq!(ok("get pods -A --no-headers").await.lines().count(), 18);
    assert!(ok("get pdb -A").await.contains("ALLOWED DISRUPTIONS"));
    assert!(
        ok("get deploy,sts,ds,svc,pv,pvc -A")
            .await
            .contains("deployment.apps/backend")
    );
    assert!(
        ok("describe node ip-10-0-0-4.ec2.internal")
            .await
            .contains("mysql-0")
    );
    assert!(
        ok("describe pod -n expense mysql-0")
            .await
            .contains("Controlled By:  StatefulSet/mysql")
    );
    assert!(ok("api-resources").await.contains("poddisruptionbudgets"));
    assert!(ok("auth can-i create pods/eviction").await.contains("yes"));

    ok("cordon ip-10-0-32-4.ec2.internal").await;
    assert!(ok("get nodes").await.contains("Ready,SchedulingDisabled"));
    ok("taint node ip-10-0-32-4.ec2.internal a=b:NoSchedule").await;
    ok("taint node ip-10-0-32-4.ec2.internal a=b:NoSchedule-").await;
    let drained = ok(
        "drain ip-10-0-32-4.ec2.internal --ignore-daemonsets --delete-emptydir-data --timeout=120s",
    )
    .await;
    assert!(drained.contains("drained"), "{drained}");
    ok("uncordon ip-10-0-32-4.ec2.internal").await;

    ok("rollout restart deployment/backend -n expense").await;
    assert!(
        ok("rollout status deployment/backend -n expense --timeout=120s")
            .await
            .contains("successfully rolled out")
    );
    ok("scale deployment/backend -n expense --replicas=4").await;
    ok("wait deployment/backend -n expense --for=jsonpath={.status.readyReplicas}=4 --timeout=60s")
        .await;

    let map = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: note\n  namespace: expense\ndata:\n  key: {value}\n"
        )
    };
    let apply = "apply -f MANIFEST";
    assert!(
        kubectl
            .with(apply, map("one"))
            .await
            .unwrap()
            .contains("created")
    );
    assert!(
        kubectl
            .with(apply, map("two"))
            .await
            .unwrap()
            .contains("configured")
    );
    assert!(
        kubectl
            .with(
                "apply --server-side --force-conflicts -f MANIFEST",
                map("three")
            )
            .await
            .unwrap()
            .contains("applied")
    );
    assert!(
        ok("get cm note -n expense -o jsonpath={.data.key}")
            .await
            .contains("three")
    );
    ok("label cm note -n expense a=b").await;
    ok("annotate cm note -n expense a=b").await;
    ok("delete cm note -n expense").await;
    let gone = kubectl.run("get cm note -n expense").await.unwrap_err();
    assert!(
        gone.contains("Error from server (NotFound): configmaps \"note\" not found"),
        "{gone}"
    );
    let none = kubectl.run("get nodepools").await.unwrap_err();
    assert!(
        none.contains("the server doesn't have a resource type \"nodepools\""),
        "{none}"
    );
    let watched = kubectl
        .run("get pods -n expense -w --request-timeout=3s")
        .await
        .unwrap_or_else(|e| e);
    assert!(watched.contains("mysql-0"), "{watched}");
    ok("delete pod -n expense mysql-0").await;
}
