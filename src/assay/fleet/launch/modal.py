"""An app of Modal: functions that wrap commands. Workers end by themselves, so nothing is left that costs money.

What Modal's client does not see when an app is defined is checked here: kinds of GPU, and how many of them; a run on a
volume, where the second of two writers wins.
"""

import ast
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from assay.data.storage import is_object_url
from assay.errors import UsageError
from assay.exits import BAD_INPUT, DRAINED, REFUSED
from assay.fleet.launch.cloud_settings import ModalSettings
from assay.fleet.launch.gpus import GPUS, spell_gpu
from assay.fleet.launch.job import Job
from assay.fleet.launch.launcher import Say, call_tool

PYTHON = "3.12"
"""Of functions without an image, where nothing is said."""
MOST_SECONDS = 24 * 3600
"""Of a call."""
DRAIN_SECONDS = 120
"""That a call may take beyond its hours."""
MOST_GPUS = {"A10": 4}
DEFAULT_MOST_GPUS = 8
SUBMIT_SECONDS = 1_800.0
"""The image is built where it is new."""


def render(job: Job, settings: ModalSettings) -> str:
    """The module of the app."""
    environment = Environment(
        loader=PackageLoader("assay.fleet", "launch"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701  Python, not HTML; every value is written as a literal
        trim_blocks=False,
    )
    return (
        environment.get_template("modal_app.py.jinja").render(
            name=job.name,
            command=repr(list(job.command)),
            run=job.run,
            workers=job.workers,
            hours=settings.hours,
            bundle="" if settings.bundle is None else f" = {settings.bundle!r}",
            gpu=_gpu_text(job),
            image=_image(settings),
            volumes=settings.mounts(),
            env=repr(list(job.env)) if job.env else "",
            secret=settings.secret,
            cpus=job.cpus,
            memory_mib=job.memory_gib * 1024,
            timeout=round(settings.hours * 3600) + DRAIN_SECONDS,
            longest=MOST_SECONDS,
            drained=DRAINED,
            final=(BAD_INPUT, REFUSED),
            most_failures=settings.most_failures,
        )
        + "\n"
    )


def _gpu_text(job: Job) -> str:
    kinds = [f"{kind}:{job.gpus}" if job.gpus > 1 else kind for kind in _kinds(job)]
    return repr(kinds[0] if len(kinds) == 1 else kinds or None)


def _kinds(job: Job) -> list[str]:
    if not job.gpus:
        return []
    if job.gpu_type is None:
        msg = "gpu_type is missing, and Modal needs one; set for example --gpu-type L40S"
        raise UsageError(msg)
    return [spell_gpu("modal", kind.strip()) for kind in job.gpu_type.split(",")]


def _image(settings: ModalSettings) -> str:
    if settings.image is not None:
        return f"modal.Image.from_registry({settings.image!r})\n    .entrypoint([])"
    packages = ", ".join(map(repr, settings.packages))
    return f"modal.Image.debian_slim(python_version={settings.python or PYTHON!r})\n    .uv_pip_install({packages})"


def check(text: str) -> list[str]:
    """What is wrong with a module that Modal's client would take."""
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        return [f"the module is not Python: {error.msg} in line {error.lineno}"]
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.isupper()
    }
    problems = []
    known = {gpu.modal for gpu in GPUS}
    for kind in [values["GPU"]] if isinstance(values["GPU"], str) else values["GPU"] or []:
        name, _, count = kind.partition(":")
        if name not in known:
            problems.append(f"Modal has no GPU {name!r}")
        elif int(count or 1) > (most := MOST_GPUS.get(name, DEFAULT_MOST_GPUS)):
            problems.append(
                f"a container has {count} GPUs of {name} and Modal at most {most}; set --gpus {most} or less"
            )
    if not is_object_url(values["RUN"]):
        problems.append(
            f"the run is {values['RUN']}, which containers do not share; give the URL of a bucket"
        )
    return problems


def refuse(job: Job, settings: ModalSettings) -> None:
    """Raise UsageError for a run on a volume, and a kind of GPU that Modal does not have."""
    for folder, volume in settings.mounts().items():
        if job.run == folder or job.run.startswith(f"{folder}/"):
            msg = (
                f"run {job.run} is on the volume {volume}, where the second of two writers wins and parts could "
                "be lost; give the URL of a bucket, s3://bucket/run"
            )
            raise UsageError(msg)
    if not is_object_url(job.run):
        msg = f"run is {job.run}, which containers do not share; give the URL of a bucket, s3://bucket/run"
        raise UsageError(msg)
    if not job.env:
        msg = (
            f"run is {job.run}, and containers have no credentials of their own; name what opens it, which the secret "
            f"{settings.secret} holds, such as --env AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION"
        )
        raise UsageError(msg)
    _kinds(job)


def submit(text: str, job: Job, settings: ModalSettings, _: Say) -> str:
    """Deploy the app and start its workers; returns what Modal's client says."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{re.sub('[^a-z0-9]', '_', job.name)}.py"
        file.write_text(text, encoding="utf-8")
        command = ["sh", "-c", start(settings, str(file))]
        return call_tool(
            command, "", found_at="where Modal is installed", tool="modal", seconds=SUBMIT_SECONDS
        )


def start(_: ModalSettings, file: str) -> str:
    """How to deploy a file and start its workers by hand."""
    quoted = shlex.quote(file)
    return f"modal deploy {quoted} && modal run {quoted}::start"


def follow(job: Job, _: ModalSettings, __: str | None) -> Sequence[str]:
    """The log of the app."""
    return (f"modal app logs {job.name}",)


def stop(job: Job, _: ModalSettings, __: str | None) -> Sequence[str]:
    """Stop the app: containers are ended."""
    return (f"modal app stop {job.name}",)
