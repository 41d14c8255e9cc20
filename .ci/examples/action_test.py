#!/usr/bin/env python3
"""Runs action.yml's own steps: installed from a release that a server here has, built, run, stopped, paused, refused.

EKSUP names the binary that stands for the released one. AWS and the cluster are `eksup twin serve`.
"""

import functools
import hashlib
import http.server
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
import unittest

import yaml

sys.path.insert(0, os.path.dirname(__file__))
from action_runner import CompositeAction  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
EKSUP = os.path.abspath(os.environ.get("EKSUP", os.path.join(ROOT, "target/debug/eksup")))
TRIPLE = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}[platform.machine()]
with open(os.path.join(ROOT, "Cargo.toml"), "rb") as file:
    RELEASE = f"v{tomllib.load(file)['package']['version']}"
PARTS = ["action.yml", ".github/action", ".ci/install.sh", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo", "src"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that says nothing."""

    def log_message(self, *_):
        pass


def make_release(folder, damage=False):
    """Lays a release's archive and checksums as the workflow `release` does."""
    os.makedirs(folder)
    name = f"eksup-{RELEASE}-{TRIPLE}"
    archive = os.path.join(folder, f"{name}.tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=0) as tar:
        tar.add(EKSUP, f"{name}/eksup")
    with open(archive, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if damage:
        digest = digest[::-1]
    with open(os.path.join(folder, "SHA256SUMS"), "w", encoding="utf-8") as file:
        file.write(f"{digest}  {name}.tar.gz\n")


def serve_twin(*more):
    """Starts a cluster; returns the process and the environment that leads to it."""
    command = [EKSUP, "twin", "serve", "expense-dev", "--port", "0", *more]
    twin = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    environment = {}
    for line in twin.stdout:
        if match := re.match(r"export (\w+)=(.*)", line):
            environment[match[1]] = match[2]
        elif line.startswith("serving "):
            break
    return twin, environment


def end_twin(twin):
    twin.terminate()
    twin.wait()
    twin.stdout.close()


class ActionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.TemporaryDirectory()
        cls.base = cls.shared.name
        releases = os.path.join(cls.base, "server/somebody/eksup/releases/download")
        make_release(os.path.join(releases, RELEASE))
        make_release(os.path.join(cls.base, f"server/damaged/eksup/releases/download/{RELEASE}"), damage=True)
        handler = functools.partial(Quiet, directory=os.path.join(cls.base, "server"))
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.url = f"http://127.0.0.1:{cls.server.server_port}"
        cls.twin, cls.aws = serve_twin()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()
        end_twin(cls.twin)
        cls.shared.cleanup()

    def setUp(self):
        own = tempfile.TemporaryDirectory(dir=self.base)
        self.addCleanup(own.cleanup)
        self.home = own.name
        self.cached = None
        self.workspace = os.path.join(self.home, "workspace")
        shutil.copytree(os.path.join(ROOT, "plans"), os.path.join(self.workspace, "plans"))

    def checkout(self, owner="somebody", ref=RELEASE):
        """The action as the runner lays it: .../_actions/OWNER/NAME/REF."""
        folder = os.path.join(self.home, "_actions", owner, "eksup", ref)
        for part in PARTS:
            source, copy = os.path.join(ROOT, part), os.path.join(folder, part)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, copy)
        os.makedirs(os.path.join(folder, "docs"))
        shutil.copy2(os.path.join(ROOT, "docs/findings.md"), os.path.join(folder, "docs"))
        return folder

    def stub_cargo(self):
        """A cargo that has the binary ready."""
        folder = os.path.join(self.home, "stubs")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "cargo")
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --target-dir ] && to=$2; shift; done\n'
                f'mkdir -p "$to/release" && cp "{EKSUP}" "$to/release/eksup"\n'
            )
        os.chmod(path, 0o755)
        return folder

    def cache(self, given, _environment):
        """actions/cache: what a test has put into `cached`, by the key."""
        self.key = given["key"]
        if not self.cached:
            return {}
        os.makedirs(os.path.dirname(given["path"]), exist_ok=True)
        shutil.copy2(self.cached, given["path"])
        return {"cache-hit": "true"}

    def use(self, inputs, root=None, on_start=None, contexts=True, path="", **environment):
        """Uses the action; returns (action, outputs)."""
        root = root or self.checkout()
        owner, ref = root.split("/")[-3], root.split("/")[-1]
        temp = os.path.join(self.home, "temp")
        os.makedirs(temp, exist_ok=True)
        self.summary = os.path.join(self.home, "summary.md")
        open(self.summary, "w", encoding="utf-8").close()
        github = {
            "action_ref": ref if contexts else "",
            "action_repository": f"{owner}/eksup" if contexts else "",
            "server_url": self.url,
            "run_attempt": "1",
        }
        base = {
            "PATH": f"{path}:/usr/local/bin:/usr/bin:/bin",
            "HOME": self.home,
            "RUNNER_TEMP": temp,
            "GITHUB_ACTIONS": "true",
            "CI": "true",
            "GITHUB_WORKSPACE": self.workspace,
            "GITHUB_STEP_SUMMARY": self.summary,
            **self.aws,
            **environment,
        }
        uses = {"actions/cache": self.cache, "actions/upload-artifact": lambda given, _: None}
        action = CompositeAction(root, inputs, base, github, uses)
        outputs = action.run(on_start)
        with open(self.summary, encoding="utf-8") as file:
            self.summarised = file.read()
        return action, outputs

    def uploads(self, action):
        return [given for name, given in action.used if name == "actions/upload-artifact"]

    def test_the_release_of_the_actions_own_tag_is_installed(self):
        action, outputs = self.use({"command": "plan", "cluster": "expense-dev"})
        self.assertFalse(action.failed, action.log)
        self.assertIn(f"release {RELEASE}, SHA-256 verified", action.log)
        self.assertEqual({"exit-code": "0", "run": "", "report": "", "paused": ""}, outputs)
        self.assertEqual([], action.used)

    def test_a_plan_is_shown_in_the_log_and_in_the_summary(self):
        action, _ = self.use({"command": "plan", "cluster": "expense-dev"})
        for text in (action.log, self.summarised):
            self.assertIn("Control plane 1.27 to 1.28", text)
        self.assertEqual(1, self.summarised.count("Node group expense-blue is deleted"))

    def test_the_actions_path_says_what_empty_contexts_do_not(self):
        action, _ = self.use({"command": "check", "cluster": "expense-dev"}, contexts=False)
        self.assertIn(f"release {RELEASE}, SHA-256 verified", action.log)

    def test_a_checksum_that_does_not_fit_is_the_end(self):
        action, outputs = self.use({"command": "plan", "cluster": "expense-dev"}, self.checkout(owner="damaged"), path=self.stub_cargo())
        self.assertTrue(action.failed)
        self.assertIn("SHA256SUMS says", action.log)
        self.assertEqual("", outputs["exit-code"])
        self.assertEqual([], action.used)
        self.assertFalse(os.path.exists(os.path.join(self.home, "temp/eksup-bin/eksup")))

    def test_a_branch_is_built_from_the_actions_own_checkout(self):
        action, outputs = self.use({"command": "plan", "cluster": "expense-dev"}, self.checkout(ref="main"), path=self.stub_cargo())
        self.assertIn("built from source", action.log)
        self.assertEqual("0", outputs["exit-code"], action.log)
        self.assertRegex(self.key, rf"^eksup-Linux-{platform.machine()}-any-[0-9a-f]{{32}}$")

    def test_a_tag_without_a_release_is_built(self):
        action, outputs = self.use({"command": "plan", "cluster": "expense-dev"}, self.checkout(owner="nobody"), path=self.stub_cargo())
        self.assertIn("built from source", action.log)
        self.assertEqual("0", outputs["exit-code"], action.log)

    def test_a_cached_build_is_not_built_again(self):
        self.cached = EKSUP
        action, outputs = self.use({"command": "plan", "cluster": "expense-dev"}, self.checkout(ref="main"))
        self.assertNotIn("built from source", action.log)
        self.assertEqual("0", outputs["exit-code"], action.log)

    def test_the_caches_key_follows_the_source(self):
        keys = set()
        for change in (None, "Cargo.lock", "src/main.rs"):
            root = self.checkout(ref="main")
            if change:
                with open(os.path.join(root, change), "a", encoding="utf-8") as file:
                    file.write("\n")
            self.cached = EKSUP
            self.use({"command": "check", "cluster": "expense-dev"}, root)
            keys.add(self.key)
            shutil.rmtree(root)
        self.assertEqual(3, len(keys))

    def test_another_version_than_the_checkouts_is_never_built(self):
        inputs = {"command": "plan", "cluster": "expense-dev", "version": "v9.9.9"}
        action, _ = self.use(inputs, self.checkout(ref="main"), path=self.stub_cargo())
        self.assertTrue(action.failed)
        self.assertIn("there is no release v9.9.9", action.log)

    def test_the_version_that_was_asked_for_is_installed_on_a_branch(self):
        inputs = {"command": "check", "cluster": "expense-dev", "version": RELEASE}
        action, _ = self.use(inputs, self.checkout(ref="main"))
        self.assertIn(f"release {RELEASE}, SHA-256 verified", action.log)

    def test_without_cargo_the_message_names_it(self):
        action, _ = self.use({"command": "plan", "cluster": "expense-dev"}, self.checkout(ref="main"))
        self.assertTrue(action.failed)
        self.assertIn("a Rust toolchain is needed", action.log)

    def test_a_run_leaves_its_id_its_report_and_an_artifact(self):
        action, outputs = self.use({"command": "rehearse", "plan": "plans/expense-dev.yaml", "args": "--record"})
        self.assertEqual("0", outputs["exit-code"], action.log)
        self.assertRegex(outputs["run"], r"^\d{8}-\d{6}-\w{4}$")
        self.assertTrue(os.path.getsize(outputs["report"]) > 10_000)
        [upload] = self.uploads(action)
        self.assertEqual(f"eksup-{outputs['run']}-1", upload["name"])
        self.assertEqual({"events.jsonl", "journal.jsonl", "report.html"}, set(os.listdir(upload["path"])))

    def test_exit_codes_reach_the_job(self):
        with open(os.path.join(self.workspace, "plans/bad.yaml"), "w", encoding="utf-8") as file:
            file.write("nonsense: true\n")
        for inputs, code in (
            ({"plan": "plans/bad.yaml"}, "3"),
            ({"plan": "plans/multi-hop.yaml"}, "9"),
            ({"cluster": "expense-dev", "plan": "plans/expense-dev.yaml"}, "2"),
            ({"cluster": "expense-dev", "args": "--until 'drain"}, "2"),
        ):
            action, outputs = self.use({"command": "plan", **inputs}, self.checkout() if code == "3" else self.last)
            self.last = action.root
            self.assertTrue(action.failed)
            self.assertEqual(code, outputs["exit-code"], action.log)

    def test_arguments_are_split_as_a_shell_does_and_never_carried_out(self):
        inputs = {"command": "plan", "cluster": "expense-dev", "args": "--detailed-exitcode --out 'my plan.json'\n"}
        action, outputs = self.use(inputs)
        self.assertEqual("10", outputs["exit-code"], action.log)
        self.assertIn("my plan.json", os.listdir(self.workspace), action.log)
        action, outputs = self.use({"command": "plan", "args": "$(touch oops) `touch oops` ; touch oops"}, action.root)
        self.assertNotEqual("0", outputs["exit-code"])
        self.assertFalse(os.path.exists(os.path.join(self.workspace, "oops")))

    def test_a_cancelled_job_pauses_the_run_and_keeps_its_report(self):
        twin, environment = serve_twin()
        self.addCleanup(end_twin, twin)
        for pause_ok in ("false", "true"):
            paused = threading.Event()

            def cancel(step, process):
                # The runner signals the one process that it started, once the run is under way.
                if step == "run":
                    runs = os.path.join(self.home, "temp/eksup-runs")

                    def wait():
                        for _ in range(600):
                            if os.path.isdir(runs) and os.listdir(runs):
                                break
                            time.sleep(0.1)
                        time.sleep(1)
                        process.send_signal(signal.SIGINT)
                        paused.set()

                    threading.Thread(target=wait, daemon=True).start()

            inputs = {"command": "apply", "cluster": "expense-dev", "pause-ok": pause_ok}
            action, outputs = self.use(inputs, self.last if pause_ok == "true" else self.checkout(), cancel, **environment)
            self.last = action.root
            self.assertTrue(paused.is_set())
            # Nobody planned it.
            self.assertEqual(("7", ""), (outputs["exit-code"], outputs["paused"]), action.log)
            self.assertTrue(action.failed)
            self.assertIn("eksup apply --cluster expense-dev", action.log)
            self.assertRegex(outputs["run"], r"^\d{8}-\d{6}-\w{4}$")
            self.assertEqual(1, len(self.uploads(action)))
            self.assertIn("Control plane 1.27 to 1.28", self.summarised)
            shutil.rmtree(os.path.join(self.home, "temp/eksup-runs"))

    def test_a_pause_that_the_plan_asks_for_passes_where_that_is_said(self):
        twin, environment = serve_twin()
        self.addCleanup(end_twin, twin)
        self.write_plan("1.28", "approvals: {before: [control-plane]}\n")
        root = self.checkout()
        for pause_ok, code, paused in (("false", "7", ""), ("true", "0", "true")):
            inputs = {"command": "apply", "cluster": "expense-dev", "pause-ok": pause_ok}
            action, outputs = self.use(inputs, root, **environment)
            self.assertEqual((code, paused), (outputs["exit-code"], outputs["paused"]), action.log)
            self.assertEqual(code != "0", action.failed)
            self.assertIn("eksup approve --cluster expense-dev", action.log)

    def test_the_jobs_in_the_documents_run_as_they_are(self):
        """Each step that uses this action, of README.md and of the examples, is carried out with what it gives."""
        seen = 0
        for name in ("README.md", *(f"docs/examples/github/{n}" for n in os.listdir(os.path.join(ROOT, "docs/examples/github")))):
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                text = file.read()
            blocks = re.findall(r"```yaml\n(.*?)```", text, re.S) if name.endswith(".md") else [text]
            for block in blocks:
                for job in (yaml.safe_load(block).get("jobs") or {}).values():
                    for step in job["steps"]:
                        if not re.match(r"OWNER/eksup@", step.get("uses", "")):
                            continue
                        given = dict(step["with"])
                        if given["command"] == "apply":
                            # The cluster is where the plan wants it already: hours are not waited for here.
                            self.write_plan("1.27")
                        action, outputs = self.use(given, getattr(self, "last", None))
                        self.last = action.root
                        # An approval finds nothing to approve, and says so.
                        expected = "9" if given["command"] == "approve" else "0"
                        self.assertEqual(expected, outputs["exit-code"], f"{name}: {action.log}")
                        seen += 1
        self.assertGreaterEqual(seen, 4)

    def write_plan(self, to, more=""):
        plan = f"apiVersion: eksup.dev/v1\nkind: UpgradePlan\ncluster: expense-dev\nregion: us-east-1\nto: {to}\n{more}"
        with open(os.path.join(self.workspace, "plans/expense-dev.yaml"), "w", encoding="utf-8") as file:
            file.write(plan)


if __name__ == "__main__":
    unittest.main()
