"""Child processes: what they say arrives, how they end is told, and none is left behind."""

import os
import queue
import subprocess
import sys
import time

import pytest

from assay.processes import Exited, JsonChild, Printed, describe_end


@pytest.fixture
def start():
    """Starts a child that runs some Python; gives it and the queue of its news."""
    children = []

    def start_one(code, **options):
        news = queue.SimpleQueue()
        child = JsonChild(
            [sys.executable, "-c", code], environment=dict(os.environ), hear=news.put, **options
        )
        children.append(child)
        return child, news

    yield start_one
    for child in children:
        child.kill()


def everything(news):
    """All news of a child, up to its end."""
    found = []
    while not found or not isinstance(found[-1], Exited):
        found.append(news.get(timeout=60))
    return found


def test_events_are_told_from_what_libraries_print(start):
    """Only a whole line that is an object with an event is one; anything else is told as what it is."""
    lines = ["noise", "3", '{"a": 1}', '{"event": "ready", "n": 1}', '{"event": "cut']
    _, news = start(f"import sys; sys.stdout.write({chr(10).join(lines)!r})")
    *said, _ = everything(news)
    assert said == [
        Printed(line="noise\n"),
        Printed(line="3\n"),
        Printed(line='{"a": 1}\n'),
        {"event": "ready", "n": 1},
        Printed(line='{"event": "cut'),
    ]


def test_a_message_arrives_and_a_closed_pipe_ends_the_child(start):
    """A child hears what is sent to it, however long, and that its parent is gone once the pipe is closed."""
    child, news = start(
        "import sys, json\nfor line in sys.stdin: print(json.dumps({'event': 'heard', 'n': len(line)}), flush=True)"
    )
    child.send({"text": "x" * 300_000})
    assert news.get(timeout=60) == {"event": "heard", "n": 300_013}
    child._process.stdin.close()
    assert everything(news)[-1].returncode == 0


def test_the_end_comes_last_and_with_its_time(start):
    """Everything a child said comes before its end, which has the status and the shared clock."""
    began = time.monotonic()
    code = "print('{\"event\": \"x\"}'); import sys; sys.stderr.write('last words\\n'); sys.exit(3)"
    child, news = start(code, hear_stderr=True)
    *said, end = everything(news)
    assert {"event": "x"} in said
    assert Printed(line="last words\n") in said
    assert list(child.tail) == ["last words"]
    assert end.returncode == 3
    assert began < end.at <= time.monotonic()


def test_a_child_is_a_session_of_its_own(start):
    """A Ctrl-C at the terminal reaches the parent alone."""
    _, news = start(
        "import os, json; print(json.dumps({'event': 'sid', 'own': os.getsid(0) == os.getpid()}))"
    )
    assert everything(news)[0] == {"event": "sid", "own": True}


def test_kill_waits_until_the_child_is_gone(start):
    """After `kill` there is no process; killing again, and sending to it, do nothing."""
    child, news = start("import time; time.sleep(600)")
    assert not child.wait(0)
    child.kill()
    assert child.wait(0)
    child.kill()
    child.send({"too": "late"})
    assert everything(news)[-1].returncode == -9


def test_a_pipe_that_a_grandchild_holds_does_not_hide_the_end(start):
    """The end of a child is told although a process that it left behind keeps its stdout open."""
    _, news = start("import subprocess, os; subprocess.Popen(['sleep', '20']); os._exit(1)")
    began = time.monotonic()
    assert everything(news)[-1].returncode == 1
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-9, "was killed by SIGKILL (out of memory?)"),
        (-11, "was killed by SIGSEGV"),
        (-40, "was killed by signal 40"),
    ],
)
def test_how_a_process_ended_in_words(returncode, words):
    """A status or the name of the signal, with the usual cause of a SIGKILL."""
    assert describe_end(returncode) == words


def test_it_imports_neither_torch_nor_pyarrow():
    """Starting processes costs no import of torch in the parent."""
    code = "import sys, assay.processes; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
