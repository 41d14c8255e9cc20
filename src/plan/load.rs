//! A plan from a file.

use std::path::Path;

use super::error::{At, PlanErrors, Problem};
use super::{Plan, check, tree};

/// Far more than any plan, and little enough to read whole.
const LARGEST: u64 = 1 << 20;

/// Reads and checks the plan at `path`.
pub fn load(path: &Path) -> Result<Plan, PlanErrors> {
    let name = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        PlanErrors::whole(
            &name,
            "plan::unreadable",
            format!("cannot read {name}: {error}"),
            "check the path; `eksup init --cluster NAME` writes a plan from a live cluster",
        )
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > LARGEST {
        return Err(too_large(&name, size));
    }
    parse_bytes(&name, &std::fs::read(path).map_err(unreadable)?)
}

/// Reads and checks a plan from what a file holds.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<Plan, PlanErrors> {
    if bytes.len() as u64 > LARGEST {
        return Err(too_large(name, bytes.len() as u64));
    }
    let save = "save the file as UTF-8";
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(PlanErrors::whole(
            name,
            "plan::encoding",
            "the file is UTF-16",
            save,
        ));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(name, text),
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
            let mut at = At {
                start: good.len(),
                len: 0,
                line: 0,
                column: 0,
            };
            (at.line, at.column) = position(&good, good.len());
            Err(PlanErrors::new(
                name,
                &good,
                vec![
                    Problem::new("plan::encoding", at, "from here the file is not UTF-8")
                        .help(save),
                ],
            ))
        }
    }
}

/// Reads and checks a plan from a text. `name` stands in messages.
pub fn parse(name: &str, text: &str) -> Result<Plan, PlanErrors> {
    if text.len() as u64 > LARGEST {
        return Err(too_large(name, text.len() as u64));
    }
    // Some editors begin a UTF-8 file with a mark; it says nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((start, c)) = text
        .char_indices()
        .find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        let (line, column) = position(text, start);
        let at = At {
            start,
            len: c.len_utf8(),
            line,
            column,
        };
        let problem = Problem::new(
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
            vec![problem.help("remove it; if the file is UTF-16, save it as UTF-8")],
        ));
    }
    match tree::grow(text) {
        Ok(root) => check::plan(name, text, &root),
        Err(problem) => Err(PlanErrors::new(name, text, vec![problem])),
    }
}

fn too_large(name: &str, size: u64) -> PlanErrors {
    PlanErrors::whole(
        name,
        "plan::size",
        format!("the file has {size} bytes; a plan has at most {LARGEST}"),
        "this is hardly a plan: check the path",
    )
}

/// Line and column of a byte, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}
