//! Notifications: lifecycle events to a webhook or a topic. Best effort: a failure is a warning at the end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::aws::AwsApi;
use crate::clients::https;
use crate::engine::stop::{self, StopSignal};
use crate::event::{EventKind, RunEvent};
use crate::plan::Notify;
use crate::report::lines::event_line;
use crate::report::{Painter, RunView};

/// How long one message may take, and how long the last ones are waited for.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends notifications in the background, in order.
pub struct Notifier {
    events: UnboundedSender<RunEvent>,
    task: JoinHandle<()>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Notifier {
    /// Starts it; `None` when nobody is to be told.
    pub fn start(targets: &[Notify], aws: &AwsApi) -> Option<Self> {
        if targets.is_empty() {
            return None;
        }
        let (to, mut events) = unbounded_channel::<RunEvent>();
        let (targets, aws) = (targets.to_vec(), aws.clone());
        let failed = Arc::<Mutex<Vec<String>>>::default();
        let failures = failed.clone();
        let task = tokio::spawn(async move {
            // The sender keeps a view of its own: its messages come later than the event, and must not wait for the
            // reporter.
            let mut view = RunView::default();
            while let Some(event) = events.recv().await {
                view.apply_event(&event);
                for target in targets.iter().filter(|t| is_wanted(t, &event)) {
                    let text = event_line(&view, &event, Painter::default()).unwrap_or_default();
                    let sent = tokio::time::timeout(
                        NOTIFICATION_TIMEOUT,
                        send_notification(target, &aws, &view, &event, &text),
                    );
                    let error = match sent.await {
                        Ok(Ok(())) => continue,
                        Ok(Err(error)) => error,
                        Err(_) => format!("no answer within {} s", NOTIFICATION_TIMEOUT.as_secs()),
                    };
                    // A target that is away fails for each event; it is named once.
                    let text = format!("{} was not notified: {error}", target_name(target));
                    let mut failures = failures
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    if !failures.contains(&text) {
                        failures.push(text);
                    }
                }
            }
        });
        Some(Self {
            events: to,
            task,
            failed,
        })
    }

    /// Returns the channel that takes the run's events.
    pub fn sender(&self) -> UnboundedSender<RunEvent> {
        self.events.clone()
    }

    /// Waits a little for what is still to be sent. Returns what failed.
    pub async fn finish(self, stop: &StopSignal) -> Vec<String> {
        drop(self.events);
        let late = tokio::select! {
            biased;
            _ = self.task => false,
            () = tokio::time::sleep(NOTIFICATION_TIMEOUT) => true,
            () = stop.wait_until_overdue(stop::RELEASE_STOP_DEADLINE) => true,
        };
        let mut failed = std::mem::take(
            &mut *self
                .failed
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        if late {
            failed.push("the last notifications were not waited for".to_owned());
        }
        failed
    }
}

/// The event's type, as in JSON.
fn event_type(event: &RunEvent) -> String {
    let value = serde_json::to_value(event).unwrap_or_default();
    value["type"].as_str().unwrap_or_default().to_owned()
}

fn is_wanted(target: &Notify, event: &RunEvent) -> bool {
    if matches!(event.kind, EventKind::Progress(_)) {
        return false;
    }
    let (Notify::Webhook { on, .. } | Notify::Sns { on, .. }) = target;
    on.contains(&event_type(event))
}

/// The target without what may be secret in it: webhooks carry their key in the path.
fn target_name(target: &Notify) -> String {
    match target {
        Notify::Webhook { url, .. } => {
            let host = url
                .parse::<http::Uri>()
                .ok()
                .and_then(|u| u.host().map(str::to_owned));
            format!("the webhook at {}", host.unwrap_or_default())
        }
        Notify::Sns { topic, .. } => format!("topic {topic}"),
    }
}

async fn send_notification(
    target: &Notify,
    aws: &AwsApi,
    view: &RunView,
    event: &RunEvent,
    text: &str,
) -> Result<(), String> {
    // `text` is what chat systems show; the rest is for programs.
    let body = serde_json::json!({
        "text": format!("eksup {}: {text}", view.cluster), "run": view.run, "cluster": view.cluster, "event": event,
    });
    match target {
        Notify::Webhook { url, .. } => post_webhook(url, body.to_string()).await,
        Notify::Sns { topic, .. } => {
            // SNS refuses subjects of more than 100 characters.
            let subject: String = format!("eksup {}", view.cluster)
                .chars()
                .take(100)
                .collect();
            let call = aws
                .sns
                .publish()
                .topic_arn(topic)
                .subject(subject)
                .message(body.to_string());
            call.send()
                .await
                .map(drop)
                .map_err(|e| crate::clients::aws_error::error_chain(&e))
        }
    }
}

async fn post_webhook(url: &str, body: String) -> Result<(), String> {
    let url: http::Uri = url
        .parse()
        .map_err(|_| "the address is not a URL".to_owned())?;
    let wire = https::build_https_wire(&kube::Config::new(url.clone())).map_err(|e| e.message)?;
    let request = http::Request::post(url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(
            http::header::USER_AGENT,
            concat!("eksup/", env!("CARGO_PKG_VERSION")),
        )
        .body(Bytes::from(body))
        .map_err(|e| e.to_string())?;
    let response = wire.oneshot(request).await.map_err(|e| e.to_string())?;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("it answered {}", response.status()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::twin_connection::connect_twin;
    use crate::cli::offline::bundled_snapshot;
    use crate::engine::stop::stop_channel;
    use crate::model::Clock;
    use crate::twin::aws::IamAuthorizer;
    use crate::twin::{Twin, scenario};

    const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:upgrades";

    /// Tells a topic of one event under `policy`: what was said of it at the end, and what came to the topic.
    async fn told(policy: &str) -> (Vec<String>, Vec<(String, String)>) {
        let snapshot = bundled_snapshot("expense-dev").unwrap();
        let twin = Twin::start(scenario::load_world(&snapshot, 1));
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let reached = connect_twin(twin.wire(), &snapshot, &clock).await.unwrap();
        twin.with_world(|world| {
            world.cloud.iam = Some(IamAuthorizer::new(policy.parse().unwrap()));
        });
        let target = Notify::Sns {
            topic: TOPIC.into(),
            on: vec!["step_done".into()],
        };
        let notifier = Notifier::start(&[target], &reached.aws).unwrap();
        let kind = EventKind::StepDone {
            step: "drain-blue".into(),
            how: "3 nodes are empty".into(),
            took: Duration::from_secs(1),
        };
        let at = clock.now();
        notifier.sender().send(RunEvent { at, kind }).unwrap();
        let warnings = notifier.finish(&stop_channel().1).await;
        (
            warnings,
            twin.with_world(|world| world.cloud.published.clone()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_is_told_of_the_events_it_asks_for() {
        let allows = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sns:Publish", "Resource": "*"}]}"#;
        let (warnings, published) = told(allows).await;
        assert!(warnings.is_empty(), "{warnings:?}");
        let [(topic, message)] = published.as_slice() else {
            panic!("{published:?}");
        };
        assert_eq!(topic, TOPIC);
        assert!(message.contains("3 nodes are empty"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_may_not_be_told_is_a_warning_that_names_the_permission() {
        let (warnings, published) = told(r#"{"Version": "2012-10-17", "Statement": []}"#).await;
        assert!(published.is_empty());
        let [warning] = warnings.as_slice() else {
            panic!("{warnings:?}");
        };
        for part in [TOPIC, "SNS:Publish"] {
            assert!(warning.contains(part), "{warning}");
        }
    }
}
