"""RunPod's REST API v2 on loopback, where a pod is a process of this machine, and fails as it does: on order.

Orders are taken one a creation:

    full            400, no machine is free
    lost            the pod is there and costs money, the answer is a 500
    late            the same with a 408
    torn            the pod is there, the connection is torn
    error           nothing is there, the answer is a 500
    busy            429, nothing is there
    poor            402, no money left

`hide(n)` keeps new pods out of the next n listings, as a listing that lags. The bodies of requests are checked as
RunPod does: an unknown field is a 422. Every pod that ever was is in `made`, with the seconds that it was billed.
"""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "rpa_TESTKEY"
GPUS = {"NVIDIA GeForce RTX 4090": "RTX 4090", "NVIDIA L40S": "L40S", "NVIDIA H100 80GB HBM3": "H100 SXM"}
FIELDS = {"name", "image", "args", "disk", "cloud", "gpu", "env", "mounts", "dataCenterIds", "registry"}
DOLLARS_PER_HOUR = 0.5
REFUSALS = {
    "full": (400, "There are no longer any instances available with the requested specifications."),
    "error": (500, "internal error"),
    "busy": (429, "rate limit exceeded"),
    "poor": (402, "insufficient balance"),
}


class FakeRunPod:
    """The account; `orders` are the faults of the next creations, `asked` the requests that came."""

    def __init__(self, program=("sleep", "600"), *, page=50, runs_args=False):
        self.program = list(program)
        self.runs_args = runs_args
        """Run the `args` of the request instead of `program`."""
        self.page = page
        self.made = {}
        self.orders = []
        self.asked = []
        self.key = KEY
        self.stuck = set()
        """Pods that a deletion does not delete."""
        self.refusing = {}
        """Pods whose deletion is answered by this status."""
        self.failing = 0
        """So many of the next requests of any kind are answered by a 503."""
        self.unpriced = set()
        """GPUs without a price."""
        self._hidden = {}
        self._hide = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"account": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}/v2"

    def environment(self):
        """What a command needs to use this account."""
        return {"RUNPOD_API_KEY": self.key, "RUNPOD_REST_V2_URL": self.url, "NO_PROXY": "*"}

    def hide(self, listings):
        """Keep the next pod that is made out of so many listings."""
        self._hide = listings

    def close(self):
        for pod in self.made.values():
            self._end(pod)
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ------------------------------------------------------------ pods

    def add(self, name, *, program=None):
        """A pod that somebody else made."""
        return self._start({"name": name, "env": {}}, program or self.program)

    def names(self):
        """Of the pods that are there."""
        return sorted(pod["name"] for pod in self.made.values() if pod["deleted"] is None)

    def pods(self, name):
        """Every pod that ever had a name."""
        return [pod for pod in self.made.values() if pod["name"] == name]

    def kill(self, name):
        """The machine of a pod dies."""
        for pod in self.pods(name):
            if pod["deleted"] is None:
                self._end(pod)

    def running(self):
        """Processes of pods that are alive."""
        return [pod["name"] for pod in self.made.values() if pod["process"].poll() is None]

    def overlaps(self, name):
        """Whether two pods of a name were ever there at once."""
        spans = sorted((pod["since"], pod["deleted"] or time.time()) for pod in self.pods(name))
        return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))

    def _start(self, body, program):
        with self._lock:
            number = len(self.made)
            pod = {
                "id": f"pod{number:04}",
                "name": body["name"],
                "body": body,
                "since": time.time(),
                "deleted": None,
                "log": [],
                "process": subprocess.Popen(
                    program,
                    env={**os.environ, "RUNPOD_POD_ID": f"pod{number:04}", **body["env"]},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    encoding="utf-8",
                ),
            }
            self.made[pod["id"]] = pod
            if self._hide:
                self._hidden[pod["id"]], self._hide = self._hide, 0
        threading.Thread(target=self._keep_log, args=(pod,), daemon=True).start()
        return pod

    @staticmethod
    def _keep_log(pod):
        pod["log"].extend(iter(pod["process"].stdout.readline, ""))
        pod["process"].stdout.close()

    @staticmethod
    def _end(pod):
        if pod["process"].poll() is None:
            os.killpg(pod["process"].pid, signal.SIGKILL)
        pod["process"].wait()

    def delete(self, pod_id):
        """Whether there was such a pod."""
        pod = self.made.get(pod_id)
        if pod is None or pod["deleted"] is not None:
            return False
        if pod_id not in self.stuck:
            self._end(pod)
            pod["deleted"] = time.time()
        return True

    def listed(self):
        """The pods that a listing shows now."""
        shown = []
        for pod in self.made.values():
            if pod["deleted"] is None and self._hidden.get(pod["id"], 0) <= 0:
                shown.append(pod)
            self._hidden[pod["id"]] = self._hidden.get(pod["id"], 0) - 1
        return shown

    @staticmethod
    def view(pod):
        """A pod as the API shows it."""
        ended = pod["process"].poll() is not None
        return {
            "id": pod["id"],
            "name": pod["name"],
            "status": "EXITED" if ended else "RUNNING",
            "cost": 0.0 if ended else DOLLARS_PER_HOUR,
            "createdAt": datetime.fromtimestamp(pod["since"], UTC).isoformat().replace("+00:00", "Z"),
            "env": pod["body"]["env"],
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    account = None

    def log_message(self, *_):
        pass

    def answer(self, status, content=None):
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def problem(self, status, detail, **more):
        self.answer(status, {"title": "Problem", "status": status, "detail": detail, **more})

    def is_let_in(self):
        self.account.asked.append((self.command, self.path))
        if self.headers.get("Authorization") != f"Bearer {self.account.key}":
            self.problem(401, "invalid bearer token")
            return False
        if self.account.failing:
            self.account.failing -= 1
            self.problem(503, "try later")
            return False
        return True

    def do_GET(self):
        if not self.is_let_in():
            return
        path, _, query = self.path.partition("?")
        if path == "/v2/pods":
            cursor = int((re.search(r"cursor=(\d+)", query) or [0, 0])[1])
            pods = [self.account.view(pod) for pod in self.account.listed()]
            page = pods[cursor : cursor + self.account.page]
            more = cursor + len(page) < len(pods)
            paging = {"hasNextPage": more, "nextCursor": str(cursor + len(page)) if more else None}
            self.answer(200, {"pods": page, "pagination": paging})
        elif path == "/v2/catalog/gpus":
            price = {"secure": DOLLARS_PER_HOUR, "community": DOLLARS_PER_HOUR / 2}
            gpus = [
                {"id": gpu, "name": name, "price": {} if gpu in self.account.unpriced else price}
                for gpu, name in GPUS.items()
            ]
            self.answer(200, {"gpus": gpus})
        elif path == "/v2/network-volumes/vol1":
            self.answer(200, {"id": "vol1", "name": "corpus", "size": 100, "dataCenter": "EU-RO-1"})
        elif (found := re.fullmatch(r"/v2/pods/(\w+)/logs", path)) and found[1] in self.account.made:
            lines = self.account.made[found[1]]["log"]
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for line in lines:
                event = {"ts": "2026-06-01T12:02:03Z", "source": "container", "line": line.rstrip("\n")}
                self.wfile.write(f"id: x\ndata: {json.dumps(event)}\n\n".encode())
            self.close_connection = True
        else:
            self.problem(404, "resource not found")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if not self.is_let_in():
            return
        if unknown := sorted(body.keys() - FIELDS):
            errors = [f"additional properties {unknown} not allowed"]
            self.problem(422, "Request validation failed.", errors=errors)
            return
        if body["gpu"]["id"] not in GPUS:
            self.problem(400, f"gpu type {body['gpu']['id']} does not exist")
            return
        order = self.account.orders.pop(0) if self.account.orders else ""
        if order in REFUSALS:
            self.problem(*REFUSALS[order])
            return
        program = shlex.split(body["args"]) if self.account.runs_args else self.account.program
        pod = self.account._start(body, program)
        if order in {"lost", "late"}:
            self.problem(500 if order == "lost" else 408, "read-back failed")
        elif order == "torn":
            self.connection.close()
        else:
            self.answer(201, self.account.view(pod))

    def do_DELETE(self):
        if not self.is_let_in():
            return
        pod_id = self.path.removeprefix("/v2/pods/")
        if status := self.account.refusing.get(pod_id):
            self.problem(status, "the pod is busy")
        elif self.account.delete(pod_id):
            self.answer(204)
        else:
            self.problem(404, "resource not found")
