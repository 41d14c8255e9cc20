//! The page of `eksup report`: one file, nothing fetched, everything escaped. A function of the view alone.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::svg;
use super::text::{between, clock, took};
use super::view::{StepView, View};

/// Shorter waits are left out of the table.
const WORTH_TELLING: Duration = Duration::from_secs(5);

const STYLE: &str = "
:root { color-scheme: light dark; --done:#2e7d32; --failed:#c62828; --running:#1565c0; --grey:#888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .6rem;
vertical-align: top; border-bottom: 1px solid #8884; } td.n { text-align: right; white-space: nowrap; }
svg { width: 100%; height: auto; } .label, .tick { font: 11px system-ui, sans-serif; fill: currentColor; }
.tick { fill: var(--grey); } .grid { stroke: #8883; } .act { stroke: #fff; stroke-width: 1.5; }
.bar.done { fill: var(--done); } .bar.failed { fill: var(--failed); } .bar.running { fill: var(--running); }
.bar.skipped, .bar.undone, .bar.pending { fill: var(--grey); }
.traffic { fill: none; stroke: var(--done); stroke-width: 2; }
.mark.done { color: var(--done); } .mark.failed { color: var(--failed); } .mark.running { color: var(--running); }
code { background: #8882; padding: 0 .3em; border-radius: 3px; } details { margin: .3rem 0; }
";

/// The run as one self-contained page.
pub fn html(view: &View) -> String {
    let title = format!("eksup: {} {} to {}", view.cluster, view.from, view.to);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                (head(view))
                h2 { "Timeline" }
                (svg::timeline(view))
                @if let Some(drawing) = svg::traffic(view) {
                    h2 { "Traffic on green" }
                    (drawing)
                    (weights(view))
                }
                h2 { "Steps" }
                (steps(view))
                (drains(view))
                (waits(view))
                (notices(view))
            }
        }
    }
    .into_string()
}

fn head(view: &View) -> Markup {
    let total = view.opened.zip(view.now).map(|(a, b)| took(between(a, b)));
    html! {
        p {
            "Run " code { (view.run) }
            @if let Some(at) = view.opened { ", begun " (at.strftime("%Y-%m-%d %H:%M:%S UTC")) }
            @if let Some(total) = total { ", " (total) }
            @if view.processes > 1 { ", carried by " (view.processes) " processes" }
            "."
        }
        @match (&view.outcome, &view.paused) {
            (Some(outcome), _) => p {
                strong { (outcome.replace('_', " ")) }
                @if let Some(summary) = &view.summary { ": " (summary) }
            },
            (None, Some((why, resume))) => p {
                strong { "paused" } ": " (why) ". Go on with " code { (resume) } "."
            },
            (None, None) => p { strong { "not finished" } },
        }
    }
}

fn steps(view: &View) -> Markup {
    html! {
        table {
            thead { tr { th { "#" } th { "step" } th { "state" } th { "took" } th { "how" } } }
            tbody {
                @for (i, step) in view.steps.iter().enumerate() {
                    tr {
                        td.n { (i + 1) }
                        td { (step.title) br; code { (step.id) } }
                        td { span class={ "mark " (svg::class(step.mark)) } { (step.mark.as_str()) } }
                        td.n { (step_took(step)) }
                        td {
                            @if let Some(note) = &step.note { (note) }
                            @if step.retries > 0 { " (" (step.retries) " retries)" }
                            (acts(step))
                        }
                    }
                }
            }
        }
    }
}

fn acts(step: &StepView) -> Markup {
    html! {
        @if !step.acts.is_empty() {
            details {
                summary { (step.acts.len()) " acts" }
                ul { @for (at, what) in &step.acts { li { (clock(*at)) " " (what) } } }
            }
        }
    }
}

fn weights(view: &View) -> Markup {
    html! {
        table {
            thead { tr { th { "time" } th { "step" } th { "on green" } } }
            tbody {
                @for step in &view.steps {
                    @for (at, percent) in &step.weights {
                        tr { td { (clock(*at)) } td { (step.title) } td.n { (percent) "%" } }
                    }
                }
            }
        }
    }
}

/// Each part that had a count of its own: a node and its pods.
fn drains(view: &View) -> Markup {
    let any = view.steps.iter().any(|s| !s.parts.is_empty());
    html! {
        @if any {
            h2 { "Nodes" }
            table {
                thead { tr { th { "step" } th { "part" } th { "done" } th { "from" } th { "took" } th { "last" } } }
                tbody {
                    @for step in &view.steps {
                        @for (name, count) in &step.parts {
                            tr {
                                td { (step.id) }
                                td { (name) }
                                td.n {
                                    @if let (Some(done), Some(total)) = (count.done, count.total) {
                                        (done) "/" (total) " " (count.unit.as_deref().unwrap_or_default())
                                    }
                                }
                                td { @if let Some(at) = count.began { (clock(at)) } }
                                td.n {
                                    @if let (Some(a), Some(b)) = (count.began, count.last) { (took(between(a, b))) }
                                }
                                td { (count.why) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn waits(view: &View) -> Markup {
    let mut waits: Vec<_> = view
        .steps
        .iter()
        .flat_map(|s| s.waits.iter().map(move |w| (s, w)))
        .filter(|(_, w)| between(w.from, w.to) >= WORTH_TELLING)
        .collect();
    waits.sort_by_key(|(_, w)| w.from);
    html! {
        @if !waits.is_empty() {
            h2 { "What it waited for" }
            table {
                thead { tr { th { "from" } th { "for" } th { "step" } th { "why" } } }
                tbody {
                    @for (step, wait) in waits {
                        tr {
                            td { (clock(wait.from)) }
                            td.n { (took(between(wait.from, wait.to))) }
                            td { (step.id) @if let Some(part) = &wait.part { " " (part) } }
                            td { (wait.why) }
                        }
                    }
                }
            }
        }
    }
}

fn notices(view: &View) -> Markup {
    html! {
        @if !view.notices.is_empty() {
            h2 { "Notices" }
            ul { @for (at, text) in &view.notices { li { (clock(*at)) " " (text) } } }
        }
    }
}

fn step_took(step: &StepView) -> String {
    step.started
        .zip(step.ended)
        .map(|(a, b)| took(between(a, b)))
        .unwrap_or_default()
}
