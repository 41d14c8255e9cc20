//! Lines of findings broken for a terminal. What is written to a pipe keeps one line for each, for `grep`.

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
    let measure = |text: &str| console::measure_text_width(text);
    if measure(line) <= width {
        return line.to_owned();
    }
    let begin = line.len() - line.trim_start().len();
    let indent = begin.max(HANGING_INDENT);
    let indent = match console::strip_ansi_codes(line)
        .trim_start()
        .starts_with("fix:")
    {
        true => begin + "fix: ".len(),
        false => indent,
    };
    let mut out = " ".repeat(begin);
    let mut used = begin;
    for (i, word) in line.trim_start().split(' ').enumerate() {
        let wide = measure(word);
        // A longer word has a line of its own.
        if i > 0 && used + 1 + wide > width && used > indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            used = indent;
        } else if i > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += wide;
    }
    out
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
