//! A plan from a file.

use std::path::Path;

use super::error::{PlanErrors, PlanProblem, SourceLocation};
use super::{Plan, check, tree};

/// Far more than any plan, and little enough to read whole.
const MAX_PLAN_FILE_BYTES: u64 = 1 << 20;

/// Reads and checks the plan at `path`.
pub fn load_plan(path: &Path) -> Result<Plan, PlanErrors> {
    let name = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        PlanErrors::for_whole_file(
            &name,
            "plan::unreadable",
            format!("cannot read {name}: {error}"),
            // The name of a cluster is what other tools take here.
            &match path.to_str().filter(|p| !p.contains(['/', '.'])) {
                Some(cluster) => format!(
                    "a plan file is given here; for plans/{cluster}.yaml write `--cluster {cluster}`"
                ),
                None => {
                    "check the path; `eksup init --cluster NAME` writes a plan from a live cluster"
                        .to_owned()
                }
            },
        )
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_PLAN_FILE_BYTES {
        return Err(too_large_error(&name, size));
    }
    parse_plan_bytes(&name, &std::fs::read(path).map_err(unreadable)?)
}

/// Reads and checks a plan from what a file holds.
pub fn parse_plan_bytes(name: &str, bytes: &[u8]) -> Result<Plan, PlanErrors> {
    if bytes.len() as u64 > MAX_PLAN_FILE_BYTES {
        return Err(too_large_error(name, bytes.len() as u64));
    }
    let save = "save the file as UTF-8";
    // UTF-16 is what some editors write, and its first byte would be told as damage.
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(PlanErrors::for_whole_file(
            name,
            "plan::encoding",
            "the file is UTF-16",
            save,
        ));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse_plan(name, text),
        Err(error) => {
            // The place of the damage is shown behind the part that could be read.
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
            let mut at = SourceLocation {
                start: good.len(),
                len: 0,
                line: 0,
                column: 0,
            };
            (at.line, at.column) = line_and_column(&good, good.len());
            Err(PlanErrors::new(
                name,
                &good,
                vec![
                    PlanProblem::new("plan::encoding", at, "from here the file is not UTF-8")
                        .with_help(save),
                ],
            ))
        }
    }
}

/// Reads and checks a plan from a text. `name` stands in messages.
pub fn parse_plan(name: &str, text: &str) -> Result<Plan, PlanErrors> {
    // A plan is a page long: what is much larger is another file.
    if text.len() as u64 > MAX_PLAN_FILE_BYTES {
        return Err(too_large_error(name, text.len() as u64));
    }
    // Some editors begin a UTF-8 file with a mark; it says nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A control character would be invisible in a message, so it is told by its number.
    if let Some((start, c)) = text
        .char_indices()
        .find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        let (line, column) = line_and_column(text, start);
        let at = SourceLocation {
            start,
            len: c.len_utf8(),
            line,
            column,
        };
        let problem = PlanProblem::new(
            "plan::encoding",
            at,
            format!(
                "the file holds the control character U+{:04X}",
                u32::from(c)
            ),
        );
        return Err(PlanErrors::new(
            name,
            text,
            vec![problem.with_help("remove it; if the file is UTF-16, save it as UTF-8")],
        ));
    }
    match tree::parse_tree(text) {
        Ok(root) => check::check_plan(name, text, &root),
        Err(problem) => Err(PlanErrors::new(name, text, vec![problem])),
    }
}

fn too_large_error(name: &str, size: u64) -> PlanErrors {
    PlanErrors::for_whole_file(
        name,
        "plan::size",
        format!("the file has {size} bytes; a plan has at most {MAX_PLAN_FILE_BYTES}"),
        "this is hardly a plan: check the path",
    )
}

/// Line and column of a byte, both from 1.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}
