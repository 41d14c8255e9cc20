#!/usr/bin/env python3
"""Holds what pipelines copy against the tools of those who run it: GitHub, GitLab, CodeBuild, Jenkins, Kubernetes, containers.

    lint.py [--eksup FILE] [--tools DIR] [NAME...]

Each check is a function of the repository's root and returns what is wrong; names choose some of them. A check that found
nothing to look at is wrong too. lint_test.py shows that each of them can fail.
"""

import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile

import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "../.."))
TOOLS = os.path.dirname(sys.executable)
EKSUP = os.path.join(ROOT, "target/debug/eksup")


def run_tool(name, *arguments, text=None):
    """Carries a tool; returns its complaint, or nothing where it has none."""
    command = [os.path.join(TOOLS, name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, input=text, check=False)
    if done.returncode == 0:
        return []
    said = (done.stdout + done.stderr).strip()
    return [f"{name} {' '.join(arguments[-2:])}: {said[:3000]}"]


def found(root, *patterns):
    """Files by pattern, each of which must find one."""
    files = []
    for pattern in patterns:
        some = sorted(glob.glob(os.path.join(root, pattern), include_hidden=True))
        if not some:
            raise LookupError(f"there is no {pattern}")
        files += some
    return files


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def document_workflows(root, folder):
    """The workflows that stand in the documents, written into a folder as files."""
    files = []
    for path in found(root, "README.md", "docs/*.md"):
        for i, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", read(path), re.S | re.M)):
            if re.search(r"^jobs:", block, re.M):
                files.append(os.path.join(folder, f"{os.path.basename(path)}.{i}.yml"))
                with open(files[-1], "w", encoding="utf-8") as file:
                    file.write(block)
    if not files:
        raise LookupError("README.md has no workflow")
    return files


def check_actionlint(root):
    """actionlint: workflows here, in the examples and in the documents."""
    with tempfile.TemporaryDirectory() as folder:
        files = found(root, ".github/workflows/*.yml", "docs/examples/github/*.yml") + document_workflows(root, folder)
        shell = os.path.join(TOOLS, "shellcheck")
        return run_tool("actionlint", "-no-color", "-shellcheck", shell, "-pyflakes=", *files)


def check_zizmor(root):
    """zizmor: what an attacker could do with workflows and with the action."""
    with tempfile.TemporaryDirectory() as folder:
        files = found(root, "action.yml", ".github/workflows/*.yml", "docs/examples/github/*.yml")
        files += document_workflows(root, folder)
        return run_tool("zizmor", "--offline", "--no-progress", "--quiet", "--config", os.path.join(HERE, "zizmor.yml"), *files)


def check_github_schemas(root):
    """GitHub's files by the schemas that check-jsonschema ships."""
    wrong = []
    for schema, patterns in {
        "github-actions": ["action.yml"],
        "github-workflows": [".github/workflows/*.yml", "docs/examples/github/*.yml"],
        "dependabot": [".github/dependabot.yml"],
        "github-issue-forms": [".github/ISSUE_TEMPLATE/[!c]*.yml"],
        "github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    }.items():
        wrong += run_tool("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *found(root, *patterns))
    return wrong


def gitlab_component(root, inputs):
    """The component's job with inputs filled in, and what is wrong with the inputs."""
    header, body = read(os.path.join(root, "templates/eksup.yml")).split("\n---\n")
    declared = yaml.safe_load(header)["spec"]["inputs"]
    wrong = [f"the component has no input {name}" for name in inputs if name not in declared]
    wrong += [f"the input {n} is missing" for n, one in declared.items() if "default" not in one and n not in inputs]
    values = {name: str(inputs.get(name, one.get("default", ""))) for name, one in declared.items()}
    for name in re.findall(r"\$\[\[ inputs\.([\w-]+)", body):
        if name not in declared:
            wrong.append(f"the component uses the input {name}, which is not declared")
    wrong += [f"{n}: {values[n]} is no option" for n, one in declared.items() if values[n] not in one.get("options", [values[n]])]
    return re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda m: values.get(m[1], ""), body), wrong


def check_gitlab(root):
    """GitLab's own CI schema: the component as each include of the example fills it in, and the example itself."""
    [example] = found(root, "docs/examples/gitlab/.gitlab-ci.yml")
    wrong, files = [], [example]
    with tempfile.TemporaryDirectory() as folder:
        for i, one in enumerate(yaml.safe_load(read(example))["include"]):
            filled, more = gitlab_component(root, one["inputs"])
            wrong += more
            files.append(os.path.join(folder, f"{i}.yml"))
            with open(files[-1], "w", encoding="utf-8") as file:
                file.write(filled)
            for job in yaml.safe_load(filled).values():
                # GitLab runs after_script in a shell of its own.
                for lines in (job["before_script"] + job["script"], job["after_script"]):
                    wrong += run_tool("shellcheck", "-s", "sh", "-e", "SC2153,SC2154", "-", text="\n".join(lines))
        return wrong + run_tool("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", *files)


def check_codebuild(root):
    """The buildspec by the keys that AWS documents, and its commands."""
    [path] = found(root, "docs/examples/codebuild/buildspec.yml")
    wrong = run_tool("check-jsonschema", "--schemafile", os.path.join(HERE, "buildspec.schema.json"), path)
    for phase in yaml.safe_load(read(path)).get("phases", {}).values():
        for command in phase.get("commands", []) + phase.get("finally", []):
            wrong += run_tool("shellcheck", "-s", "bash", "-e", "SC2154", "-", text=command)
    return wrong


def check_jenkins(root):
    """The Jenkinsfile is Groovy, and has the sections of a declarative pipeline in their places."""
    from groovy_parser.parser import parse_groovy_content

    [path] = found(root, "docs/examples/jenkins/Jenkinsfile")
    text = read(path)
    try:
        parse_groovy_content(text)
    except Exception as error:  # The parser's errors have no common class.
        return [f"{path}: {str(error)[:300]}"]
    # The blocks by depth: `name {` and `name('...') {`.
    allowed = {
        "": {"pipeline"},
        "pipeline": {"agent", "options", "parameters", "environment", "stages", "post", "triggers", "tools", "libraries"},
        "stages": {"stage"},
        "stage": {"agent", "environment", "input", "options", "parallel", "post", "steps", "tools", "when", "stages"},
        "post": {"always", "success", "failure", "unstable", "aborted", "changed", "cleanup", "fixed", "regression", "unsuccessful"},
    }
    wrong, open_blocks, seen = [], [""], set()
    bare = re.sub(r"//[^\n]*|'''.*?'''|'[^'\n]*'|\"[^\"\n]*\"", "''", text, flags=re.S)
    for token in re.finditer(r"(\w+)?(?:\s*\([^(){}]*\))?\s*(\{)|(\})", bare):
        if token[3]:
            open_blocks.pop()
            continue
        name, parent = token[1] or "", open_blocks[-1]
        if parent in allowed and name not in allowed[parent]:
            wrong.append(f"{path}: `{name}` has no place in `{parent or 'the file'}`")
        seen.add(name)
        open_blocks.append(name)
    wrong += [f"{path}: there is no `{name}`" for name in ("pipeline", "agent", "stages", "steps") if name not in seen]
    for one in re.findall(r"\bsh\b[ (]*(?:returnStatus: true, script: )?(?:'''(.*?)'''|'(.*?)')", text, re.S):
        wrong += run_tool("shellcheck", "-s", "sh", "-", text=one[0] or one[1])
    return wrong


def check_kubernetes(root):
    """Manifests by Kubernetes' own schemas, old and new, nothing unknown in them; their plans by eksup."""
    files = found(root, "docs/examples/kubernetes/*.yaml")
    wrong = []
    for version in ("1.30", "1.33", "1.36"):
        wrong += run_tool("kubernetes-validate", "--strict", "--no-warn", "--quiet", "-k", version, *files)
    for path in files:
        for one in yaml.safe_load_all(read(path)):
            for plan in (one.get("data") or {}).values() if one["kind"] == "ConfigMap" else ():
                with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                    file.write(plan)
                    file.flush()
                    done = subprocess.run([EKSUP, "policy", file.name], capture_output=True, text=True, check=False)
                wrong += [f"{path}: {done.stderr[:500]}"] if done.returncode else []
    return wrong


def check_plan_schema(root):
    """docs/upgrade-plan.schema.json is what `eksup schema` prints, and the plans in plans/ are valid by it."""
    [schema] = found(root, "docs/upgrade-plan.schema.json")
    printed = subprocess.run([EKSUP, "schema"], capture_output=True, text=True, check=True).stdout
    wrong = [] if printed == read(schema) else [f"{schema} is not what `eksup schema` prints: write it again"]
    return wrong + run_tool("check-jsonschema", "--schemafile", schema, *found(root, "plans/*.yaml"))


def check_container(root):
    """hadolint: the Containerfile."""
    return run_tool("hadolint", *found(root, ".ci/container/Containerfile"))


def check_shell(root):
    """shellcheck: every script that a pipeline carries."""
    return run_tool("shellcheck", *found(root, ".ci/run", ".ci/*.sh", ".ci/container/*.sh", ".github/action/*.sh"))


def check_readme_job(root):
    """The job in README.md is the example, word for word."""
    example = read(os.path.join(root, "docs/examples/github/upgrade.yml")).split("\n", 1)[1]
    return [] if f"```yaml\n{example}```\n" in read(os.path.join(root, "README.md")) else ["README.md has another job than the example"]


def check_sbom(root):
    """CycloneDX's own schema: the bill of materials that a release has."""
    import cyclonedx.schema

    schema = os.path.join(os.path.dirname(cyclonedx.schema.__file__), "_res/bom-1.5.SNAPSHOT.schema.json")
    target = "x86_64-unknown-linux-gnu"
    done = subprocess.run(
        [sys.executable, os.path.join(root, ".ci/sbom.py"), target], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return [done.stderr[-500:]]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(done.stdout)
        file.flush()
        wrong = run_tool("check-jsonschema", "--schemafile", schema, file.name)
    count = done.stdout.count('"type": "library"')
    return wrong + ([f"the bill of materials has only {count} parts"] if count < 100 else [])


def check_changelog(root):
    """CHANGELOG.md is of the form of Keep a Changelog."""
    command = [sys.executable, os.path.join(root, ".ci/changelog.py")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return [done.stderr] if done.returncode else []


def check_placeholders(root):
    """OWNER is the one name that somebody has to put in: no account of anybody is named for this repository."""
    wrong = []
    for path in found(root, "README.md", "docs/*.md", "docs/examples/*/*", "docs/examples/gitlab/.gitlab-ci.yml", "templates/*.yml"):
        if not os.path.isfile(path):
            continue
        for owner in re.findall(r"(?:github\.com/|ghcr\.io/|uses: )([\w.-]+)/eksup\b", read(path)):
            if owner not in ("OWNER", "clowdhaus"):
                wrong.append(f"{path}: names {owner}/eksup")
    return wrong


CHECKS = {name[6:]: one for name, one in list(globals().items()) if name.startswith("check_")}


def main():
    global TOOLS, EKSUP
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eksup", default=EKSUP)
    parser.add_argument("--tools", default=TOOLS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CHECKS))
    arguments = parser.parse_args()
    TOOLS, EKSUP = arguments.tools, arguments.eksup
    failed = 0
    for name in arguments.names or CHECKS:
        wrong = CHECKS[name](ROOT)
        print(f"{'WRONG' if wrong else 'ok   '} {name}: {CHECKS[name].__doc__.splitlines()[0]}")
        for one in wrong:
            print(one)
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
