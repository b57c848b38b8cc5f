"""RunPod behind `assay launch`: the request for each pod, shown before anything is asked for, and the fleet made of it.

The text has no value of a variable. Values are read from the environment at submission and go into the requests, where
RunPod keeps them; one such as `{{ RUNPOD_SECRET_name }}` is filled in by RunPod.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.data.object_store import no_conditional_writes
from assay.data.storage import Store, is_object_url, local_path, open_store
from assay.errors import CheckError, InputError, UsageError, WorkError
from assay.fleet.launch.cloud_settings import RunPodSettings
from assay.fleet.launch.gpus import spell_gpu
from assay.fleet.launch.job import Job
from assay.fleet.launch.runpod.api import BASE_URL, KEY, RunPod
from assay.fleet.launch.runpod.follow import Budget, Fleet, Followed, Follower, Watched
from assay.fleet.launch.runpod.ledger import Ledger
from assay.fleet.launch.runpod.pods import Shape, request_body
from assay.fleet.launch.runpod.watched import RunOfPods, VisibleRun, args_of_pods
from assay.runs.notes import LAUNCHES
from assay.telemetry import format_duration, format_number_of

ADDRESS = "RUNPOD_REST_V2_URL"
"""Variable with another address of the API, as RunPod's own command line reads it."""
OWN_VOLUME = "RUNPOD_VOLUME_ID"
"""Variable of a pod with the id of its network volume."""
LEAST_SECONDS = 600.0
"""That the money must pay for all pods: less would not see them start."""
_VENDORS = ("NVIDIA ", "AMD ", "Tesla ")


def render(job: Job, settings: RunPodSettings) -> str:
    """The fleet and the request for each of its pods, as JSON."""
    shape = _shape(job, settings, dict.fromkeys(job.env, "<from the environment>"))
    gpu = _gpu_ids(settings)
    name = fleet_name(job, settings)
    pod = request_body(shape, fleet=name, rank=0, num_pods=job.workers, gpu=gpu[0])
    pod["name"], pod["env"]["POD_ID"] = f"{name}-<rank>", "<rank>"
    content: dict[str, Any] = {
        "fleet": name,
        "pods": job.workers,
        "gpu_types": gpu,
        "budget": {"dollars": settings.budget, "hours": settings.hours},
        "run": job.run,
        "pod": pod,
    }
    if not is_object_url(job.run):
        content["first_pod"] = {"args": args_of_pods(job.command, job.run)[0]}
    return json.dumps(content, indent=2) + "\n"


def check(text: str) -> list[str]:
    """What is wrong with a fleet."""
    content = json.loads(text)
    problems = []
    if not any(content["budget"].values()):
        problems.append("the fleet has no budget; set --budget or --hours")
    if {"POD_ID", "NUM_WORKERS"} - content["pod"]["env"].keys():
        problems.append("pods would not know their rank; set POD_ID and NUM_WORKERS in their environment")
    if content["pod"].get("registry") == "":
        problems.append("registry is empty; name RunPod's id of the credentials or leave it out")
    return problems


def refuse(job: Job, settings: RunPodSettings) -> None:
    """Raise UsageError for a run that no pod could write to, or none but one could read."""
    _gpu_ids(settings)
    if is_object_url(job.run):
        if not job.env:
            msg = (
                f"run is {job.run}, and pods have no credentials of their own; name the variables that open it, such "
                "as --env AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION"
            )
            raise UsageError(msg)
    elif settings.volume is None or not local_path(job.run).is_relative_to(settings.mount):
        msg = f"run is {job.run}, which pods do not share; give a URL, or a folder of a network volume: --volume ID"
        raise UsageError(msg)


def submit(text: str, job: Job, settings: RunPodSettings, say: Callable[[str], None]) -> str:  # noqa: ARG001
    """Make the pods and watch them to the end; returns what it came to.

    Raises InputError or UsageError before a pod is made, and CheckError where the run is not whole at the end.
    """
    api = open_account(os.environ)
    fleet = _fleet(api, job, settings, os.environ)
    store, watched = _watch(api, job, settings, say)
    budget = Budget(dollars=settings.budget, hours=settings.hours)
    _refuse_small(budget, fleet)
    say(
        f"Ctrl-C leaves the pods, the same command watches them again, {stop(job, settings, None)[0]} deletes them"
    )
    follower = Follower(api, fleet, watched, budget=budget, ledger=Ledger(store, fleet.name), say=say)
    return _outcome(follower.follow(), job, budget)


def open_account(environment: Mapping[str, str]) -> RunPod:
    """The account that the environment opens; raises UsageError where it has no key."""
    return RunPod(environment.get(KEY, ""), base_url=environment.get(ADDRESS, BASE_URL))


def start(_: RunPodSettings, file: str) -> str:
    """How to submit by hand: RunPod takes no file."""
    return f"the same command with --submit; {file} shows what it asks for"


def follow(job: Job, settings: RunPodSettings, submitted: str | None) -> Sequence[str]:
    """Nothing more once it is over."""
    first = f"{fleet_name(job, settings)}-0"
    return () if submitted else (f"the command itself, which watches {first} and the others",)


def stop(job: Job, settings: RunPodSettings, submitted: str | None) -> Sequence[str]:
    """Delete the pods; what is published stays."""
    return () if submitted else (f"assay launch runpod stop {fleet_name(job, settings)}",)


# ------------------------------------------------------------ of a fleet


def fleet_name(job: Job, settings: RunPodSettings) -> str:
    """What the pods are called but for their rank: the job's name, and which run it is of all that are called so.

    Pods are known by their names alone, so two runs in folders of one name must not share them.
    """
    run = job.run if settings.volume is None else f"{settings.volume}:{job.run}"
    return f"{job.name}-{hashlib.sha256(run.encode()).hexdigest()[:6]}"


def _gpu_ids(settings: RunPodSettings) -> list[str]:
    """RunPod's ids; a name that begins as an id does is taken as it is, for the price list to know."""
    return [kind if kind.startswith(_VENDORS) else spell_gpu("runpod", kind) for kind in settings.kinds()]


def _shape(
    job: Job, settings: RunPodSettings, env: Mapping[str, str], data_center: str | None = None
) -> Shape:
    is_seen = is_object_url(job.run)
    centers = settings.data_centers or ((data_center,) if data_center else ())
    return Shape(
        image=settings.image,
        args=shlex.join(("assay", *job.command)) if is_seen else args_of_pods(job.command, job.run)[1],
        gpu_count=job.gpus,
        cloud=settings.cloud.upper(),
        min_vcpus=-(-job.cpus // job.gpus),
        min_memory_gb=-(-job.memory_gib // job.gpus),
        disk_gb=settings.disk_gb,
        min_cuda=settings.min_cuda,
        volume=settings.volume,
        mount=settings.mount,
        data_centers=centers,
        registry=settings.registry,
        env=env,
    )


def _fleet(api: RunPod, job: Job, settings: RunPodSettings, environment: Mapping[str, str]) -> Fleet:
    """The fleet, with what only the account knows: prices, and where the volume lies."""
    for name in job.env:
        if name not in environment:
            msg = f"env names {name}, which is not set here; export it, its value goes to RunPod with the request"
            raise UsageError(msg)
    if KEY in job.env:
        msg = f"env names {KEY}, which opens the whole account; leave it out, pods do not need it"
        raise UsageError(msg)
    gpus = _gpu_ids(settings)
    offers = {offer.id: offer for offer in api.list_gpus()}
    for gpu in gpus:
        if gpu not in offers:
            known = ", ".join(sorted(offer.name for offer in offers.values()))
            msg = f"gpu_type {gpu!r} is not for rent at RunPod now; it has {known}"
            raise UsageError(msg)
    prices = [offers[gpu].dollars_per_hour.get(settings.cloud.upper(), 0.0) for gpu in gpus]
    if not all(prices) and settings.hours is None:
        unpriced = gpus[prices.index(0.0)]
        msg = (
            f"gpu_type {unpriced!r} has no price in the {settings.cloud} cloud now, so a budget in dollars would not"
            " end it; set --hours too, or another --cloud"
        )
        raise UsageError(msg)
    data_center = None if settings.volume is None else api.data_center_of(settings.volume)
    shape = _shape(job, settings, {name: environment[name] for name in job.env}, data_center)
    return Fleet(
        name=fleet_name(job, settings),
        num_pods=job.workers,
        shape=shape,
        gpus=tuple(gpus),
        dollars_per_hour=max(prices) * job.gpus * job.workers,
        args_of_first=None if is_object_url(job.run) else args_of_pods(job.command, job.run)[0],
    )


def _watch(
    api: RunPod, job: Job, settings: RunPodSettings, say: Callable[[str], None]
) -> tuple[Store, Watched]:
    """Where the ledger is kept, and how the run is seen: by itself where it is visible from here."""
    if is_object_url(job.run):
        store = open_store(job.run)
        refuse_without_conditional_writes(store)
        return store, VisibleRun(job.run, say)
    if os.environ.get(OWN_VOLUME) == settings.volume:  # this is a pod that has the volume too
        return open_store(job.run), VisibleRun(job.run, say)
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "assay"
    return open_store(state), RunOfPods(api, fleet_name(job, settings))


def refuse_without_conditional_writes(store: Store) -> None:
    """Raise InputError for a bucket in which two writers of one name both succeed, before pods find it out."""
    probe = f"{LAUNCHES}probe-{os.getpid()}-{os.urandom(8).hex()}"
    try:
        created = [store.create(probe, b"") for _ in range(2)]
    finally:
        store.delete(probe)
    if created != [True, False]:
        raise InputError(no_conditional_writes(store.url))


def _refuse_small(budget: Budget, fleet: Fleet) -> None:
    need = fleet.dollars_per_hour * LEAST_SECONDS / 3600
    if budget.dollars is not None and budget.dollars < need:
        seconds = budget.dollars / fleet.dollars_per_hour * 3600
        msg = (
            f"budget is {budget.dollars:g} $, which pays {format_number_of(fleet.num_pods, 'pod')} for "
            f"{format_duration(seconds)}; set --budget {need:.2f} or more, or fewer --workers"
        )
        raise UsageError(msg)


def _outcome(ended: Followed, job: Job, budget: Budget) -> str:
    cost = (
        f"{format_number_of(ended.num_pods, 'pod')}, {ended.hours:.2f} h, {ended.dollars:.2f} $; none is left"
    )
    if ended.why == "verified":
        return f"{job.run} is verified; {cost}"
    if ended.why == "stopped":
        msg = f"all pods were deleted from elsewhere, so no more are made ({cost}): {ended.look.line}; rerun to go on"
        raise WorkError(msg)
    if ended.why == "hopeless":
        msg = f"{ended.look.hopeless}; {cost}"
        raise CheckError(msg)
    spent = " or ".join(
        part
        for part in (
            f"{budget.dollars:g} $" if budget.dollars is not None else "",
            f"{budget.hours:g} h" if budget.hours is not None else "",
        )
        if part
    )
    msg = f"the budget of {spent} is spent ({cost}): {ended.look.line}; set a larger one to go on"
    raise WorkError(msg)
