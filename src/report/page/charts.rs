//! Drawings of the page: rows of bars over one time axis, and traffic as areas. Plain markup that grows with its text, so
//! that it can be read on a telephone; each drawing has one name, and the table under it has the same in words.

use maud::{Markup, html};

use super::axis::TimeAxis;
use super::words::{activity_word, moment, node_words};
use super::{Activity, NodePhase, NodeReport, RunGap, RunReport, StepReport, TrafficReport};
use crate::report::text::{format_duration, time_between};
use crate::report::view::StepMark;

/// Nodes that are drawn; the others took less time and are counted.
pub const MAX_DRAWN_NODES: usize = 80;

/// A longer part of the run in which no node changes is drawn short.
const QUIET_SHARE: f64 = 0.08;

/// A bar in a row.
struct Bar {
    from: f64,
    to: f64,
    class: &'static str,
    hint: String,
}

/// One row: a label, what stands at its end, and its bars.
struct Row {
    label: Markup,
    note: String,
    bars: Vec<Bar>,
}

/// The axis over the whole run.
pub fn run_axis(report: &RunReport) -> Option<TimeAxis> {
    let (from, to) = (report.opened?, report.ended?);
    Some(TimeAxis::new(from, to, &report.gaps))
}

/// The steps over time.
pub fn draw_timeline(report: &RunReport) -> Markup {
    let Some(axis) = run_axis(report) else {
        return html! {};
    };
    let rows = report.steps.iter().enumerate().map(|(i, step)| Row {
        label: html! { span.num { (i + 1) } " " span { (step.title) } },
        note: step_note(step),
        bars: step_bars(report, step, &axis),
    });
    let rows: Vec<Row> = rows.collect();
    // The legend names only what is drawn.
    let used = |wanted: Activity| {
        let spans = report.steps.iter().flat_map(|s| &s.spans);
        spans.into_iter().any(|s| s.activity == wanted)
    };
    let failed = report
        .steps
        .iter()
        .any(|s| matches!(s.mark, StepMark::Failed | StepMark::UndoFailed));
    let legend = [
        ("a-work", "work", used(Activity::Work)),
        ("a-bake", "bake or soak", used(Activity::Bake)),
        ("a-window", "waiting for a window", used(Activity::Window)),
        ("a-undo", "rollback", used(Activity::Undo)),
        ("a-fail", "failed", failed),
        (
            "gap",
            "paused: no process",
            report.gaps.iter().any(|g| g.why.is_some()),
        ),
        (
            "gap lost",
            "no process, and no word why",
            report.gaps.iter().any(|g| g.why.is_none()),
        ),
    ];
    html! {
        (draw_legend(&legend))
        (draw_rows("Timeline of the steps; the table of steps has the same in words", &axis, report, rows))
        @if axis.has_cuts() { p.note { "Pauses are drawn shorter than they were." } }
    }
}

fn step_note(step: &StepReport) -> String {
    let spent = step.time_spent(|_| true);
    match (step.mark, step.spans.is_empty()) {
        (StepMark::Pending, _) | (_, true) => step.mark.as_str().to_owned(),
        _ => format_duration(spent),
    }
}

fn step_bars(report: &RunReport, step: &StepReport, axis: &TimeAxis) -> Vec<Bar> {
    // One bar for each stretch in which the step did one kind of thing.
    let spans = step.spans.iter().map(|span| Bar {
        from: axis.percent(span.from),
        to: axis.percent(span.to),
        class: match span.activity {
            Activity::Work => "a-work",
            Activity::Bake => "a-bake",
            Activity::Window => "a-window",
            Activity::Undo => "a-undo",
        },
        hint: format!(
            "{}: {} from {} to {}",
            activity_word(span.activity),
            format_duration(time_between(span.from, span.to)),
            moment(span.from, report),
            moment(span.to, report)
        ),
    });
    let mut bars: Vec<Bar> = spans.collect();
    // The failure is a mark at the end, beside the bar of the work that failed.
    let failed = matches!(step.mark, StepMark::Failed | StepMark::UndoFailed);
    if let Some(last) = step.spans.last().filter(|_| failed) {
        let end = axis.percent(last.to);
        bars.push(Bar {
            from: end,
            to: end,
            class: "a-fail",
            hint: format!("failed at {}", moment(last.to, report)),
        });
    }
    bars
}

/// The nodes that are drawn, in their order, and how many are left out.
pub fn drawn_nodes(report: &RunReport) -> (Vec<&NodeReport>, usize) {
    let mut slowest: Vec<&NodeReport> = report.nodes.iter().collect();
    if slowest.len() <= MAX_DRAWN_NODES {
        return (slowest, 0);
    }
    let left_out = slowest.len() - MAX_DRAWN_NODES;
    slowest.sort_by_key(|n| std::cmp::Reverse(drain_time(n)));
    slowest.truncate(MAX_DRAWN_NODES);
    let kept = |n: &&NodeReport| slowest.iter().any(|s| s.name == n.name);
    (report.nodes.iter().filter(kept).collect(), left_out)
}

/// How long a node's drain took until it was empty.
pub fn drain_time(node: &NodeReport) -> std::time::Duration {
    let busy = node
        .spans
        .iter()
        .filter(|s| s.state.is_of_drain() && s.state != NodePhase::Empty);
    busy.map(|s| time_between(s.from, s.to)).sum()
}

/// The nodes over time.
pub fn draw_nodes(report: &RunReport) -> Markup {
    let (nodes, left_out) = drawn_nodes(report);
    let Some(axis) = node_axis(report, &nodes) else {
        return html! {};
    };
    // The legend names only states that occur, in the order of a node's life.
    let mut states: Vec<NodePhase> = nodes
        .iter()
        .flat_map(|n| n.spans.iter().map(|s| s.state))
        .collect();
    states.sort_unstable();
    states.dedup();
    let legend: Vec<(&str, &str, bool)> = states
        .into_iter()
        .map(|s| {
            let (word, class) = node_words(s);
            (class, word, true)
        })
        .collect();
    // Groups in the order in which their first node appears.
    let mut groups: Vec<Option<&str>> = Vec::new();
    for node in &nodes {
        if !groups.contains(&node.group.as_deref()) {
            groups.push(node.group.as_deref());
        }
    }
    html! {
        (draw_legend(&legend))
        @for group in groups {
            @let of_group: Vec<&&NodeReport> = nodes.iter().filter(|n| n.group.as_deref() == group).collect();
            h3 {
                (group.unwrap_or("Nodes"))
                " " span.soft { (super::words::count_words(of_group.len() as u64, "node", "nodes")) }
            }
            @let name = format!("Nodes of {} over time; the table of nodes has the same in words", group.unwrap_or("the drain"));
            @let rows = of_group.iter().map(|n| node_row(report, n, &axis)).collect();
            (draw_rows(&name, &axis, report, rows))
        }
        @if axis.has_cuts() {
            p.note { "Long times in which no node changed are drawn shorter than they were." }
        }
        @if left_out > 0 {
            p.note { (left_out) " more nodes are not drawn: they were empty sooner." }
        }
    }
}

/// The axis of the nodes: a drain of minutes would not be seen beside a soak of hours.
fn node_axis(report: &RunReport, nodes: &[&NodeReport]) -> Option<TimeAxis> {
    let (from, to) = (report.opened?, report.ended?);
    let mut changes: Vec<_> = nodes
        .iter()
        .flat_map(|n| n.spans.iter().map(|s| s.from).chain(n.gone))
        .chain([from, to])
        .collect();
    changes.sort_unstable();
    let whole = time_between(from, to).as_secs_f64();
    let quiet = changes.windows(2).filter_map(|pair| {
        let long = time_between(pair[0], pair[1]).as_secs_f64() > whole * QUIET_SHARE;
        long.then(|| RunGap {
            from: pair[0],
            to: pair[1],
            why: None,
        })
    });
    Some(TimeAxis::new(from, to, &quiet.collect::<Vec<_>>()))
}

fn node_row(report: &RunReport, node: &NodeReport, axis: &TimeAxis) -> Row {
    let bars = node.spans.iter().map(|span| {
        let (word, class) = node_words(span.state);
        let why = span.why.as_deref();
        Bar {
            from: axis.percent(span.from),
            to: axis.percent(span.to),
            class,
            hint: format!(
                "{word}: {} from {}{}",
                format_duration(time_between(span.from, span.to)),
                moment(span.from, report),
                why.map(|w| format!(", {w}")).unwrap_or_default()
            ),
        }
    });
    Row {
        label: html! { (short_node(&node.name)) },
        note: match (node.pods, node.gone) {
            (Some(pods), _) => super::words::count_words(pods, "pod", "pods"),
            (None, Some(_)) => "gone".to_owned(),
            (None, None) => String::new(),
        },
        bars: bars.collect(),
    }
}

/// A node's name without its domain, which all of them share.
pub fn short_node(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn draw_legend(entries: &[(&str, &str, bool)]) -> Markup {
    html! {
        ul.legend {
            @for (class, word, used) in entries {
                @if *used { li { span class={ "swatch bar " (class) } {} (word) } }
            }
        }
    }
}

fn draw_rows(name: &str, axis: &TimeAxis, report: &RunReport, rows: Vec<Row>) -> Markup {
    // Gaps run through all rows, because they are the whole run's.
    let gaps: Vec<(f64, f64, bool)> = report
        .gaps
        .iter()
        .map(|g| (axis.percent(g.from), axis.percent(g.to), g.why.is_some()))
        .collect();
    let ticks = axis.ticks();
    html! {
        div.chart role="img" aria-label=(name) {
            @for row in rows {
                div.row {
                    div.label { (row.label) }
                    div.track {
                        @for tick in &ticks { span.grid style=(left(tick.percent)) {} }
                        @for (from, to, told) in &gaps {
                            span class={ "gap" @if !told { " lost" } } style=(extent(*from, *to)) {}
                        }
                        @for bar in &row.bars {
                            span class={ "bar " (bar.class) } style=(extent(bar.from, bar.to)) title=(bar.hint) {}
                        }
                    }
                    div.end { (row.note) }
                }
            }
            div.row.axis {
                div.label { "UTC" }
                div.track {
                    @for (i, tick) in ticks.iter().enumerate() {
                        span class={ "tick" @if i % 2 == 1 { " odd" } } style=(left(tick.percent)) { (tick.label) }
                    }
                }
                div.end {}
            }
        }
    }
}

fn left(percent: f64) -> String {
    format!("left:{percent:.2}%")
}

fn extent(from: f64, to: f64) -> String {
    format!("left:{from:.2}%;width:{:.2}%", (to - from).max(0.0))
}

/// Shares of both colours over time, with the moments at which a share was set.
pub fn draw_traffic(report: &RunReport, traffic: &TrafficReport) -> Markup {
    let shares = share_points(traffic);
    let (Some((first, _)), Some(until)) = (shares.first(), traffic.until) else {
        return html! {};
    };
    let axis = TimeAxis::new(*first, until, &report.gaps);
    // A staircase: each share holds until the next.
    let mut line = String::new();
    let mut before = shares.first().map_or(0, |(_, p)| *p);
    for (at, percent) in &shares {
        let x = axis.percent(*at);
        line += &format!("{x:.2},{} {x:.2},{} ", 100 - before, 100 - percent);
        before = *percent;
    }
    line += &format!("100,{}", 100 - before);
    // Closed along the bottom, so that green is an area and the rest is blue's.
    let green = format!("0,100 {line} 100,100");
    // The first share is where the drawing begins, and is no change.
    let marks: Vec<(f64, u64)> = shares
        .iter()
        .skip(1)
        .map(|(at, percent)| (axis.percent(*at), *percent))
        .collect();
    // For readers who do not see the drawing: the table has the same numbers.
    let name = format!(
        "Share of the traffic on each colour, {}; the table below has the same in words",
        traffic.title
    );
    html! {
        ul.legend {
            li { span.swatch.bar.t-blue {} "blue" @if let Some(n) = colour_name(traffic, true) { " (" (n) ")" } }
            li { span.swatch.bar.t-green {} "green" @if let Some(n) = colour_name(traffic, false) { " (" (n) ")" } }
        }
        div.area role="img" aria-label=(name) {
            div.scale { span { "100%" } span { "50%" } span { "0%" } }
            div.plot {
                svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true" {
                    rect.t-blue x="0" y="0" width="100" height="100" {}
                    polygon.t-green points=(green) {}
                }
                @for gap in &report.gaps {
                    @let (a, b) = (axis.percent(gap.from), axis.percent(gap.to));
                    @if b > a { span class={ "gap" @if gap.why.is_none() { " lost" } } style=(extent(a, b)) {} }
                }
                @for (x, percent) in marks {
                    span class={ "mark" @if x > 85.0 { " flip" } } style=(left(x)) { b { (percent) "%" } }
                }
            }
            div.times {
                @for tick in axis.ticks() { span.tick style=(left(tick.percent)) { (tick.label) } }
            }
        }
    }
}

/// The share on green over time: by readings, or by counts where there are only those.
pub fn share_points(traffic: &TrafficReport) -> Vec<(jiff::Timestamp, u64)> {
    let read = traffic.readings.iter();
    let mut points: Vec<_> = read
        .filter_map(|(at, r)| Some((*at, r.green_percent?)))
        .collect();
    if points.is_empty() {
        points.clone_from(&traffic.shares);
    }
    points.dedup_by_key(|(_, percent)| *percent);
    points
}

fn colour_name(traffic: &TrafficReport, blue: bool) -> Option<&str> {
    let (_, reading) = traffic.readings.first()?;
    let colour = if blue { &reading.blue } else { &reading.green };
    Some(colour.target_group.as_str()).filter(|n| !n.is_empty())
}
