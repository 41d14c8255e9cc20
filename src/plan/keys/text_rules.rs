//! What texts of a plan have to be.

use super::{TextCheck, TextRule, WrongText, fitting_text};
use crate::model::consent::WorkloadPattern;
use crate::model::maintenance_window::{END_OF_DAY_MINUTES, find_time_zone};
use crate::model::{AddonVersion, marks};
use crate::plan::AUTO_IMAGE;
use crate::plan::suggest::nearest_word;
use crate::plan::value_reader::shorten_text;
use crate::plan::windows_and_approvals::{STEP_KINDS, parse_minutes};
use crate::scheduling::reserved_labels;

pub static CLUSTER_NAME: TextRule = TextRule {
    pattern: Some("^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$"),
    ..fitting_text(
        "prod",
        "a cluster's name has up to 100 letters, digits, `-` and `_`, and begins with a letter or digit",
        |t| t.len() <= 100 && is_eks_name(t),
    )
};

pub static GROUP_NAME: TextRule = fitting_text(
    "apps-blue",
    "a node group's name has up to 63 letters, digits, `-` and `_`, and begins with a letter or digit",
    |t| t.len() <= 63 && is_eks_name(t),
);

/// Whether a text can be a cluster's or a node group's name, but for its length.
fn is_eks_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

pub static REGION: TextRule = fitting_text("eu-central-1", "write a region's code", is_region_name);

fn is_region_name(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() >= 3
        && parts
            .last()
            .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        && parts[..parts.len() - 1]
            .iter()
            .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase()))
}

pub static ADDON_VERSION: TextRule = checked_text("v1.11.1-eksbuild.9", |t| {
    if AddonVersion::new(t).parse_semver().is_some() {
        return Ok(());
    }
    wrong_text(
        format!("`{}` is no add-on version", shorten_text(t)),
        "write a whole version such as `v1.11.1-eksbuild.9`; `aws eks describe-addon-versions` lists them",
    )
});

pub static AMI_TYPE: TextRule = fitting_text(
    "AL2023_x86_64_STANDARD",
    "write one of EKS's AMI types; leave `amiType` out for a custom AMI",
    |t| {
        t != "CUSTOM"
            && t.contains('_')
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    },
);

pub static RELEASE_VERSION: TextRule =
    fitting_text("1.30.14-20260801", "write an AMI release version", |t| {
        t.contains('-') && t.starts_with(|c: char| c.is_ascii_digit())
    });

pub static IMAGE_ID: TextRule = TextRule {
    pattern: Some("^ami-[0-9a-fA-F]{8,17}$"),
    ..fitting_text("ami-0123456789abcdef0", "write an image id", is_image_id)
};

fn is_image_id(text: &str) -> bool {
    text.strip_prefix("ami-")
        .is_some_and(|id| (8..=17).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

pub static IMAGE_OR_AUTO: TextRule = TextRule {
    pattern: Some("^(auto|ami-[0-9a-fA-F]{8,17})$"),
    known: &[AUTO_IMAGE],
    ..fitting_text("auto", "write an image id, or `auto`", |t| {
        t == AUTO_IMAGE || is_image_id(t)
    })
};

/// Auto Scaling takes any printable name without a colon; it has to fit into a tag and a command line.
pub static ASG_NAME: TextRule = fitting_text(
    "workers-blue",
    "an Auto Scaling group's name has up to 255 printable characters, none of them a colon or a space",
    |t| t.len() <= 255 && t.bytes().all(|b| b.is_ascii_graphic() && b != b':'),
);

pub static LABEL_KEY: TextRule = checked_text("tier", |key| {
    let name = key.rsplit('/').next().unwrap_or(key);
    if name.is_empty() || !is_label_text(name) || key.len() > 253 {
        return wrong_text(
            format!("`{}` is no label key", shorten_text(key)),
            "a key has up to 63 letters, digits, `-`, `_` and `.`, with an optional `prefix/`",
        );
    }
    if reserved_labels::is_refused_label(key) || key.starts_with("alpha.eksctl.io/") {
        return wrong_text(
            format!("the label `{key}` is not yours to set"),
            "EKS refuses labels of kubernetes.io, k8s.io and eks.amazonaws.com and their subdomains, or the kubelet does not start with them, and eksctl sets its own: use a key of your own domain, or one without a prefix",
        );
    }
    Ok(())
});

pub static LABEL_VALUE: TextRule = checked_text("apps", |value| {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if is_label_text(value) && letter(value.chars().next()) && letter(value.chars().last()) {
        return Ok(());
    }
    wrong_text(
        format!("`{}` is no label value", shorten_text(value)),
        "EKS takes a value of up to 63 letters, digits, `-`, `_` and `.` that begins and ends with a letter or digit",
    )
});

fn is_label_text(text: &str) -> bool {
    text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

pub static TAINT_KEY: TextRule = checked_text("dedicated", |key| {
    if key.len() > 253 || key == marks::BLUE_TAINT {
        return wrong_text(
            format!("`{}` is no key of a taint", shorten_text(key)),
            "a key has up to 253 characters and is not eksup's own; for example `dedicated`",
        );
    }
    if reserved_labels::is_reserved_domain(key) {
        return wrong_text(
            format!("the taint `{key}` is not yours to set"),
            "EKS refuses taints of kubernetes.io, k8s.io and eks.amazonaws.com and their subdomains: use a key of your own domain, or one without a prefix",
        );
    }
    Ok(())
});

pub static TAINT_VALUE: TextRule =
    fitting_text("batch", "a taint's value has up to 63 characters", |t| {
        t.len() <= 63
    });

pub static WORKLOAD_PATTERN: TextRule = TextRule {
    schema: Some("WorkloadPatternSchema"),
    pattern: Some(r"^([A-Za-z0-9]+ +)?[A-Za-z0-9-]+/([A-Za-z0-9.-]+\*?|\*)$"),
    ..checked_text("Deployment shop/web", |t| {
        if WorkloadPattern::parse(t).is_some() {
            return Ok(());
        }
        wrong_text(
            format!("`{}` names no workload", shorten_text(t)),
            "write `namespace/*`, `namespace/name` or `Kind namespace/name`, such as `Deployment shop/web`; the name may end in `*`",
        )
    })
};

pub static BUDGET_NAME: TextRule = checked_text("kafka/events", |t| {
    if is_budget_name(t) {
        return Ok(());
    }
    wrong_text(
        format!("`{}` names no PodDisruptionBudget", shorten_text(t)),
        "write `NAMESPACE/NAME`, or `NAMESPACE/*` for all of a namespace",
    )
});

/// Whether a text is `NAMESPACE/NAME` or `NAMESPACE/*`.
fn is_budget_name(text: &str) -> bool {
    let named = |part: &str| {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        !part.is_empty() && part.len() <= 253 && part.bytes().all(fits)
    };
    text.split_once('/')
        .is_some_and(|(namespace, name)| named(namespace) && (name == "*" || named(name)))
}

const TIME_RULE: &str = "write hours and minutes, as a clock of 24 hours shows them";

pub static OPENING_TIME: TextRule = TextRule {
    pattern: Some("^([01][0-9]|2[0-3]):[0-5][0-9]$"),
    ..fitting_text("22:00", TIME_RULE, |t| {
        parse_minutes(t).is_some_and(|m| m < END_OF_DAY_MINUTES)
    })
};

pub static CLOSING_TIME: TextRule = TextRule {
    pattern: Some("^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"),
    ..fitting_text("04:00", TIME_RULE, |t| parse_minutes(t).is_some())
};

pub static TIME_ZONE: TextRule = fitting_text(
    "Europe/Berlin",
    "write a zone's name as the IANA database has it",
    |t| find_time_zone(t).is_some(),
);

/// Whether a word names a step is seen when there is a route; here only that it can.
pub static STEP: TextRule = TextRule {
    known: STEP_KINDS,
    ..checked_text("drain", |t| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*');
        if t.chars().all(fits) {
            return Ok(());
        }
        let help = match nearest_word(t, STEP_KINDS.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write a step's id as `eksup plan` shows it, a kind of step, or a pattern such as `drain-*`".to_owned(),
        };
        wrong_text(format!("`{}` is no step", shorten_text(t)), help)
    })
};

/// A text that a function checks, where what is wrong depends on the text.
const fn checked_text(example: &'static str, check: fn(&str) -> Result<(), WrongText>) -> TextRule {
    TextRule {
        schema: None,
        pattern: None,
        example,
        known: &[],
        check: TextCheck::Checked(check),
    }
}

fn wrong_text(message: String, help: impl Into<String>) -> Result<(), WrongText> {
    Err(WrongText {
        message,
        help: help.into(),
    })
}
