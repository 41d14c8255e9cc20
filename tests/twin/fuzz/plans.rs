//! A plan file, whatever is in it, is a plan or a list of problems, each with its place.

use eksup::cli::error_text;
use eksup::plan::{self, Plan, PlanErrors};
use eksup::report::Painter;
use eksup::run::{RunError, RunErrorKind};
use eksup::twin::scenario;
use eksup::{ready, route};
use proptest::prelude::*;
use serde_json::Value;

use super::damage::{cut, cuts, twist, twists};

/// The plans of `plans/`, by name.
fn plans() -> Vec<(String, String)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let mut all: Vec<(String, String)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// Codes of problems that a file has as a whole.
const WHOLE: &[&str] = &["plan::empty", "plan::encoding", "plan::size"];

fn sound(bytes: &[u8], read: Result<Plan, PlanErrors>) -> Result<(), TestCaseError> {
    let errors = match read {
        Ok(plan) => return useful(&plan),
        Err(errors) => errors,
    };
    prop_assert!(!errors.problems.is_empty());
    for p in &errors.problems {
        prop_assert!(p.code.starts_with("plan::"), "{}", p.code);
        prop_assert!(!p.message.is_empty());
        let placed = p.at.line > 0 && p.at.column > 0;
        prop_assert!(placed || WHOLE.contains(&p.code), "{p:?} has no place");
        prop_assert!(
            p.at.start + p.at.len <= bytes.len(),
            "{p:?} is beyond the file"
        );
    }
    let error = RunError::from(errors);
    prop_assert_eq!(
        error.kind.exit_code(),
        RunErrorKind::PlanInvalid.exit_code()
    );
    // It is shown with the lines it points at, in every form.
    prop_assert!(!error_text::render_error(&error, Painter::default(), 100, false).is_empty());
    prop_assert!(error_text::error_to_json(&error).is_object());
    Ok(())
}

/// What is read as a plan can be worked with.
fn useful(plan: &Plan) -> Result<(), TestCaseError> {
    prop_assert!(!plan::plan_digest(plan).is_empty());
    let inventory = scenario::expense_dev().inventory;
    let route = route::build_route(plan, &inventory);
    ready::check_readiness(plan, &inventory, &route);
    Ok(())
}

#[test]
fn a_plan_damaged_in_its_bytes_is_a_plan_or_problems_with_places() {
    let inputs = (proptest::sample::select(plans()), cuts());
    super::try_all(400, &inputs, |((name, text), cuts)| {
        let bytes = cut(text.as_bytes(), &cuts);
        sound(&bytes, plan::parse_plan_bytes(&name, &bytes))
    });
}

#[test]
fn a_plan_damaged_in_its_structure_is_a_plan_or_problems_with_places() {
    let values: Vec<Value> = plans()
        .iter()
        .map(|(_, text)| serde_saphyr::from_str(text).unwrap())
        .collect();
    let inputs = (proptest::sample::select(values), twists());
    super::try_all(400, &inputs, |(value, twists)| {
        let text = twist(&value, &twists).to_string();
        sound(text.as_bytes(), plan::parse_plan("plan.yaml", &text))
    });
}
