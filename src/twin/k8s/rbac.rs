//! RBAC, when a world is given roles: who calls may do what the roles say and no more, and is refused in the API
//! server's words.
//!
//! Beside the roles that were given, everybody has what a real cluster's default roles give every caller: discovery,
//! `/version`, health, and asking about oneself.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::{QueryParams, decode_percent};
use super::status::ApiFailure;
use crate::wire::Request;

/// Why a text holds no roles that the twin can enforce.
#[derive(Debug, thiserror::Error)]
pub enum BadRoles {
    /// The text is no YAML, or an object in it is none of RBAC's.
    #[error("these are no RBAC objects that the twin can enforce: {0}")]
    Malformed(String),
    /// A binding to a role that is not there.
    #[error("the {binding} names the {role}, which is not in the file")]
    NoRole { binding: String, role: String },
}

/// One object of a file of roles.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoleObject {
    api_version: String,
    kind: String,
    metadata: RoleMetadata,
    #[serde(default)]
    rules: Vec<RoleRule>,
    role_ref: Option<RoleRef>,
    #[serde(default)]
    subjects: Vec<Subject>,
}

#[derive(Debug, Deserialize)]
struct RoleMetadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Subject {
    kind: String,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RoleRule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
    verbs: Vec<String>,
}

/// What one caller may do, and what of it was needed.
#[derive(Clone, Debug)]
pub struct RbacAuthorizer {
    user: String,
    /// A rule and the namespace it is good for; none: everywhere.
    rules: Vec<(Option<String>, RoleRule)>,
    used: BTreeSet<String>,
}

/// What a request is about, as an authoriser sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RequestAttributes {
    verb: String,
    group: String,
    namespace: String,
    resource: String,
    sub: String,
    name: String,
    /// For what is no resource; else empty.
    path: String,
}

impl RbacAuthorizer {
    /// What the objects of a YAML file give `user`, who is in every group that the file's bindings name.
    pub fn parse_roles(text: &str, user: &str) -> Result<Self, BadRoles> {
        let objects: Vec<RoleObject> =
            serde_saphyr::from_multiple(text).map_err(|e| BadRoles::Malformed(e.to_string()))?;
        let mut roles: BTreeMap<(&str, Option<&str>, &str), &[RoleRule]> = BTreeMap::new();
        // Roles are read first, because a binding may stand before its role.
        for object in &objects {
            let ns = object.metadata.namespace.as_deref();
            match (object.api_version.as_str(), object.kind.as_str()) {
                ("rbac.authorization.k8s.io/v1", "ClusterRole") => {
                    roles.insert(("ClusterRole", None, &object.metadata.name), &object.rules);
                }
                ("rbac.authorization.k8s.io/v1", "Role") => {
                    roles.insert(("Role", ns, &object.metadata.name), &object.rules);
                }
                ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding" | "RoleBinding") => {}
                // Any other object is an error: a file that is not understood must not look like one that grants
                // little.
                (version, kind) => {
                    return Err(BadRoles::Malformed(format!("`{kind}` of `{version}`")));
                }
            }
        }
        let mut rules: Vec<(Option<String>, RoleRule)> = Vec::new();
        for object in &objects {
            let Some(role) = &object.role_ref else {
                continue;
            };
            // The caller is in every group, so that a file may name groups of any name.
            let ours = |s: &Subject| s.kind == "Group" || (s.kind == "User" && s.name == user);
            if !object.subjects.iter().any(ours) {
                continue;
            }
            let ns = object.metadata.namespace.as_deref();
            // A binding of a namespace can name a ClusterRole, which then holds in that namespace only.
            let of = (role.kind == "Role").then_some(ns).flatten();
            let found = roles.get(&(role.kind.as_str(), of, role.name.as_str()));
            // A binding to a role that the file does not have would silently grant nothing.
            let found = found.ok_or_else(|| BadRoles::NoRole {
                binding: format!("{} {}", object.kind, object.metadata.name),
                role: format!("{} {}", role.kind, role.name),
            })?;
            rules.extend(found.iter().map(|r| (ns.map(str::to_owned), r.clone())));
        }
        Ok(Self {
            user: user.to_owned(),
            rules,
            used: BTreeSet::new(),
        })
    }

    /// Who calls.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What was needed so far: `VERB RESOURCE.GROUP`.
    pub fn used_permissions(&self) -> &BTreeSet<String> {
        &self.used
    }

    /// What the roles allow and nothing needed so far.
    pub fn unused_permissions(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (_, rule) in &self.rules {
            for verb in &rule.verbs {
                let groups = || rule.api_groups.iter();
                let resources = rule.resources.iter();
                all.extend(
                    resources.flat_map(|r| groups().map(move |g| permission_text(verb, r, g))),
                );
                all.extend(rule.urls.iter().map(|url| format!("{verb} {url}")));
            }
        }
        all.retain(|permission| !self.used.contains(permission));
        all
    }

    /// Refuses a request that the roles do not allow.
    pub fn check_request(&mut self, request: &Request) -> Result<(), ApiFailure> {
        let asked = RequestAttributes::from_request(request);
        match self.matching_permissions(&asked) {
            Some(used) => {
                self.used.extend(used);
                Ok(())
            }
            None => Err(asked.forbidden_failure(&self.user)),
        }
    }

    /// Answers a SelfSubjectAccessReview's `spec`.
    pub fn review_access(&self, spec: &Value) -> bool {
        let text = |at: &str| {
            spec.pointer(at)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        // A review is about a resource or about a path, never about both.
        let about = if spec.get("nonResourceAttributes").is_some() {
            "/nonResourceAttributes"
        } else {
            "/resourceAttributes"
        };
        let of = |field: &str| text(&format!("{about}/{field}"));
        self.matching_permissions(&RequestAttributes {
            verb: of("verb"),
            group: of("group"),
            namespace: of("namespace"),
            resource: of("resource"),
            sub: of("subresource"),
            name: of("name"),
            path: of("path"),
        })
        .is_some()
    }

    /// Whether it is allowed, and by which permissions of the given roles (none, if by the default ones).
    fn matching_permissions(&self, asked: &RequestAttributes) -> Option<BTreeSet<String>> {
        let fits = |rule: &RoleRule| rule.allows_request(asked);
        let mut used = BTreeSet::new();
        let mut allowed = asked.is_allowed_by_default();
        for (ns, rule) in &self.rules {
            let here = ns.as_ref().is_none_or(|ns| *ns == asked.namespace);
            if here && fits(rule) {
                allowed = true;
                used.insert(match asked.path.as_str() {
                    "" => permission_text(&asked.verb, &asked.full_resource(), &asked.group),
                    path => format!("{} {path}", asked.verb),
                });
            }
        }
        allowed.then_some(used)
    }
}

fn permission_text(verb: &str, resource: &str, group: &str) -> String {
    match group {
        "" => format!("{verb} {resource}"),
        group => format!("{verb} {resource}.{group}"),
    }
}

impl RoleRule {
    fn allows_request(&self, asked: &RequestAttributes) -> bool {
        let any = |list: &[String], one: &str| list.iter().any(|l| l == "*" || l == one);
        // The verb comes first, since most rules differ in it.
        if !any(&self.verbs, &asked.verb) {
            return false;
        }
        // A path is allowed by rules on paths only, and a resource only by rules on resources.
        if !asked.path.is_empty() {
            return self.urls.iter().any(|url| match url.strip_suffix('*') {
                Some(start) => asked.path.starts_with(start),
                None => *url == asked.path,
            });
        }
        // The subresource can be allowed for one resource or, by `*/NAME`, for all of them.
        let every = format!("*/{}", asked.sub);
        let resource = any(&self.resources, &asked.full_resource())
            || (!asked.sub.is_empty() && self.resources.contains(&every));
        any(&self.api_groups, &asked.group)
            && resource
            && (self.resource_names.is_empty() || self.resource_names.contains(&asked.name))
    }
}

impl RequestAttributes {
    /// As the API server's request info: a path below a group and version is about a resource.
    fn from_request(request: &Request) -> Self {
        let path = request.uri().path();
        let parts: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(decode_percent)
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        // A path without a resource below its version is about discovery, and is allowed by path.
        let (group, rest) = match parts.as_slice() {
            ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
            _ => {
                return Self {
                    verb: request.method().as_str().to_lowercase(),
                    path: path.to_owned(),
                    ..Self::default()
                };
            }
        };
        // The subresources of a namespace look like a resource inside it.
        let (namespace, rest) = match rest {
            ["namespaces", ns, plural, ..] if !matches!(*plural, "status" | "finalize") => {
                (*ns, &rest[2..])
            }
            ["namespaces", ns, ..] => (*ns, rest),
            _ => ("", rest),
        };
        let part = |i: usize| rest.get(i).copied().unwrap_or_default();
        // The verb follows from the method and from whether an object is named; a watch is a list with a parameter.
        let query = QueryParams::parse(request.uri().query().unwrap_or_default());
        let named = !part(1).is_empty();
        let verb = match *request.method() {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ if named => "get",
            _ if query.is_true("watch") => "watch",
            _ => "list",
        };
        Self {
            verb: verb.to_owned(),
            group: group.to_owned(),
            namespace: namespace.to_owned(),
            resource: part(0).to_owned(),
            sub: part(2).to_owned(),
            name: part(1).to_owned(),
            path: String::new(),
        }
    }

    fn full_resource(&self) -> String {
        match self.sub.as_str() {
            "" => self.resource.clone(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    /// What `system:discovery`, `system:public-info-viewer` and `system:basic-user` give every caller.
    fn is_allowed_by_default(&self) -> bool {
        const PUBLIC_PATHS: &[&str] = &[
            "/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version",
        ];
        // A path allows what is below it, but no other path that begins the same.
        let of = |path: &&str| {
            let rest = self.path.strip_prefix(*path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self.path.as_str() {
            // Reviews about oneself are resources that everybody may create.
            "" => {
                self.verb == "create"
                    && matches!(
                        (self.group.as_str(), self.resource.as_str()),
                        (
                            "authorization.k8s.io",
                            "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
                        ) | ("authentication.k8s.io", "selfsubjectreviews")
                    )
            }
            _ => self.verb == "get" && PUBLIC_PATHS.iter().any(of),
        }
    }

    fn forbidden_failure(&self, user: &str) -> ApiFailure {
        let Self {
            verb,
            group,
            namespace,
            resource,
            name,
            path,
            ..
        } = self;
        // The text for a path has no resource, and its details are empty.
        if !path.is_empty() {
            let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
            return ApiFailure {
                details: Some(json!({})),
                ..ApiFailure::new(403, "Forbidden", message)
            };
        }
        // The words are the API server's: clients show them, and tests compare them with answers that were recorded.
        let place = match namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            ns => format!("in the namespace \"{ns}\""),
        };
        let why = format!(
            "User \"{user}\" cannot {verb} resource \"{}\" in API group \"{group}\" {place}",
            self.full_resource()
        );
        let qualified = match group.as_str() {
            "" => resource.clone(),
            group => format!("{resource}.{group}"),
        };
        let mut details = json!({"kind": resource});
        let what = if name.is_empty() {
            qualified
        } else {
            details["name"] = json!(name);
            format!("{qualified} \"{name}\"")
        };
        if !group.is_empty() {
            details["group"] = json!(group);
        }
        ApiFailure {
            details: Some(details),
            ..ApiFailure::new(403, "Forbidden", format!("{what} is forbidden: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: eksup}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, list]}
- {apiGroups: [""], resources: [pods/eviction], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: eksup}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: eksup}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: eksup}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: eksup, namespace: kube-system}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [eksup-run], verbs: [get]}
- {apiGroups: [""], resources: [configmaps], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: eksup, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: eksup}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: eksup}]
"#;

    fn ask(method: &str, uri: &str) -> Option<String> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://x{uri}"))
            .body(bytes::Bytes::new())
            .unwrap();
        let mut rbac = RbacAuthorizer::parse_roles(ROLES, "me").unwrap();
        rbac.check_request(&request).err().map(|f| f.message)
    }

    #[test]
    fn what_the_roles_say_is_allowed_where_they_are_bound_and_nothing_else() {
        for (method, uri) in [
            ("GET", "/api/v1/nodes"),
            ("GET", "/api/v1/nodes/n1"),
            ("POST", "/api/v1/namespaces/a/pods/b/eviction"),
            ("GET", "/api/v1/namespaces/kube-system/configmaps/eksup-run"),
            ("POST", "/api/v1/namespaces/kube-system/configmaps"),
            ("GET", "/version"),
            ("GET", "/apis/apps/v1"),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            ),
        ] {
            assert_eq!(ask(method, uri), None, "{method} {uri}");
        }
        for (method, uri) in [
            ("GET", "/api/v1/nodes?watch=1"),
            ("POST", "/api/v1/namespaces/a/pods"),
            ("GET", "/api/v1/namespaces/kube-system/configmaps/other"),
            ("GET", "/api/v1/namespaces/default/configmaps/eksup-run"),
            ("GET", "/api/v1/namespaces/kube-system/configmaps"),
            ("GET", "/metrics"),
            ("GET", "/versions"),
        ] {
            assert!(ask(method, uri).is_some(), "{method} {uri}");
        }
    }

    #[test]
    fn a_refusal_is_in_the_api_servers_words() {
        let said = |method: &str, uri: &str| ask(method, uri).unwrap();
        assert_eq!(
            said("PATCH", "/api/v1/nodes/n1"),
            r#"nodes "n1" is forbidden: User "me" cannot patch resource "nodes" in API group "" at the cluster scope"#
        );
        assert_eq!(
            said("GET", "/apis/apps/v1/namespaces/shop/deployments"),
            r#"deployments.apps is forbidden: User "me" cannot list resource "deployments" in API group "apps" in the namespace "shop""#
        );
        assert_eq!(
            said("POST", "/api/v1/namespaces/a/pods/b/binding"),
            r#"pods "b" is forbidden: User "me" cannot create resource "pods/binding" in API group "" in the namespace "a""#
        );
        assert_eq!(
            said("GET", "/metrics"),
            r#"forbidden: User "me" cannot get path "/metrics""#
        );
    }

    #[test]
    fn a_file_that_is_not_all_rbac_is_refused() {
        let no_role = ROLES.replacen(
            "kind: ClusterRole, name: eksup",
            "kind: ClusterRole, name: admin",
            1,
        );
        assert!(matches!(
            RbacAuthorizer::parse_roles(&no_role, "me"),
            Err(BadRoles::NoRole { .. })
        ));
        let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";
        assert!(matches!(
            RbacAuthorizer::parse_roles(other, "me"),
            Err(BadRoles::Malformed(_))
        ));
    }
}
