#!/usr/bin/env python3
"""Carries out the commands of README.md's first upgrade, in their order, against `eksup twin serve`.

What eksup is told is carried out; `apply`, which takes hours, is stopped once it is under way. What `aws` is told is held
against AWS's own service models, and what `kubectl` applies is read.
"""

import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
import unittest

import botocore.loaders
import yaml

from action_test import EKSUP, ROOT, end_twin, serve_twin


def section(title):
    """A section of README.md."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", file.read(), re.S | re.M)[1]


def sh_blocks(text):
    return re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)


class ReadmeTest(unittest.TestCase):
    def setUp(self):
        own = tempfile.TemporaryDirectory()
        self.addCleanup(own.cleanup)
        self.folder = own.name
        self.twin, self.aws = serve_twin()
        self.addCleanup(end_twin, self.twin)

    def environment(self):
        return {"PATH": "/usr/bin:/bin", "HOME": self.folder, **self.aws}

    def carry(self, line):
        """Carries one line of eksup; returns exit code and what it said."""
        line = re.sub(r"^eksup ", f"{shlex.quote(EKSUP)} ", line)
        done = subprocess.run(
            line, shell=True, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def apply(self, line):
        """Begins an upgrade and stops it once the run is open."""
        words = [EKSUP, *shlex.split(line.split("#")[0])[1:], "--auto-approve"]
        process = subprocess.Popen(words, cwd=self.folder, env=self.environment(), stderr=subprocess.PIPE, text=True)
        runs = os.path.join(self.folder, "eksup-runs")
        for _ in range(300):
            if os.path.isdir(runs) and os.listdir(runs):
                break
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        self.assertEqual(7, process.returncode, said)
        self.assertIn("control-plane-1.28", said)

    def check_aws(self, line):
        """The operation is there, each option is a member of its input, and every required one is given."""
        words = shlex.split(line.split(" #")[0])
        _, service, operation, *options = words
        model = botocore.loaders.Loader().load_service_model(service, "service-2")
        name = "".join(part.capitalize() for part in operation.split("-"))
        self.assertIn(name, model["operations"], line)
        shape = model["shapes"][model["operations"][name]["input"]["shape"]]
        kebab = {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", member).lower(): member for member in shape["members"]}
        given = [word[2:] for word in options if word.startswith("--")]
        for option in given:
            self.assertIn(option, kebab, line)
        for member in shape.get("required", []):
            self.assertIn(member, [kebab[option] for option in given], line)

    def test_the_first_upgrade_runs_as_it_is_written(self):
        kinds = {"eksup": 0, "aws": 0, "kubectl": 0}
        [block] = sh_blocks(section("Your first upgrade"))
        for line in block.splitlines():
            if not line.strip() or line.startswith(("#", "export ")):
                continue
            kind = line.split()[0]
            kinds[kind] += 1
            if kind == "aws":
                self.check_aws(line)
            elif kind == "kubectl":
                with open(os.path.join(self.folder, line.split()[-1]), encoding="utf-8") as file:
                    self.assertIn("ClusterRoleBinding", [one["kind"] for one in yaml.safe_load_all(file)])
            elif line.startswith("eksup apply"):
                self.apply(line)
            else:
                code, said = self.carry(line)
                self.assertEqual(0, code, f"{line}\n{said}")
        self.assertEqual({"eksup": 7, "aws": 3, "kubectl": 1}, kinds)

    def test_the_commands_of_other_documents_are_known(self):
        """Each `eksup` command in a shell block of docs/ and README.md has a subcommand and flags that there are."""
        seen = 0
        names = ["README.md", *(f"docs/{n}" for n in sorted(os.listdir(os.path.join(ROOT, "docs"))) if n.endswith(".md"))]
        for name in names:
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                blocks = sh_blocks(file.read())
            for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if not words or words[0] != "eksup":
                    continue
                command = words[1:3] if words[1] == "twin" else words[1:2]
                done = subprocess.run([EKSUP, *command, "--help"], capture_output=True, text=True, check=False)
                self.assertEqual(0, done.returncode, f"{name}: {line}")
                for flag in (word.split("=")[0] for word in words if word.startswith("--")):
                    self.assertRegex(done.stdout, rf"(?m)^\s+(-\w, )?{flag}\b", f"{name}: {line}")
                seen += 1
        self.assertGreater(seen, 15)


if __name__ == "__main__":
    unittest.main()
