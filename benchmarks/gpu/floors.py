"""How near the engine in bf16 is to its matrix products alone, sustained, as the library does them.

    python benchmarks/gpu/floors.py --record

For each model the products of its layers run back to back for some seconds, as large as the engine's own batches,
on random activations: as the library chooses, without bias, activation, residual, norm or attention. The last layer
is left out, of which the engine computes the first tokens alone. What documents a second that makes is the bound.
Rounds alternate: products, engine, some seconds each, which warms the card up; `nvidia-smi` is read every 100 ms
meanwhile for its clock, its power, and why the clock is not higher. Nothing of the card is changed.

`burst` is the products' rate in the first tenth of a second after a pause: what a short benchmark would show.
"""

import argparse
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from _setup import (
    Model,
    chosen_device,
    documents,
    finish,
    free_memory,
    make_bundle,
    models,
    parser,
    shape_of,
)

from assay.engine.load import load_engine
from assay.engine.measure import TERA, ModelShape, measure, synchronize

MODELS = ("roberta-base", "minilm", "roberta-large")
PAUSE_SECONDS = 2.0
BURST_SECONDS = 0.1
REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}
"""Bits of `clocks_event_reasons.active`, as NVML documents them; idle and application clocks left out."""


@dataclass(kw_only=True)
class Card:
    """What nvidia-smi said while something ran."""

    megahertz: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def read(self, line: str) -> None:
        """Take in one line of nvidia-smi."""
        clock, power, active = (each.strip() for each in line.split(","))
        self.megahertz.append(float(clock))
        self.watts.append(float(power))
        bits = int(active, 16)
        self.reasons.update([name for bit, name in REASONS.items() if bits & bit] or ["none"])

    def to_json(self) -> dict[str, object]:
        """Medians, and the share of the readings in which each reason held."""
        if not self.watts:
            return {}
        num_readings = len(self.watts)
        return {
            "megahertz": round(statistics.median(self.megahertz)),
            "watts": round(statistics.median(self.watts)),
            "held_down_by": {name: round(count / num_readings, 2) for name, count in self.reasons.items()},
        }


@contextlib.contextmanager
def watched(card: Card, device: torch.device) -> Iterator[None]:
    """Read the card while the body runs; nothing is read where there is none."""
    if device.type != "cuda":
        yield
        return
    fields = "clocks.sm,power.draw.instant,clocks_event_reasons.active"
    which = str(torch.cuda.get_device_properties(device).uuid)
    command = ["nvidia-smi", "-i", f"GPU-{which}", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*command, "-lms", "100"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
        assert process.stdout is not None, "it was started with a pipe"
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # the last line may be cut
                card.read(line)


def product_sizes(shape: ModelShape) -> tuple[tuple[int, int], ...]:
    """Inputs and outputs of a layer's four products."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    return (hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)


def layer_products(shape: ModelShape, num_tokens: int, device: torch.device) -> Callable[[], None]:
    """One layer's products on `num_tokens` rows, output buffers made beforehand."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16

    def random(rows: int, columns: int, scale: float) -> torch.Tensor:
        return torch.empty(rows, columns, device=device, dtype=dtype).normal_(0, scale)

    sizes = product_sizes(shape)
    inputs = {rows: random(num_tokens, rows, 1.0) for rows, _ in sizes}
    weights = [random(columns, rows, 0.02).t() for rows, columns in sizes]
    outputs = [torch.empty(num_tokens, columns, device=device, dtype=dtype) for _, columns in sizes]

    def run() -> None:
        for (rows, _), weight, output in zip(sizes, weights, outputs, strict=True):
            torch.mm(inputs[rows], weight, out=output)

    return run


def seconds_of(run: Callable[[], None], seconds: float, device: torch.device) -> float:
    """Mean seconds of a call, called again and again for so long."""
    synchronize(device)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(4):
            run()
        calls += 4
        synchronize(device)
    return (time.perf_counter() - began) / calls


def measure_model(model: Model, bundle: Path, device: torch.device, arguments: argparse.Namespace) -> None:
    """Bound, engine, and the card's state beside each."""
    corpus = documents(
        200 if arguments.tiny else model.documents,
        mean_parameter=model.mean_parameter,
        longest=model.longest,
        vocab_size=model.config.vocab_size,
    )
    mean_tokens = float(np.diff(corpus.offsets).mean())
    engine = load_engine(bundle, device=str(device), precision="fp32" if device.type == "cpu" else "bf16")
    measure(engine, corpus, rounds=0)
    num_tokens = 256 if arguments.tiny else engine.default_batch_tokens
    shape = shape_of(bundle)
    layer = layer_products(shape, num_tokens, device)
    seconds_of(layer, BURST_SECONDS, device)
    time.sleep(0 if arguments.tiny else PAUSE_SECONDS)
    burst = seconds_of(layer, BURST_SECONDS, device)
    cards = {"products": Card(), "engine": Card()}
    seconds, rates = [], []
    for _ in range(arguments.rounds):
        with watched(cards["products"], device):
            seconds.append(seconds_of(layer, arguments.seconds, device))
        with watched(cards["engine"], device):
            rates.append(measure(engine, corpus, rounds=1, warmup=0)[0].docs_per_second)
    bounds = [num_tokens / mean_tokens / (each * (shape.num_layers - 1)) for each in seconds]
    bound, rate = statistics.median(bounds), statistics.median(rates)
    flops = 2.0 * num_tokens * sum(rows * columns for rows, columns in product_sizes(shape))
    sustained = flops / statistics.median(seconds) / TERA
    print(
        f"{model.name}: {rate:,.0f} docs/s, its products alone {bound:,.0f} ({sustained:.0f} TFLOP/s sustained, "
        f"{flops / burst / TERA:.0f} in a burst)",
        flush=True,
    )
    for name, card in cards.items():
        print(f"  card beside the {name}: {card.to_json()}", flush=True)
    finish(
        arguments,
        f"h100.{model.name.replace('-', '_')}.bf16_over_its_products",
        statistics.median(ours / theirs for ours, theirs in zip(rates, bounds, strict=True)),
        "share",
        f"the products of {shape.num_layers - 1} layers and nothing else: {bound:,.0f} docs/s",
        ceiling=f"{sustained:.0f} TFLOP/s, these products sustained",
        details={
            "docs_per_second": round(rate),
            "mean_tokens": round(mean_tokens, 1),
            "tokens_a_batch": num_tokens,
            "burst_teraflops": round(flops / burst / TERA),
            "card": {name: card.to_json() for name, card in cards.items()},
            "rounds": arguments.rounds,
        },
    )


def main() -> None:
    """Measure the models that were named, one after the other."""
    flags = parser(__doc__)
    flags.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; default all")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--seconds", type=float, default=3.0, help="of one measurement of the products")
    arguments = flags.parse_intermixed_args()
    if arguments.tiny:
        arguments.rounds, arguments.seconds = 1, 0.2
    if unknown := [name for name in arguments.models if name not in MODELS]:
        raise SystemExit(f"no model {unknown[0]!r}; choose from {', '.join(MODELS)}")
    device = chosen_device(arguments)
    known = models(tiny=arguments.tiny)
    for name in arguments.models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            measure_model(
                known[name], make_bundle(known[name], Path(folder) / name, device), device, arguments
            )
        free_memory(device)


if __name__ == "__main__":
    main()
