"""Serving on a CPU: `assay serve` against the usual FastAPI design, what it adds to the model, overload, start.

    python benchmarks/serve/cpu.py --record

MiniLM-L6 with a head of five labels in random weights, fp32, `assay serve` as it comes. Texts are distinct runs of
words from BBC News articles. The server, its engine and the load generator, each a process of its own, share the
machine's cores in all that is measured here, as the baseline and its load generator do.

requests   32 clients, a text a request, texts of 6 to 400 words in a log-normal spread, cut at 128 tokens on both
           sides, since the baseline (`_naive.py`) pads each to 128 tokens; rounds of ours and of the baseline
           alternate and the value is the median over pairs. Answers are compared first. The details say what the
           baseline does where it pads no text beyond its own length.
latency    one client, one request after the other: the median over texts of a request's time less the time of the
           engine's forward pass on the same tokens, one after the other too, in a process of its own with as many
           threads; blocks of ours and of the forward pass alternate, medians over rounds. The pass is measured with
           threads that spin while they wait and with threads that sleep, and the faster of the two counts. The
           details have the same with a pause after each request and each pass: what a rare request pays, which finds
           cores asleep and caches cold.
overload   texts of 228 tokens on average, up to 512; requests come at three times the rate that was measured with
           32 clients just before and just after, whatever becomes of them; `--timeout 5`, so that what would wait
           longer than 4 s is refused, and measured once so much waits. Answers a second over that capacity,
           the time to a 429, and resident memory.
start      from the command to the first 200 of /health, the proof of the model in the cache and the libraries' files
           in the page cache, since the runs before have put them there; the median of starts.
"""

import argparse
import contextlib
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from _bare import Bare, bare_engine
from _load import Loaded, Plan, load, quantile
from _servers import Client, Server, assay_serve, bodies_of, check_same, environment, finish, naive

MAX_LENGTH = 128
CLIENTS = 32
CAPACITY_CLIENTS = 32
OVERLOAD = 3.0
TIMEOUT = "5"
ALLOWED_DIFFERENCE = 2e-4
"""Of a probability; the baseline rounds to four digits."""
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that sleep while they wait; by default they spin for long, faster where nobody else wants the core."""
PAUSE_SECONDS = 0.02
"""After a request, or a forward pass, where they are rare."""
SETTLE_SECONDS = 0.2
"""Between blocks, so that no thread of the one spins into the other."""
OURS = "assay serve"
PARTS = ("requests", "latency", "overload", "start")


def make_bundle(folder: Path, *, tiny: bool) -> Path:
    """MiniLM with a random head of five labels; `tiny` has random weights and one layer."""
    import shutil

    import torch
    from _setup import quiet
    from transformers import AutoModelForSequenceClassification, BertConfig

    from assay.train.corpus import base_model_folder

    base = base_model_folder()
    torch.manual_seed(0)
    with quiet():
        if tiny:
            sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
            config = BertConfig(vocab_size=30522, intermediate_size=128, num_labels=5, **sizes)
            model = AutoModelForSequenceClassification.from_config(config)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(
                base, num_labels=5, dtype=torch.float32
            )
        model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder / name)
    return folder


def make_texts(num_texts: int, mean_words: float) -> list[str]:
    """Runs of words from the articles, their lengths log-normal."""
    from _runs import cut_texts

    from assay.train.corpus import load_corpus

    articles = [row.text for row in load_corpus().rows]
    return list(cut_texts(articles, num_texts, mean_words=mean_words, most_words=400))


def count_tokens(bundle: Path, texts: list[str], max_length: int) -> list[int]:
    """Tokens of each text, cut."""
    import pyarrow as pa

    from assay.tokenize.encode import Encoder

    encoder = Encoder.from_bundle(bundle, max_length=max_length, on_long="truncate")
    counts: list[int] = encoder.encode(pa.array(texts, pa.large_string())).num_tokens.tolist()
    return [min(count, max_length) for count in counts]


class Blocks:
    """Times of texts by several ways, a block of all texts a way and round."""

    def __init__(self, ways: Mapping[str, Callable[[int], float]], num_texts: int) -> None:
        """Each way gives the seconds of the text whose number it gets."""
        self._ways = ways
        self._ms: dict[str, list[list[float]]] = {name: [[] for _ in range(num_texts)] for name in ways}

    def round(self, pause_seconds: float) -> None:
        """Each way once, with a pause after each text."""
        for name, seconds in self._ways.items():
            time.sleep(SETTLE_SECONDS)
            for number, found in enumerate(self._ms[name]):
                found.append(1000 * seconds(number))
                time.sleep(pause_seconds)

    def medians(self, name: str) -> list[float]:
        """The median over rounds of each text, ms."""
        return [statistics.median(found) for found in self._ms[name]]

    def all_of(self, name: str) -> list[float]:
        """Every time, ms."""
        return [value for found in self._ms[name] for value in found]

    def faster(self) -> str:
        """How threads of the forward pass wait where it is the faster one."""
        return min(("spin", "sleep"), key=lambda name: statistics.median(self.medians(name)))

    def added(self, policy: str) -> list[float]:
        """What serving adds to the forward pass of each text, ms."""
        return [one - two for one, two in zip(self.medians(OURS), self.medians(policy), strict=True)]


class Benchmark:
    """One run of the script."""

    def __init__(self, arguments: argparse.Namespace, place: Path) -> None:
        """Make the model and the texts."""
        self.arguments = arguments
        self.bundle = make_bundle(place / "bundle", tiny=arguments.tiny)
        num_texts = 64 if arguments.tiny else 2000
        self.texts = make_texts(num_texts, arguments.mean_words)
        self.bodies = bodies_of(self.texts)
        self.tokens = count_tokens(self.bundle, self.texts, MAX_LENGTH)
        self.mean_tokens = statistics.mean(self.tokens)
        print(
            f"{num_texts:,} texts, cut at {MAX_LENGTH} tokens {self.mean_tokens:.0f} tokens each", flush=True
        )
        gc.collect()

    def round(self, server: Server, clients: int, seconds: float, *, say: bool = True) -> Loaded:
        """One measurement of `/predict`."""
        plan = Plan(port=server.port, path="/predict", clients=clients, seconds=seconds, warm_seconds=1.5)
        found = load(plan, self.bodies)
        if say:
            print(f"  {server.name:26} {found.line()}", flush=True)
        if set(found.statuses) != {200}:
            raise SystemExit(f"{server.name} answered {found.statuses}; all must be 200")
        return found

    # ------------------------------------------------------------ parts

    def requests(self) -> None:
        """32 clients, against the naive design."""
        words = ("--max-length", str(MAX_LENGTH))
        with (
            assay_serve(self.bundle, *words) as ours,
            naive(self.bundle, *words) as fixed,
            naive(self.bundle, *words, "--padding", "longest", name="naive, own length") as kinder,
        ):
            difference = max(
                check_same(ours, other, self.bodies[:16], ALLOWED_DIFFERENCE) for other in (fixed, kinder)
            )
            print(f"{CLIENTS} clients; probabilities differ by {difference:.1e} at most", flush=True)
            rounds: dict[str, list[Loaded]] = {}
            for _ in range(self.arguments.rounds):
                for server in (ours, fixed, kinder):
                    rounds.setdefault(server.name, []).append(
                        self.round(server, CLIENTS, self.arguments.seconds)
                    )
        rates = {name: statistics.median(one.rate() for one in found) for name, found in rounds.items()}
        slowest = {
            name: statistics.median(one.quantile_ms(0.99) for one in found) for name, found in rounds.items()
        }

        def ratio(other: Server) -> float:
            pairs = zip(rounds[ours.name], rounds[other.name], strict=True)
            return statistics.median(one.rate() / two.rate() for one, two in pairs)

        share = slowest[ours.name] / slowest[fixed.name]
        print(
            f"  {ratio(fixed):.2f} times the requests of the naive design ({ratio(kinder):.2f} where it pads no text), "
            f"p99 {share:.3f} of its p99",
            flush=True,
        )
        finish(
            self.arguments,
            "cpu.serve_requests_vs_naive_fastapi",
            ratio(fixed),
            "ratio",
            f"async FastAPI handler, a text at a time padded to {MAX_LENGTH} tokens, fp32: "
            f"{rates[fixed.name]:.1f} requests/s",
            {
                "clients": CLIENTS,
                "mean_tokens": round(self.mean_tokens, 1),
                "requests_per_second": {name: round(rate, 1) for name, rate in rates.items()},
                "p50_ms": {
                    name: round(statistics.median(one.quantile_ms(0.5) for one in found), 2)
                    for name, found in rounds.items()
                },
                "p99_ms": {name: round(value, 2) for name, value in slowest.items()},
                "p99_share_of_naive": round(share, 3),
                "ratio_without_padding": round(ratio(kinder), 3),
                "rounds": self.arguments.rounds,
                "shared_cores": "server, engine and load generator",
            },
        )

    def latency(self) -> None:
        """One client, against the engine alone."""
        num_texts = 32 if self.arguments.tiny else 100
        few, bodies = self.texts[:num_texts], self.bodies[:num_texts]
        words = ("--max-length", str(MAX_LENGTH))
        with (
            assay_serve(self.bundle, *words) as server,
            naive(self.bundle, *words, "--padding", "longest") as other_server,
            self._alone(few) as spinning,
            self._alone(few, **PASSIVE) as sleeping,
        ):
            spinning.round(0)
            sleeping.round(0)
            ours, other = Client(server), Client(other_server)
            for body in bodies[:16]:
                ours.seconds(body)
                other.seconds(body)
            ways: dict[str, Callable[[int], float]] = {
                OURS: lambda number: ours.seconds(bodies[number]),
                "spin": lambda number: spinning.round(number)[0],
                "sleep": lambda number: sleeping.round(number)[0],
                "naive": lambda number: other.seconds(bodies[number]),
            }
            steady = Blocks(ways, num_texts)
            rare = Blocks({name: ways[name] for name in (OURS, "spin", "sleep")}, num_texts)
            for _ in range(self.arguments.rounds):
                steady.round(0.0)
                rare.round(PAUSE_SECONDS)
        policy = steady.faster()
        added = steady.added(policy)
        p50 = {name: statistics.median(steady.medians(name)) for name in ways}
        rarely = statistics.median(rare.added(rare.faster()))
        print(
            f"one client: p50 {p50[OURS]:.2f} ms; forward pass alone {p50['spin']:.2f} ms where its threads spin, "
            f"{p50['sleep']:.2f} ms where they sleep; added p50 {statistics.median(added):.2f} ms, "
            f"p90 {quantile(added, 0.9):.2f} ms; to rare requests p50 {rarely:.2f} ms; "
            f"naive without padding p50 {p50['naive']:.2f} ms",
            flush=True,
        )
        finish(
            self.arguments,
            "cpu.serve_added_latency_ms_p50",
            statistics.median(added),
            "ms",
            f"the engine's forward pass on the same tokens in a process of its own: p50 {p50[policy]:.2f} ms",
            {
                "clients": 1,
                "p50_ms": round(p50[OURS], 3),
                "p99_ms": round(quantile(steady.all_of(OURS), 0.99), 3),
                "forward_p50_ms": {
                    f"waiting threads {name}": round(p50[name], 3) for name in ("spin", "sleep")
                },
                "added_p50_ms": {
                    f"waiting threads {name}": round(statistics.median(steady.added(name)), 3)
                    for name in ("spin", "sleep")
                },
                "added_p90_ms": round(quantile(added, 0.9), 3),
                "rare_requests": {
                    "pause_ms": 1000 * PAUSE_SECONDS,
                    "added_p50_ms": round(rarely, 3),
                    "p50_ms": round(statistics.median(rare.medians(OURS)), 3),
                    "forward_p50_ms": round(statistics.median(rare.medians(rare.faster())), 3),
                },
                "naive_without_padding_p50_ms": round(p50["naive"], 3),
                "texts": num_texts,
                "rounds": self.arguments.rounds,
                "shared_cores": "server, engine and load generator",
            },
        )

    def _alone(self, texts: list[str], **variables: str) -> contextlib.AbstractContextManager[Bare]:
        return bare_engine(
            self.bundle,
            texts,
            device="cpu",
            max_length=MAX_LENGTH,
            at_once=False,
            environment=environment(**variables),
        )

    def overload(self) -> None:
        """Three times more than it can do."""
        texts = self.texts if self.arguments.tiny else make_texts(2000, 180)
        self.bodies = bodies_of(texts)
        mean_tokens = statistics.mean(count_tokens(self.bundle, texts, 512))
        seconds = 3 * self.arguments.seconds
        with assay_serve(self.bundle, "--timeout", TIMEOUT) as ours:
            self.round(ours, CAPACITY_CLIENTS, self.arguments.seconds, say=False)
            shares, rejected, accepted, lags, lost = [], [], [], [], 0
            capacities = [self.round(ours, CAPACITY_CLIENTS, self.arguments.seconds)]
            memory = [ours.rss_mib()]
            for _ in range(self.arguments.rounds):
                rate = OVERLOAD * capacities[-1].rate()
                plan = Plan(
                    port=ours.port, path="/predict", clients=256, seconds=seconds, warm_seconds=6.0, rate=rate
                )
                found = load(plan, self.bodies)
                print(f"  {f'{rate:.0f} requests/s':26} {found.line()}", flush=True)
                memory.append(ours.rss_mib())
                capacities.append(self.round(ours, CAPACITY_CLIENTS, self.arguments.seconds))
                around = statistics.mean(one.rate() for one in capacities[-2:])
                shares.append(found.rate() / around)
                rejected += found.latencies_ms.get(429, [])
                accepted += found.latencies_ms.get(200, [])
                lags.append(found.lag_ms_p99)
                lost += sum(count for status, count in found.statuses.items() if status not in {200, 429})
        within = sum(value <= 10 for value in rejected) / max(1, len(rejected))
        print(
            f"overload: {statistics.median(shares):.3f} of capacity answered; a 429 after "
            f"p50 {quantile(rejected, 0.5):.2f}, p99 {quantile(rejected, 0.99):.2f}, "
            f"most {max(rejected, default=math.nan):.1f} ms ({within:.2%} within 10 ms); "
            f"{lost} other answers; memory {', '.join(f'{each:.0f}' for each in memory)} MiB; "
            f"requests sent up to {max(lags):.1f} ms late (p99)",
            flush=True,
        )
        finish(
            self.arguments,
            "cpu.serve_overload_goodput",
            statistics.median(shares),
            "share",
            f"capacity with {CAPACITY_CLIENTS} clients, before and after: "
            f"{statistics.median(one.rate() for one in capacities):.1f} requests/s",
            {
                "overload": OVERLOAD,
                "mean_tokens": round(mean_tokens, 1),
                "rejections": len(rejected),
                "rejection_ms": {
                    "p50": round(quantile(rejected, 0.5), 2),
                    "p99": round(quantile(rejected, 0.99), 2),
                    "most": round(max(rejected, default=math.nan), 2),
                },
                "rejections_within_10_ms": round(within, 5),
                "accepted_p99_ms": round(quantile(accepted, 0.99), 1),
                "neither_200_nor_429": lost,
                "memory_mib": [round(each) for each in memory],
                "sent_late_p99_ms": round(max(lags), 2),
                "rounds": self.arguments.rounds,
                "shared_cores": "server, engine and load generator",
            },
        )

    def start(self) -> None:
        """From the command to the first 200 of /health."""
        found = []
        for turn in range(self.arguments.starts + 1):
            with assay_serve(self.bundle) as server:
                if turn:  # the first one proves the model and reads the files
                    found.append(server.ready_seconds)
            print(f"start: {server.ready_seconds:.2f} s{'' if turn else ', not counted'}", flush=True)
        with naive(self.bundle) as other:
            print(f"start of the naive design: {other.ready_seconds:.2f} s", flush=True)
        finish(
            self.arguments,
            "cpu.serve_seconds_to_ready",
            statistics.median(found),
            "s",
            f"the naive FastAPI server on the same model: {other.ready_seconds:.2f} s",
            {
                "starts": [round(each, 2) for each in found],
                "page_cache": "warm",
                "proof_cache": "warm",
                "ready": "first 200 of /health, which follows a warm-up of the model",
            },
        )


def main() -> None:
    """Measure the parts that were asked for, print."""
    from _record import parser

    flags = parser(__doc__, smoke="a tiny model and short rounds")
    flags.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--seconds", type=float, default=8.0, help="of one measurement")
    flags.add_argument("--starts", type=int, default=3)
    flags.add_argument("--mean-words", type=float, default=45, help="of a text of the first two parts")
    arguments = flags.parse_args()
    if arguments.tiny:
        if arguments.record:
            raise SystemExit("--tiny is a smoke test, nothing to record; leave --record out")
        arguments.rounds, arguments.seconds, arguments.starts = 1, 1.0, 1
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(arguments, Path(folder))
        for part in arguments.parts:
            getattr(benchmark, part)()


if __name__ == "__main__":
    main()
