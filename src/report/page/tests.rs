//! The report is held by a run that has everything: a pause over night, an approval, a death without a word, a rollback;
//! and by a stream of the schema's first version, which has none of the facts.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::report::recording;
use crate::report::text::time_between;

fn read_report(name: &str) -> RunReport {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/page/data");
    build_report(&recording::read_events(&folder.join(name)).unwrap())
}

#[test]
fn a_run_of_three_processes_with_a_rollback_folds_into_its_report() {
    insta::assert_debug_snapshot!("rollback", read_report("rollback.jsonl"));
}

#[test]
fn markdown_has_tables_of_their_own_and_escapes_what_it_quotes() {
    let text = render_report_markdown(&read_report("rollback.jsonl"));
    // A table that follows text without a blank line is no table on GitHub.
    let lines: Vec<&str> = text.lines().collect();
    for (before, line) in lines.iter().zip(&lines[1..]) {
        let begins = line.starts_with('|') && !before.starts_with('|');
        assert!(!begins || before.is_empty(), "{before}\n{line}");
    }
    insta::assert_snapshot!("rollback_markdown", text);
}

#[test]
fn what_an_older_stream_does_not_have_is_not_recorded_and_never_none() {
    let report = read_report("schema-1.0.jsonl");
    assert_eq!(
        (&report.account, &report.findings, &report.consents),
        (&None, &None, &None)
    );
    assert_eq!((&report.calls, &report.pods), (&None, &None));
    // What it has is shown: nodes by their counts, traffic by its shares, bakes by their words.
    assert_eq!(report.nodes.len(), 3);
    assert!(!report.traffic[0].shares.is_empty());
    let bakes = |s: &StepReport| s.time_spent(|a| a == Activity::Bake);
    let soak = report.steps.iter().find(|s| s.id == "soak-expense-blue");
    assert!(bakes(soak.unwrap()) > Duration::from_secs(3500));
    for text in [render_page(&report), render_report_markdown(&report)] {
        for part in [
            "estimate not recorded",
            "indings are not recorded",
            "onsents are not recorded",
            "calls were made is not recorded",
            "ersions are not recorded",
            "each pod took is not recorded",
        ] {
            assert!(text.contains(part), "{part}");
        }
        for part in ["No findings", "asks for none", "beyond the defaults"] {
            assert!(!text.contains(part), "{part}");
        }
    }
}

#[test]
fn bakes_pauses_and_both_ways_of_a_rollback_are_told_apart() {
    let report = read_report("rollback.jsonl");
    let step = |id: &str| report.steps.iter().find(|s| s.id == id).unwrap();
    let activities = |id: &str| {
        let spans = step(id).spans.iter().map(|s| s.activity);
        spans.collect::<Vec<_>>()
    };
    assert!(activities("bake-1.28").contains(&Activity::Bake));
    assert_eq!(
        activities("shift-green-tg"),
        [
            Activity::Work,
            Activity::Bake,
            Activity::Work,
            Activity::Undo
        ]
    );
    assert_eq!(activities("drain-blue"), [Activity::Work, Activity::Undo]);
    // One pause with its reason, and a process that died without one.
    let told: Vec<bool> = report.gaps.iter().map(|g| g.why.is_some()).collect();
    assert_eq!(told, [true, false]);
    let page = render_page(&report);
    for part in ["a-bake", "a-undo", "\"gap\"", "gap lost", "Rolled back"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn a_wait_that_is_told_many_times_is_one_row() {
    let report = read_report("rollback.jsonl");
    let bake: Vec<_> = report
        .waits
        .iter()
        .filter(|w| w.step == "bake-1.28")
        .collect();
    assert_eq!(bake.len(), 1);
    assert_eq!(
        time_between(bake[0].from, bake[0].to),
        Duration::from_secs(599)
    );
    assert_eq!(bake[0].why, "control plane 1.28: all nodes Ready");
}

#[test]
fn what_a_process_tells_after_its_last_word_is_no_time_of_the_run() {
    let report = read_report("rollback.jsonl");
    assert_eq!(report.ended, Some("2026-11-22T07:25:00Z".parse().unwrap()));
    assert!(report.versions.after.is_some());
    let calls = report.calls.unwrap();
    let updates = calls.iter().find(|c| c.call == "EKS DescribeUpdate");
    assert_eq!(updates.map(|c| (c.made, c.throttled)), Some((25, 2)));
}

#[test]
fn a_node_that_is_emptied_is_not_called_cordoned_again_by_the_watch() {
    let report = read_report("rollback.jsonl");
    let node = &report.nodes[0];
    let states: Vec<NodePhase> = node.spans.iter().map(|s| s.state).collect();
    assert_eq!(
        states,
        [
            NodePhase::Open,
            NodePhase::Cordoned,
            NodePhase::Evicting,
            NodePhase::WaitingBudget,
            NodePhase::Evicting,
            NodePhase::WaitingVolume,
            NodePhase::Empty,
            NodePhase::Open
        ]
    );
    let pods = report.pods.unwrap();
    let mysql = pods.iter().find(|p| p.pod == "shop/mysql-0").unwrap();
    assert_eq!(mysql.total(), Duration::from_secs(330));
    assert_eq!(mysql.spent[0].0, "waiting_budget");
}

#[test]
fn the_page_stands_alone_and_escapes_everything() {
    for name in ["rollback.jsonl", "schema-1.0.jsonl"] {
        let page = render_page(&read_report(name));
        for part in [
            "<script", "src=", "@import", "url(", "http:", "https:", "<link",
        ] {
            assert!(!page.contains(part), "{part} in {name}");
        }
        // Only to parts of itself.
        assert_eq!(
            page.matches("href=").count(),
            page.matches("href=\"#").count()
        );
    }
    let page = render_page(&read_report("rollback.jsonl"));
    assert!(page.contains("emptyDir `a|b` &lt;cache&gt; is lost"));
}
