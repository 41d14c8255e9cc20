use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressDrawTarget, TermLike};
use jiff::Timestamp;

use super::ci::{GithubSink, GitlabSink, format_annotation};
use super::json::JsonSink;
use super::lines::LineSink;
use super::live_rows::render_rows;
use super::markdown::render_markdown;
use super::progress_bars::ProgressBars;
use super::recording::{self, EventRecorder};
use super::sink::{EventSink, Reporter};
use super::text::{Painter, format_duration};
use super::view::{RunView, StepMark};
use super::wording::visible_width;
use crate::event::outline::{OutlineMark, RunOutline, StepOutline};
use crate::event::{EventKind, RunEvent, StepProgress, StepTitle, open_event_bus};

fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
    start + jiff::SignedDuration::from_secs(seconds)
}

fn pod_wait(seconds: i64, done: u64) -> RunEvent {
    let kind = EventKind::Progress(StepProgress {
        step: "drain-blue".into(),
        why: "PDB shop/web allows 0 of 3 (2 healthy, 2 needed), pod shop/web-6d9f-x2lpz".into(),
        done: Some(done),
        total: Some(9),
        unit: Some("pods".into()),
        part: Some("ip-10-0-1-7".into()),
    });
    RunEvent {
        at: at(seconds),
        kind,
    }
}

/// A run as it happens: a hop, a shift, a drain that waits, a pause.
fn script() -> Vec<RunEvent> {
    let step = |id: &str, title: &str| StepTitle {
        step: id.into(),
        title: title.into(),
    };
    let steps = vec![
        step("control-plane-1.28", "Control plane to 1.28"),
        step("shift", "Traffic to green"),
        step("drain-blue", "Empty blue"),
    ];
    // A share of the traffic, as the shift tells it with each step.
    let weight = |s, percent: u64| {
        let why = format!("{percent}% on green, baking");
        let (done, total, unit) = (Some(percent), Some(100), Some("percent".to_owned()));
        let progress = StepProgress {
            step: "shift".into(),
            why,
            done,
            total,
            unit,
            part: None,
        };
        RunEvent {
            at: at(s),
            kind: EventKind::Progress(progress),
        }
    };
    let e = |s: i64, kind: EventKind| RunEvent { at: at(s), kind };
    let began = |id: &str, what: &str| EventKind::ActBegan {
        step: id.into(),
        what: what.into(),
    };
    let started = |id: &str, title: &str| EventKind::StepStarted {
        step: id.into(),
        title: title.into(),
    };
    vec![
        e(
            0,
            EventKind::RunOpened {
                run: "r1".into(),
                cluster: "shop".into(),
                from: "1.27".into(),
                to: "1.28".into(),
                steps,
            },
        ),
        e(1, started("control-plane-1.28", "Control plane to 1.28")),
        e(
            1,
            began(
                "control-plane-1.28",
                "raise the control plane of shop to 1.28",
            ),
        ),
        // A retry, a text that HTML or a table would misread, and the same wait three times.
        e(
            2,
            EventKind::Retrying {
                step: "control-plane-1.28".into(),
                error: "eks:DescribeUpdate: slow down".into(),
                class: "throttled".into(),
                after: Duration::from_millis(1500),
            },
        ),
        e(
            541,
            EventKind::StepDone {
                step: "control-plane-1.28".into(),
                how: "the API server says 1.28".into(),
                took: Duration::from_secs(540),
            },
        ),
        e(541, started("shift", "Traffic to green")),
        e(541, began("shift", "25% to green on rule <a|b>")),
        weight(542, 25),
        weight(700, 100),
        e(
            900,
            EventKind::StepSkipped {
                step: "shift".into(),
                how: "all on green".into(),
            },
        ),
        e(901, started("drain-blue", "Empty blue")),
        pod_wait(905, 3),
        pod_wait(910, 3),
        pod_wait(1155, 3),
        e(
            1160,
            EventKind::Notice {
                step: None,
                text: "insight X is 26 h old".into(),
            },
        ),
        e(
            1165,
            EventKind::RunPaused {
                why: "asked to stop".into(),
                resume: "eksup apply".into(),
            },
        ),
    ]
}

/// A writer that can be read afterwards.
#[derive(Clone, Debug, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn show(sink: &mut dyn EventSink, events: &[RunEvent]) {
    let mut view = RunView::default();
    for event in events {
        view.apply_event(event);
        sink.show_event(&view, event).unwrap();
    }
    sink.finish_output(&view).unwrap();
}

#[test]
fn lines_tell_every_event_once_and_progress_rarely_with_its_reason() {
    let page = Page::default();
    show(
        &mut LineSink::new(page.clone(), Painter::default()),
        &script(),
    );
    insta::assert_snapshot!(page.text(), @r"
    2026-11-21, times are UTC
    08:00:00 run r1: shop 1.27 -> 1.28, 3 steps
    08:00:01 [1/3] control-plane-1.28: Control plane to 1.28
    08:00:01 control-plane-1.28: raise the control plane of shop to 1.28
    08:00:02 control-plane-1.28: eks:DescribeUpdate: slow down, again in 1s
    08:09:01 [1/3] control-plane-1.28: done in 9m, the API server says 1.28
    08:09:01 [2/3] shift: Traffic to green
    08:09:01 shift: 25% to green on rule <a|b>
    08:09:02 shift: 25%, 25% on green, baking
    08:11:40 shift: 100%, 100% on green, baking
    08:15:00 [2/3] shift: no change needed, all on green
    08:15:01 [3/3] drain-blue: Empty blue
    08:15:05 drain-blue ip-10-0-1-7: 3/9 pods, PDB shop/web allows 0 of 3 (2 healthy, 2 needed), pod shop/web-6d9f-x2lpz
    08:19:20 insight X is 26 h old
    08:19:25 run r1: paused, asked to stop; continue with `eksup apply`
    ");
}

#[test]
fn json_begins_with_its_version_and_reads_back() {
    let page = Page::default();
    show(&mut JsonSink::new(page.clone()).unwrap(), &script());
    let text = page.text();
    let mut lines = text.lines();
    let version: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(
        (&version["type"], &version["schema"]),
        (&"version".into(), &"1.0".into())
    );
    let read: Vec<RunEvent> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(read, script());
    assert!(text.contains(r#""type":"step_done""#) && text.contains(r#""tookSeconds":540.0"#));
}

#[test]
fn a_recorded_stream_is_read_back_across_processes_with_a_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let events = script();
    show(&mut EventRecorder::new(folder.path()), &events);
    let resumed = EventKind::RunResumed {
        run: "r1".into(),
        by: "ci-2".into(),
        steps: Vec::new(),
        done: vec!["control-plane-1.28".into(), "shift".into()],
    };
    let resumed = RunEvent {
        at: at(2000),
        kind: resumed,
    };
    show(
        &mut EventRecorder::new(folder.path()),
        std::slice::from_ref(&resumed),
    );
    let path = folder.path().join("r1/events.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(br#"{"type":"later","at":"2026-11-21T09:00:00Z"}"#);
    bytes.extend(b"\n{\"type\":\"st");
    std::fs::write(&path, bytes).unwrap();
    let read = recording::read_events(&path).unwrap();
    assert_eq!(read[..events.len()], events);
    assert_eq!(read[events.len()..], [resumed]);
    let view = RunView::from_events(&read);
    assert_eq!((view.paused, view.steps[0].mark), (None, StepMark::Done));
}

#[test]
fn markdown_and_annotations_cannot_be_broken_by_what_they_quote() {
    let mut view = RunView::from_events(&script());
    view.steps[0].note = Some("a | b\n<script>".into());
    let text = render_markdown(&view);
    assert!(text.contains(r"a \| b &lt;script>"), "{text}");
    assert_eq!(
        format_annotation("error", "a: b, c", "50%\nx"),
        "::error title=a%3A b%2C c::50%25%0Ax"
    );
}

#[test]
fn github_gets_annotations_and_a_summary_and_gitlab_gets_sections() {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary.md");
    let page = Page::default();
    show(
        &mut GithubSink::new(page.clone(), Some(summary.clone())),
        &script(),
    );
    assert!(
        page.text()
            .contains("::group::[1/3] Control plane to 1.28\n::endgroup::\n::group::[2/3]")
    );
    // What ends a run is annotated by the command itself.
    assert!(
        page.text()
            .contains("::notice title=eksup::insight X is 26 h old")
            && !page.text().contains("paused")
    );
    assert_eq!(
        page.text().matches("::group::").count(),
        page.text().matches("::endgroup::").count()
    );
    let summary = std::fs::read_to_string(summary).unwrap();
    assert!(
        summary.contains("| 1 | Control plane to 1.28 | done | 9m |"),
        "{summary}"
    );
    // While the run is paused nothing is running.
    assert!(
        summary.contains("| 3 | Empty blue | stopped |"),
        "{summary}"
    );
    let page = Page::default();
    show(&mut GitlabSink::new(page.clone()), &script());
    let text = page.text();
    assert_eq!(
        text.matches("section_start").count(),
        text.matches("section_end").count()
    );
    assert!(
        text.contains("section_start:1795248001:control-plane-1.28[collapsed=true]\r"),
        "{text:?}"
    );
}

#[test]
fn the_view_counts_waiting_from_the_last_thing_that_got_on() {
    let view = RunView::from_events(&script());
    let count = &view.steps[2].parts["ip-10-0-1-7"];
    assert_eq!(count.moved, Some(at(905)));
    assert_eq!(view.count_finished(), 2);
}

#[test]
fn a_reader_that_goes_away_stops_only_its_sink() {
    #[derive(Debug)]
    struct Gone(io::ErrorKind);
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let page = Page::default();
    let paint = Painter::default();
    let sinks: Vec<Box<dyn EventSink>> = vec![
        Box::new(LineSink::new(Gone(io::ErrorKind::BrokenPipe), paint)),
        Box::new(LineSink::new(Gone(io::ErrorKind::StorageFull), paint)),
        Box::new(LineSink::new(page.clone(), paint)),
    ];
    let (bus, rx) = open_event_bus();
    let reporter = Reporter::start(rx, sinks, None).unwrap();
    script().into_iter().for_each(|e| bus.send_event(e));
    bus.close_stream();
    let (view, failed) = reporter.finish();
    assert_eq!(view.run, "r1");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(page.text().ends_with("continue with `eksup apply`\n"));
}

/// A terminal that keeps what is drawn.
#[derive(Clone, Debug, Default)]
struct Screen(Page);

impl TermLike for Screen {
    fn width(&self) -> u16 {
        160
    }
    fn height(&self) -> u16 {
        50
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(self.0.clone(), "{text}")
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        write!(self.0.clone(), "{text}")
    }
    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn bars_show_the_run_the_step_and_each_node_with_its_reason() {
    let screen = Screen::default();
    let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
    let mut bars = ProgressBars::new(target, Box::new(|| 160), Painter::default());
    let mut view = RunView::default();
    for event in script().iter().take(14) {
        view.apply_event(event);
        bars.show_event(&view, event).unwrap();
    }
    bars.redraw_view(&view).unwrap();
    let text = screen.0.text();
    for part in [
        "shop 1.27 -> 1.28",
        "2/3 steps",
        "[1/3] control-plane-1.28: done in 9m",
        "3/9 pods 4m10s: PDB shop/web allows 0 of 3",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

/// What route and journal have of the script's run, as a second process finds it.
fn outline(mark: OutlineMark) -> RunOutline {
    let step = |id: &str, title: &str, minutes: u64| StepOutline {
        step: id.into(),
        title: title.into(),
        estimate: Duration::from_secs(minutes * 60),
        ..StepOutline::default()
    };
    let mut outline = RunOutline {
        run: "r1".into(),
        cluster: "shop".into(),
        from: "1.27".into(),
        to: "1.28".into(),
        is_rehearsal: false,
        opened: Some(at(0)),
        steps: vec![
            step("control-plane-1.28", "Control plane to 1.28", 15),
            step("shift", "Traffic to green", 30),
            step("drain-blue", "Empty blue", 15),
        ],
    };
    let first = &mut outline.steps[0];
    first.mark = mark;
    first.started = Some(at(1));
    first.ended = Some(at(541));
    first.note = Some("the API server says 1.28".into());
    outline
}

fn progress(seconds: i64, step: &str, why: &str) -> RunEvent {
    let progress = StepProgress {
        step: step.into(),
        why: why.into(),
        ..StepProgress::default()
    };
    RunEvent {
        at: at(seconds),
        kind: EventKind::Progress(progress),
    }
}

#[test]
fn after_a_resume_the_header_the_durations_and_the_time_left_are_those_of_the_whole_run() {
    let mut view = RunView::default();
    view.apply_outline(outline(OutlineMark::Done));
    let resumed = EventKind::RunResumed {
        run: "r1".into(),
        by: "ci-2".into(),
        steps: Vec::new(),
        done: vec!["control-plane-1.28".into()],
    };
    view.apply_event(&RunEvent {
        at: at(7200),
        kind: resumed,
    });
    let table = render_markdown(&view);
    assert!(table.contains("## eksup: `shop` 1.27 -> 1.28"), "{table}");
    assert!(
        table.contains("| 1 | Control plane to 1.28 | done | 9m | the API server says 1.28 |"),
        "{table}"
    );
    let rows = render_rows(&view, 80, Painter::default());
    insta::assert_snapshot!(rows.join("\n"), @"shop 1.27 -> 1.28 [=====>---------------] 25%, about 45m left, ends 10:45 UTC");
}

#[test]
fn live_rows_fit_80_and_120_columns_and_bakes_have_a_bar() {
    let mut view = RunView::default();
    view.apply_outline(outline(OutlineMark::Pending));
    script().iter().take(8).for_each(|e| view.apply_event(e));
    let bake = |left| {
        format!(
            "50% on green, baking {left}s more, 3 of 3 targets healthy, 5xx answers 0.0 % of 1200 requests, latency as before"
        )
    };
    view.apply_event(&progress(600, "shift", &bake(300)));
    view.apply_event(&progress(700, "shift", &bake(200)));
    let mut screens = Vec::new();
    for width in [80, 120] {
        let rows = render_rows(&view, width, Painter::default());
        assert!(rows.iter().all(|r| r.chars().count() < width), "{rows:?}");
        screens.push(rows.join("\n"));
    }
    // Colours take no columns.
    let coloured = render_rows(&view, 80, Painter { on: true });
    assert!(coloured.iter().all(|r| visible_width(r) < 80) && coloured[0].contains("\u{1b}[32m="));
    for event in script().iter().skip(9) {
        view.apply_event(event);
    }
    for width in [80, 120] {
        screens.push(render_rows(&view, width, Painter::default()).join("\n"));
    }
    insta::assert_snapshot!(screens.join("\n\n"), @r"
    shop 1.27 -> 1.28 [======>--------------] 29%, about 43m left, ends 08:54 UTC
       2/3  2m39s  Traffic to green
            [======>-------] 3m20s left: 50% on green, baking, 3 of 3 targets he...

    shop 1.27 -> 1.28 [===========>--------------------------] 29%, about 43m left, ends 08:54 UTC
       2/3  2m39s  Traffic to green
            [======>-------] 3m20s left: 50% on green, baking, 3 of 3 targets healthy, 5xx answers 0.0 % of 1200 request...

    shop 1.27 -> 1.28 [=================>---] 82%, about 11m left, ends 08:30 UTC
       3/3  4m24s  Empty blue
            ip-10-0-1-7 [====>---------] 3/9 pods 4m20s: PDB shop/web allows 0 o...

    shop 1.27 -> 1.28 [===============================>------] 82%, about 11m left, ends 08:30 UTC
       3/3  4m24s  Empty blue
            ip-10-0-1-7 [====>---------] 3/9 pods 4m20s: PDB shop/web allows 0 of 3 (2 healthy, 2 needed), pod shop/web-...
    ");
}

#[test]
fn a_rollback_shows_what_is_rolled_back_and_no_bar_that_goes_up() {
    let mut view = RunView::default();
    view.apply_outline(outline(OutlineMark::Done));
    view.apply_event(&RunEvent {
        at: at(7200),
        kind: EventKind::UndoBegan {
            step: "shift".into(),
        },
    });
    let rows = render_rows(&view, 80, Painter::default());
    assert!(
        rows[0].contains("rolling back, 0 steps are rolled back"),
        "{rows:?}"
    );
    assert!(rows[1].contains("Roll back: Traffic to green"), "{rows:?}");
}

#[test]
fn a_soak_of_an_hour_is_a_dozen_lines_without_a_countdown() {
    let page = Page::default();
    let soak = |s: i64| {
        progress(
            s,
            "drain-blue",
            &format!("blue is empty, {}s left: all Ready", 3600 - s),
        )
    };
    let mut events = script();
    events.truncate(1);
    events.extend((0..3600).step_by(7).map(soak));
    show(
        &mut LineSink::new(page.clone(), Painter::default()),
        &events,
    );
    let text = page.text();
    assert!((10..16).contains(&text.lines().count()), "{text}");
    assert!(
        !text.contains("left") && text.contains("waiting 5m01s, blue is empty: all Ready"),
        "{text}"
    );
}

#[test]
fn each_day_is_named_once_in_the_lines() {
    let page = Page::default();
    let day = 24 * 3600;
    let events = [0, 10, day, day + 10].map(|s| RunEvent {
        at: at(s),
        kind: EventKind::Notice {
            step: None,
            text: format!("n{s}"),
        },
    });
    show(
        &mut LineSink::new(page.clone(), Painter::default()),
        &events,
    );
    insta::assert_snapshot!(page.text(), @r"
    2026-11-21, times are UTC
    08:00:00 n0
    08:00:10 n10
    2026-11-22, times are UTC
    08:00:00 n86400
    08:00:10 n86410
    ");
}

#[test]
fn durations_are_written_as_people_say_them() {
    let cases = [
        (0, "0s"),
        (59, "59s"),
        (250, "4m10s"),
        (900, "15m"),
        (3600, "1h"),
        (3720, "1h02m"),
        (183_600, "2d03h"),
    ];
    for (seconds, text) in cases {
        assert_eq!(format_duration(Duration::from_secs(seconds)), text);
    }
}
