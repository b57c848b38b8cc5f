"""The pods of `assay launch kubernetes`, without a cluster: what the manifest says is run, index by index, here.

A pod is a process with the command and the environment of the manifest, as its user, without capabilities, on a
read-only root with an empty /tmp; a claim is a folder that is mounted where the manifest says.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.fake_runs import write_sources
from support.scoring import make_classifier

from assay.cli.main import main

pytestmark = pytest.mark.slow
SHARED = "/mnt"
"""A folder that is there and empty on most machines: what is mounted over it goes with the pod."""
SANDBOX = f"""\
set -e
mount --bind "$1" {SHARED}
mount -o remount,bind,ro /
mount -o remount,bind,rw {SHARED}
mount -t tmpfs tmpfs /tmp
shift
cd /
exec unshare --user --map-user=10001 --map-group=10001 "$@"
"""


def pod_of(made, index, claim, *, command=None):
    """Start the container of an index; with `command`, something else in it."""
    spec = made["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", SHARED}
    environment = {each["name"]: each["value"] for each in container["env"]}
    environment |= {"JOB_COMPLETION_INDEX": str(index), "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # as the image sets it
    words = command or container["command"]
    return subprocess.Popen(
        ["unshare", "--mount", "bash", "-c", SANDBOX, "pod", str(claim), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def can_make_pods():
    """Whether this process may have mounts and a user of its own."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    command = ["unshare", "--mount", "bash", "-c", SANDBOX, "pod", "/var/tmp", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_pods_of_a_manifest_make_one_run(tmp_path, capsys):
    """Both indexes work, one is taken away (75) and replaced; whichever ends with 0 has seen every unit published."""
    if not can_make_pods():
        pytest.skip("needs root and `unshare`, to mount and to be another user")
    claim = tmp_path / "claim"
    write_sources(claim / "corpus", [900, 600])
    make_classifier(claim / "model")
    words = [
        "launch",
        "kubernetes",
        "--workers",
        "2",
        "--image",
        "assay",
        "--volumes",
        f"data:{SHARED}",
        "--",
    ]
    words += ["score", f"{SHARED}/corpus", "--bundle", f"{SHARED}/model", "--run", f"{SHARED}/run"]
    assert main([*words, "--unit-rows", "20", "--num-threads", "1"]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    pods = [pod_of(made, index, claim) for index in range(2)]
    deadline = time.monotonic() + 200
    while len(list(claim.glob("run/parts/*.parquet"))) < 5:
        assert pods[0].poll() is None, pods[0].communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pods[0].send_signal(signal.SIGTERM)
    output, _ = pods[0].communicate(timeout=made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
    ignored = [
        rule["onExitCodes"]["values"]
        for rule in made["spec"]["podFailurePolicy"]["rules"]
        if rule["action"] == "Ignore" and "onExitCodes" in rule
    ]
    assert [pods[0].returncode] in ignored, output
    pods[0] = pod_of(made, 0, claim)
    for pod in pods:
        output, _ = pod.communicate(timeout=300)
        assert pod.returncode == 0, output
        assert len(list(claim.glob("run/parts/*.parquet"))) == 75, "one success is the run's"
    looking = pod_of(made, 0, claim, command=["assay", "verify", f"{SHARED}/run"])
    output, _ = looking.communicate(timeout=120)
    assert looking.returncode == 0, output
