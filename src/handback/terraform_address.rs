//! Addresses in Terraform's state, as a user gives them.

use std::fmt;

use super::hcl::quote_hcl;

/// Where a tool's configuration has blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerraformAddress {
    /// terraform-aws-modules/eks: the call of the module, and the key of blue's entry where it was given.
    EksModule { module: String, key: Option<String> },
    /// A resource of one's own: the modules around it, with a dot at the end where there are any, its type, its name, and
    /// the key of `count` or `for_each`, in brackets.
    Resource {
        modules: String,
        kind: String,
        name: String,
        instance: Option<String>,
    },
}

/// Modules of terraform-aws-modules/eks that are called once an entry.
const GROUP_MODULES: [&str; 2] = ["eks_managed_node_group", "self_managed_node_group"];

/// Resources that a node group is.
const GROUP_RESOURCES: [&str; 2] = ["aws_eks_node_group", "aws_autoscaling_group"];

/// A word of an address, with the key behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AddressPart {
    word: String,
    /// With its brackets.
    key: Option<String>,
}

impl fmt::Display for AddressPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.word, self.key.as_deref().unwrap_or(""))
    }
}

impl TerraformAddress {
    /// Reads an address such as `module.eks`, `module.eks.module.eks_managed_node_group["apps"]` or
    /// `aws_eks_node_group.apps`.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = split_address(text)
            .ok_or_else(|| format!("`{text}` is no address of Terraform's, such as `module.eks` or `aws_eks_node_group.apps`"))?;
        let mut rest = parts.as_slice();
        // The modules around it, in pairs of the word and the name of the call.
        let mut modules: Vec<&AddressPart> = Vec::new();
        while let [word, name, tail @ ..] = rest
            && word.word == "module"
            && word.key.is_none()
        {
            modules.push(name);
            rest = tail;
        }
        let entry = modules
            .last()
            .filter(|m| GROUP_MODULES.contains(&m.word.as_str()));
        let outer = &modules[..modules.len() - usize::from(entry.is_some())];
        let key = entry.and_then(|m| m.key.as_deref()).and_then(text_key);
        let of_module = |modules: &[&AddressPart], key: Option<String>| {
            let calls: Vec<String> = modules.iter().map(|m| format!("module.{m}")).collect();
            Self::EksModule {
                module: calls.join("."),
                key,
            }
        };
        match rest {
            [] if !outer.is_empty() => Ok(of_module(outer, key)),
            [kind, _] if entry.is_some() && !outer.is_empty() && is_group(kind) => {
                Ok(of_module(outer, key))
            }
            [kind, name] if is_group(kind) => Ok(Self::Resource {
                modules: modules.iter().map(|m| format!("module.{m}.")).collect(),
                kind: kind.word.clone(),
                name: name.word.clone(),
                instance: name.key.clone(),
            }),
            _ => Err(format!(
                "`{text}` is neither a module nor one of the resources {}",
                GROUP_RESOURCES.join(" and ")
            )),
        }
    }
}

fn is_group(kind: &AddressPart) -> bool {
    kind.key.is_none() && GROUP_RESOURCES.contains(&kind.word.as_str())
}

/// The text of a key in brackets and quotes; none of a number.
fn text_key(key: &str) -> Option<String> {
    let quoted = key.strip_prefix("[\"")?.strip_suffix("\"]")?;
    Some(quoted.to_owned())
}

/// Splits an address at its dots; none where it is none. A key is a number or a quoted string without quotes inside.
fn split_address(text: &str) -> Option<Vec<AddressPart>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if !word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return None;
        }
        rest = after;
        let mut key = None;
        if rest.starts_with('[') {
            let end = rest.find(']')?;
            let (bracket, after) = rest.split_at(end + 1);
            let inside = &bracket[1..end];
            let number = !inside.is_empty() && inside.chars().all(|c| c.is_ascii_digit());
            let quoted = inside
                .strip_prefix('"')
                .and_then(|i| i.strip_suffix('"'))
                .is_some_and(|i| !i.contains(['"', '\\']) && quote_hcl(i) == inside);
            if !number && !quoted {
                return None;
            }
            key = Some(bracket.to_owned());
            rest = after;
        }
        parts.push(AddressPart {
            word: word.to_owned(),
            key,
        });
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None => return rest.is_empty().then_some(parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_call_of_the_eks_module_or_a_resource_of_ones_own() {
        let module = |module: &str, key: Option<&str>| TerraformAddress::EksModule {
            module: module.to_owned(),
            key: key.map(str::to_owned),
        };
        let entry = r#"module.eks.module.eks_managed_node_group["apps"]"#;
        for (text, expected) in [
            ("module.eks", module("module.eks", None)),
            ("module.eks[0]", module("module.eks[0]", None)),
            (entry, module("module.eks", Some("apps"))),
            (
                &format!("{entry}.aws_eks_node_group.this[0]"),
                module("module.eks", Some("apps")),
            ),
        ] {
            assert_eq!(TerraformAddress::parse(text), Ok(expected), "{text}");
        }
        let resource = |modules: &str, instance: Option<&str>| TerraformAddress::Resource {
            modules: modules.to_owned(),
            kind: "aws_eks_node_group".to_owned(),
            name: "apps".to_owned(),
            instance: instance.map(str::to_owned),
        };
        for (text, expected) in [
            ("aws_eks_node_group.apps", resource("", None)),
            (
                "module.nodes.aws_eks_node_group.apps[\"a\"]",
                resource("module.nodes.", Some("[\"a\"]")),
            ),
        ] {
            assert_eq!(TerraformAddress::parse(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "module",
            "eks",
            "aws_iam_role.apps",
            "module.eks.",
            "module.eks[apps]",
            "aws_eks_node_group.apps[\"a\"b\"]",
            "aws_eks_node_group.apps[\"${x}\"]",
            "aws_eks_node_group.apps }",
            "aws_eks_node_group[0].apps",
            "module.eks_managed_node_group",
        ] {
            assert!(TerraformAddress::parse(text).is_err(), "{text}");
        }
    }
}
