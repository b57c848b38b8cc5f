"""An indexed Job of Kubernetes: a pod a worker, one success for all, retries an index.

A worker ends with 0 only when every unit is published, by whomever, so the first success is the run's. A pod that is
taken away costs no try; one that drained (75) is replaced; bad usage (2) and a refused run (3) end the Job, since no
other pod would fare better.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from assay.errors import UsageError, WorkError
from assay.exits import BAD_INPUT, DRAINED, REFUSED
from assay.fleet.launch.job import Job
from assay.fleet.launch.launcher import Say, call_tool
from assay.fleet.launch.settings import KubernetesSettings

CONTAINER = "assay"
USER = 10001
"""Of the container file in deploy/."""
GRACE_SECONDS = 90
"""From SIGTERM to SIGKILL: 20 s for units under way, then the workers stop."""
TRIES = 6
"""Failures of an index before it is given up; its share is done by the others."""
KEPT_SECONDS = 7 * 24 * 3600
"""That a finished Job and its logs stay."""
FATAL = [BAD_INPUT, REFUSED]
"""Exit statuses that no other try changes."""

Object = dict[str, Any]


def render(job: Job, settings: KubernetesSettings) -> str:
    """The manifest."""
    name = {"name": job.name} | ({"namespace": settings.namespace} if settings.namespace else {})
    labels = {"app.kubernetes.io/name": "assay"}
    queue = {"kueue.x-k8s.io/queue-name": settings.queue} if settings.queue else {}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": name | {"labels": labels | queue},
        "spec": {
            "completionMode": "Indexed",
            "completions": job.workers,
            "parallelism": job.workers,
            "backoffLimitPerIndex": TRIES,
            "maxFailedIndexes": job.workers // 2,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "successPolicy": {"rules": [{"succeededCount": 1}]},
            **({"activeDeadlineSeconds": max(1, round(settings.hours * 3600))} if settings.hours else {}),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": _pod(job, settings)},
        },
    }
    head = (
        f"# {job.workers:,} workers share one run; the first that ends with 0 has seen all of it published.\n"
    )
    return head + yaml.safe_dump(manifest, sort_keys=False, width=110, allow_unicode=True)


def _failure_rules() -> list[Object]:
    def on_exit(action: str, values: list[int]) -> Object:
        codes = {"containerName": CONTAINER, "operator": "In", "values": values}
        return {"action": action, "onExitCodes": codes}

    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        on_exit("Ignore", [DRAINED]),
        on_exit("FailJob", FATAL),
    ]


def _pod(job: Job, settings: KubernetesSettings) -> Object:
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  the pod's own, the only place it may write to
    for number, (claim, folder) in enumerate(settings.mounts()):
        name = f"claim-{number}"  # what a claim is called need not be a name of a volume
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": name, "mountPath": folder})
    gpus = {"nvidia.com/gpu": job.gpus} if job.gpus else {}
    sizes = {"cpu": str(job.cpus), "memory": f"{job.memory_gib}Gi"}
    container = {
        "name": CONTAINER,
        "image": settings.image,
        "command": ["assay", *job.command],
        "env": list(_environment(job, settings)),
        # limits as requested: a worker then knows how many cores of its node are its own
        "resources": {"requests": dict(sizes), "limits": {**sizes, **gpus}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        **({"serviceAccountName": settings.service_account} if settings.service_account else {}),
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"nodeSelector": {"nvidia.com/gpu.product": job.gpu_type}} if job.gpus and job.gpu_type else {}),
        **({"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]} if job.gpus else {}),
        "containers": [container],
        "volumes": volumes,
    }


def _environment(job: Job, settings: KubernetesSettings) -> Iterator[Object]:
    """The world size, a home where libraries may write, and what the secret holds."""
    yield {"name": "NUM_WORKERS", "value": str(job.workers)}
    yield {"name": "HOME", "value": "/tmp"}  # noqa: S108  a read-only root has no other
    for name in job.env:
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.secret, "key": name}}}


def check(text: str) -> list[str]:
    """What is wrong with a manifest that its schema lets pass."""
    manifest = yaml.safe_load(text)
    spec: Mapping[str, Any] = manifest["spec"]
    pod: Mapping[str, Any] = spec["template"]["spec"]
    return [
        *_check_retries(spec, pod),
        *(problem for container in pod["containers"] for problem in _check_container(container, spec, pod)),
    ]


def _check_retries(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    for key in ("backoffLimitPerIndex", "podFailurePolicy"):
        if key in spec and pod.get("restartPolicy") != "Never":
            yield f"restartPolicy is {pod.get('restartPolicy')}, and {key} needs Never"
    for key in ("backoffLimitPerIndex", "successPolicy"):
        if key in spec and spec.get("completionMode") != "Indexed":
            yield f"completionMode is {spec.get('completionMode')}, and {key} needs Indexed"
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield "maxFailedIndexes is set, and needs backoffLimitPerIndex"
    if spec.get("maxFailedIndexes", 0) > spec.get("completions", 0):
        yield f"maxFailedIndexes is {spec['maxFailedIndexes']}, more than completions"
    rules = spec.get("podFailurePolicy", {}).get("rules", [])
    if "podFailurePolicy" in spec and spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield f"podReplacementPolicy is {spec['podReplacementPolicy']}, and podFailurePolicy needs Failed"
    names = {container["name"] for container in pod["containers"]}
    for rule in rules:
        codes = rule.get("onExitCodes")
        if codes is not None and codes.get("containerName", next(iter(names))) not in names:
            yield f"podFailurePolicy names the container {codes['containerName']}, and there is none"
        if codes is not None and (0 in codes["values"] or codes["values"] != sorted(set(codes["values"]))):
            yield f"podFailurePolicy has the exit codes {codes['values']}; they must ascend, without 0"
    fates = [(rule["action"], rule.get("onExitCodes", {}).get("values", [])) for rule in rules]
    if any(DRAINED in values for action, values in fates if action in {"FailJob", "FailIndex"}):
        yield f"podFailurePolicy fails on status {DRAINED}, which says that the same command goes on"


def _check_container(
    container: Mapping[str, Any], spec: Mapping[str, Any], pod: Mapping[str, Any]
) -> Iterator[str]:
    environment = {each["name"]: each for each in container.get("env", [])}
    if len(environment) < len(container.get("env", [])):
        yield f"a variable is set twice, of {', '.join(each['name'] for each in container['env'])}"
    size = environment.get("NUM_WORKERS", {}).get("value")
    if size != str(spec.get("completions")):
        yield f"NUM_WORKERS is {size}, and completions {spec.get('completions')}; ranks and shares would not fit"
    limits = container.get("resources", {}).get("limits", {})
    requests = container.get("resources", {}).get("requests", {})
    for name in set(requests) & set(limits) - {"cpu", "memory"}:
        if requests[name] != limits[name]:
            yield f"{name} is requested {requests[name]} times with a limit of {limits[name]}; they must be equal"
    mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    if len(set(mounts)) < len(mounts):
        yield f"two volumes are mounted at one folder: {', '.join(mounts)}"
    if container.get("securityContext", {}).get("readOnlyRootFilesystem") and "/tmp" not in mounts:  # noqa: S108
        yield "the root is read-only, and nothing is mounted at /tmp to write to"
    unknown = {mount["name"] for mount in container.get("volumeMounts", [])} - {
        volume["name"] for volume in pod.get("volumes", [])
    }
    if unknown:
        yield f"there are mounts of volumes that the pod does not have: {', '.join(sorted(unknown))}"
    if pod.get("terminationGracePeriodSeconds", 30) < GRACE_SECONDS:
        yield f"terminationGracePeriodSeconds is below {GRACE_SECONDS}: a pod would be killed while it drains"


def refuse(_: Job, __: KubernetesSettings) -> None:
    """Nothing that rendering and checking let pass."""


def submit(text: str, job: Job, settings: KubernetesSettings, _: Say) -> str:
    """Create the Job; returns what kubectl calls it."""
    command = [*_kubectl(settings), "create", "--filename=-", "--output=name"]
    try:
        return call_tool(command, text, found_at="where the cluster is reached from")
    except WorkError as error:
        if "AlreadyExists" not in str(error):
            raise
        (delete,) = stop(job, settings, None)
        msg = f"there is a Job {job.name} already; give another --name, or take it away first: {delete}"
        raise UsageError(msg) from None


def start(settings: KubernetesSettings, file: str) -> str:
    """How to submit a file by hand."""
    return shlex.join([*_kubectl(settings), "create", "-f", file])


def follow(job: Job, settings: KubernetesSettings, _: str | None) -> Sequence[str]:
    """The Job, and the logs of all its pods."""
    kubectl = shlex.join(_kubectl(settings))
    return (
        f"{kubectl} get job {job.name} --watch",
        f"{kubectl} logs --follow --prefix --max-log-requests={job.workers} --selector=job-name={job.name}",
    )


def stop(job: Job, settings: KubernetesSettings, _: str | None) -> Sequence[str]:
    """Delete the Job: its workers drain."""
    return (f"{shlex.join(_kubectl(settings))} delete job {job.name}",)


def _kubectl(settings: KubernetesSettings) -> list[str]:
    return ["kubectl", *([f"--namespace={settings.namespace}"] if settings.namespace else [])]
