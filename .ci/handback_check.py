#!/usr/bin/env python3
"""Holds what `eksup handback` prints by parsers and data that nobody here wrote.

    handback_check.py [--eksctl-schema FILE] SNAPSHOT...

The snapshots are those of src/handback/tests.rs: the document of each tool for groups of every shape, as Markdown. Each file
in them is read by its language's own parser: HCL by python-hcl2, YAML by PyYAML, templates by cfn-lint, commands of the AWS
CLI by AWS's service models (botocore). A part of a ClusterConfig is held against eksctl's published schema where it can be
had, and against the fields below where not. Exits with 1 when anything is wrong, or when a language was not seen at all.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import urllib.request

import yaml

EKSCTL_SCHEMA = "https://raw.githubusercontent.com/eksctl-io/eksctl/main/pkg/apis/eksctl.io/v1alpha5/assets/schema.json"

# Arguments and blocks of the provider's resources, as its documentation lists them.
RESOURCES = {
    "aws_eks_node_group": {
        "cluster_name", "node_group_name", "node_role_arn", "version", "release_version", "ami_type", "capacity_type",
        "instance_types", "disk_size", "subnet_ids", "labels", "tags", "scaling_config", "taint", "update_config",
        "node_repair_config", "launch_template", "remote_access", "lifecycle",
    },
    "aws_autoscaling_group": {
        "name", "min_size", "max_size", "desired_capacity", "protect_from_scale_in", "vpc_zone_identifier",
        "target_group_arns", "load_balancers", "suspended_processes", "launch_template", "tag", "lifecycle",
    },
}
# Inputs of an entry of terraform-aws-modules/eks, versions 20 and 21.
MODULE_INPUTS = {
    "name", "use_name_prefix", "iam_role_name", "iam_role_use_name_prefix", "use_custom_launch_template",
    "launch_template_name", "launch_template_use_name_prefix", "launch_template_version", "launch_template_tags", "ami_id",
    "ami_type", "ami_release_version", "use_latest_ami_release_version", "min_size", "max_size", "desired_size",
    "capacity_type", "instance_types", "disk_size", "subnet_ids", "labels", "taints", "update_config", "node_repair_config",
    "remote_access",
}  # fmt: skip
# Fields of eksctl's schema, for where it cannot be had.
CLUSTER_CONFIG = {"apiVersion", "kind", "metadata", "addons", "managedNodeGroups"}
MANAGED_GROUP = {
    "name", "amiFamily", "releaseVersion", "instanceType", "instanceTypes", "spot", "minSize", "maxSize", "desiredCapacity",
    "volumeSize", "subnets", "labels", "taints", "tags", "iam", "launchTemplate", "updateConfig", "nodeRepairConfig", "ssh",
}  # fmt: skip
# Inputs of Pulumi's aws:eks:NodeGroup.
PULUMI = {
    "clusterName", "nodeGroupName", "nodeRoleArn", "version", "releaseVersion", "amiType", "capacityType", "instanceTypes",
    "diskSize", "subnetIds", "scalingConfig", "labels", "taints", "tags", "updateConfig", "nodeRepairConfig",
    "launchTemplate", "remoteAccess",
}  # fmt: skip
LANGUAGES = {"hcl", "yaml", "json", "ts", "sh"}


def parts_of(text):
    """(heading, language, text) of each fence of a Markdown document."""
    heading, found, fence = "", [], None
    for line in text.splitlines():
        begin = re.fullmatch(r"\s*```(\w+)", line)
        if fence is None and begin:
            fence = (heading, begin[1], [])
        elif fence is not None and line.strip() == "```":
            found.append((fence[0], fence[1], "\n".join(fence[2]) + "\n"))
            fence = None
        elif fence is not None:
            fence[2].append(line)
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    return found


def check_hcl(text):
    """Problems of a Terraform file."""
    import hcl2

    try:
        data = hcl2.loads(text)
    except Exception as why:  # whatever its parser raises
        return [f"it is no HCL: {why}"]
    wrong, targets, sources = [], [], []
    for block in data.get("import", []):
        if not {"to", "id"} <= block.keys():
            wrong.append(f"an import without `to` and `id`: {block}")
        targets.append(str(block.get("to")))
    for block in data.get("removed", []):
        source = str(block.get("from"))
        sources.append(source)
        if "[" in source:
            wrong.append(f"`removed` takes no address with a key: {source}")
        lifecycle = block.get("lifecycle", [{}])[0]
        if lifecycle.get("destroy") is not False:
            wrong.append(f"`removed` would destroy {source}")
    names = []
    for block in data.get("resource", []):
        for kind, named in block.items():
            for name, body in named.items():
                kind, name = kind.strip('"'), name.strip('"')
                names.append(f"{kind}.{name}")
                unknown = {k for k in body if not k.startswith("__")} - RESOURCES.get(kind, set())
                wrong += [f"{kind} has no argument {argument}" for argument in sorted(unknown)]
    for block in data.get("locals", []):
        for name, entry in block.items():
            if not name.startswith("__"):
                unknown = {k.strip('"') for k in entry if not k.startswith("__")} - MODULE_INPUTS
                wrong += [f"the module has no input {argument}" for argument in sorted(unknown)]
    for group in (targets, sources, names):
        wrong += [f"twice: {one}" for one in sorted(set(group)) if group.count(one) > 1]
    # What is imported has a resource, unless it is one of several instances.
    bare = {re.sub(r"[\"${}]", "", t) for t in targets if "[" not in t}
    wrong += [f"nothing describes {t}" for t in sorted(bare) if not any(t.endswith(n) for n in names)]
    if not targets:
        wrong.append("nothing is imported")
    return wrong


def check_cluster_config(text, schema):
    """Problems of a part of a ClusterConfig."""
    data = yaml.safe_load(text)
    if schema is not None:
        import jsonschema

        found = jsonschema.Draft7Validator(schema).iter_errors(data)
        wrong = [f"eksctl's schema: {e.json_path}: {e.message}" for e in found]
    else:
        wrong = [f"a ClusterConfig has no {key}" for key in sorted(data.keys() - CLUSTER_CONFIG)]
        if data.get("apiVersion") != "eksctl.io/v1alpha5" or data.get("kind") != "ClusterConfig":
            wrong.append("it is no ClusterConfig of eksctl.io/v1alpha5")
    groups = data.get("managedNodeGroups", [])
    for group in groups:
        wrong += [f"a managed group has no {key}" for key in sorted(group.keys() - MANAGED_GROUP)]
        # eksctl refuses these beside a launch template.
        if "launchTemplate" in group:
            wrong += [f"{key} beside a launch template" for key in ("volumeSize", "ssh") if key in group]
    return wrong + ([] if groups else ["no managed group"])


def check_pulumi(text):
    """Problems of resources in Pulumi's YAML."""
    data = yaml.safe_load(text)
    wrong = []
    for name, resource in data["resources"].items():
        if resource.get("type") != "aws:eks:NodeGroup":
            wrong.append(f"{name} is a {resource.get('type')}")
        wrong += [f"{name} has no input {key}" for key in sorted(resource["properties"].keys() - PULUMI)]
    return wrong + ([] if data["resources"] else ["no resource"])


def check_manifests(text):
    """Problems of a NodePool, and a node class before it, as their source would have them."""
    wrong, kinds = [], []
    for data in yaml.safe_load_all(text):
        kinds.append((data["apiVersion"], data["kind"]))
        metadata = data["metadata"]
        wrong += [f"metadata has {key}" for key in sorted(metadata.keys() - {"name", "labels", "annotations"})]
        marks = [key for key in metadata.get("annotations", {}) if key.startswith(("eksup.dev/", "karpenter.sh/"))]
        wrong += [f"{data['kind']} has the annotation {key}" for key in marks]
        wrong += [f"{data['kind']} has no spec"] if not data.get("spec") else []
    allowed = [("karpenter.k8s.aws/v1", "EC2NodeClass"), ("karpenter.sh/v1", "NodePool")]
    return wrong + ([] if kinds in (allowed, allowed[1:]) else [f"it has {kinds}"])


def schema_of(kind):
    """A resource type as CloudFormation registers it, which cfn-lint carries."""
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    return PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema


def check_import(imports, resources):
    """Problems of what CreateChangeSet is given, together with the template's part."""
    wrong = []
    for one in imports:
        kind, logical = one["ResourceType"], one["LogicalResourceId"]
        primary = [path.rsplit("/", 1)[1] for path in schema_of(kind)["primaryIdentifier"]]
        if sorted(one["ResourceIdentifier"]) != sorted(primary):
            wrong.append(f"{kind} is identified by {primary}, and not by {sorted(one['ResourceIdentifier'])}")
        if resources.get(logical, {}).get("Type") != kind:
            wrong.append(f"{logical} is not in the template's part")
    missing = resources.keys() - {one["LogicalResourceId"] for one in imports}
    return wrong + [f"{logical} is not imported" for logical in sorted(missing)] + ([] if imports else ["no import"])


def check_template(resources):
    """Problems that cfn-lint has with a template of these resources alone."""
    wrong = [f"{name} may be deleted by an import" for name, r in resources.items() if r.get("DeletionPolicy") != "Retain"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}, file)
        file.flush()
        tool = os.path.join(os.path.dirname(sys.executable), "cfn-lint")
        lint = subprocess.run(
            [tool, "--format", "json", "--regions", "us-east-1", "--", file.name],
            capture_output=True,
            text=True,
        )
    try:
        found = json.loads(lint.stdout)
    except ValueError:
        return wrong + [f"cfn-lint said {(lint.stderr or lint.stdout).strip()}"]
    for one in found:
        path = "/".join(str(p) for p in one["Location"].get("Path") or [])
        # What was not read cannot be there, and is named in the steps.
        unread = "is a required property" in one["Message"]
        if one["Level"] == "Error" and not unread:
            wrong.append(f"cfn-lint: {path}: {one['Message']}")
    return wrong


def check_constructs(text):
    """Problems of the CDK's constructs: each one's properties are JSON, spelled as the CDK spells CloudFormation's."""
    wrong = []
    found = re.findall(r"^new (eks\.CfnNodegroup|autoscaling\.CfnAutoScalingGroup)\(this, \"(\w+)\", (\{.*?^\})\)", text, re.M | re.S)
    kinds = {"eks.CfnNodegroup": "AWS::EKS::Nodegroup", "autoscaling.CfnAutoScalingGroup": "AWS::AutoScaling::AutoScalingGroup"}
    for construct, name, properties in found:
        known = {key.lower() for key in schema_of(kinds[construct])["properties"]}
        wrong += [f"{name}: no property {key}" for key in json.loads(properties) if key.lower() not in known]
    return wrong + ([] if found else ["no construct"])


def check_command(line):
    """Problems of a command: a shell can split it, and the AWS CLI has its operation and its options."""
    words = shlex.split(line)
    if words[0] != "aws":
        return [] if words[0] in ("terraform", "eksctl", "pulumi", "cdk") else [f"an unknown program: {line}"]
    import botocore.loaders

    _, service, operation, *options = words
    model = botocore.loaders.Loader().load_service_model(service, "service-2")
    name = "".join(part.capitalize() for part in operation.split("-"))
    if name not in model["operations"]:
        return [f"{service} has no operation {operation}"]
    shape = model["shapes"][model["operations"][name]["input"]["shape"]]
    kebab = {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", member).lower(): member for member in shape["members"]}
    given = [word[2:] for word in options if word.startswith("--")]
    general = {"region", "output", "query"}
    wrong = [f"{operation} has no option --{o}" for o in given if o not in kebab and o not in general]
    required = {member for member in shape.get("required", [])}
    return wrong + [f"{operation} needs {m}" for m in sorted(required - {kebab.get(o) for o in given})]


def check_document(text, schema, seen):
    """Problems of one document. `seen` gets the names of its files and the languages."""
    wrong, by_name = [], {}
    for heading, language, part in parts_of(text):
        seen.add(language)
        if language not in LANGUAGES:
            wrong.append(f"{heading}: nothing here reads {language}")
        elif language == "sh":
            wrong += [problem for line in part.strip().splitlines() for problem in check_command(line.strip())]
        else:
            seen.add(heading)
            by_name[heading] = part
    checks = {
        "handback.tf": check_hcl,
        "clusterconfig.yaml": lambda part: check_cluster_config(part, schema),
        "pulumi.yaml": check_pulumi,
        "cdk-nodegroups.ts": check_constructs,
    }
    for name, part in by_name.items():
        try:
            if name.startswith("nodepool-"):
                wrong += [f"{name}: {problem}" for problem in check_manifests(part)]
            elif name in checks:
                wrong += [f"{name}: {problem}" for problem in checks[name](part)]
            elif name.endswith(".json"):
                json.loads(part)
            else:
                wrong.append(f"{name}: nothing here reads it")
        except (ValueError, KeyError, yaml.YAMLError) as why:
            wrong.append(f"{name}: it cannot be read: {why}")
    if not wrong and "cloudformation-import.json" in by_name:
        resources = json.loads(by_name["cloudformation-resources.json"])["Resources"]
        wrong += check_import(json.loads(by_name["cloudformation-import.json"]), resources)
        wrong += check_template(resources)
    return wrong


def read_schema(path):
    """eksctl's schema from a file or from where it is published; none where neither can be had."""
    if path:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    try:
        with urllib.request.urlopen(EKSCTL_SCHEMA, timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        print("NOT CHECKED: eksctl's schema. It cannot be reached from here; the fields in this check stand in for it.")
        return None


FILES = {
    "handback.tf", "clusterconfig.yaml", "pulumi.yaml", "cdk-nodegroups.ts", "cdk-import.json", "cloudformation-import.json",
    "cloudformation-resources.json", "nodepool-general-green.yaml",
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--eksctl-schema")
    parser.add_argument("snapshots", nargs="+")
    arguments = parser.parse_args()
    schema, seen, failed = read_schema(arguments.eksctl_schema), set(), False
    for path in arguments.snapshots:
        with open(path, encoding="utf-8") as file:
            # Before the document stands what insta says of it.
            text = file.read().split("\n---\n", 1)[1]
        for problem in check_document(text, schema, seen):
            failed = True
            print(f"{path}: {problem}")
    for name in sorted((FILES | LANGUAGES) - seen):
        failed = True
        print(f"no document has {name}")
    if failed:
        sys.exit(1)
    print(f"{len(arguments.snapshots)} documents, {len(FILES)} kinds of files")


if __name__ == "__main__":
    main()
