"""Whole commands against the engine alone: `assay score` on token parts and on raw text, on one GPU.

    python benchmarks/gpu/end_to_end.py --text-corpus novels.parquet --record

Token parts are Parquet files of distinct documents of random ids, mean 228 tokens; text documents are runs of
words from the corpus given, with about the same lengths. `assay score` is run as a user runs it (a driver
and a worker process, parity gate on 32 documents, duplicates looked for, parts published); its rate is
documents over the time from the worker being ready to the last part, as it says itself. The engine alone
runs the same ids in a process of its own, from one array on the host to logits on the host. The two
take turns, ratios are medians of pairs, and the scores of both are compared first.

RoBERTa's own tokenizer comes with no package, so text is tokenized with a byte-level BPE of its size trained on
the corpus; `--tokenizer DIR` takes another. Without --text-corpus the text claim is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _runs import (
    Command,
    assay,
    byte_bpe,
    cut_texts,
    first_scores,
    made_up_texts,
    read_ids,
    read_texts,
    run_files,
    write_ids,
    write_texts,
)
from _setup import (
    Model,
    chosen_device,
    documents,
    environment,
    finish,
    make_bundle,
    models,
    parser,
    shape_of,
)
from _words import word_tokenizer

from assay.engine.load import load_engine
from assay.engine.measure import measure
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences

DOCUMENTS = {"roberta-base": 300_000, "minilm": 1_500_000}
TEXT_DOCUMENTS = 200_000
PART_DOCUMENTS = 100_000
TINY_DOCUMENTS = 400
MEAN_WORDS = 220
"""Parameter of the lengths of text documents; a tokenizer trained on the corpus takes 1.15 tokens a word."""
MOST_WORDS = 600
WARMUP_SHARE = 10
"""The engine warms up on a tenth of the documents."""
TOLERANCE = 0.02
"""Largest difference of a score, a run against the engine: batches differ, and with them rounding."""
CLAIMS = {
    ("roberta-base", "ids"): ("h100.roberta_base.end_to_end_ids_over_engine", "ratio"),
    ("roberta-base", "text"): ("h100.roberta_base.end_to_end_text_over_engine", "ratio"),
    ("minilm", "ids"): ("h100.minilm.end_to_end_ids_docs_per_second", "docs/s"),
}


def main() -> None:
    """Measure the models and kinds of sources that were asked for."""
    flags = parser(__doc__)
    flags.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(DOCUMENTS)}; default all")
    flags.add_argument("--kinds", nargs="+", choices=("ids", "text"), default=["ids", "text"])
    flags.add_argument("--documents", type=int, help="documents of token ids")
    flags.add_argument("--text-documents", type=int)
    flags.add_argument(
        "--text-corpus", type=Path, help="Parquet with a column text, a text file, or a folder"
    )
    flags.add_argument(
        "--tokenizer", type=Path, help="directory of a tokenizer.json; ids below the model's size"
    )
    flags.add_argument("--precision", default="bf16")
    flags.add_argument("--rounds", type=int, default=2)
    flags.add_argument("--only-engine", type=Path, help=argparse.SUPPRESS)
    arguments = flags.parse_intermixed_args()
    device = chosen_device(arguments)
    if arguments.tiny:
        arguments.precision = "fp32" if device.type == "cpu" else arguments.precision
    if arguments.only_engine is not None:
        only_engine(arguments.only_engine, str(device), arguments.precision)
        return
    if unknown := [name for name in arguments.models if name not in DOCUMENTS]:
        raise SystemExit(f"no model {unknown[0]!r}; choose from {', '.join(DOCUMENTS)}")
    known = models(tiny=arguments.tiny)
    for name in arguments.models or DOCUMENTS:
        for kind in arguments.kinds:
            if (name, kind) not in CLAIMS:
                continue
            if kind == "text" and arguments.text_corpus is None and not arguments.tiny:
                print(f"{name}, text: left out; give real text with --text-corpus")
                continue
            with tempfile.TemporaryDirectory() as folder:
                measure_kind(known[name], kind, Path(folder), arguments)


def measure_kind(model: Model, kind: str, place: Path, arguments: argparse.Namespace) -> None:
    """Make the bundle and the corpus, let run and engine take turns, print the claim."""
    bundle = make_bundle(model, place / "bundle", chosen_device(arguments))
    if kind == "ids":
        word_tokenizer(bundle, model.config.vocab_size, model.longest)
        num_documents = arguments.documents or (TINY_DOCUMENTS if arguments.tiny else DOCUMENTS[model.name])
        sources = write_ids(place / "corpus", corpus_of(model, num_documents), PART_DOCUMENTS)
        ids, flags = [str(path) for path in sources], ["--input-ids-column", "input_ids"]
    else:
        num_documents = arguments.text_documents or (TINY_DOCUMENTS if arguments.tiny else TEXT_DOCUMENTS)
        sources = write_texts(
            place / "corpus", texts_of(model, bundle, num_documents, arguments), PART_DOCUMENTS
        )
        tokenized = assay("tokenize", *sources, "--bundle", bundle, "--run", place / "tokens")
        print(f"  assay tokenize alone: {tokenized.docs_per_second:,.0f} docs/s", flush=True)
        ids, flags = run_files(place / "tokens"), []
    (place / "ids.json").write_text(
        json.dumps({"bundle": str(bundle), "ids": ids, "scores": str(place / "scores.npy")})
    )
    pairs = []
    for turn in range(arguments.rounds + 1):
        engine = engine_alone(place / "ids.json", arguments)
        run = place / f"run{turn}"
        command = score(bundle, sources, run, flags, arguments)
        if turn == 0:  # this one fills the caches of kernels and pages, and shows that both are right
            print(
                f"{model.name}, {kind}: {num_documents:,} documents, mean {engine['mean_tokens']:.0f} tokens"
            )
            compare(np.load(place / "scores.npy"), first_scores(run), num_documents, model)
            continue
        print(
            f"  engine {engine['docs_per_second']:,.0f} docs/s ({engine['teraflops']:,.3g} TFLOP/s); assay score "
            f"{command.docs_per_second:,.0f} docs/s after {command.ready_seconds:.1f} s; whole command "
            f"{command.wall_seconds:.1f} s, {num_documents / command.wall_seconds:,.0f} docs/s; "
            f"worker {command.peak_gib:.2f} GiB",
            flush=True,
        )
        pairs.append((engine, command))
    finish_claim(model, kind, num_documents, pairs, arguments)


def corpus_of(model: Model, num_documents: int) -> Sequences:
    """Documents of made-up ids with the model's lengths."""
    return documents(
        num_documents,
        mean_parameter=model.mean_parameter,
        longest=model.longest,
        vocab_size=model.config.vocab_size,
    )


def texts_of(model: Model, bundle: Path, num_documents: int, arguments: argparse.Namespace) -> list[str]:
    """The text documents; the bundle gets the tokenizer that suits them."""
    if arguments.text_corpus is None:
        word_tokenizer(bundle, model.config.vocab_size, model.longest)
        return made_up_texts(corpus_of(model, num_documents))
    texts = read_texts(arguments.text_corpus)
    if arguments.tokenizer is None:
        byte_bpe(bundle, texts, model.config.vocab_size, model.longest)
    else:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (arguments.tokenizer / name).exists():
                (bundle / name).write_bytes((arguments.tokenizer / name).read_bytes())
    return list(cut_texts(texts, num_documents, mean_words=MEAN_WORDS, most_words=MOST_WORDS))


def score(
    bundle: Path, sources: list[Path], run: Path, flags: list[str], arguments: argparse.Namespace
) -> Command:
    """`assay score` on one device."""
    words: list[str | Path] = ["score", *sources, "--bundle", bundle, "--run", run, *flags]
    words += ["--precision", arguments.precision, "--devices", "1", "--parity-documents", "32"]
    return assay(*words)


def engine_alone(work: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The engine's figures on the same ids, measured in a process of its own that leaves the GPU to the next."""
    command = [sys.executable, __file__, "--only-engine", str(work), "--device", arguments.device]
    command += ["--precision", arguments.precision, *(["--tiny"] if arguments.tiny else [])]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the engine alone: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def only_engine(work: Path, device: str, precision: str) -> None:
    """Print the engine's figures on the ids of `work`, as JSON, and leave its scores; the body of `engine_alone`."""
    content = json.loads(work.read_text())
    engine = load_engine(content["bundle"], device=device, precision=precision)
    corpus = read_ids(content["ids"])
    lengths = np.diff(corpus.offsets)
    few = Sequences(
        flat_ids=corpus.flat_ids, offsets=corpus.offsets[: 1 + max(1, len(lengths) // WARMUP_SHARE)]
    )
    run_sequences(engine, few, deduplicate=False)
    one = measure(engine, corpus, rounds=1, warmup=0, shape=shape_of(Path(content["bundle"])))[0]
    scores = Path(content["scores"])
    if not scores.exists():
        logits, _ = run_sequences(engine, corpus, deduplicate=False)
        wide = logits.astype(np.float64)
        shares = np.exp(wide - wide.max(axis=1, keepdims=True))
        np.save(
            scores, wide[:, 0] if wide.shape[1] == 1 else (shares / shares.sum(axis=1, keepdims=True))[:, 0]
        )
    print(json.dumps({**one.to_json(), "mean_tokens": float(lengths.mean())}))


def compare(expected: np.ndarray, found: np.ndarray, num_documents: int, model: Model) -> None:
    """Exit unless the run scored every document as the engine does."""
    if len(found) != num_documents or not np.isfinite(found).all():
        raise SystemExit(
            f"{model.name}: {len(found)} rows of {num_documents} came out, or some without a score"
        )
    difference = float(np.abs(expected - found).max())
    print(f"  scores of the run against the engine's: largest difference {difference:.1e}")
    if not difference <= TOLERANCE:
        raise SystemExit(f"{model.name}: more than {TOLERANCE}; nothing is timed")


def finish_claim(
    model: Model,
    kind: str,
    num_documents: int,
    pairs: list[tuple[dict[str, float], Command]],
    arguments: argparse.Namespace,
) -> None:
    """The result line of a model and kind of source."""
    claim, unit = CLAIMS[model.name, kind]
    engine = statistics.median(one["docs_per_second"] for one, _ in pairs)
    rate = statistics.median(command.docs_per_second for _, command in pairs)
    ratio = statistics.median(command.docs_per_second / one["docs_per_second"] for one, command in pairs)
    wall = statistics.median(command.wall_seconds for _, command in pairs)
    finish(
        arguments,
        claim,
        ratio if unit == "ratio" else rate,
        unit,
        f"the engine alone on the same ids, {engine:,.0f} docs/s",
        details={
            "documents": num_documents,
            "mean_tokens": round(pairs[0][0]["mean_tokens"], 1),
            "precision": arguments.precision,
            "docs_per_second": rate,
            "over_engine": float(f"{ratio:.4g}"),
            "whole_command_docs_per_second": round(num_documents / wall, 1),
            "ready_seconds": statistics.median(command.ready_seconds for _, command in pairs),
            "largest_process_gib": round(max(command.peak_gib for _, command in pairs), 2),
        },
    )


if __name__ == "__main__":
    main()
