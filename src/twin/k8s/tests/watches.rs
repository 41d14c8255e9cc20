//! Watches and lists.

use super::*;

/// A watch, read event by event.
pub struct Watch {
    pub code: u16,
    body: Body,
    rest: Vec<u8>,
}

impl Watch {
    pub async fn open(bench: &Bench, path: &str) -> Self {
        let request = http::Request::get(format!("{HOST}{path}"))
            .body(Bytes::new())
            .unwrap();
        let response = bench.send(request).await;
        Self {
            code: response.status().as_u16(),
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    /// The next event; `None` at the end, an error when the watch was cut.
    pub async fn next(&mut self) -> Result<Option<Value>, crate::wire::BoxError> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).unwrap()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => self.rest.extend(frame?.into_data().unwrap_or_default()),
            }
        }
    }

    /// What it is told within `seconds`: type and name.
    pub async fn told(&mut self, seconds: f64) -> Vec<(String, String)> {
        let mut told = Vec::new();
        let until = tokio::time::Instant::now() + Duration::from_secs_f64(seconds);
        while let Ok(Ok(Some(event))) = tokio::time::timeout_at(until, self.next()).await {
            let name = event["object"]["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            told.push((event["type"].as_str().unwrap().to_owned(), name));
        }
        told
    }
}

fn cm(name: &str, colour: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"colour": colour}}, "data": {"k": "v"}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_where_the_list_ended() {
    let bench = Bench::with_nodes(&[]).await;
    bench.make(MAPS, cm("before", "blue")).await;
    let list = bench.get(MAPS).await;
    let rv = list["metadata"]["resourceVersion"].as_str().unwrap();
    bench.make(MAPS, cm("between", "blue")).await;
    let mut watch = Watch::open(&bench, &format!("{MAPS}?watch=true&resourceVersion={rv}")).await;
    bench.make(MAPS, cm("after", "blue")).await;
    bench
        .call("DELETE", &format!("{MAPS}/before"), "", Value::Null)
        .await;
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let told = watch.told(1.0).await;
    assert_eq!(
        told,
        [
            pair("ADDED", "between"),
            pair("ADDED", "after"),
            pair("DELETED", "before")
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_selecting_watch_sees_objects_come_and_go_with_their_labels() {
    let bench = Bench::with_nodes(&[]).await;
    bench.make(MAPS, cm("x", "green")).await;
    let mut watch = Watch::open(
        &bench,
        &format!("{MAPS}?watch=true&labelSelector=colour%3Dblue"),
    )
    .await;
    for colour in ["blue", "blue", "green"] {
        let body = json!({"metadata": {"labels": {"colour": colour, "n": colour.len().to_string()}}, "data": {"c": colour}});
        bench.patch(&format!("{MAPS}/x"), MERGE, body).await;
        bench
            .patch(
                &format!("{MAPS}/x"),
                MERGE,
                json!({"data": {"again": colour}}),
            )
            .await;
    }
    let kinds: Vec<String> = watch
        .told(1.0)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_one_object_by_field_hears_of_no_other() {
    let bench = Bench::with_nodes(&[]).await;
    let mut watch = Watch::open(
        &bench,
        &format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Dmine"),
    )
    .await;
    bench.make(MAPS, cm("other", "blue")).await;
    bench.make(MAPS, cm("mine", "blue")).await;
    assert_eq!(
        watch.told(1.0).await,
        [("ADDED".to_owned(), "mine".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_gets_bookmarks_and_ends_when_its_time_is_over() {
    let bench = Bench::with_nodes(&[]).await;
    let path =
        format!("{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=150&resourceVersion=0");
    let begin = tokio::time::Instant::now();
    let mut watch = Watch::open(&bench, &path).await;
    let mut bookmarks = 0;
    while let Some(event) = watch.next().await.unwrap() {
        assert_eq!(event["type"], "BOOKMARK");
        assert_eq!(event["object"]["kind"], "ConfigMap");
        bookmarks += 1;
    }
    assert_eq!((bookmarks, begin.elapsed().as_secs()), (2, 150));
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_a_bookmark_that_says_so() {
    let bench = Bench::with_nodes(&[]).await;
    bench.make(MAPS, cm("x", "blue")).await;
    let path = format!(
        "{MAPS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let mut watch = Watch::open(&bench, &path).await;
    assert_eq!(watch.next().await.unwrap().unwrap()["type"], "ADDED");
    let end = watch.next().await.unwrap().unwrap();
    assert_eq!(
        end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_that_has_been_forgotten_is_gone_inside_a_good_answer() {
    let bench = Bench::expense();
    let mut watch = Watch::open(&bench, "/api/v1/pods?watch=true&resourceVersion=5").await;
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!((watch.code, event["type"].as_str()), (200, Some("ERROR")));
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert!(
        event["object"]["message"]
            .as_str()
            .unwrap()
            .starts_with("too old resource version: 5 (")
    );
    assert!(watch.next().await.unwrap().is_none(), "and then it ends");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_has_left_is_forgotten() {
    let bench = Bench::with_nodes(&[]).await;
    let watch = Watch::open(&bench, &format!("{MAPS}?watch=true")).await;
    assert_eq!(
        bench
            .twin
            .with_world(|w| w.kube.store.watchers.count_watchers()),
        1
    );
    drop(watch);
    assert_eq!(
        bench
            .twin
            .with_world(|w| w.kube.store.watchers.count_watchers()),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_in_pages_and_its_items_do_not_say_what_they_are() {
    let bench = Bench::expense();
    let whole = bench.get("/api/v1/pods").await;
    assert_eq!(
        (&whole["kind"], &whole["apiVersion"]),
        (&json!("PodList"), &json!("v1"))
    );
    assert!(
        whole["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|p| p.get("kind").is_none())
    );
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let page = bench
            .get(&format!("/api/v1/pods?limit=7&continue={token}"))
            .await;
        names.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| name_of(p).to_owned()),
        );
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
        let left = page["metadata"]["remainingItemCount"].as_u64().unwrap();
        assert_eq!(names.len() as u64 + left, 18);
    }
    let all: Vec<String> = whole["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| name_of(p).to_owned())
        .collect();
    assert_eq!(names, all);
}

#[tokio::test(start_paused = true)]
async fn lists_can_be_selected_by_label_and_field() {
    let bench = Bench::expense();
    let count = async |query: &str| {
        bench.get(&format!("/api/v1/pods?{query}")).await["items"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(
        count("fieldSelector=spec.nodeName%3Dip-10-0-0-4.ec2.internal").await,
        6
    );
    assert_eq!(
        count("fieldSelector=metadata.namespace%3Dkube-system,status.phase!%3DRunning").await,
        0
    );
    assert_eq!(
        count("labelSelector=app%20in%20(backend,frontend)").await,
        5
    );
    assert_eq!(
        count("labelSelector=app,app!%3Dbackend,!statefulset.kubernetes.io/pod-name").await,
        14
    );
    let (code, _) = bench
        .call(
            "GET",
            "/api/v1/pods?fieldSelector=spec.hostname%3Dx",
            "",
            Value::Null,
        )
        .await;
    assert_eq!(code, 400);
    let (code, _) = bench
        .call(
            "GET",
            "/api/v1/pods?resourceVersion=999999999",
            "",
            Value::Null,
        )
        .await;
    assert_eq!(code, 504, "a version that is yet to come");
}

#[tokio::test(start_paused = true)]
async fn a_table_has_the_columns_people_look_at() {
    let bench = Bench::expense();
    let table = async |path: &str| {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let request = http::Request::get(format!("{HOST}{path}"))
            .header("accept", accept)
            .body(Bytes::new())
            .unwrap();
        let body = bench
            .send(request)
            .await
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    let pods = table("/api/v1/namespaces/expense/pods").await;
    assert_eq!(pods["kind"], "Table");
    let cells: Vec<&Value> = pods["rows"][0]["cells"]
        .as_array()
        .unwrap()
        .iter()
        .take(3)
        .collect();
    assert_eq!(
        cells,
        [
            &json!("backend-7d8fcc99f4-8mmdl"),
            &json!("1/1"),
            &json!("Running")
        ]
    );
    bench
        .patch(
            "/api/v1/nodes/ip-10-0-0-4.ec2.internal",
            STRATEGIC,
            json!({"spec": {"unschedulable": true}}),
        )
        .await;
    let nodes = table("/api/v1/nodes").await;
    assert_eq!(nodes["rows"][0]["cells"][1], "Ready,SchedulingDisabled");
    let budgets = table("/apis/policy/v1/poddisruptionbudgets").await;
    assert_eq!(budgets["rows"][0]["cells"][1], "2");
    assert_eq!(
        table("/apis/batch/v1/jobs").await["columnDefinitions"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
