"""Carries the steps of a composite action as GitHub's runner does: expressions, conditions, outputs, failure, `uses`.

It knows only as much of the expression language as action.yml uses, and refuses the rest.
"""

import os
import re
import subprocess
import tempfile

import yaml


class Unknown(Exception):
    """The action uses something that this runner does not know."""


class CompositeAction:
    """One use of an action: `inputs` as in `with:`, `github` the context, `uses` what other actions do.

    `uses` maps the name of an action without its version to a function of (with, environment) that returns outputs.
    """

    def __init__(self, root, inputs, environment, github, uses):
        self.root = root
        with open(os.path.join(root, "action.yml"), encoding="utf-8") as file:
            self.action = yaml.safe_load(file)
        declared = self.action["inputs"]
        for name in inputs:
            if name not in declared:
                raise Unknown(f"the action has no input `{name}`")
        for name, one in declared.items():
            if one.get("required") and name not in inputs:
                raise Unknown(f"the input `{name}` is missing")
        self.inputs = {name: str(inputs.get(name, one.get("default", ""))) for name, one in declared.items()}
        self.environment = environment
        self.github = github
        self.uses = uses
        self.steps = {}
        self.failed = False
        self.log = ""
        self.used = []

    def value(self, expression):
        """What one name of an expression stands for."""
        expression = expression.strip()
        if re.fullmatch(r"'[^']*'", expression):
            return expression[1:-1]
        match = re.fullmatch(r"inputs\.([\w-]+)", expression)
        if match:
            if match[1] not in self.inputs:
                raise Unknown(f"no input {match[1]}")
            return self.inputs[match[1]]
        match = re.fullmatch(r"steps\.([\w-]+)\.outputs\.([\w-]+)", expression)
        if match:
            if match[1] not in {step.get("id") for step in self.action["runs"]["steps"]}:
                raise Unknown(f"no step {match[1]}")
            return self.steps.get(match[1], {}).get(match[2], "")
        match = re.fullmatch(r"github\.(\w+)", expression)
        if match and match[1] in self.github:
            return self.github[match[1]]
        raise Unknown(f"expression `{expression}`")

    def text(self, template):
        """A text with its `${{ }}` filled in."""
        return re.sub(r"\$\{\{(.*?)\}\}", lambda m: self.value(m[1]), str(template))

    def holds(self, condition):
        """Whether a step's `if` lets it begin; without always() not after a failure."""
        terms = [term.strip() for term in str(condition).split("&&")]
        if "always()" in terms:
            terms.remove("always()")
        elif self.failed:
            return False
        if "success()" in terms:
            terms.remove("success()")
        for term in terms:
            match = re.fullmatch(r"(.+?)\s*(==|!=)\s*(.+)", term)
            if not match:
                raise Unknown(f"condition `{term}`")
            if (self.value(match[1]) == self.value(match[3])) != (match[2] == "=="):
                return False
        return True

    def run(self, on_start=None):
        """Carries all steps; returns the action's outputs. `on_start` sees each process with the step's id."""
        for step in self.action["runs"]["steps"]:
            if not self.holds(step.get("if", "success()")):
                continue
            if "uses" in step:
                name = step["uses"].split("@")[0]
                given = {key: self.text(value) for key, value in step.get("with", {}).items()}
                self.used.append((name, given))
                self.steps[step.get("id")] = self.uses[name](given, self.environment) or {}
            else:
                self.run_script(step, on_start)
        return {name: self.text(one["value"]) for name, one in self.action["outputs"].items()}

    def run_script(self, step, on_start):
        """Carries one `run` step in bash, as the runner starts it."""
        if step["shell"] != "bash":
            raise Unknown(f"shell {step['shell']}")
        with tempfile.TemporaryDirectory() as folder:
            script, output = os.path.join(folder, "step.sh"), os.path.join(folder, "output")
            with open(script, "w", encoding="utf-8") as file:
                file.write(self.text(step["run"]))
            open(output, "w", encoding="utf-8").close()
            environment = dict(self.environment, GITHUB_OUTPUT=output, GITHUB_ACTION_PATH=self.root)
            environment |= {key: self.text(value) for key, value in step.get("env", {}).items()}
            where = os.path.join(self.environment["GITHUB_WORKSPACE"], self.text(step.get("working-directory", ".")))
            process = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
                cwd=where,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if on_start:
                on_start(step.get("id"), process)
            self.log += process.communicate(timeout=300)[0]
            if process.returncode != 0:
                self.failed = True
            with open(output, encoding="utf-8") as file:
                self.steps[step.get("id")] = dict(line.rstrip("\n").split("=", 1) for line in file)
