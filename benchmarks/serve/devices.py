"""Serving on one GPU by front processes, and on several against one: single texts and batches.

    python benchmarks/serve/devices.py --record
    python benchmarks/serve/devices.py --devices 2 --record
    python benchmarks/serve/devices.py --device cpu --tiny --devices 2

RoBERTa-base with random weights and one output; texts of made-up words, each a token, log-normal lengths of 228 tokens
on average, at most 512, the same for all. Load comes from several processes on the same machine, which measure at the
same time; closed: each client sends its next request once it has its answer. Scores are compared first.

--devices 1   single texts a second through /predict from 512 clients, `assay serve` as it comes. Beside it, rounds in
              turn: `--front-processes 1`, and the engine alone in a process of its own on the same texts, tokenized
              beforehand. A round has texts that the last one had not begun with.
--devices N   `assay serve --devices N` against `--devices 1`, rounds in turn: single texts from 512 clients a device,
              and lists of 256 texts through /predict/batch from 16 clients a device. The value is the median
              over rounds of the rate of N over that of one. Both have as many front processes.

Printed below each measurement: cores that the core process (which has the queue), the fronts and the engines kept busy.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from _bare import Bare, bare_engine
from _load import Loaded, Plan, load_by_many
from _servers import Server, assay_serve, bodies_of, check_same, environment, finish
from gpu import BATCH_CLIENTS, BATCH_TEXTS, TOLERANCE, make_texts

CLIENTS = 512
GENERATORS = 4
"""Processes that load, a device; one sends 30,000 requests a second at most."""
MOST_GENERATORS = 16


class Cores:
    """How busy the processes of a server are."""

    def __init__(self, server: Server) -> None:
        """From now on."""
        self._process = psutil.Process(server.pid)
        self._before = self._seconds()
        self._began = time.perf_counter()

    def line(self) -> str:
        """Cores by kind of process."""
        passed, now = time.perf_counter() - self._began, self._seconds()
        found = {kind: (now[kind] - self._before[kind]) / passed for kind in now}
        return ", ".join(f"{kind} {cores:.2f} cores" for kind, cores in found.items())

    def _seconds(self) -> dict[str, float]:
        found = {"core": _cpu_seconds(self._process), "fronts": 0.0, "engines": 0.0}
        for child in self._process.children():
            with contextlib.suppress(psutil.Error):
                kind = "fronts" if "assay.serve.front" in child.cmdline() else "engines"
                found[kind] += _cpu_seconds(child)
        return found


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Benchmark:
    """One run of the script."""

    def __init__(self, arguments: argparse.Namespace, place: Path) -> None:
        """Make the model and the texts."""
        from _setup import chosen_device, make_bundle, models
        from _words import word_tokenizer

        self.arguments = arguments
        self.device = str(chosen_device(arguments, num_gpus=arguments.devices))
        model = models(tiny=arguments.tiny)["roberta-base"]
        self.bundle = make_bundle(model, place / "bundle", chosen_device(arguments))
        word_tokenizer(self.bundle, model.config.vocab_size, model.longest)
        self.longest = model.longest
        self.texts, _ = make_texts(512 if arguments.tiny else 32_768, longest=model.longest)
        self.mean_tokens = statistics.fmean(text.count(" ") + 3 for text in self.texts)
        self.bodies = bodies_of(self.texts)
        size = 16 if arguments.tiny else BATCH_TEXTS
        self.batches = [
            json.dumps({"texts": self.texts[start : start + size]}).encode()
            for start in range(0, len(self.texts), size)
        ]
        self.size, self.batch_clients = size, 4 if arguments.tiny else BATCH_CLIENTS
        print(f"{len(self.texts):,} texts of {self.mean_tokens:.0f} tokens", flush=True)

    def rate(self, server: Server, devices: int, *, is_batch: bool, number: int) -> tuple[float, Loaded]:
        """Documents a second of one measurement."""
        bodies = self.batches if is_batch else self.bodies
        start = number * 997 % len(bodies)
        clients = self.batch_clients if is_batch else self.arguments.clients
        plan = Plan(
            port=server.port,
            path="/predict/batch" if is_batch else "/predict",
            clients=clients * devices,
            seconds=self.arguments.seconds,
            warm_seconds=1.0,
        )
        cores = Cores(server)
        generators = 2 if self.arguments.tiny else min(MOST_GENERATORS, GENERATORS * devices)
        found = load_by_many(plan, [*bodies[start:], *bodies[:start]], generators)
        if set(found.statuses) != {200}:
            raise SystemExit(f"{server.name} answered {found.statuses}; all must be 200")
        what = "lists" if is_batch else "texts"
        print(f"  {server.name:24} {what} {plan.clients:5} clients {found.line()}", flush=True)
        print(f"  {'':24} {cores.line()}", flush=True)
        return found.rate() * (self.size if is_batch else 1), found

    def one(self, server: Server, alone: Server, engine: Bare) -> None:
        """Single texts a second on one device."""
        self._warm(server, alone)
        rates, single, offline, p50, p99 = [], [], [], [], []
        for number in range(self.arguments.rounds):
            rate, found = self.rate(server, 1, is_batch=False, number=number)
            rates.append(rate)
            p50.append(found.quantile_ms(0.5))
            p99.append(found.quantile_ms(0.99))
            single.append(self.rate(alone, 1, is_batch=False, number=number)[0])
            offline.append(len(self.texts) / engine.round()[0])
            print(f"  {'the engine alone':24} {offline[-1]:,.0f} documents/s", flush=True)
        value = statistics.median(rates)
        finish(
            self.arguments,
            "h100.serve_single_text_requests_per_second",
            value,
            "requests/s",
            f"--front-processes 1: {statistics.median(single):,.0f} requests/s; the engine offline on the same texts, "
            f"tokenized: {statistics.median(offline):,.0f} documents/s",
            {
                "clients": self.arguments.clients,
                "over_one_process": round(statistics.median(map(_ratio, rates, single)), 2),
                "over_engine": round(statistics.median(map(_ratio, rates, offline)), 3),
                "p50_ms": round(statistics.median(p50), 2),
                "p99_ms": round(statistics.median(p99), 2),
                "mean_tokens": round(self.mean_tokens, 1),
                "front_processes": num_fronts(server),
                "rounds": self.arguments.rounds,
            },
        )

    def several(self, many: Server, one: Server) -> None:
        """Several devices over one."""
        devices = self.arguments.devices
        self._warm(many, one)
        for is_batch, claim in ((False, "single_text"), (True, "batch")):
            pairs = []
            for number in range(self.arguments.rounds):
                first = self.rate(many, devices, is_batch=is_batch, number=number)[0]
                pairs.append((first, self.rate(one, 1, is_batch=is_batch, number=number)[0]))
            rates = [statistics.median(side) for side in zip(*pairs, strict=True)]
            finish(
                self.arguments,
                f"h100x{devices}.serve_{claim}_scaling",
                statistics.median(first / second for first, second in pairs),
                "ratio",
                f"--devices 1: {rates[1]:,.0f} documents/s",
                {
                    "documents_per_second": [round(rate) for rate in rates],
                    "clients_a_device": self.batch_clients if is_batch else self.arguments.clients,
                    "mean_tokens": round(self.mean_tokens, 1),
                    "front_processes": [num_fronts(server) for server in (many, one)],
                    "rounds": self.arguments.rounds,
                },
            )

    def _warm(self, first: Server, second: Server) -> None:
        difference = check_same(first, second, self.bodies[:16], TOLERANCE)
        print(f"scores differ by {difference:.1e} at most; not counted, so that every length was seen:")
        for server in (first, second):
            self.rate(server, 1, is_batch=False, number=0)


def num_fronts(server: Server) -> int:
    """Front processes of a server; 1 where one process does all."""
    children = psutil.Process(server.pid).children()
    return max(1, sum("assay.serve.front" in child.cmdline() for child in children))


def _ratio(one: float, other: float) -> float:
    return one / other


def serve_words(devices: int, front_processes: str) -> Sequence[str]:
    """The flags of a server."""
    # 512 clients a device may all wait at once
    return ("--devices", str(devices), "--front-processes", front_processes, "--max-queue", "65536")


def main() -> None:
    """Start everything at once, measure, print."""
    from _setup import parser

    began = time.perf_counter()
    flags = parser(__doc__)
    flags.add_argument("--devices", type=int, default=1)
    flags.add_argument("--front-processes", default="auto", help="as assay serve takes it, for all devices")
    flags.add_argument("--clients", type=int, default=CLIENTS, help="a device, of single texts")
    flags.add_argument("--rounds", type=int, default=2)
    flags.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    arguments = flags.parse_args()
    if arguments.tiny:
        arguments.rounds, arguments.seconds, arguments.clients = 1, 1.0, 16
        if arguments.front_processes == "auto":
            arguments.front_processes = "2"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        benchmark = Benchmark(arguments, Path(folder))
        devices = arguments.devices
        words = serve_words(devices, arguments.front_processes)
        starting = [
            assay_serve(benchmark.bundle, *words, name="1 device" if devices == 1 else f"{devices} devices")
        ]
        if devices == 1:
            words = serve_words(1, "1")
            starting.append(assay_serve(benchmark.bundle, *words, name="--front-processes 1"))
            engine = stack.enter_context(
                bare_engine(
                    benchmark.bundle,
                    benchmark.texts,
                    device=benchmark.device,
                    max_length=benchmark.longest,
                    at_once=True,
                    environment=environment(),
                )
            )
        else:
            words = serve_words(1, arguments.front_processes)
            starting.append(assay_serve(benchmark.bundle, *words, name="1 device"))
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(stack.enter_context, starting)
        print(f"ready after {time.perf_counter() - began:.0f} s", flush=True)
        if devices == 1:
            engine.round()
            benchmark.one(first, second, engine)
        else:
            benchmark.several(first, second)
    print(f"took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
