"""Workers by the hundred: a host that has imported everything forks a process for each.

Starting Python with pyarrow takes most of a second, with torch several, and a fork takes milliseconds. The
driver starts `python worker_host.py ADDRESS ARGUMENT...`, which hands its pipes to the host, waits, and ends
as its worker ends, by the same signal too. The worker is a process of its own and hears of its driver through
the pipe alone. A host serves the `main` of one module, as `python MODULE ARGUMENT...` would run it.
"""

import json
import os
import signal
import socket
import struct
import sys


def call(address: str, *arguments: str) -> None:
    """Have the host start a worker on this process's pipes; end as it ends."""
    request = json.dumps({"arguments": arguments, "environment": dict(os.environ)})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as host:
        host.connect(address)
        socket.send_fds(host, [request.encode()], [0, 1, 2])
        (status,) = struct.unpack("i", host.recv(4))
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
        signal.pause()
    os._exit(os.waitstatus_to_exitcode(status))


def serve(address: str, module: str, *others: str) -> None:
    """Fork a worker of `module` for each call, until stdin is closed; `others` are imported beforehand too."""
    # Only here: whoever calls should start at once.
    import importlib
    from pathlib import Path

    import pyarrow as pa

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main = importlib.import_module(module).main
    for name in others:
        importlib.import_module(name)
    pa.array([True]).to_numpy(zero_copy_only=False)  # imports pandas, where there is one
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)  # noqa: T201
        while True:
            calling, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _mind(calling, module, main)
            calling.close()


def _mind(calling, module, worker_main) -> None:
    """Start one worker, wait for its end, and pass that on."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, pipes, _, _ = socket.recv_fds(calling, 1 << 17, 3)
    worker = os.fork()
    if worker == 0:
        calling.close()
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
            os.close(pipe)
        asked = json.loads(request)
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = [module, *asked["arguments"]]
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        os._exit(worker_main())
    for pipe in (0, 1, 2, *pipes):
        os.close(pipe)
    _, status = os.waitpid(worker, 0)
    try:
        calling.send(struct.pack("i", status))
    finally:
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        call(*sys.argv[1:])
