"""Errors on their way between processes: each arrives as the class that was raised, whichever room it crosses."""

import asyncio
import socket
import subprocess
import sys
import textwrap

import pytest
from support.fake_runs import fake_workers, make_run, write_sources
from support.fake_worker import Orders

from assay import errors
from assay.errors import AssayError, SourceError, UnitError, WorkError
from assay.runs.driver import FATAL_ERRORS, Driver
from assay.serve.engines import Child, DeviceEngine, EngineSpec
from assay.train.launch import launch

each_kind = pytest.mark.parametrize("name", sorted(errors.KINDS))
MESSAGE = "it is 7; it must be 8; set it to 8"


def test_the_table_holds_the_tree():
    """Every class that the docstring draws is found by its name, and no other is."""
    drawn = [line.split("──")[1].split()[0] for line in errors.__doc__.splitlines() if "──" in line]
    assert set(errors.KINDS) == {"AssayError", *drawn}
    assert all(kind.__name__ == name for name, kind in errors.KINDS.items())


def test_names_of_errors():
    """An error is named by its class, one of a class outside the tree by the nearest in it, others by none."""

    class OwnError(SourceError):
        pass

    assert errors.kind_of(SourceError("x")) == "SourceError"
    assert errors.kind_of(OwnError("x")) == "SourceError"
    assert errors.kind_of(ValueError("x")) is None


@each_kind
def test_from_a_worker_to_its_driver(name, tmp_path, worker_host):
    """What no retry can fix is raised by the driver as the worker's own error; other units fail three times."""
    kind = errors.KINDS[name]
    folder = write_sources(tmp_path / "sources", [20])
    run = make_run(tmp_path / "run", folder)
    orders = Orders(fail_units=(run.manifest.units()[0].name,), fail_kind=name)
    with pytest.raises(AssayError) as caught:
        Driver(run, fake_workers(run, 1, orders, host=worker_host)).run()
    assert type(caught.value) is (kind if issubclass(kind, FATAL_ERRORS) else UnitError)
    assert name in str(caught.value)


@each_kind
def test_from_a_rank_to_its_parent(name):
    """What a rank of a training raises its parent raises too, word for word."""
    child = f"""
        import sys
        from assay import errors
        from assay.train.launch import child_main

        def body(job, send):
            raise errors.{name}({MESSAGE!r})

        sys.exit(child_main(body))
    """
    command = [sys.executable, "-c", textwrap.dedent(child)]
    with pytest.raises(AssayError) as caught:
        launch(command, {}, num_processes=1, way_out=lambda: "no way out")
    assert type(caught.value) is errors.KINDS[name]
    assert str(caught.value) == MESSAGE


class _Owner:
    """Hears that an engine has ended."""

    def engine_ended(self, engine, batches, reason):
        engine.stop()


@each_kind
def test_from_an_engine_to_its_server(name):
    """What keeps the first engine from starting is the server's own error, word for word."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    code = f"""
        import sys
        from assay import errors
        from assay.serve import engine_process

        def fail():
            raise errors.{name}({MESSAGE!r})

        engine_process.count_gpus = fail
        engine_process.main()
    """
    spec = EngineSpec(
        bundle="b",
        device="cuda:0",
        engine="auto",
        precision="auto",
        deterministic=False,
        max_batch_tokens=None,
        num_threads=None,
    )
    with theirs:
        arguments = spec.command(theirs.fileno())[3:]
        command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    engine = DeviceEngine(spec=spec, owner=_Owner(), child=Child(process=process, connection=ours))
    asyncio.run(asyncio.wait_for(engine.run(), 60))
    assert type(engine.first_error) is errors.KINDS[name]
    assert str(engine.first_error) == MESSAGE


def test_an_error_that_is_not_ours_is_a_failed_work():
    """A rank that dies of anything else is a WorkError that says what it was."""
    child = (
        "import sys; from assay.train.launch import child_main; sys.exit(child_main(lambda job, send: 1 / 0))"
    )
    with pytest.raises(WorkError, match="ZeroDivisionError"):
        launch([sys.executable, "-c", child], {}, num_processes=1, way_out=lambda: "no way out")
