"""The container file and the Kubernetes manifest: they parse, fit each other, and name only what exists."""

import ast
import copy
import json
import re
import tomllib

import kubernetes_validate
import pytest
import yaml
from support import commands
from support.pages import ROOT

from assay.serve.page import PAGE_FILES

DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "how-to" / "deploy.md"
INSTRUCTIONS = {
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "RUN",
    "STOPSIGNAL",
    "USER",
}


def instructions():
    """The instructions of the container file: name and the rest, lines joined, comments left out."""
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    found = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(None, 1)) for line in found if line]


def last(name):
    """The value of the last instruction of a name, which is the one that counts."""
    return [rest for found, rest in instructions() if found == name][-1]


@pytest.fixture(scope="module")
def objects():
    """The objects of the manifest by kind."""
    text = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    return {content["kind"]: content for content in yaml.safe_load_all(text)}


@pytest.fixture
def pod(objects):
    """The pods that the deployment makes."""
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    """Their one container."""
    (only,) = pod["containers"]
    return only


def settings_of(arguments):
    """What `assay serve` makes of arguments."""
    return commands.parse("serve", arguments)


def test_the_container_file_parses():
    """Every instruction is known, the file begins with its stages, and JSON forms are JSON."""
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    assert [name for name, _ in instructions()][:2] == ["ARG", "FROM"]
    for name in ("CMD", "ENTRYPOINT"):
        assert all(isinstance(word, str) for word in json.loads(last(name)))
    stages = [rest for name, rest in instructions() if name == "FROM"]
    assert stages == ["python:${PYTHON}-slim AS build", "python:${PYTHON}-slim AS work", "work"]


def test_what_the_image_copies_exists():
    """Each file that a COPY names is in the repository, and the build has all that the package needs."""
    copied = []
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from="):
            copied += rest.split()[:-1]
    assert all((ROOT / path).exists() for path in copied), copied
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= set(copied)
    assert "serve" in project["optional-dependencies"]
    python = next(rest for name, rest in instructions() if name == "ARG").removeprefix("PYTHON=")
    assert any(python in line for line in project["classifiers"])


def test_the_image_builds_with_the_tested_tools():
    """The pin of uv is that of the Makefile, and packages keep to constraints.txt."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pin = re.search(r"^UV := (uv==\S+)$", makefile, re.MULTILINE)[1]
    run = " ".join(rest for name, rest in instructions() if name == "RUN")
    assert pin in run
    assert "--constraints /source/constraints.txt" in run


def test_the_image_runs_as_a_user_and_says_how_it_is():
    """Not root, by number; the health check asks /health, within its own time limit; SIGTERM drains."""
    user, group = last("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    health = last("HEALTHCHECK")
    options, _, command = health.partition("CMD ")
    assert set(re.findall(r"--([a-z-]+)=", options)) == {"interval", "timeout", "start-period", "retries"}
    python, flag, script = json.loads(command)
    assert (python, flag) == ("python", "-c")
    ast.parse(script)
    assert "/health" in script
    assert int(re.search(r"timeout=(\d+)\)", script)[1]) < int(re.search(r"--timeout=(\d+)s", options)[1])
    assert last("STOPSIGNAL") == "SIGTERM"


def test_the_command_of_the_image_is_one_of_assay():
    """Entry point and command together are `assay serve` with flags that exist, on the exposed port."""
    program, verb, *rest = json.loads(last("ENTRYPOINT")) + json.loads(last("CMD"))
    assert (program, verb) == ("assay", "serve")
    settings = settings_of(rest)
    assert settings.bundle == "/model"
    assert settings.host == "0.0.0.0"  # noqa: S104  a container is reached from outside
    assert settings.port == int(last("EXPOSE"))
    assert f":{settings.port}/health" in last("HEALTHCHECK")


def test_the_arguments_of_the_pod_are_those_of_assay_serve(container, pod):
    """The arguments parse into settings; the keys come from the mounted secret, the bundle from its volume."""
    settings = settings_of(container["args"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    assert settings.bundle in mounts
    folder, _, file = settings.keys_file.rpartition("/")
    secret = volumes[mounts[folder]]["secret"]["secretName"]
    comment = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8").partition("apiVersion")[0]
    assert f"kubectl create secret generic {secret} --from-file={file} " in comment
    assert settings.port == container["ports"][0]["containerPort"]


def test_the_probes_ask_the_routes_made_for_them(container):
    """Startup and readiness ask /health, liveness /live, on the named port; a slow load is waited for."""
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert paths == {
        "startup": {"path": "/health", "port": "http"},
        "readiness": {"path": "/health", "port": "http"},
        "liveness": {"path": "/live", "port": "http"},
    }
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_there_is_time_to_drain(container, pod):
    """The grace period covers preStop, the drain and a margin to stop the engines."""
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = settings_of(container["args"]).drain_seconds
    assert pod["terminationGracePeriodSeconds"] >= wait + drain + 5


def test_the_pod_has_few_rights(container, pod, objects):
    """No root, no writable root, no capabilities, no token of the cluster; bounded memory; nothing secret inside."""
    user, group = map(int, last("USER").split(":"))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == user
    assert pod["securityContext"]["runAsGroup"] == group
    assert pod["automountServiceAccountToken"] is False
    rights = container["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    assert "Secret" not in objects


def test_the_service_finds_the_pods(objects, container):
    """Deployment, service and disruption budget select the labels that the pods carry."""
    spec = objects["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert objects["PodDisruptionBudget"]["spec"]["minAvailable"] < spec["replicas"]


def test_the_manifest_fits_the_schemas_of_kubernetes(objects):
    """Every object passes Kubernetes' own schema, of the oldest and the newest version at hand; a wrong one fails."""
    for content in objects.values():
        for version in ("1.32", "1.37"):
            kubernetes_validate.validate(content, version, strict=True)
    wrong = copy.deepcopy(objects["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinessProb"):
        kubernetes_validate.validate(wrong, "1.32", strict=True)


def test_the_page_fits_the_files():
    """The page on deploying names files that exist and flags that parse, and gives the drain its time."""
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(deploy/[\w.]+)`", text))
    assert named == {"deploy/Containerfile", "deploy/kubernetes.yaml"}
    assert all((ROOT / name).exists() for name in named)
    assert "assay-keys" in text
    (rest,) = re.findall(r"^docker run .* assay (/model .*)$", text, re.MULTILINE)
    assert settings_of(rest.split()).bundle == "/model"
    seconds = int(re.search(r"docker stop -t (\d+)", text)[1])
    assert seconds >= settings_of(["/model"]).drain_seconds + 5


def test_the_image_holds_the_page():
    """The files of the page are package data, so an installed package has them."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    package = ROOT / "src" / "assay"
    shipped = {path for pattern in tool["package-data"]["assay"] for path in package.glob(pattern)}
    assert {package / "serve" / "page" / name for name, _ in PAGE_FILES.values()} <= shipped
