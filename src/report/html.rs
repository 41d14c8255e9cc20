//! The page of `eksup report`: one file, nothing fetched, everything escaped. A function of the view alone.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::svg;
use super::text::{format_duration, time_between, time_of_day};
use super::view::{RunView, StepView};

/// Shorter waits are left out of the table.
const MIN_LISTED_WAIT: Duration = Duration::from_secs(5);

const PAGE_CSS: &str = "
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
pub fn render_page(view: &RunView) -> String {
    let title = format!("eksup: {} {} to {}", view.cluster, view.from, view.to);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(PAGE_CSS)) }
            }
            body {
                h1 { (title) }
                (render_head(view))
                h2 { "Timeline" }
                (svg::draw_timeline(view))
                @if let Some(drawing) = svg::draw_traffic(view) {
                    h2 { "Traffic on green" }
                    (drawing)
                    (render_weights(view))
                }
                h2 { "Steps" }
                (render_steps(view))
                (render_drains(view))
                (render_waits(view))
                (render_notices(view))
            }
        }
    }
    .into_string()
}

fn render_head(view: &RunView) -> Markup {
    let total = view
        .opened
        .zip(view.now)
        .map(|(a, b)| format_duration(time_between(a, b)));
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
                strong { "paused" } ": " (why) ". Continue with " code { (resume) } "."
            },
            (None, None) => p { strong { "not finished" } },
        }
    }
}

fn render_steps(view: &RunView) -> Markup {
    html! {
        table {
            thead { tr { th { "#" } th { "step" } th { "state" } th { "took" } th { "how" } } }
            tbody {
                @for (i, step) in view.steps.iter().enumerate() {
                    tr {
                        td.n { (i + 1) }
                        td { (step.title) br; code { (step.id) } }
                        td { span class={ "mark " (svg::mark_class(step.mark)) } { (step.mark.as_str()) } }
                        td.n { (step_duration(step)) }
                        td {
                            @if let Some(note) = &step.note { (note) }
                            @if step.retries > 0 { " (" (step.retries) " retries)" }
                            (render_acts(step))
                        }
                    }
                }
            }
        }
    }
}

fn render_acts(step: &StepView) -> Markup {
    html! {
        @if !step.acts.is_empty() {
            details {
                summary { (step.acts.len()) " acts" }
                ul { @for (at, what) in &step.acts { li { (time_of_day(*at)) " " (what) } } }
            }
        }
    }
}

fn render_weights(view: &RunView) -> Markup {
    html! {
        table {
            thead { tr { th { "time" } th { "step" } th { "on green" } } }
            tbody {
                @for step in &view.steps {
                    @for (at, percent) in &step.weights {
                        tr { td { (time_of_day(*at)) } td { (step.title) } td.n { (percent) "%" } }
                    }
                }
            }
        }
    }
}

/// Each part that had a count of its own: a node and its pods.
fn render_drains(view: &RunView) -> Markup {
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
                                td { @if let Some(at) = count.began { (time_of_day(at)) } }
                                td.n {
                                    @if let (Some(a), Some(b)) = (count.began, count.last) { (format_duration(time_between(a, b))) }
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

fn render_waits(view: &RunView) -> Markup {
    let mut waits: Vec<_> = view
        .steps
        .iter()
        .flat_map(|s| s.waits.iter().map(move |w| (s, w)))
        .filter(|(_, w)| time_between(w.from, w.to) >= MIN_LISTED_WAIT)
        .collect();
    // Short waits are left out: a long run has thousands.
    waits.sort_by_key(|(_, w)| w.from);
    html! {
        @if !waits.is_empty() {
            h2 { "What it waited for" }
            table {
                thead { tr { th { "from" } th { "for" } th { "step" } th { "why" } } }
                tbody {
                    @for (step, wait) in waits {
                        tr {
                            td { (time_of_day(wait.from)) }
                            td.n { (format_duration(time_between(wait.from, wait.to))) }
                            td { (step.id) @if let Some(part) = &wait.part { " " (part) } }
                            td { (wait.why) }
                        }
                    }
                }
            }
        }
    }
}

fn render_notices(view: &RunView) -> Markup {
    html! {
        @if !view.notices.is_empty() {
            h2 { "Notices" }
            ul { @for (at, text) in &view.notices { li { (time_of_day(*at)) " " (text) } } }
        }
    }
}

fn step_duration(step: &StepView) -> String {
    step.started
        .zip(step.ended)
        .map(|(a, b)| format_duration(time_between(a, b)))
        .unwrap_or_default()
}
