"""Serving on one GPU: `assay serve` against the usual FastAPI design, against the engine offline, and idle.

    python benchmarks/serve/gpu.py --record

RoBERTa-base with random weights and one output; texts of made-up words, each a token, log-normal lengths of 228 tokens
on average, at most 512. `assay serve` as it comes, bf16. The load generator, in a process of its own, runs on the same
machine.

requests   a text a request from 64, 256 and 512 clients, rounds of ours and of the baseline (`_naive.py`) in turn; the
           value is the least over the numbers of clients of the medians over pairs. The baseline runs in fp32, as
           the design that it stands for does, and pads a text to its own length rather than to 512 tokens; the
           details say what it does in bf16. Answers are compared first.
batch      documents a second through /predict/batch, 256 texts a request from 16 clients, against the engine alone in a
           process of its own on the same texts, tokenized beforehand, from one array on the host to logits on
           the host; rounds in turn. The words are split at blanks, which is cheaper than a trained tokenizer.
idle       one client, texts of 500 tokens: the median time of a request.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _bare import Bare, bare_engine
from _load import Loaded, Plan, load
from _servers import Server, assay_serve, bodies_of, check_same, environment, finish, framework, naive

CLIENTS = (64, 256, 512)
BATCH_CLIENTS = 16
BATCH_TEXTS = 256
IDLE_TOKENS = 500
TOLERANCE = 0.02
"""Of a score, bf16 against fp32."""


def make_texts(num_texts: int, *, longest: int) -> tuple[list[str], list[str]]:
    """Texts of mixed lengths, and some of 500 tokens; two of the tokens are the tokenizer's own."""
    from _runs import made_up_texts
    from _setup import documents

    mixed = documents(num_texts, mean_parameter=258, longest=longest - 2, vocab_size=1_000)
    even = documents(256, mean_parameter=1e9, longest=IDLE_TOKENS - 2, vocab_size=1_000, seed=1)
    return made_up_texts(mixed), made_up_texts(even)


class Benchmark:
    """One run of the script."""

    def __init__(self, arguments: argparse.Namespace, place: Path) -> None:
        """Make the model and the texts; the servers and the engine start together."""
        from _setup import chosen_device, make_bundle, models
        from _words import word_tokenizer

        self.arguments = arguments
        self.device = str(chosen_device(arguments))
        model = models(tiny=arguments.tiny)["roberta-base"]
        self.bundle = make_bundle(model, place / "bundle", chosen_device(arguments))
        word_tokenizer(self.bundle, model.config.vocab_size, model.longest)
        self.texts, self.even_texts = make_texts(512 if arguments.tiny else 16_384, longest=model.longest)
        self.longest = model.longest
        self.bodies = bodies_of(self.texts)
        self.mean_tokens = float(np.mean([text.count(" ") + 3 for text in self.texts]))
        print(f"{len(self.texts):,} texts of {self.mean_tokens:.0f} tokens", flush=True)

    def round(self, server: Server, clients: int, bodies: list[bytes], path: str = "/predict") -> Loaded:
        """One measurement."""
        plan = Plan(
            port=server.port, path=path, clients=clients, seconds=self.arguments.seconds, warm_seconds=1.0
        )
        found = load(plan, bodies)
        print(f"  {server.name:22} {clients:4} clients {found.line()}", flush=True)
        if set(found.statuses) != {200}:
            raise SystemExit(f"{server.name} answered {found.statuses}; all must be 200")
        return found

    def requests(self, ours: Server, plain: Server, kinder: Server) -> None:
        """Requests a second against the naive design."""
        difference = check_same(ours, plain, self.bodies[:16], TOLERANCE)
        print(f"requests; scores differ by {difference:.1e} at most", flush=True)
        print("not counted, so that every server has seen every length:", flush=True)
        for server in (ours, plain, kinder):
            self.round(server, CLIENTS[0], self.bodies)
        pairs: dict[int, list[tuple[Loaded, Loaded]]] = {clients: [] for clients in CLIENTS}
        half = []
        for _ in range(self.arguments.rounds):
            for clients in CLIENTS:
                first = self.round(ours, clients, self.bodies)
                pairs[clients].append((first, self.round(plain, clients, self.bodies)))
            half.append(self.round(kinder, CLIENTS[0], self.bodies).rate())
        ratios = {
            clients: statistics.median(one.rate() / other.rate() for one, other in found)
            for clients, found in pairs.items()
        }
        worst = min(ratios, key=lambda clients: ratios[clients])

        def medians(quantity: str, side: int) -> dict[int, float]:
            return {
                clients: round(
                    statistics.median(
                        pair[side].rate() if quantity == "rate" else pair[side].quantile_ms(float(quantity))
                        for pair in found
                    ),
                    2,
                )
                for clients, found in pairs.items()
            }

        finish(
            self.arguments,
            "h100.serve_requests_vs_naive_fastapi",
            ratios[worst],
            "ratio",
            f"async handler on {framework()}, a text at a time, fp32, no padding: "
            f"{medians('rate', 1)[worst]:.1f} requests/s",
            {
                "clients": worst,
                "mean_tokens": round(self.mean_tokens, 1),
                "ratios": {clients: round(value, 2) for clients, value in ratios.items()},
                "requests_per_second": medians("rate", 0),
                "naive_requests_per_second": medians("rate", 1),
                "naive_bf16_requests_per_second": round(statistics.median(half), 1),
                "p50_ms": medians("0.5", 0),
                "p99_ms": medians("0.99", 0),
                "rounds": self.arguments.rounds,
            },
        )

    def batch(self, ours: Server, engine: Bare) -> None:
        """Documents a second through /predict/batch against the engine."""
        size, clients = (16, 2) if self.arguments.tiny else (BATCH_TEXTS, BATCH_CLIENTS)
        bodies = [
            json.dumps({"texts": self.texts[start : start + size]}).encode()
            for start in range(0, len(self.texts), size)
        ]
        print("batch", flush=True)
        served, offline = [], []
        for _ in range(self.arguments.rounds):
            served.append(size * self.round(ours, clients, bodies, "/predict/batch").rate())
            offline.append(len(self.texts) / engine.round()[0])
            print(f"  {served[-1]:,.0f} documents/s served, {offline[-1]:,.0f} by the engine", flush=True)
        share = statistics.median(one / other for one, other in zip(served, offline, strict=True))
        finish(
            self.arguments,
            "h100.serve_batch_over_engine",
            share,
            "share",
            f"the engine offline on the same texts, tokenized: {statistics.median(offline):,.0f} documents/s",
            {
                "documents_per_second": round(statistics.median(served)),
                "clients": clients,
                "texts_a_request": size,
                "mean_tokens": round(self.mean_tokens, 1),
                "rounds": self.arguments.rounds,
            },
        )

    def idle(self, ours: Server) -> None:
        """One client, 500 tokens."""
        plan = Plan(
            port=ours.port,
            path="/predict",
            clients=1,
            seconds=20,
            warm_seconds=1.0,
            most_requests=50 if self.arguments.tiny else 1000,
        )
        rounds = [load(plan, bodies_of(self.even_texts)) for _ in range(self.arguments.rounds)]
        p50 = statistics.median(one.quantile_ms(0.5) for one in rounds)
        print(f"idle: {rounds[-1].line()}", flush=True)
        finish(
            self.arguments,
            f"h100.serve_idle_p50_ms_{IDLE_TOKENS}_tokens",
            p50,
            "ms",
            "none",
            {
                "p99_ms": round(statistics.median(one.quantile_ms(0.99) for one in rounds), 3),
                "requests": sum(rounds[-1].statuses.values()),
                "rounds": self.arguments.rounds,
            },
        )


def main() -> None:
    """Start everything at once, measure the parts one after the other, print."""
    from _setup import parser

    began = time.perf_counter()
    flags = parser(__doc__)
    flags.add_argument("--rounds", type=int, default=2)
    flags.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    arguments = flags.parse_args()
    if arguments.tiny:
        arguments.rounds, arguments.seconds = 1, 1.0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        benchmark = Benchmark(arguments, Path(folder))
        words = ("--device", benchmark.device, "--max-length", str(benchmark.longest), "--padding", "longest")
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
        starting = (
            assay_serve(benchmark.bundle),
            naive(benchmark.bundle, *words),
            naive(benchmark.bundle, *words, "--dtype", "bfloat16", name="naive, bf16"),
        )
        with ThreadPoolExecutor() as pool:
            ours, plain, kinder = pool.map(stack.enter_context, starting)
        engine.round()
        print(f"all ready after {time.perf_counter() - began:.0f} s, ours after {ours.ready_seconds:.1f} s")
        benchmark.requests(ours, plain, kinder)
        benchmark.batch(ours, engine)
        benchmark.idle(ours)
    print(f"took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
