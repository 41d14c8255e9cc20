//! Has EKS judge its insights again before they are read: by itself it does so once a day only. Nothing in the cluster changes.

use std::time::Duration;

use jiff::SignedDuration;

use crate::aws::AwsApi;
use crate::model::eks::InsightsRefreshOutcome;
use crate::model::{ApiError, ErrorClass};

/// How long a refresh is waited for; EKS names no bound.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(180);
/// How long it may take until DescribeInsightsRefresh shows a refresh that was asked for.
const REFRESH_SHOWS_WITHIN: Duration = Duration::from_secs(60);
const REFRESH_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Insights that are no older need no refresh: `plan` right after `check` waits for nothing.
const INSIGHTS_FRESH_FOR: SignedDuration = SignedDuration::from_mins(10);

/// Asks for a refresh, unless EKS has judged minutes ago, and waits for its end. That it cannot be had is no error: the insights are read all the same, and
/// why they may be old is told as a finding.
///
/// # Errors
/// Expired credentials, which everything after this needs too.
pub async fn refresh_insights(
    aws: &AwsApi,
    cluster: &str,
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<InsightsRefreshOutcome, ApiError> {
    match refresh_and_wait(aws, cluster, say).await {
        Err(error) if error.class == ErrorClass::Expired => Err(error),
        Err(error) => Ok(InsightsRefreshOutcome::NotCompleted {
            why: error.to_string(),
        }),
        outcome => outcome,
    }
}

async fn refresh_and_wait(
    aws: &AwsApi,
    cluster: &str,
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<InsightsRefreshOutcome, ApiError> {
    let not_completed = |why: String| Ok(InsightsRefreshOutcome::NotCompleted { why });
    // Insights that are fresh enough need no refresh.
    let age = aws.read_upgrade_insights_age(cluster).await?;
    if age.is_some_and(|age| age <= INSIGHTS_FRESH_FOR) {
        return Ok(InsightsRefreshOutcome::Completed);
    }
    say(&format!(
        "EKS refreshes its upgrade insights; this may take up to {} s",
        REFRESH_TIMEOUT.as_secs()
    ));
    // One that is under way, whoever asked for it, is as good as our own.
    let before = aws.describe_insights_refresh(cluster).await?;
    let under_way = before.as_ref().is_some_and(|r| r.running);
    let earlier = before.filter(|r| !r.running).and_then(|r| r.started_at);
    if !under_way {
        aws.start_insights_refresh(cluster).await?;
    }
    let began = tokio::time::Instant::now();
    let mut shows = under_way;
    // A refresh takes minutes at most; one that does not end leaves the answer unknown.
    while began.elapsed() < REFRESH_TIMEOUT {
        tokio::time::sleep(REFRESH_POLL_INTERVAL).await;
        let now = aws.describe_insights_refresh(cluster).await?;
        // Times of AWS are only compared with times of AWS: another beginning is another refresh.
        let Some(refresh) =
            now.filter(|r| r.running || earlier.is_none() || r.started_at != earlier)
        else {
            if !shows && began.elapsed() >= REFRESH_SHOWS_WITHIN {
                return not_completed(format!(
                    "EKS was asked to refresh them, and shows no refresh after {} s",
                    REFRESH_SHOWS_WITHIN.as_secs()
                ));
            }
            continue;
        };
        shows = true;
        if refresh.failed {
            return not_completed(format!("EKS gave it up: {}", refresh.message));
        }
        if !refresh.running {
            return Ok(InsightsRefreshOutcome::Completed);
        }
    }
    not_completed(format!(
        "EKS did not end the refresh within {} s",
        REFRESH_TIMEOUT.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json as j;

    use super::*;
    use crate::clients::fake_wire::{
        RecordedRequests, answering_wire, eks_error_answer, json_answer, test_clock,
    };
    use crate::clients::sdk_config::config_over_wire;

    /// EKS answering each look with the next of `looks`, the last one again and again; a refresh is taken.
    fn eks(looks: &'static [(&'static str, f64)]) -> (AwsApi, RecordedRequests) {
        let (wire, asked) = answering_wire(move |request, before| {
            if request.uri().path().ends_with("/insights") {
                return json_answer(200, &j!({"insights": []}));
            }
            if request.method() == http::Method::POST {
                return json_answer(200, &j!({"message": "started", "status": "IN_PROGRESS"}));
            }
            // Neither the list nor the request that asks is one of the looks.
            let look = before.saturating_sub(if before == 1 { 1 } else { 2 });
            let (status, started) = looks[look.min(looks.len() - 1)];
            match status {
                "none" => eks_error_answer(404, "ResourceNotFoundException", "no refresh"),
                _ => json_answer(
                    200,
                    &j!({"status": status, "startedAt": started, "message": "words"}),
                ),
            }
        });
        (
            AwsApi::new(&config_over_wire(wire, "us-east-1", &test_clock())),
            asked,
        )
    }

    async fn outcome(looks: &'static [(&'static str, f64)]) -> (InsightsRefreshOutcome, Duration) {
        let began = tokio::time::Instant::now();
        let (aws, _) = eks(looks);
        let outcome = refresh_insights(&aws, "demo", &|_| {}).await.unwrap();
        (outcome, began.elapsed())
    }

    fn why(outcome: &InsightsRefreshOutcome) -> &str {
        match outcome {
            InsightsRefreshOutcome::NotCompleted { why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_an_earlier_refresh_is_not_taken_for_the_end_of_this_one() {
        let looks = &[
            ("COMPLETED", 100.0),
            ("COMPLETED", 100.0),
            ("COMPLETED", 100.0),
            ("IN_PROGRESS", 900.0),
            ("COMPLETED", 900.0),
        ];
        let (outcome, took) = outcome(looks).await;
        assert_eq!(outcome, InsightsRefreshOutcome::Completed);
        assert_eq!(took.as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_refresh_of_a_cluster_is_waited_for() {
        let (outcome, _) = outcome(&[("none", 0.0), ("none", 0.0), ("COMPLETED", 5.0)]).await;
        assert_eq!(outcome, InsightsRefreshOutcome::Completed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_fails_hangs_or_never_shows_is_no_refresh() {
        let (failed, _) = outcome(&[("none", 0.0), ("FAILED", 5.0)]).await;
        assert!(why(&failed).contains("words"), "{failed:?}");
        let (hangs, took) = outcome(&[("none", 0.0), ("IN_PROGRESS", 5.0)]).await;
        assert!(why(&hangs).contains("180 s"), "{hangs:?}");
        assert_eq!(took, REFRESH_TIMEOUT);
        let (silent, took) = outcome(&[("COMPLETED", 5.0)]).await;
        assert!(why(&silent).contains("shows no refresh"), "{silent:?}");
        assert_eq!(took, REFRESH_SHOWS_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_is_under_way_already_is_waited_for_and_not_asked_for_again() {
        let (aws, asked) = eks(&[("IN_PROGRESS", 5.0), ("COMPLETED", 5.0)]);
        let outcome = refresh_insights(&aws, "demo", &|_| {}).await.unwrap();
        assert_eq!(outcome, InsightsRefreshOutcome::Completed);
        let lines = asked.request_lines();
        assert!(
            lines[1..].iter().all(|l| l.starts_with("GET ")),
            "{lines:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_insights_older_than_ten_minutes_by_awss_own_time_are_judged_again() {
        // 1_790_000_000 is 14:13:20 that day; the runner's clock says something else altogether.
        for (answered, asks) in [
            (Some("Mon, 21 Sep 2026 14:23:20 GMT"), false),
            (Some("Mon, 21 Sep 2026 14:23:21 GMT"), true),
            (None, true),
        ] {
            let (wire, asked) = answering_wire(move |request, _| {
                if !request.uri().path().ends_with("/insights") {
                    return json_answer(200, &j!({"status": "COMPLETED", "startedAt": 1}));
                }
                let insight = j!({"id": "a", "name": "a", "lastRefreshTime": 1_790_000_000});
                let mut response = json_answer(200, &j!({"insights": [insight]}))?;
                if let Some(at) = answered {
                    response.headers_mut().insert("date", at.parse().unwrap());
                }
                Ok(response)
            });
            let aws = AwsApi::new(&config_over_wire(wire, "us-east-1", &test_clock()));
            refresh_insights(&aws, "demo", &|_| {}).await.unwrap();
            let lines = asked.request_lines();
            let posts = lines.iter().filter(|l| l.ends_with("/insights-refresh"));
            assert_eq!(posts.count() > 0, asks, "{answered:?}: {lines:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_ask_is_told_so_and_goes_on() {
        for denied in [http::Method::GET, http::Method::POST] {
            let answer = denied.clone();
            let (wire, _) = answering_wire(move |request, _| {
                if request.uri().path().ends_with("/insights") {
                    return json_answer(200, &j!({"insights": []}));
                }
                if *request.method() == answer {
                    return eks_error_answer(
                        403,
                        "AccessDeniedException",
                        "User is not authorized",
                    );
                }
                eks_error_answer(404, "ResourceNotFoundException", "no refresh")
            });
            let aws = AwsApi::new(&config_over_wire(wire, "us-east-1", &test_clock()));
            let outcome = refresh_insights(&aws, "demo", &|_| {}).await.unwrap();
            assert!(why(&outcome).contains("not authorized"), "{outcome:?}");
        }
    }
}
