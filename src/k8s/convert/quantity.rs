//! Quantities such as `250m` and `1536Mi`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::model::kube::Resources;

/// The resources that [`Resources`] holds.
const COUNTED_RESOURCES: [&str; 3] = ["cpu", "memory", "pods"];

/// The amounts of a resource list, rounded up: CPU in thousandths, all others in their unit.
pub fn resource_amounts(list: &BTreeMap<String, Quantity>) -> BTreeMap<String, i64> {
    let amount = |name: &str, quantity: &Quantity| {
        let scale = if name == "cpu" { 1000 } else { 1 };
        round_up_quantity(&quantity.0, scale).unwrap_or(0)
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

/// Returns `scale` times a quantity, rounded up, and the largest number where it is beyond one. Exact, as the API server
/// computes it: in floating point `566m` is more than 566 thousandths.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
pub fn round_up_quantity(text: &str, scale: i128) -> Option<i64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-' && c != '+')
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    // A suffix is a power of 1024 or of ten; anything else must be an exponent.
    let (binary, decimal) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (1, 0),
        "Mi" => (2, 0),
        "Gi" => (3, 0),
        "Ti" => (4, 0),
        "Pi" => (5, 0),
        "Ei" => (6, 0),
        exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    // The point is moved out of the number, so that everything below is in whole numbers.
    let decimal = decimal - i32::try_from(fraction.len()).ok()?;
    let power = 10i128.checked_pow(decimal.unsigned_abs());
    let scaled = mantissa
        .checked_mul(scale)
        .and_then(|n| n.checked_mul(1024i128.pow(binary)));
    let amount = match (scaled, power, decimal < 0) {
        (Some(scaled), Some(power), true) => {
            scaled.div_euclid(power) + i128::from(scaled.rem_euclid(power) != 0)
        }
        // A fraction too small to count is something all the same.
        (Some(scaled), None, true) => i128::from(scaled > 0),
        (Some(scaled), Some(power), false) => scaled.saturating_mul(power),
        (None, _, _) | (_, None, false) => i128::MAX,
    };
    Some(i64::try_from(amount.max(0)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_every_notation_and_rounded_up() {
        let table = [
            ("250m", 1, 1),
            ("2", 1, 2),
            ("1.5", 1, 2),
            ("1536Mi", 1, 1_610_612_736),
            ("1G", 1, 1_000_000_000),
            ("12e3", 1, 12_000),
            ("5E2", 1, 500),
            ("25e-1", 1, 3),
            ("3920m", 1000, 3920),
            ("0.1", 1000, 100),
            ("100n", 1000, 1),
            ("1e-60", 1, 1),
            ("16Ei", 1, i64::MAX),
            ("1e60", 1, i64::MAX),
        ];
        for (text, scale, value) in table {
            assert_eq!(round_up_quantity(text, scale), Some(value), "{text}");
        }
        for bad in ["", "abc", "1x", "1ee3", "."] {
            assert_eq!(round_up_quantity(bad, 1), None, "{bad}");
        }
    }

    #[test]
    fn thousandths_are_exact_so_that_what_fits_exactly_fits() {
        for millis in 0..4000 {
            let text = format!("{millis}m");
            assert_eq!(round_up_quantity(&text, 1000), Some(millis), "{text}");
        }
    }
}
