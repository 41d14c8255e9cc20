//! How long the credentials last against how long the run takes. Said at the start; it blocks nothing, because a run that
//! outlives its session pauses and goes on.

use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;

use super::cluster_connection::ClusterConnection;
use crate::clients::credentials::{SessionEnd, session_end};
use crate::model::Timestamp;
use crate::report::text::format_duration;

/// What a role's session lasts unless somebody asked for more.
const DEFAULT_SESSION_DURATION: Duration = Duration::from_secs(3600);
/// How tools that put a session into the environment say when it ends.
const EXPIRATION_VARIABLES: [&str; 2] = ["AWS_CREDENTIAL_EXPIRATION", "AWS_SESSION_EXPIRATION"];
const LONGER_SESSION_HINT: &str = "ask for a longer session (`role-duration-seconds` of aws-actions/configure-aws-credentials, `--duration-seconds` of `aws sts assume-role`; the role's maximum session duration bounds it)";

/// When the run's credentials end; `None` where they cannot be had, which the next call says better.
pub async fn read_session_end(reached: &ClusterConnection) -> Option<SessionEnd> {
    let provider = reached.aws.config.credentials_provider()?;
    let credentials = provider.provide_credentials().await.ok()?;
    let told = EXPIRATION_VARIABLES
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok());
    Some(session_end(&credentials, told))
}

/// What a person should know of it, when the run is expected to take `time` from `now`.
pub fn expiry_warning(end: &SessionEnd, time: Duration, now: Timestamp) -> Option<String> {
    let done = now.saturating_add(time).unwrap_or(Timestamp::MAX);
    let clock = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    // A session that ends early is no reason to refuse, as the run pauses then and goes on later. It is told
    // beforehand, so that somebody can choose a longer one.
    match end {
        SessionEnd::Never => None,
        SessionEnd::At { end, .. } if *end >= done => None,
        SessionEnd::At { end, renewed: true } => Some(format!(
            "the credentials expire at {}, and the run is estimated to take until {}; eksup fetches new ones from the same source; if that fails, the run pauses with exit code 11, and continues with the same command",
            clock(*end),
            clock(done)
        )),
        SessionEnd::At {
            end,
            renewed: false,
        } => Some(format!(
            "the credentials expire at {}, and the run is estimated to take until {}; the run then pauses with exit code 11, and continues with the same command; {LONGER_SESSION_HINT}",
            clock(*end),
            clock(done)
        )),
        SessionEnd::Unknown if time <= DEFAULT_SESSION_DURATION => None,
        SessionEnd::Unknown => Some(format!(
            "the credentials do not say when they expire, and the run is estimated to take {}; if they expire before its end, the run pauses with exit code 11, and continues with the same command; {LONGER_SESSION_HINT}",
            format_duration(time)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_session_that_may_end_before_the_run_is_worth_a_line() {
        let now: Timestamp = "2026-11-21T13:05:00Z".parse().unwrap();
        let at = |text: &str, renewed| SessionEnd::At {
            end: text.parse().unwrap(),
            renewed,
        };
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let table = [
            (SessionEnd::Never, hours(9), None),
            (at("2026-11-21T14:05:00Z", false), hours(1), None),
            (
                at("2026-11-21T14:05:00Z", false),
                hours(4),
                Some("role-duration-seconds"),
            ),
            (
                at("2026-11-21T14:05:00Z", true),
                hours(4),
                Some("fetches new ones"),
            ),
            (SessionEnd::Unknown, hours(1), None),
            (SessionEnd::Unknown, hours(4), Some("do not say")),
        ];
        for (end, time, words) in table {
            let said = expiry_warning(&end, time, now);
            assert_eq!(said.is_some(), words.is_some(), "{end:?} {time:?}");
            let said = said.unwrap_or_default();
            assert!(said.contains(words.unwrap_or_default()), "{said}");
        }
        let said = expiry_warning(&at("2026-11-21T14:05:00Z", false), hours(4), now).unwrap();
        assert!(
            said.contains("14:05 UTC") && said.contains("17:05 UTC") && said.contains("11"),
            "{said}"
        );
    }
}
