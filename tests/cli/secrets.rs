//! Nothing secret is in anything that the program writes. Canaries are planted wherever a secret can be, every command is
//! run, and everything that comes out is searched.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use base64::Engine;
use serde_json::{Value, json};

/// In an environment, a command, a Secret, user data and so on, each with its own ending.
const CANARY: &str = "CANARY-5c1f";
const ACCESS_KEY: &str = "AKIA5C1FCANARYACCESS";
/// What a request to AWS is signed with, and what a cluster's token is made of.
const SIGNED: &[&str] = &[
    "k8s-aws-v1.",
    "X-Amz-Signature",
    "Signature=",
    "X-Amz-Security-Token",
];

fn canary(place: &str) -> String {
    format!("{CANARY}-{place}")
}

/// The bundled cluster with canaries wherever a secret can be.
fn planted() -> Value {
    let text = include_str!("../../src/twin/scenario/expense-dev.json");
    let mut snapshot: Value = serde_json::from_str(text).unwrap();
    for addon in snapshot["inventory"]["addons"].as_array_mut().unwrap() {
        // Of the add-ons only the network's takes environment variables.
        let mut configuration = json!({"podAnnotations": {"note": "not secret"}});
        if addon["name"] == "vpc-cni" {
            configuration["env"] = json!({"TOKEN": canary("addon-env")});
        }
        addon["configurationValues"] = json!(configuration.to_string());
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(canary("user-data"));
    snapshot["inventory"]["launchTemplates"] = json!([{
        "Id": "lt-0c057a2b8d9e1f345", "Name": "nodes", "Version": 1, "Description": null,
        "Image": null, "InstanceType": null, "UserData": encoded,
    }]);
    let lists = snapshot["kubernetes"].as_object_mut().unwrap();
    for (path, items) in lists.iter_mut() {
        for item in items.as_array_mut().unwrap() {
            match path.as_str() {
                "/api/v1/pods" => plant(item, "/metadata", "/spec", "pod"),
                "/apis/apps/v1/deployments"
                | "/apis/apps/v1/replicasets"
                | "/apis/apps/v1/statefulsets"
                | "/apis/apps/v1/daemonsets" => {
                    plant(item, "/metadata", "/spec/template/spec", "workload");
                }
                _ => {}
            }
        }
    }
    let secret = json!({
        "metadata": {"name": "s", "namespace": "expense", "uid": "6a1f2b3c-0000-4000-8000-000000000001", "resourceVersion": "9"},
        "type": "Opaque", "data": {"password": base64::engine::general_purpose::STANDARD.encode(canary("secret"))},
    });
    let map = json!({
        "metadata": {"name": "c", "namespace": "expense", "uid": "6a1f2b3c-0000-4000-8000-000000000002", "resourceVersion": "9"},
        "data": {"password": canary("config-map")},
    });
    lists.insert("/api/v1/secrets".into(), json!([secret]));
    lists.insert("/api/v1/configmaps".into(), json!([map]));
    snapshot
}

fn plant(object: &mut Value, meta: &str, spec: &str, place: &str) {
    let meta = object.pointer_mut(meta).unwrap();
    meta["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
        json!(canary(&format!("{place}-applied")));
    let containers = object.pointer_mut(&format!("{spec}/containers")).unwrap();
    for c in containers.as_array_mut().unwrap() {
        c["env"] = json!([{"name": "PASSWORD", "value": canary(&format!("{place}-env"))}]);
        c["command"] = json!(["app", canary(&format!("{place}-command"))]);
        c["args"] = json!([canary(&format!("{place}-args"))]);
        c["lifecycle"] =
            json!({"preStop": {"exec": {"command": [canary(&format!("{place}-hook"))]}}});
        // Headers of probes too; the probe itself stays as the twin knows it.
        if let Some(get) = c.pointer_mut("/readinessProbe/httpGet") {
            get["httpHeaders"] =
                json!([{"name": "Authorization", "value": canary(&format!("{place}-probe"))}]);
        }
    }
}

/// A folder to work in, the served twin, and everything that was said.
struct Bench {
    dir: tempfile::TempDir,
    twin: Child,
    url: String,
    said: Vec<(String, String)>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.twin.kill();
        let _ = self.twin.wait();
    }
}

fn bare(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eksup"));
    command
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", canary("secret-key"))
        .env("AWS_SESSION_TOKEN", canary("session-token"))
        .env("AWS_REGION", "us-east-1");
    command
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("planted.json"), planted().to_string()).unwrap();
        let plan = format!(
            "{}\nnotify:\n  - webhook: {{url: \"http://localhost:1/{}?key={}\"}}\n",
            include_str!("../../plans/expense-dev.yaml"),
            canary("webhook-path"),
            canary("webhook-key"),
        );
        std::fs::write(path("plan.yaml"), plan).unwrap();
        let mut twin = bare(dir.path())
            .args(["twin", "serve", "planted.json", "--port", "0"])
            .args(["--fault", "expired:k8s:GET pods:1@1s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(twin.stdout.as_mut().unwrap())
            .read_line(&mut first)
            .unwrap();
        let url = first.trim().rsplit('=').next().unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{first}");
        Self {
            dir,
            twin,
            url,
            said: Vec::new(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(self.dir.path());
        command.env("AWS_ENDPOINT_URL", &self.url).args(args);
        command
    }

    fn heard(&mut self, args: &[&str], output: &Output) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        self.said.push((args.join(" "), said));
    }

    /// Runs to the end; the exit code must be one of `codes`.
    fn run(&mut self, args: &[&str], codes: &[i32]) {
        let output = self.command(args).output().unwrap();
        self.heard(args, &output);
        let code = output.status.code().unwrap();
        assert!(
            codes.contains(&code),
            "{args:?} ended with {code}: {:?}",
            self.said.last()
        );
    }

    /// Runs until it says `word`, then interrupts it: it pauses.
    fn interrupt_after(&mut self, word: &str, args: &[&str]) {
        let mut child = self
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        while !said.contains(word) {
            assert!(
                lines.read_line(&mut said).unwrap() > 0,
                "never said {word}: {said}"
            );
        }
        let kill = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        lines.read_to_string(&mut said).unwrap();
        let output = child.wait_with_output().unwrap();
        said += &String::from_utf8_lossy(&output.stdout);
        self.said.push((args.join(" "), said));
        assert_eq!(output.status.code(), Some(7), "{:?}", self.said.last());
    }

    /// What a plain HTTP client gets, such as the checkpoint as it stands in the cluster.
    fn get(&mut self, path: &str) -> String {
        use std::io::Write;
        let address = self.url.trim_start_matches("http://").to_owned();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Every file below the folder, but for the inputs.
    fn files(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => all.push(path),
                }
            }
        }
        let input = |p: &PathBuf| p.ends_with("planted.json") || p.ends_with("plan.yaml");
        all.retain(|p| !input(p));
        all
    }
}

/// Secrets in `text`, as they are or as base64 would hide them.
fn secrets(text: &str) -> Vec<String> {
    let mut wanted: Vec<String> = SIGNED.iter().map(ToString::to_string).collect();
    wanted.extend([CANARY, ACCESS_KEY].map(str::to_owned));
    // Base64 of a text depends on where it begins: three ways, less what the neighbours decide.
    for shift in 0..3 {
        let padded = " ".repeat(shift) + CANARY;
        let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(padded);
        wanted.push(encoded[(shift * 4).div_ceil(3)..encoded.len() - 2].to_owned());
    }
    let around = |w: &String| {
        let at = text.find(w.as_str())?;
        let before: String = text[..at].chars().rev().take(60).collect();
        let before: String = before.chars().rev().collect();
        Some(before + &text[at..].chars().take(60).collect::<String>())
    };
    wanted.iter().filter_map(around).collect()
}

#[test]
fn a_canary_is_found_however_it_is_hidden() {
    let base64 = base64::engine::general_purpose::STANDARD;
    for before in ["", "a", "ab", "abc"] {
        let hidden = base64.encode(format!("{before}{CANARY}-x"));
        assert!(!secrets(&hidden).is_empty(), "{hidden}");
    }
    assert!(secrets("nothing here").is_empty());
}

#[test]
fn nothing_secret_is_in_anything_that_is_written() {
    let mut bench = Bench::new();
    let (plan, name) = ("plan.yaml", "expense-dev");
    // Every command that writes something, most of them at their most talkative.
    bench.run(
        &["init", "--cluster", name, "--to", "1.29", "-o", "init.yaml"],
        &[0],
    );
    for format in ["text", "json", "markdown"] {
        bench.run(&["-vv", "check", plan, "--format", format], &[0]);
        bench.run(
            &[
                "-vv",
                "plan",
                plan,
                "--format",
                format,
                "--out",
                "saved.json",
            ],
            &[0],
        );
    }
    bench.run(
        &["snapshot", "--cluster", name, "-o", "snapshot.json"],
        &[0],
    );
    bench.run(&["policy", plan], &[0]);
    bench.run(
        &[
            "-vv",
            "rehearse",
            plan,
            "--snapshot",
            "planted.json",
            "--record",
            "--format",
            "json",
        ],
        &[0],
    );
    bench.run(&["report", "-o", "rehearsal.html"], &[0]);
    // A run that stops halfway leaves a checkpoint, a journal and a lock in the cluster.
    let apply = ["-vv", "apply", plan, "--auto-approve", "--no-progress"];
    bench.interrupt_after("UpdateClusterVersion", &apply);
    for format in ["text", "json"] {
        bench.run(&["status", plan, "--format", format], &[0, 7]);
    }
    bench.run(&["report", "-o", "report.html"], &[0]);
    let checkpoint = bench.get("/api/v1/namespaces/kube-system/configmaps/eksup-run");
    assert!(checkpoint.contains("expense-green"), "{checkpoint}");
    // Without canaries in the cluster's answers the search would find nothing, and pass.
    let planted = bench.get("/api/v1/namespaces/expense/pods");
    assert!(!secrets(&planted).is_empty(), "no canary is planted");

    // What was said, and then every file that is left.
    let mut found = Vec::new();
    let mut search = |what: &str, text: &str| {
        found.extend(secrets(text).into_iter().map(|s| format!("{what}: {s}")));
    };
    search("the checkpoint", &checkpoint);
    for (command, said) in &bench.said {
        assert!(!said.is_empty(), "{command} said nothing");
        search(command, said);
    }
    let files = bench.files();
    for wanted in [
        "journal.jsonl",
        "events.jsonl",
        "eksup.log",
        "snapshot.json",
        "report.html",
        "saved.json",
        "init.yaml",
    ] {
        assert!(
            files.iter().any(|p| p.ends_with(wanted)),
            "no {wanted} in {files:?}"
        );
    }
    for path in files {
        let mut text = std::fs::read_to_string(&path).unwrap();
        if path.ends_with("saved.json") {
            // It holds the plan's own text, as SECURITY.md says.
            for own in ["webhook-path", "webhook-key"] {
                assert!(text.contains(&canary(own)));
                text = text.replace(&canary(own), "");
            }
        }
        search(&path.display().to_string(), &text);
    }
    assert!(found.is_empty(), "{found:#?}");
}
