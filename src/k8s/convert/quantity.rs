//! Quantities such as `250m` and `1536Mi`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::model::kube::Resources;

/// The resources that [`Resources`] holds.
const COUNTED_RESOURCES: [&str; 3] = ["cpu", "memory", "pods"];

/// The amounts of a resource list, rounded up: CPU in thousandths, all others in their unit.
pub fn resource_amounts(list: &BTreeMap<String, Quantity>) -> BTreeMap<String, i64> {
    let amount = |name: &str, quantity: &Quantity| {
        let scale = if name == "cpu" { 1000.0 } else { 1.0 };
        parse_quantity(&quantity.0).map_or(0, |n| (n * scale).ceil() as i64)
    };
    list.iter()
        .map(|(name, quantity)| (name.clone(), amount(name, quantity)))
        .collect()
}

/// CPU, memory and pods among the amounts; what is not named is 0.
pub fn counted_resources(amounts: &BTreeMap<String, i64>) -> Resources {
    let read = |name: &str| amounts.get(name).copied().unwrap_or(0);
    Resources {
        cpu_millis: read("cpu"),
        memory_bytes: read("memory"),
        pods: read("pods"),
    }
}

/// The amounts of all other resources.
pub fn other_resources(amounts: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let others = amounts
        .iter()
        .filter(|(name, amount)| **amount != 0 && !COUNTED_RESOURCES.contains(&name.as_str()));
    others
        .map(|(name, amount)| (name.clone(), *amount))
        .collect()
}

/// Reads a quantity. Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
fn parse_quantity(text: &str) -> Option<f64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-' && c != '+')
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let digits: f64 = digits.parse().ok()?;
    let scale = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(digits * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_every_notation() {
        let table = [
            ("250m", 0.25),
            ("2", 2.0),
            ("1.5", 1.5),
            ("1536Mi", 1_610_612_736.0),
            ("1G", 1e9),
            ("12e3", 12_000.0),
            ("5E2", 500.0),
            ("3920m", 3.92),
            ("100n", 1e-7),
        ];
        for (text, value) in table {
            assert!(
                (parse_quantity(text).unwrap() - value).abs() < 1e-9 * value.max(1.0),
                "{text}"
            );
        }
        for bad in ["", "abc", "1x", "1ee3"] {
            assert_eq!(parse_quantity(bad), None, "{bad}");
        }
    }
}
