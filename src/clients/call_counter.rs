//! How often each call was made by a process, for its report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::interceptors::context::FinalizerInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_types::config_bag::ConfigBag;
use tower::ServiceExt;

use crate::event::facts::CallCount;
use crate::wire::{Request, Wire};

/// How answers say that there were too many calls: the status, or a word in the body.
const THROTTLED_STATUS: u16 = 429;
const THROTTLING_WORDS: [&str; 3] = ["Throttl", "TooManyRequests", "RequestLimitExceeded"];

#[derive(Clone, Copy, Debug)]
enum CallEnd {
    Answered,
    Throttled,
    Failed,
}

/// Counts calls; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct CallCounter(Arc<Mutex<BTreeMap<String, CallCount>>>);

impl CallCounter {
    /// The calls so far, by name.
    pub fn counted_calls(&self) -> Vec<CallCount> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.values().cloned().collect()
    }

    /// Counts a call when it is made: one that is dropped before its answer was made all the same.
    fn count_made(&self, call: &str) {
        self.change(call, |count| count.made += 1);
    }

    /// Counts how a call ended that was made.
    fn count_end(&self, call: &str, end: CallEnd) {
        self.change(call, |count| match end {
            CallEnd::Answered => {}
            CallEnd::Throttled => count.throttled += 1,
            CallEnd::Failed => count.failed += 1,
        });
    }

    fn change(&self, call: &str, by: impl FnOnce(&mut CallCount)) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        by(calls.entry(call.to_owned()).or_insert_with(|| CallCount {
            call: call.to_owned(),
            ..CallCount::default()
        }));
    }

    /// Counts one attempt of a call to AWS.
    pub(super) fn count_aws(&self, bag: &ConfigBag, context: &FinalizerInterceptorContextRef<'_>) {
        let Some(call) = bag.load::<Metadata>() else {
            return;
        };
        let call = format!("{} {}", call.service(), call.name());
        let end = match context.response() {
            Some(answer) if answer.status().is_success() => CallEnd::Answered,
            Some(answer) => {
                let body = answer.body().bytes().unwrap_or_default();
                let body = String::from_utf8_lossy(body);
                // JSON services name the error in a header, query services in the body.
                let code = answer.headers().get("x-amzn-errortype").unwrap_or_default();
                let throttled = |text: &str| THROTTLING_WORDS.iter().any(|w| text.contains(w));
                if answer.status().as_u16() == THROTTLED_STATUS
                    || throttled(&body)
                    || throttled(code)
                {
                    CallEnd::Throttled
                } else {
                    CallEnd::Failed
                }
            }
            // No answer came: a timeout or a lost connection.
            None => CallEnd::Failed,
        };
        self.count_made(&call);
        self.count_end(&call, end);
    }

    /// Counts each request to an API server that goes over `wire`.
    pub fn count_requests(&self, wire: Wire) -> Wire {
        let counter = self.clone();
        Wire::new(tower::service_fn(move |request: Request| {
            let (wire, counter) = (wire.clone(), counter.clone());
            async move {
                let call = name_request(request.method(), request.uri());
                let evicts = call.ends_with("/eviction");
                counter.count_made(&call);
                let answer = wire.oneshot(request).await;
                let end = match &answer {
                    // For an eviction it is the answer that a budget does not let the pod go yet.
                    Ok(answer) if answer.status().as_u16() == THROTTLED_STATUS => match evicts {
                        true => CallEnd::Answered,
                        false => CallEnd::Throttled,
                    },
                    Ok(answer) if answer.status().as_u16() < 400 => CallEnd::Answered,
                    Ok(_) | Err(_) => CallEnd::Failed,
                };
                counter.count_end(&call, end);
                answer
            }
        }))
    }
}

/// `kubernetes GET pods`, `kubernetes watch nodes`, `kubernetes POST pods/eviction`: verb and resource, without names.
fn name_request(method: &http::Method, uri: &http::Uri) -> String {
    let parts: Vec<&str> = uri.path().split('/').filter(|p| !p.is_empty()).collect();
    // /api/v1/..., /apis/GROUP/VERSION/...; what is neither is named as it is.
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        other => other,
    };
    let resource = match rest {
        ["namespaces", _, resource, _, sub, ..] => format!("{resource}/{sub}"),
        ["namespaces", _, resource, ..] => (*resource).to_owned(),
        [resource, _, sub, ..] => format!("{resource}/{sub}"),
        [resource, ..] => (*resource).to_owned(),
        [] => uri.path().to_owned(),
    };
    let watches = uri.query().is_some_and(|q| q.contains("watch=true"));
    let verb = if watches { "watch" } else { method.as_str() };
    format!("kubernetes {verb} {resource}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clients::fake_wire::{answering_wire, json_answer};

    fn request(method: &str, path: &str) -> Request {
        let built = http::Request::builder().method(method).uri(path);
        built.body(Default::default()).unwrap()
    }

    fn counts(counter: &CallCounter) -> Vec<(u64, u64, u64)> {
        let calls = counter.counted_calls();
        let counts = calls.iter().map(|c| (c.made, c.throttled, c.failed));
        counts.collect()
    }

    #[tokio::test]
    async fn an_eviction_that_a_budget_refuses_is_answered_and_another_429_is_throttled() {
        for (method, path, expected) in [
            (
                "POST",
                "/api/v1/namespaces/a/pods/p/eviction",
                vec![(1, 0, 0)],
            ),
            ("GET", "/api/v1/nodes", vec![(1, 1, 0)]),
        ] {
            let counter = CallCounter::default();
            let (wire, _) = answering_wire(|_, _| json_answer(429, &serde_json::json!({})));
            let wire = counter.count_requests(wire);
            wire.oneshot(request(method, path)).await.unwrap();
            assert_eq!(counts(&counter), expected, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_was_made() {
        let counter = CallCounter::default();
        let silent = Wire::new(tower::service_fn(|_: Request| {
            std::future::pending::<Result<crate::wire::Response, crate::wire::BoxError>>()
        }));
        let asked = counter.count_requests(silent);
        let asked = asked.oneshot(request("GET", "/api/v1/nodes"));
        let given_up = tokio::time::timeout(Duration::from_secs(1), asked).await;
        assert!(given_up.is_err());
        assert_eq!(counts(&counter), [(1, 0, 0)]);
    }

    #[test]
    fn a_request_is_named_by_verb_and_resource() {
        for (method, path, name) in [
            ("GET", "/api/v1/nodes/n1", "kubernetes GET nodes"),
            (
                "GET",
                "/api/v1/pods?watch=true&x=1",
                "kubernetes watch pods",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/p/eviction",
                "kubernetes POST pods/eviction",
            ),
            (
                "GET",
                "/apis/apps/v1/namespaces/a/deployments/d",
                "kubernetes GET deployments",
            ),
            ("GET", "/version", "kubernetes GET version"),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(name_request(&method, &path.parse().unwrap()), name);
        }
    }
}
