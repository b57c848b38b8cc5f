"""The engine on one GPU against the usual recipe: sorted by length, padded, 256 a batch, bf16, SDPA.

    python benchmarks/gpu/engine_throughput.py roberta-base minilm --record

Documents are distinct, of random ids, their lengths log-normal (mean 228 tokens, 8 to 512; for
ModernBERT mean 1,500, 8 to 8,192). Ours takes arrays of ids on the host and gives logits on the host; the
baseline is the device's work alone, its batches collated and on the device beforehand. Where 256 padded
documents do not fit (ModernBERT), its batches hold as many as stay within 65,536 tokens, padding
included; `--baseline-tokens` changes that. It runs each second document (DeBERTa: sixth).

Both sides are compared first with transformers in fp32, a document at a time. Then rounds alternate:
baseline, bf16, fp8; figures are medians, ratios medians of pairs. TFLOP/s is the model's plain
arithmetic on real tokens, the ceiling a product of two 8,192 x 8,192 matrices.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from _setup import (
    Model,
    SortedPadded,
    ceilings,
    check,
    chosen_device,
    documents,
    every,
    finish,
    free_memory,
    make_bundle,
    median_rate,
    median_ratio,
    models,
    parser,
    reference_logits,
    report,
    shape_of,
    take,
    transformers_model,
)

from assay.engine.engine import Engine
from assay.engine.load import load_engine
from assay.engine.measure import Throughput, measure, throughput
from assay.engine.run import run_sequences
from assay.errors import AssayError

CLAIMS: dict[str, dict[str, tuple[str, str]]] = {
    "roberta-base": {
        "h100.roberta_base.bf16.docs_per_second": ("bf16", "rate"),
        "h100.roberta_base.fp8.docs_per_second": ("fp8", "rate"),
        "h100.roberta_base.bf16_vs_sorted_padded": ("bf16", "ratio"),
        "h100.roberta_base.fp8_vs_sorted_padded": ("fp8", "ratio"),
    },
    "minilm": {"h100.minilm.bf16.docs_per_second": ("bf16", "rate")},
    "roberta-large": {
        "h100.roberta_large.bf16_vs_sorted_padded": ("bf16", "ratio"),
        "h100.roberta_large.fp8_vs_sorted_padded": ("fp8", "ratio"),
    },
    "modernbert-base-long": {"h100.modernbert_base_long.bf16_vs_sorted_padded": ("bf16", "ratio")},
    "deberta-v3-base": {"h100.deberta_v3_base.docs_per_second": ("bf16", "rate")},
}
"""By model: the claim, the precision that it speaks of, and whether it is a rate or a ratio."""
ALLOWED = {"fp32": (1e-3, 1.0), "bf16": (0.02, 2.0), "fp8": (0.1, 8.0)}
"""Largest difference of a logit to fp32: so much, or so many times that of the baseline if that is more."""
TINY_DOCUMENTS = 200


def main() -> None:
    """Measure the models that were named, one after the other."""
    flags = parser(__doc__)
    flags.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(CLAIMS)}; default all")
    flags.add_argument("--precisions", nargs="+", choices=("bf16", "fp8"), default=["bf16", "fp8"])
    flags.add_argument("--documents", type=int, help="documents of a round of ours")
    flags.add_argument("--baseline-every", type=int, help="the baseline runs each so many-th of its batches")
    flags.add_argument("--baseline-tokens", type=int, help="most tokens of a batch of the baseline")
    flags.add_argument("--batch-tokens", type=int, help="tokens of a batch of ours; default the engine's own")
    flags.add_argument("--check-documents", type=int, default=256)
    flags.add_argument("--rounds", type=int, default=3)
    arguments = flags.parse_intermixed_args()
    device = chosen_device(arguments)
    if unknown := [name for name in arguments.models if name not in CLAIMS]:
        raise SystemExit(f"no model {unknown[0]!r}; choose from {', '.join(CLAIMS)}")
    precisions = ["fp32"] if device.type == "cpu" else list(arguments.precisions)
    found = ceilings(device, precisions if device.type == "cpu" else sorted({"bf16", *precisions}))
    known = models(tiny=arguments.tiny)
    for name in arguments.models or CLAIMS:
        model = known[name]
        with tempfile.TemporaryDirectory() as folder:
            bundle = make_bundle(model, Path(folder) / name, device)
            measure_model(model, bundle, device, precisions, found, arguments)
        free_memory(device)


def measure_model(
    model: Model,
    bundle: Path,
    device: torch.device,
    precisions: list[str],
    found: dict[str, float],
    arguments: argparse.Namespace,
) -> None:
    """Check, measure and print one model; `found` are the ceilings by precision."""
    num_documents = arguments.documents or (TINY_DOCUMENTS if arguments.tiny else model.documents)
    corpus = documents(
        num_documents,
        mean_parameter=model.mean_parameter,
        longest=model.longest,
        vocab_size=model.config.vocab_size,
    )
    lengths = np.diff(corpus.offsets)
    step = arguments.baseline_every or (1 if arguments.tiny else model.baseline_every)
    fewer = every(corpus, step)
    max_tokens = arguments.baseline_tokens or model.baseline_tokens
    print(
        f"\n{model.name}: {num_documents:,} documents, mean {lengths.mean():.0f} tokens; "
        f"the baseline runs {fewer.num_sequences:,} of them"
        + (f", at most {max_tokens:,} tokens a batch" if max_tokens else ""),
        flush=True,
    )
    engines = load_engines(bundle, device, precisions)
    if not engines:
        raise SystemExit(f"{model.name}: no engine to measure")
    plain = "fp32" if device.type == "cpu" else "bf16"
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16

    # ------------------------------------------------------------ correctness first
    few = take(corpus, np.arange(min(arguments.check_documents, num_documents)))
    expected = reference_logits(bundle, few, device)
    free_memory(device)
    baseline_model = transformers_model(bundle, device, dtype)
    small = SortedPadded(baseline_model, few, device, max_tokens=max_tokens)
    small.run()
    differences = {"baseline": check(f"baseline, {plain}", small.logits(), expected, 10 * ALLOWED[plain][0])}
    for precision, engine in engines.items():
        logits, _ = run_sequences(engine, few, deduplicate=False, max_batch_tokens=arguments.batch_tokens)
        least, times = ALLOWED[precision]
        allowed = max(least, times * differences["baseline"])
        differences[precision] = check(f"ours, {precision}", logits, expected, allowed)
    del small

    # ------------------------------------------------------------ then time
    shape = shape_of(bundle)
    baseline = SortedPadded(baseline_model, fewer, device, max_tokens=max_tokens)
    passes: dict[str, list[Throughput]] = {"baseline": [], **{name: [] for name in engines}}
    for turn in range(arguments.rounds + 1):
        one = throughput(
            baseline.run(),
            np.diff(fewer.offsets),
            num_padded_tokens=baseline.num_padded_tokens,
            shape=shape,
            ceiling=found.get(plain),
        )
        rounds = {"baseline": [one]}
        for precision, engine in engines.items():
            rounds[precision] = measure(
                engine,
                corpus,
                rounds=1,
                warmup=0,
                shape=shape,
                ceiling=found.get(precision),
                max_batch_tokens=arguments.batch_tokens,
            )
        if turn:  # in the first one every shape is met
            for name, kept in rounds.items():
                passes[name] += kept
    report(f"baseline, {plain}", passes["baseline"])
    for precision in engines:
        report(f"ours, {precision}", passes[precision])
        ratio = median_ratio(passes[precision], passes["baseline"])
        print(f"  {precision} over the baseline: {ratio:.3f} (median of {arguments.rounds} pairs)")
    finish_claims(model, passes, differences, found, arguments)


def load_engines(bundle: Path, device: torch.device, precisions: list[str]) -> dict[str, Engine]:
    """The engine in each precision; one that is refused is left out, with its reason printed."""
    engines = {}
    for precision in precisions:
        try:
            engines[precision] = load_engine(bundle, device=str(device), precision=precision)
        except (AssayError, NotImplementedError) as error:
            print(f"  {precision} is skipped: {error}")
            continue
        print(f"  {precision}: {engines[precision].description()}", flush=True)
    return engines


def finish_claims(
    model: Model,
    passes: dict[str, list[Throughput]],
    differences: dict[str, float],
    found: dict[str, float],
    arguments: argparse.Namespace,
) -> None:
    """The result line of each claim on the model whose precision was measured."""
    base = passes["baseline"]
    for claim, (precision, kind) in CLAIMS[model.name].items():
        # The smoke test has neither precision; it shows the lines all the same.
        name = precision if precision in passes else "fp32"
        if name not in passes:
            continue
        ours = passes[name]
        middle = sorted(ours, key=lambda one: one.seconds)[len(ours) // 2]
        slow = sorted(base, key=lambda one: one.seconds)[len(base) // 2]
        details = {
            "documents": middle.num_documents,
            "mean_tokens": round(middle.num_tokens / middle.num_documents, 1),
            "largest_logit_difference": float(f"{differences[name]:.3g}"),
            "baseline_largest_logit_difference": float(f"{differences['baseline']:.3g}"),
            "ours": middle.to_json(),
            "baseline": slow.to_json(),
            "seconds": [round(one.seconds, 4) for one in ours],
            "baseline_seconds": [round(one.seconds, 4) for one in base],
        }
        finish(
            arguments,
            claim,
            median_rate(ours) if kind == "rate" else median_ratio(ours, base),
            "docs/s" if kind == "rate" else "ratio",
            "transformers bf16, SDPA (DeBERTa: eager), sorted by length, padded, batch 256, device work only: "
            f"{median_rate(base):,.0f} docs/s",
            ceiling=f"{found[name]:.3g} TFLOP/s, {name}, product of large squares" if name in found else None,
            details=details,
        )


if __name__ == "__main__":
    main()
