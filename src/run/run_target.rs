//! What a run would change: which cluster, in which account, as whom.

use super::cluster_connection::ClusterConnection;

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
        let caller = reached.aws.get_caller_identity().await;
        Self::new(&reached.cluster.arn, caller.ok().map(|(_, arn)| arn))
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
