"""The processes of one training on one machine: started together, ended together, nothing left behind."""

import contextlib
import json
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from assay.errors import StorageError, UsageError, WorkError
from assay.train.launch import launch, stop_signals

CHILD = """
    import json, os, signal, sys, time
    from assay.train.launch import child_main, stop_signals
    from assay import errors

    rank = int(os.environ["RANK"])

    def body(job, send):
        if job.get("pids"):
            with open(f"{job['pids']}/{rank}.tmp", "w") as file:
                file.write(str(os.getpid()))
            os.rename(file.name, f"{job['pids']}/{rank}")
        orders = job["orders"][rank]
        exec(orders, globals() | {"job": job, "send": send})
        return {"rank": rank, "threads": os.environ["OMP_NUM_THREADS"], "wait": os.environ["OMP_WAIT_POLICY"]}

    sys.exit(child_main(body))
"""
FOREVER = "time.sleep(600)"
SAVE = """
with stop_signals() as should_stop:
    open(f"{job['pids']}/listens-{rank}", "w").close()
    while not should_stop():
        time.sleep(0.01)
time.sleep(0.2)
open(f"{job['pids']}/saved-{rank}", "w").close()
raise KeyboardInterrupt
"""


def command():
    """A child that does what the job's orders for its rank say."""
    return [sys.executable, "-c", textwrap.dedent(CHILD)]


def run(*orders, job=None, **options):
    """Launch a child for each of the orders."""
    options = {"way_out": lambda: "go on with --resume", **options}
    return launch(command(), {"orders": orders, **(job or {})}, num_processes=len(orders), **options)


def is_gone(pid):
    """Whether a process has ended, zombies included."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def pids_in(folder, num_processes=2):
    """Process ids that the children wrote, once all are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [folder / str(rank) for rank in range(num_processes)]
        if all(path.exists() for path in found):
            return [int(path.read_text()) for path in found]
        time.sleep(0.02)
    raise TimeoutError


def wait_until_all_listen(folder, num_processes=2):
    """Return once every child of `SAVE` takes signals itself."""
    deadline = time.monotonic() + 60
    while not all((folder / f"listens-{rank}").exists() for rank in range(num_processes)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_events_and_results(capfd, monkeypatch):
    """Rank 0's events and its stderr come through, in order, others' do not; its result is returned.

    Each process has its rank, a share of the cores, and what libraries print to stdout harms nothing.
    """
    told = (
        "print('noise', flush=True)\nsys.stderr.write(f'warning of {rank}\\n')\nassert os.getsid(0) == os.getpid()\n"
        "for step in range(3): send({'event': 'progress', 'step': step, 'rank': rank})"
    )
    heard = []
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    result = run(told, told, on_event=heard.append, num_threads=3)
    assert result == {"rank": 0, "threads": "3", "wait": "PASSIVE"}
    assert heard == [{"event": "progress", "step": step, "rank": 0} for step in range(3)]
    shown = capfd.readouterr()
    assert shown.out == ""
    assert sorted(shown.err.split("\n")) == ["", "noise", "warning of 0"]


def test_a_large_job():
    """A job larger than a pipe's buffer arrives whole."""
    check = "assert len(job['large']) == 300_000"
    assert run(check, check, job={"large": "x" * 300_000})


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        (
            "sys.stderr.write('first\\nlast line\\n\\n'); sys.stderr.flush(); os.kill(os.getpid(), signal.SIGKILL)",
            "rank 1 of 2 was killed by SIGKILL (out of memory?); its last line was: last line; go on with --resume",
        ),
        ("os._exit(7)", "rank 1 of 2 exited with status 7; go on with --resume"),
        (
            "raise ValueError('bad value')",
            "rank 1 of 2: ValueError: bad value; go on with --resume",
        ),
        ("raise errors.WorkError('loss nan; lower it')", "loss nan; lower it"),
    ],
)
def test_a_child_that_dies(tmp_path, orders, said):
    """The others are ended within seconds, and the error names the rank, its end and how to go on."""
    began = time.monotonic()
    with pytest.raises(WorkError) as failed:
        run(FOREVER, orders, job={"pids": str(tmp_path)})
    assert str(failed.value) == said
    assert time.monotonic() - began < 20
    assert all(is_gone(pid) for pid in pids_in(tmp_path))


def test_the_first_to_fail_is_named():
    """What the others say of a peer's end is not the error, though it may be heard first."""
    later = "time.sleep(0.3)\nraise errors.WorkError('rank 1 has gone')"
    with pytest.raises(WorkError, match="rank 1 of 2: ZeroDivisionError"):
        run(later, "1 / 0")
    with pytest.raises(WorkError, match="rank 1 of 2 was killed by SIGSEGV;"):
        run(
            "raise errors.WorkError('rank 1 has gone')",
            "time.sleep(0.3)\nos.kill(os.getpid(), signal.SIGSEGV)",
        )


def test_errors_keep_their_kind():
    """An error of ours is the same error in the parent, with the child's traceback as a note for --debug."""
    with pytest.raises(UsageError, match="no such thing") as failed:
        run(FOREVER, "raise errors.UsageError('no such thing; name another')")
    assert str(failed.value) == "no such thing; name another"
    assert "Traceback" in failed.value.__notes__[0]


def test_a_command_that_cannot_start():
    """A child that ends before it reads its job is named with what it said."""
    with pytest.raises(WorkError, match=r"rank 0 of 1 exited with status 1; its last line was: SyntaxError"):
        launch([sys.executable, "-c", "("], {}, num_processes=1, way_out=lambda: "go on")


AFTER_RANK_0 = """
while not os.path.exists(f"{job['pids']}/listens-0"):
    time.sleep(0.01)
"""


def test_a_child_that_is_interrupted_alone(tmp_path):
    """A signal that reaches one child stops all of them, as an interrupt of the training."""
    alone = AFTER_RANK_0 + "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run(SAVE, alone, job={"pids": str(tmp_path)})
    assert (tmp_path / "saved-0").exists()


def test_a_checkpoint_that_could_not_be_written(tmp_path):
    """A stop whose checkpoint fails is not a clean stop: the error says so."""
    full = """
try:
    open(f"{job['pids']}/listens-0", "w").close()
    time.sleep(600)
except KeyboardInterrupt:
    raise errors.StorageError("disk full; free space")
"""
    with pytest.raises(StorageError, match="disk full; free space"):
        run(full, AFTER_RANK_0 + "raise KeyboardInterrupt", job={"pids": str(tmp_path)})


PARENT = """
    import json, signal, sys
    from assay.train.launch import launch
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
    job = json.loads(sys.argv[1])
    try:
        launch(job["command"], job, num_processes=2, way_out=lambda: "", stop_seconds=job["seconds"])
    except KeyboardInterrupt:
        sys.exit(130)
"""


def start_parent(folder, orders, *, seconds=60):
    """A process that launches two children."""
    job = {"command": command(), "orders": [orders] * 2, "pids": str(folder), "seconds": seconds}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), json.dumps(job)], stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_children_save(tmp_path, number):
    """On SIGTERM and Ctrl-C every child writes its checkpoint; then the parent ends, and no child is left."""
    with start_parent(tmp_path, SAVE) as parent:
        children = pids_in(tmp_path)
        wait_until_all_listen(tmp_path)
        parent.send_signal(number)
        assert parent.wait(timeout=30) == 130
        assert all(is_gone(pid) for pid in children)
    assert {"saved-0", "saved-1"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("second", [False, True])
def test_children_that_do_not_listen(tmp_path, second):
    """Children that ignore the stop are killed when their time is over, or at a second Ctrl-C."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
    with start_parent(tmp_path, deaf, seconds=60 if second else 1) as parent:
        children = pids_in(tmp_path)
        time.sleep(0.3)
        parent.send_signal(signal.SIGTERM)
        if second:
            time.sleep(0.5)
            parent.send_signal(signal.SIGINT)
        assert parent.wait(timeout=30) in {130, -signal.SIGINT}
        assert all(is_gone(pid) for pid in children)


def test_children_end_with_a_parent_that_is_killed(tmp_path):
    """A parent that is killed (-9) leaves no child: they write their checkpoint and end."""
    with start_parent(tmp_path, SAVE) as parent:
        children = pids_in(tmp_path)
        wait_until_all_listen(tmp_path)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 30
        while not all(is_gone(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(is_gone(pid) for pid in children)
    assert {"saved-0", "saved-1"} <= {path.name for path in tmp_path.iterdir()}


def test_stop_signals():
    """The first signal is an answer, the second an interrupt; afterwards signals do what they did before."""
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_parent_imports_no_torch():
    """Starting processes costs no import of torch in the parent."""
    code = "import sys, assay.train.launch; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
