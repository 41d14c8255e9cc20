//! What a green group is called.

use std::collections::BTreeSet;

use crate::model::Minor;

/// EKS's own limit.
const GROUP_NAME_MAX_CHARS: usize = 63;

/// Why EKS takes no node group of this name (EKS-NG-2); none where it does.
pub fn invalid_name_reason(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.chars().count() > GROUP_NAME_MAX_CHARS {
        Some(format!(
            "EKS takes {GROUP_NAME_MAX_CHARS} characters at most; it has {}",
            name.chars().count()
        ))
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some("a node group's name begins with a letter or a digit".to_owned())
    } else {
        name.chars().find(|c| !fits(*c)).map(|c| {
            format!("a node group's name has letters, digits, `-` and `_` only, and it has `{c}`")
        })
    }
}

/// A name for the green of `blue` that nobody in `taken` has: `x-blue` becomes `x-green`, `x-green` becomes `x-blue`,
/// anything else `NAME-green`; where that is taken, the version is appended, and then a number.
pub fn green_name(blue: &str, minor: Minor, taken: &BTreeSet<String>) -> String {
    // Two upgrades in a row lead back to the first name, so that groups keep two names and not one more each time.
    let (stem, colour) = if let Some(stem) = blue.strip_suffix("-blue") {
        (stem, "green")
    } else if let Some(stem) = blue.strip_suffix("-green") {
        (stem, "blue")
    } else {
        (blue, "green")
    };
    let version = format!("1-{}", minor.number());
    let suffixes = [colour.to_owned(), version.clone()]
        .into_iter()
        .chain((2..).map(|n| format!("{version}-{n}")));
    for suffix in suffixes {
        let name = join_within_limit(stem, &suffix);
        if name != blue && !taken.contains(&name) {
            return name;
        }
    }
    unreachable!("the numbers do not end")
}

/// The name of the launch template that is made for `green` of a launch configuration. EC2 takes fewer characters than
/// Auto Scaling does.
pub fn template_name(green: &str) -> String {
    let taken = |c: char| c.is_ascii_alphanumeric() || "()./_-".contains(c);
    let name = green.chars().map(|c| if taken(c) { c } else { '-' });
    format!("eksup-{}", name.collect::<String>())
}

/// `stem-suffix`, with the stem cut where it is too long; a cut stem ends in four digits of its own, so that two long
/// names that begin alike stay apart.
fn join_within_limit(stem: &str, suffix: &str) -> String {
    let name = format!("{stem}-{suffix}");
    if name.len() <= GROUP_NAME_MAX_CHARS {
        return name;
    }
    use sha2::{Digest, Sha256};
    let mark = hex::encode(&Sha256::digest(stem)[..2]);
    let room = GROUP_NAME_MAX_CHARS - suffix.len() - mark.len() - 2;
    let cut: String = stem.chars().take(room).collect();
    format!("{cut}-{mark}-{suffix}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_of_a_green_has_its_name_in_characters_that_ec2_takes() {
        assert_eq!(super::template_name("web-green"), "eksup-web-green");
        assert_eq!(super::template_name("web nodes+1"), "eksup-web-nodes-1");
    }

    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    fn name(blue: &str, taken: &[&str]) -> String {
        green_name(
            blue,
            Minor::new(29),
            &taken.iter().map(|t| (*t).to_owned()).collect(),
        )
    }

    #[test]
    fn colours_alternate() {
        assert_eq!(name("expense-blue", &[]), "expense-green");
        assert_eq!(name("expense-green", &[]), "expense-blue");
        assert_eq!(name("workers", &[]), "workers-green");
    }

    #[test]
    fn a_taken_name_gets_the_version_and_then_a_number() {
        assert_eq!(name("a-blue", &["a-green"]), "a-1-29");
        assert_eq!(name("a-blue", &["a-green", "a-1-29"]), "a-1-29-2");
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (a, b) = (
            format!("{}x", "n".repeat(62)),
            format!("{}y", "n".repeat(62)),
        );
        assert_eq!(name(&a, &[]).len(), 63);
        assert_ne!(name(&a, &[]), name(&b, &[]));
    }

    #[test]
    fn a_name_that_eks_refuses_is_told_with_the_reason() {
        for (name, why) in [
            ("", "begins with"),
            ("-green", "begins with"),
            ("apps.green", "`.`"),
            ("grün", "`ü`"),
        ] {
            let said = invalid_name_reason(name).unwrap();
            assert!(said.contains(why), "{name}: {said}");
        }
        assert!(invalid_name_reason(&"n".repeat(64)).unwrap().contains("63"));
        assert_eq!(invalid_name_reason(&"n".repeat(63)), None);
        assert_eq!(invalid_name_reason("apps_green-2"), None);
    }

    proptest! {
        #[test]
        fn a_name_is_always_one_that_eks_takes(blue in "[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}", taken in proptest::collection::btree_set("[a-c]-(blue|green)", 0..4)) {
            let green = green_name(&blue, Minor::new(30), &taken);
            prop_assert!(green.len() <= 63 && green != blue && !taken.contains(&green));
            prop_assert!(invalid_name_reason(&green).is_none(), "{}", green);
        }
    }
}
