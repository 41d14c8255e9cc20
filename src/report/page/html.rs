//! The page: one file, nothing fetched, no script, everything escaped. A function of the report alone.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::words::{NOT_RECORDED, approval_words, end_words, full_moment, moment, time_words};
use super::{RunEnd, RunReport, charts, sections};
use crate::report::text::format_duration;
use crate::report::wording::PauseWords;

const PAGE_CSS: &str = include_str!("style.css");

/// The run as one self-contained page.
pub fn render_page(report: &RunReport) -> String {
    let title = format!("{} {} to {}", report.cluster, report.from, report.to);
    // Made once, as the list at the top must name the parts that are shown and no others.
    let parts = page_parts(report);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "eksup: " (title) }
                // Everything is in this one file, because it is kept as an artefact and opened without a network.
                style { (PreEscaped(PAGE_CSS)) }
            }
            body {
                header.top { (render_headline(report)) }
                main {
                    (render_tiles(report))
                    nav aria-label="Parts of this report" {
                        ul { @for part in &parts { li { a href={ "#" (part.id) } { (part.title) } } } }
                    }
                    @for part in &parts {
                        section id=(part.id) aria-labelledby={ "h-" (part.id) } class=(part.id) {
                            h2 id={ "h-" (part.id) } { (part.title) }
                            (part.body)
                        }
                    }
                }
                // Where the page comes from, and what it cannot show for want of a record.
                footer {
                    p {
                        "Made from the events of run " code { (report.run) }
                        @match &report.eksup {
                            Some(version) => { ", written by eksup " (version) },
                            None => ", written by an eksup that did not yet record all that this page can show",
                        }
                        ". Times are UTC. What the events do not have is shown as " (NOT_RECORDED) "."
                    }
                }
            }
        }
    }
    .into_string()
}

/// A part of the page with a heading.
struct PagePart {
    id: &'static str,
    title: &'static str,
    body: Markup,
}

fn page_parts(report: &RunReport) -> Vec<PagePart> {
    // The order is that of questions: when, which nodes and pods, traffic, then what to look up. A part without
    // anything to show is left out, and one whose emptiness is an answer stays.
    let part = |id, title, body| PagePart { id, title, body };
    let mut parts = vec![part("timeline", "Timeline", charts::draw_timeline(report))];
    if !report.nodes.is_empty() {
        parts.push(part("nodes", "Nodes", sections::render_nodes(report)));
    }
    if let Some(body) = sections::render_pods(report) {
        parts.push(part("pods", "Pods that took longest to move", body));
    }
    if !report.traffic.is_empty() {
        parts.push(part("traffic", "Traffic", sections::render_traffic(report)));
    }
    parts.push(part("steps", "Steps", sections::render_steps(report)));
    if let Some(body) = sections::render_waits(report) {
        parts.push(part("waits", "What it waited for", body));
    }
    // Always shown: that nothing was found, or that nobody recorded it, is an answer too.
    parts.push(part(
        "findings",
        "Findings and consents",
        sections::render_findings(report),
    ));
    parts.push(part(
        "calls",
        "Calls and retries",
        sections::render_calls(report),
    ));
    parts.push(part(
        "versions",
        "Versions before and after",
        sections::render_versions(report),
    ));
    parts.push(part(
        "processes",
        "Who ran it",
        sections::render_processes(report),
    ));
    if !report.notices.is_empty() {
        parts.push(part(
            "notices",
            "Notices",
            html! {
                ul { @for (at, text) in &report.notices { li { span.soft { (moment(*at, report)) } " " (text) } } }
            },
        ));
    }
    parts
}

fn render_headline(report: &RunReport) -> Markup {
    let (word, class) = end_words(report);
    html! {
        p.eyebrow { "eksup upgrade report" }
        h1 { (report.cluster) " " span.soft { (report.from) " → " } (report.to) }
        ul.badges {
            li class={ "badge " (class) } { (word) }
            @if report.rehearsal == Some(true) { li.badge { "Rehearsal against the twin" } }
        }
        p.lead {
            @match (&report.end, &report.summary) {
                (RunEnd::Paused { why, resume }, _) => {
                    @let words = PauseWords::new(why, report.rehearsal == Some(true));
                    (capitalized(&words.reason)) ". " (words.lead_capitalized()) " " code { (resume) } "."
                },
                (_, Some(summary)) => { (capitalized(summary)) "." },
                (_, None) => {
                    @match sections::failed_step(report) {
                        Some((step, note)) => { (step.title) " failed: " (note) },
                        None => "The events end without a word on how the run ended.",
                    }
                },
            }
        }
    }
}

fn capitalized(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    // A command or a name stays as it is written.
    match chars.next() {
        Some(first) if first.is_alphabetic() => first.to_uppercase().chain(chars).collect(),
        Some(_) | None => text.to_owned(),
    }
}

fn render_tiles(report: &RunReport) -> Markup {
    let (time, estimate) = time_words(report);
    // What an older eksup did not record is said to be so; an empty tile would read as "none".
    let or_not = |text: Option<&str>| text.unwrap_or(NOT_RECORDED).to_owned();
    // A run may be carried by several people and processes, with pauses between them.
    let callers = report.callers();
    let done = report.steps.iter().filter(|s| s.mark.is_over()).count();
    let pauses = report.gaps.iter();
    let paused: std::time::Duration = pauses
        .map(|g| crate::report::text::time_between(g.from, g.to))
        .sum();
    html! {
        // The six questions that a reader has first; everything else is in the parts below.
        dl.tiles {
            div {
                dt { "Time" }
                dd { (time) @if !estimate.is_empty() { small { (estimate) } }
                    @if !report.gaps.is_empty() { small { "and " (format_duration(paused)) " without a process" } } }
            }
            div {
                dt { "When" }
                dd {
                    @match report.opened { Some(at) => (full_moment(at)), None => (NOT_RECORDED) }
                    @if let Some(at) = report.ended { small { "until " (full_moment(at)) } }
                }
            }
            div {
                dt { "Account and region" }
                dd { (or_not(report.account.as_deref())) small { (or_not(report.region.as_deref())) } }
            }
            div {
                dt { "Run by" }
                dd {
                    @if callers.is_empty() { (NOT_RECORDED) }
                    @for caller in &callers { (short_caller(caller)) small { (caller) } }
                }
            }
            div { dt { "Approved by" } dd { (approval_words(report)) } }
            div {
                dt { "Steps" }
                dd {
                    (done) " of " (report.steps.len()) " done"
                    small { (super::words::count_words(report.processes.len() as u64, "process", "processes")) }
                }
            }
        }
    }
}

/// `user/ada` or `deploy/session` of an identity's ARN.
fn short_caller(arn: &str) -> &str {
    let resource = arn.splitn(6, ':').nth(5).unwrap_or(arn);
    resource.strip_prefix("assumed-role/").unwrap_or(resource)
}
