"""The manifest of `assay launch kubernetes`: what the schemas say, and what they let pass."""

import copy

import kubernetes_validate
import pytest
import yaml
from support.jobs import job
from support.pages import ROOT

from assay.cli.main import EXIT_CODES
from assay.errors import InputError, RefusedError, UsageError
from assay.exits import DRAINED, INTERRUPTED
from assay.fleet.launch import kubernetes
from assay.fleet.launch.kubernetes import GRACE_SECONDS
from assay.fleet.launch.settings import KubernetesSettings
from assay.runs import driver
from assay.runs.ranks import find_rank

VERSIONS = ("1.33", "1.37")
"""From the first in which all that is used is no longer behind a gate."""


def manifest(*, changes=None, **options):
    """A manifest as text, for a job with these changes."""
    changes = changes or {}
    options.setdefault("env", changes.get("env", ()))
    settings = KubernetesSettings(command=("x",), image="registry.example.com/assay:0.1.0", **options)
    return kubernetes.render(job(**changes), settings)


FULL = {
    "changes": {"gpus": 2, "gpu_type": "NVIDIA-H100-80GB-HBM3", "env": ("AWS_REGION", "AWS_ENDPOINT_URL")},
    "hours": 1.5,
    "namespace": "scores",
    "queue": "batch",
    "secret": "bucket",
    "service_account": "reader",
    "volumes": ("data.v2:/shared", "models:/models"),
}


def test_a_claim_may_be_at_two_folders():
    """Neither is dropped; two claims at one folder are what the check is for."""
    made = yaml.safe_load(manifest(volumes=("data:/in", "data:/out")))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/in", "/out"}
    assert kubernetes.check(manifest(volumes=("data:/in", "data:/out"))) == []
    (problem,) = kubernetes.check(manifest(volumes=("data:/in", "more:/in")))
    assert problem.startswith("two volumes are mounted at one folder")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", [{}, FULL, {"changes": {"workers": 1}}], ids=["plain", "full", "one"])
def test_manifests_fit_the_schemas_of_kubernetes(options, version):
    """With nothing set and with everything, strictly; our own check has no complaint either."""
    text = manifest(**options)
    kubernetes_validate.validate(yaml.safe_load(text), version, strict=True)
    assert kubernetes.check(text) == []


def test_what_is_asked_for_is_in_the_manifest():
    """GPUs and their kind, queue, deadline, account, volumes; variables by name from a secret, never by value."""
    made = yaml.safe_load(manifest(**FULL))
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert made["metadata"]["namespace"] == "scores"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
    assert made["spec"]["activeDeadlineSeconds"] == 5400
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": 2}
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert pod["serviceAccountName"] == "reader"
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/shared", "/models"}
    variables = {each["name"]: each for each in container["env"]}
    assert variables["AWS_REGION"]["valueFrom"]["secretKeyRef"] == {"name": "bucket", "key": "AWS_REGION"}
    assert [name for name, each in variables.items() if "value" in each] == ["NUM_WORKERS", "HOME"]


def test_each_index_finds_its_rank():
    """The variable that the manifest sets and the one that Kubernetes sets make rank and world size."""
    made = yaml.safe_load(manifest())
    (container,) = made["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    ranks = [find_rank({**environment, "JOB_COMPLETION_INDEX": str(index)}) for index in range(3)]
    assert ranks == [(0, 3), (1, 3), (2, 3)]
    assert made["spec"]["completions"] == made["spec"]["parallelism"] == 3


def fate(made, status, *, disrupted=False):
    """What the first rule that matches does with a pod that failed; None: it is tried again, and counts."""
    for rule in made["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {}).get("values", [])
        if status in codes or (disrupted and "onPodConditions" in rule):
            return rule["action"]
    return None


def test_the_status_of_a_pod_decides_what_follows():
    """Drained or taken away costs no try, what no try can change ends the Job, and all else is tried again."""
    made = yaml.safe_load(manifest())
    hopeless = {code for kind, code in EXIT_CODES if kind in {UsageError, InputError, RefusedError}}
    assert hopeless == {2, 3}
    assert {fate(made, status) for status in hopeless} == {"FailJob"}
    assert fate(made, DRAINED) == "Ignore"
    assert [fate(made, status) for status in (1, INTERRUPTED, 137)] == [None] * 3
    assert {fate(made, status, disrupted=True) for status in (1, 2, DRAINED, 137)} == {"Ignore"}
    assert made["spec"]["backoffLimitPerIndex"] > 0
    assert made["spec"]["successPolicy"] == {"rules": [{"succeededCount": 1}]}


def test_there_is_time_to_drain():
    """A pod lives as long after SIGTERM as a driver takes for units under way and for its workers to stop."""
    assert driver.GRACE_SECONDS[15] + driver.STOP_SECONDS <= GRACE_SECONDS


def test_the_pod_is_the_user_of_the_image_with_few_rights():
    """Not root, nothing to write to but /tmp, no capabilities, no token of the cluster."""
    pod = yaml.safe_load(manifest())["spec"]["template"]["spec"]
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]


def set_in(made, path, value):
    """Set what a dotted path names, or take it out where the value is None."""
    *folders, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    for part in folders:
        made = made[part]
    if value is None:
        del made[last]
    else:
        made[last] = value


POD = "spec.template.spec"
CODES = "spec.podFailurePolicy.rules.2.onExitCodes"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            f"{POD}.restartPolicy",
            "OnFailure",
            "restartPolicy is OnFailure, and backoffLimitPerIndex needs Never",
        ),
        (
            "spec.completionMode",
            "NonIndexed",
            "completionMode is NonIndexed, and backoffLimitPerIndex needs Indexed",
        ),
        ("spec.backoffLimitPerIndex", None, "maxFailedIndexes is set, and needs backoffLimitPerIndex"),
        ("spec.maxFailedIndexes", 4, "maxFailedIndexes is 4, more than completions"),
        (
            "spec.podReplacementPolicy",
            "TerminatingOrFailed",
            "podReplacementPolicy is TerminatingOrFailed, and ",
        ),
        (
            f"{CODES}.containerName",
            "scorer",
            "podFailurePolicy names the container scorer, and there is none",
        ),
        (
            f"{CODES}.values",
            [3, 2],
            "podFailurePolicy has the exit codes [3, 2]; they must ascend, without 0",
        ),
        (
            f"{CODES}.values",
            [2, 3, 75],
            "podFailurePolicy fails on status 75, which says that the same command goes",
        ),
        (
            f"{POD}.containers.0.env.1.name",
            "NUM_WORKERS",
            "a variable is set twice, of NUM_WORKERS, NUM_WORKERS",
        ),
        ("spec.completions", 4, "NUM_WORKERS is 3, and completions 4; ranks and shares would not fit"),
        (
            f"{POD}.containers.0.volumeMounts",
            [],
            "the root is read-only, and nothing is mounted at /tmp to write to",
        ),
        (f"{POD}.volumes", [], "there are mounts of volumes that the pod does not have: tmp"),
        (
            f"{POD}.terminationGracePeriodSeconds",
            30,
            "terminationGracePeriodSeconds is below 90: a pod would be",
        ),
        (
            f"{POD}.containers.0.resources.requests",
            {"nvidia.com/gpu": 2},
            "nvidia.com/gpu is requested 2 times with a limit of 1; they must be equal",
        ),
    ],
)
def test_what_the_schemas_let_pass(path, value, said):
    """A manifest that strict validation takes, and that the server or the fleet would suffer from, is found here."""
    made = yaml.safe_load(manifest(changes={"gpus": 1}))
    changed = copy.deepcopy(made)
    set_in(changed, path, value)
    kubernetes_validate.validate(changed, "1.37", strict=True)
    assert kubernetes.check(yaml.safe_dump(made)) == []
    assert kubernetes.check(yaml.safe_dump(changed))[0].startswith(said)
