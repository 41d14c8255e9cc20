//! What a run would change: which cluster, in which account, as whom.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::cluster_connection::ClusterConnection;
use crate::model::ApiError;

/// A name is no reason to keep anybody waiting.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(5);

/// Account and ARN of the credentials that make the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    pub account: String,
    pub arn: String,
}

/// Who calls over a connection. AWS is asked once; where it gave no answer, the caller stays unknown. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct KnownCaller(Arc<OnceCell<Option<CallerIdentity>>>);

impl KnownCaller {
    /// Returns what is known, or what `ask` answers within five seconds.
    async fn get_or_ask(
        &self,
        ask: impl Future<Output = Result<(String, String), ApiError>>,
    ) -> Option<CallerIdentity> {
        let asked = async {
            let answer = tokio::time::timeout(IDENTITY_TIMEOUT, ask).await;
            let (account, arn) = answer.ok()?.ok()?;
            Some(CallerIdentity { account, arn })
        };
        self.0.get_or_init(|| asked).await.clone()
    }
}

/// Reads who calls over this connection.
pub async fn read_caller(reached: &ClusterConnection) -> Option<CallerIdentity> {
    let ask = reached.aws.get_caller_identity();
    reached.caller.get_or_ask(ask).await
}

/// The cluster that was reached, and who reached it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunTarget {
    pub cluster_arn: String,
    /// Of the cluster, by its ARN.
    pub account: String,
    pub region: String,
    /// The caller's ARN; absent where AWS would not say.
    pub caller: Option<String>,
}

impl RunTarget {
    /// Reads who calls; the rest is known of the connection.
    pub async fn read(reached: &ClusterConnection) -> Self {
        let caller = read_caller(reached).await;
        Self::new(&reached.cluster.arn, caller.map(|c| c.arn))
    }

    fn new(cluster_arn: &str, caller: Option<String>) -> Self {
        // arn:PARTITION:eks:REGION:ACCOUNT:cluster/NAME
        let part = |at: usize| {
            let part = cluster_arn.split(':').nth(at).filter(|p| !p.is_empty());
            part.unwrap_or("unknown").to_owned()
        };
        Self {
            cluster_arn: cluster_arn.to_owned(),
            account: part(4),
            region: part(3),
            caller,
        }
    }

    /// One line for people: it stands before the question and above the plan.
    pub fn describe(&self) -> String {
        format!(
            "account {}, region {}, cluster {}, as {}",
            self.account,
            self.region,
            self.cluster_arn,
            self.caller
                .as_deref()
                .unwrap_or("a caller that AWS does not name")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_caller_is_asked_for_once_and_for_five_seconds_at_most() {
        let (silent, known) = (KnownCaller::default(), KnownCaller::default());
        let start = tokio::time::Instant::now();
        assert_eq!(silent.get_or_ask(std::future::pending()).await, None);
        assert_eq!(start.elapsed(), IDENTITY_TIMEOUT);
        let ask = async { Ok(("111122223333".to_owned(), "arn".to_owned())) };
        let caller = known.get_or_ask(ask).await;
        assert_eq!(caller.as_ref().map(|c| c.arn.as_str()), Some("arn"));
        // Neither is asked again.
        let again = async { panic!("asked again") };
        assert_eq!(silent.get_or_ask(again).await, None);
        let again = async { panic!("asked again") };
        assert_eq!(known.clone().get_or_ask(again).await, caller);
    }

    #[test]
    fn account_and_region_are_those_of_the_cluster_and_an_unknown_caller_is_said() {
        let arn = "arn:aws:eks:eu-west-1:111122223333:cluster/prod";
        let known = RunTarget::new(arn, Some("arn:aws:iam::111122223333:user/ann".to_owned()));
        assert_eq!(
            known.describe(),
            "account 111122223333, region eu-west-1, cluster arn:aws:eks:eu-west-1:111122223333:cluster/prod, as arn:aws:iam::111122223333:user/ann"
        );
        let unknown = RunTarget::new("prod", None).describe();
        assert!(
            unknown.contains("account unknown") && unknown.contains("does not name"),
            "{unknown}"
        );
    }
}
