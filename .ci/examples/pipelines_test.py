#!/usr/bin/env python3
"""Carries out what the examples for GitLab, CodeBuild and Jenkins do, line by line, against `eksup twin serve`.

EKSUP names the binary that stands for the released one; the examples install it as they are written, from a clone and a
release that this test lays out. CI systems' own parts (images, caches, artifacts) are left out: their schemas are checked
beside this file.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

import yaml

from action_test import EKSUP, RELEASE, ROOT, end_twin, make_release, serve_twin


def gitlab_job(inputs):
    """The component's one job, with its inputs filled in as GitLab does."""
    with open(os.path.join(ROOT, "templates/eksup.yml"), encoding="utf-8") as file:
        header, body = file.read().split("\n---\n")
    declared = yaml.safe_load(header)["spec"]["inputs"]
    for name in inputs:
        assert name in declared, f"the component has no input {name}"
    values = {}
    for name, one in declared.items():
        assert name in inputs or "default" in one, f"the input {name} is missing"
        values[name] = str(inputs.get(name, one.get("default")))
        assert values[name] in one.get("options", [values[name]]), f"{name}: {values[name]} is no option"
    filled = re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda m: values[m[1]], body)
    [(name, job)] = yaml.safe_load(filled).items()
    return name, job


class PipelineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.TemporaryDirectory()
        base = cls.shared.name
        make_release(os.path.join(base, f"releases/{RELEASE}"))
        # What the examples clone: the installer, on a commit that has a tag and on a branch that has none.
        cls.source = os.path.join(base, "source")
        os.makedirs(os.path.join(cls.source, ".ci"))
        for name in (".ci/install.sh", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"):
            shutil.copy2(os.path.join(ROOT, name), os.path.join(cls.source, name))
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", cls.source]
        for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "one"], ["tag", RELEASE]):
            subprocess.run([*git, *command], check=True)
        cls.twin, aws = serve_twin()
        cls.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": base,
            "CI": "true",
            "EKSUP_RELEASES": f"file://{base}/releases",
            **aws,
        }

    @classmethod
    def tearDownClass(cls):
        end_twin(cls.twin)
        cls.shared.cleanup()

    def setUp(self):
        own = tempfile.TemporaryDirectory(dir=self.shared.name)
        self.addCleanup(own.cleanup)
        self.folder = own.name
        shutil.copytree(os.path.join(ROOT, "plans"), os.path.join(self.folder, "plans"))

    def write_plan(self, to, more=""):
        with open(os.path.join(self.folder, "plans/expense-dev.yaml"), "w", encoding="utf-8") as file:
            file.write("apiVersion: eksup.dev/v1\nkind: UpgradePlan\ncluster: expense-dev\nregion: us-east-1\n" + f"to: {to}\n{more}")

    def script(self, text, shell="bash", **environment):
        """Carries a script; returns exit code and output."""
        environment = {**self.environment, "EKSUP_SOURCE": f"file://{self.source}", **environment}
        done = subprocess.run(
            [shell, "-e", "-c", text],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout

    def gitlab(self, command, **inputs):
        given = {
            "command": command,
            "cluster": "expense-dev",
            "role-arn": "arn:aws:iam::123456789012:role/eksup",
            "region": "us-east-1",
            "source": f"file://{self.source}",
            "ref": RELEASE,
            **inputs,
        }
        _, job = gitlab_job(given)
        own = {"CI_PROJECT_DIR": self.folder, "CI_PROJECT_ID": "1", "CI_PIPELINE_ID": "2", "AWS_ID_TOKEN": "a.b.c"}
        variables = {k: re.sub(r"\$(\w+)", lambda m: own.get(m[1], ""), v) for k, v in job["variables"].items()}
        code, said = self.script("\n".join(job["before_script"] + job["script"]), **own, **variables)
        after, more = self.script("\n".join(job["after_script"]), **own, **variables)
        self.assertEqual(0, after, more)
        self.assertFalse(os.path.exists(os.path.join(self.folder, ".eksup/id-token")))
        return code, said

    def test_gitlab_plans(self):
        code, said = self.gitlab("plan")
        self.assertEqual(0, code, said)
        self.assertIn(f"release {RELEASE}, SHA-256 verified", said)
        self.assertIn("retire-expense-blue", said)

    def test_gitlab_takes_arguments(self):
        code, said = self.gitlab("plan", args="--detailed-exitcode")
        self.assertEqual(10, code, said)

    def test_gitlab_applies(self):
        self.write_plan("1.27")
        code, said = self.gitlab("apply")
        self.assertEqual(0, code, said)

    def test_a_gitlab_job_that_pauses_leaves_a_report(self):
        self.pause(lambda: self.gitlab("apply"), 7)

    def pause(self, carry, expected):
        """A run that has to be approved before its first step, on a cluster of its own."""
        twin, aws = serve_twin()
        self.addCleanup(end_twin, twin)
        before, self.environment = self.environment, {**self.environment, **aws}
        self.addCleanup(setattr, self, "environment", before)
        self.write_plan("1.28", "approvals: {before: [control-plane]}\n")
        code, said = carry()
        self.assertEqual(expected, code, said)
        self.assertIn("eksup approve", said)
        self.assertGreater(os.path.getsize(os.path.join(self.folder, "eksup-runs/report.html")), 5000)

    def codebuild(self, **environment):
        with open(os.path.join(ROOT, "docs/examples/codebuild/buildspec.yml"), encoding="utf-8") as file:
            spec = yaml.safe_load(file)
        given = {**spec["env"]["variables"], "EKSUP_SOURCE": f"file://{self.source}", "EKSUP_REF": RELEASE, **environment}
        said = ""
        for phase in ("install", "build"):
            # Each command is one of its own to CodeBuild, and the first that fails ends the phase.
            for command in spec["phases"][phase]["commands"]:
                code, more = self.script(command, **given)
                said += more
                if code != 0:
                    break
            for command in spec["phases"][phase].get("finally", []):
                self.assertEqual(0, self.script(command, **given)[0])
            if code != 0:
                break
        return code, said

    def test_codebuild_plans_and_applies(self):
        self.write_plan("1.27")
        code, said = self.codebuild()
        self.assertEqual(0, code, said)
        self.assertIn(f"release {RELEASE}, SHA-256 verified", said)

    def test_codebuild_builds_where_there_is_no_release(self):
        self.write_plan("1.27")
        stubs = os.path.join(self.folder, "stubs")
        os.makedirs(stubs)
        with open(os.path.join(stubs, "cargo"), "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nmkdir -p .eksup/source/target/release\nd=$(pwd)/target/release; mkdir -p $d; cp {EKSUP} $d/eksup\n')
        os.chmod(os.path.join(stubs, "cargo"), 0o755)
        path = f"{stubs}:{self.environment['PATH']}"
        for said_so in ("built from source", "built before from the same source"):
            code, said = self.codebuild(EKSUP_RELEASES=f"file://{self.folder}/none", PATH=path)
            self.assertEqual(0, code, said)
            self.assertIn(said_so, said)

    def test_codebuild_refuses_a_checksum_that_does_not_fit(self):
        make_release(os.path.join(self.folder, f"damaged/{RELEASE}"), damage=True)
        code, said = self.codebuild(EKSUP_RELEASES=f"file://{self.folder}/damaged")
        self.assertEqual(1, code, said)
        self.assertNotIn("plan", said)

    def test_a_paused_build_is_green_and_leaves_a_report(self):
        self.pause(self.codebuild, 0)

    def test_a_build_that_is_not_ready_is_red(self):
        self.write_plan("1.99")
        code, said = self.codebuild()
        self.assertNotIn(code, (0, 7), said)

    @unittest.skipUnless(shutil.which("kubectl"), "there is no kubectl here")
    def test_the_kubernetes_jobs_are_admitted_under_pod_security(self):
        """The server takes the manifests whole, and makes the pod; it makes none that may raise its privileges."""
        config = os.path.join(self.folder, "kubeconfig")
        twin, _ = serve_twin("--write-kubeconfig", config)
        self.addCleanup(end_twin, twin)

        def kubectl(*words, text=None):
            command = ["kubectl", "--kubeconfig", config, *words]
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(0, done.returncode, done.stderr)
            return done.stdout

        kubectl("create", "namespace", "eksup")
        for name in ("job-pod-identity", "job-irsa"):
            with open(os.path.join(ROOT, f"docs/examples/kubernetes/{name}.yaml"), encoding="utf-8") as file:
                text = file.read()
            kubectl("apply", "--dry-run=server", "-f", "-", text=text)
            for one, expected in ((text, 1), (text.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"), 0)):
                kubectl("apply", "-f", "-", text=one)
                # The pod of the first one is there within a second.
                pods = []
                for _ in range(50 if expected else 10):
                    pods = json.loads(kubectl("-n", "eksup", "get", "pods", "-o", "json"))["items"]
                    if pods:
                        break
                    time.sleep(0.2)
                self.assertEqual(expected, len(pods), name)
                kubectl("-n", "eksup", "delete", "jobs,pods", "--all", "--wait=true")

    def test_jenkins_carries_each_of_its_commands(self):
        with open(os.path.join(ROOT, "docs/examples/jenkins/Jenkinsfile"), encoding="utf-8") as file:
            text = file.read()
        commands = re.findall(r"\bsh\b[ (]*(?:returnStatus: true, script: )?(?:'''(.*?)'''|'(.*?)')", text, re.S)
        commands = [a or b for a, b in commands]
        self.assertEqual(4, len(commands), commands)
        self.write_plan("1.27")
        said = ""
        for command in commands:
            # Jenkins starts `sh -xe`.
            code, more = self.script(command, shell="sh", EKSUP_REF=RELEASE, CLUSTER="expense-dev", AWS_REGION="us-east-1")
            self.assertEqual(0, code, more)
            said += more
        self.assertIn(f"release {RELEASE}, SHA-256 verified", said)
        self.assertIn("nothing to do", said)


if __name__ == "__main__":
    unittest.main()
