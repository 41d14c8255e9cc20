//! What lets nodes that EKS does not manage into the cluster: the role of their instance profile, its access entry and its
//! rows of aws-auth (SELF-3).

use serde::{Deserialize, Serialize};

/// What an instance profile gives its nodes, and what the cluster knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAccess {
    /// ARN of the profile's role.
    pub role: AccessReading<String>,
    /// Type of the role's access entry, such as EC2_LINUX.
    pub entry: AccessReading<String>,
    /// The rows of aws-auth that name the role, with its path or without; missing where there is no ConfigMap.
    pub rows: AccessReading<Vec<RoleMapping>>,
}

/// One answer about access; what could not be read is not missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessReading<T> {
    /// Nobody asked, as the cluster does not heed it or something before it decides.
    #[default]
    NotAsked,
    Found(T),
    Missing,
    /// The call, and why it failed.
    Unread(String),
}

/// A row of aws-auth's `mapRoles`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleMapping {
    pub role_arn: String,
    pub groups: Vec<String>,
}

impl RoleMapping {
    /// Whether the row names the role. Rows know roles by their ARNs without a path (SELF-6), so that one with it names nobody.
    pub fn names(&self, role: &str) -> bool {
        self.role_arn.eq_ignore_ascii_case(&without_path(role))
    }

    /// The same, whatever path either of them has.
    pub fn resembles(&self, role: &str) -> bool {
        without_path(&self.role_arn).eq_ignore_ascii_case(&without_path(role))
    }
}

/// Which of its two sources of access the cluster heeds, as its authentication mode says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessSources {
    pub entries: bool,
    pub aws_auth: bool,
}

impl AccessSources {
    /// Returns the sources of `API`, `API_AND_CONFIG_MAP` or `CONFIG_MAP`; none where the mode is another or not known.
    pub fn of_mode(mode: Option<&str>) -> Option<Self> {
        let (entries, aws_auth) = match mode? {
            "API" => (true, false),
            "API_AND_CONFIG_MAP" => (true, true),
            "CONFIG_MAP" => (false, true),
            _ => return None,
        };
        Some(Self { entries, aws_auth })
    }
}

/// A role's ARN without its path: `arn:aws:iam::1:role/team/nodes` is `arn:aws:iam::1:role/nodes`.
pub fn without_path(role: &str) -> String {
    match (role.split_once(":role/"), role.rsplit_once('/')) {
        (Some((account, _)), Some((_, name))) => format!("{account}:role/{name}"),
        _ => role.to_owned(),
    }
}

/// The name of an instance profile, which templates also spell as its ARN.
pub fn profile_name(profile: &str) -> &str {
    profile.rsplit('/').next().unwrap_or(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_a_role_by_its_arn_without_a_path() {
        let row = |arn: &str| RoleMapping {
            role_arn: arn.to_owned(),
            groups: Vec::new(),
        };
        let (plain, pathed) = (
            "arn:aws:iam::1:role/nodes",
            "arn:aws:iam::1:role/team/nodes",
        );
        for (arn, names, resembles) in [
            (plain, true, true),
            (pathed, false, true),
            ("arn:aws:iam::1:role/Nodes", true, true),
            ("arn:aws:iam::2:role/nodes", false, false),
            ("arn:aws:iam::1:role/other", false, false),
            ("nodes", false, false),
        ] {
            assert_eq!(row(arn).names(pathed), names, "{arn}");
            assert_eq!(row(arn).resembles(pathed), resembles, "{arn}");
        }
        assert!(row(plain).names(plain));
    }

    #[test]
    fn a_mode_says_which_sources_count_and_one_that_is_not_known_says_nothing() {
        let of = |mode| AccessSources::of_mode(mode).map(|s| (s.entries, s.aws_auth));
        assert_eq!(of(Some("API")), Some((true, false)));
        assert_eq!(of(Some("API_AND_CONFIG_MAP")), Some((true, true)));
        assert_eq!(of(Some("CONFIG_MAP")), Some((false, true)));
        assert_eq!(of(Some("ANOTHER")), None);
        assert_eq!(of(None), None);
    }
}
