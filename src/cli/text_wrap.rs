//! Text broken into lines: that of a route at its page's width, findings for a terminal. What is written to a pipe keeps one
//! line for each finding, for `grep`.

/// How far the rest of a broken line stands in from where it begins.
const HANGING_INDENT: usize = 8;

/// Breaks every line at spaces so that none is wider than `width`; the rest of a line stands under its text.
pub fn wrap_lines(text: &str, width: usize) -> String {
    let lines = text.lines().map(|line| wrap_line(line, width));
    let mut out = lines.collect::<Vec<String>>().join("\n");
    if text.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn wrap_line(line: &str, width: usize) -> String {
    let begin = line.len() - line.trim_start().len();
    let plain = console::strip_ansi_codes(line);
    let indent = match plain.trim_start().starts_with("fix:") {
        true => begin + "fix: ".len(),
        false => begin.max(HANGING_INDENT),
    };
    let lines = break_words(
        line.trim_start(),
        width.saturating_sub(begin),
        width.saturating_sub(indent),
    );
    let rest = format!("\n{:indent$}", "");
    format!("{:begin$}{}", "", lines.join(&rest))
}

/// Breaks text at spaces, but not before a percent sign; a longer word has a line of its own.
pub fn wrap_text(text: &str, width: usize) -> Vec<String> {
    break_words(text, width, width)
}

/// The same, with another width for the first line. What colours it has no width.
fn break_words(text: &str, first: usize, rest: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    let text = text.replace(" %", "\u{a0}%");
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let used = console::measure_text_width(&lines[last]);
        let width = if last == 0 { first } else { rest };
        if used > 0 && used + 1 + console::measure_text_width(word) > width {
            lines.push(word.to_owned());
        } else {
            if used > 0 {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    let lines = lines.into_iter();
    lines.map(|line| line.replace('\u{a0}', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_broken_at_spaces_and_its_rest_stands_under_its_text() {
        let text = "warning EKSUP-N014 cluster mixed: nodes of windows may get the pods of\n      \u{1b}[2mfix:\u{1b}[0m add a nodeSelector to their pod templates\n        a list, in\n";
        assert_eq!(
            wrap_lines(text, 40),
            "warning EKSUP-N014 cluster mixed: nodes\n        of windows may get the pods of\n      \u{1b}[2mfix:\u{1b}[0m add a nodeSelector to their\n           pod templates\n        a list, in\n"
        );
        assert_eq!(wrap_lines(text, 120), text);
        let long = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer";
        assert_eq!(wrap_lines(long, 20), long);
    }
}
