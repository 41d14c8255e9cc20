//! The ConfigMap kube-system/aws-auth, with which older clusters say which roles may use their API.

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;

use crate::k8s::KubeApi;
use crate::model::node_access::RoleMapping;
use crate::model::{ApiError, ErrorClass, absent_is_none};

/// The object's path.
const AWS_AUTH_PATH: &str = "/api/v1/namespaces/kube-system/configmaps/aws-auth";
/// The key of the roles, whose value is a list in YAML.
const ROLES_KEY: &str = "mapRoles";

/// A row as people write it.
#[derive(Deserialize)]
struct WrittenRow {
    #[serde(default)]
    rolearn: Option<String>,
    #[serde(default)]
    groups: Option<Vec<String>>,
}

impl KubeApi {
    /// The roles that aws-auth knows; none where there is no such ConfigMap. Users, accounts and user names are left out.
    ///
    /// # Errors
    /// Invalid where `mapRoles` is no list of roles; those of the call.
    pub async fn read_role_mappings(&self) -> Result<Option<Vec<RoleMapping>>, ApiError> {
        let op = "get configmaps";
        let found: Option<ConfigMap> = absent_is_none(self.get_json(op, AWS_AUTH_PATH).await)?;
        let text = found.map(|map| {
            let roles = map.data.and_then(|mut data| data.remove(ROLES_KEY));
            roles.unwrap_or_default()
        });
        text.map(|text| parse_role_mappings(&text))
            .transpose()
            .map_err(|why| {
                let text =
                    format!("{ROLES_KEY} of kube-system/aws-auth is no list of roles: {why}");
                ApiError::new(op, ErrorClass::Invalid, text)
            })
    }
}

fn parse_role_mappings(text: &str) -> Result<Vec<RoleMapping>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let rows: Option<Vec<WrittenRow>> = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let mappings = rows.unwrap_or_default().into_iter().filter_map(|row| {
        Some(RoleMapping {
            role_arn: row.rolearn?,
            groups: row.groups.unwrap_or_default(),
        })
    });
    Ok(mappings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_people_write_them() {
        let text = "# by hand\n- rolearn: arn:aws:iam::1:role/nodes\n  username: system:node:{{EC2PrivateDNSName}}\n  groups:\n  - system:bootstrappers\n  - system:nodes\n- {rolearn: \"arn:aws:iam::1:role/admin\", username: admin}\n- groups:\n  rolearn: arn:aws:iam::1:role/none\n- username: nobody\n";
        let read = parse_role_mappings(text).unwrap();
        let short: Vec<(&str, usize)> = read
            .iter()
            .map(|r| (r.role_arn.as_str(), r.groups.len()))
            .collect();
        assert_eq!(
            short,
            [
                ("arn:aws:iam::1:role/nodes", 2),
                ("arn:aws:iam::1:role/admin", 0),
                ("arn:aws:iam::1:role/none", 0)
            ]
        );
        assert_eq!(read[0].groups[1], "system:nodes");
        for none in ["", "\n", "[]", "# nothing\n", "null"] {
            assert_eq!(parse_role_mappings(none), Ok(Vec::new()), "{none:?}");
        }
        // Terraform writes JSON.
        let json = r#"[{"rolearn": "arn:aws:iam::1:role/nodes", "groups": ["system:nodes"]}]"#;
        assert_eq!(
            parse_role_mappings(json).unwrap()[0].groups,
            ["system:nodes"]
        );
    }

    #[test]
    fn what_is_no_list_of_roles_is_an_error_and_not_an_empty_list() {
        for wrong in [
            "rolearn: x",
            "- [",
            "- rolearn: x\n  groups: system:nodes\n",
        ] {
            assert!(parse_role_mappings(wrong).is_err(), "{wrong}");
        }
    }
}
