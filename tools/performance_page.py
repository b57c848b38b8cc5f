"""Makes docs/performance.md from benchmarks/results.jsonl, so that no figure on it is typed by hand.

    python tools/performance_page.py > docs/performance.md

Shows the last result of each claim. A missing or empty results file gives a page that says so.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results.jsonl"
PAGE = "docs/performance.md"

CLAIMS: Mapping[str, str] = {
    "quickstart.seconds_after_install": "The quickstart, from start to report, once everything is installed",
    "cpu.score_vs_transformers_pipeline": "Scoring a real corpus, against the `transformers` pipeline",
    "cpu.score_vs_cross_encoder": "Scoring the same documents, against sentence-transformers with length sorting",
    "cpu.tokenize_vs_tokenizers": "Tokenizing, against the `tokenizers` library alone",
    "cpu.overhead_docs_per_second_core": "Everything but the forward pass, a core",
    "cpu.overhead_vs_pyarrow_loop": "The same, against a plain pyarrow loop that reads and writes",
    "memory.peak_1e7_rows_over_1e5_rows": "Peak memory of a worker, 10 million rows over 100,000",
    "memory.worker_gb_minilm_cpu": "Peak memory of a worker with MiniLM on a CPU",
    "merge.speed_vs_duckdb": "Verify and merge, against DuckDB's join on a string id",
    "merge.memory_vs_duckdb": "Peak memory of verify and merge, over that of DuckDB's join",
    "resume.seconds_10000_parts": "Going on with a run of 10,000 published parts, until the first new work",
    "h100.roberta_base.bf16.docs_per_second": "RoBERTa-base in bf16, the engine alone",
    "h100.roberta_base.bf16_vs_sorted_padded": "RoBERTa-base in bf16, against the usual recipe",
    "h100.roberta_base.fp8.docs_per_second": "RoBERTa-base in fp8, the engine alone",
    "h100.roberta_base.fp8_vs_sorted_padded": "RoBERTa-base in fp8, against the usual recipe in bf16",
    "h100.minilm.bf16.docs_per_second": "MiniLM-L6 in bf16, the engine alone",
    "h100.roberta_large.bf16_vs_sorted_padded": "RoBERTa-large in bf16, against the usual recipe",
    "h100.roberta_large.fp8_vs_sorted_padded": "RoBERTa-large in fp8, against the usual recipe in bf16",
    "h100.modernbert_base_long.bf16_vs_sorted_padded": "ModernBERT-base on long documents, against the usual recipe",
    "h100.roberta_base.bf16_over_its_products": "RoBERTa-base in bf16, over its matrix products alone, sustained",
    "h100.minilm.bf16_over_its_products": "MiniLM-L6 in bf16, over its matrix products alone, sustained",
    "h100.roberta_large.bf16_over_its_products": "RoBERTa-large in bf16, over its matrix products alone, sustained",
    "h100.deberta_v3_base.docs_per_second": "DeBERTa-v3-base in bf16, the engine alone",
    "h100.roberta_base.end_to_end_ids_over_engine": "`assay score` on token ids, over the engine alone, RoBERTa-base",
    "h100.roberta_base.end_to_end_text_over_engine": "`assay score` on text, over the engine alone, RoBERTa-base",
    "h100.minilm.end_to_end_ids_docs_per_second": "`assay score` on token ids, MiniLM-L6",
    "h100x2.score_scaling": "`assay score` on two GPUs, over one",
    "h100.cold_start_seconds_roberta_base": "From a fresh process to the first document, empty caches, RoBERTa-base",
    "h100.warm_start_seconds_roberta_base": "The same with the caches that a first start has left",
    "cpu.train_vs_trainer": "Fine-tuning MiniLM on texts of mixed length on a CPU, against `transformers.Trainer`",
    "h100.train_distilbert_b32_vs_ddp_recipe": "Fine-tuning DistilBERT, 32 documents a step, over a plain fp32 loop",
    "h100.train_distilbert_b32_vs_trainer": "The same, against `transformers.Trainer` in bf16",
    "h100.train_distilbert_b256_samples_per_second": "Fine-tuning DistilBERT, 256 documents a step",
    "h100.train_roberta_base_pairs_vs_trainer": "Fine-tuning RoBERTa-base on long pairs, against Trainer",
    "h100.train_time_to_accuracy_vs_trainer": "Time to a validation accuracy on a real task, over Trainer's",
    "h100x2.train_scaling": "Fine-tuning DistilBERT on two GPUs over one, 32 documents on each",
    "h100x2.train_scaling_roberta-base": "The same, RoBERTa-base on long pairs",
    **{
        f"recipes.{task}.{metric}": f"{name}: {what}, mean of 3 seeds, test rows that nothing had seen"
        for task, name in {
            "bbc": "BBC topics",
            "r8": "Reuters R8",
            "newsgroups": "20 Newsgroups",
            "vader": "VADER valence",
            "spam": "SpamAssassin",
        }.items()
        for metric, what in {
            "accuracy": "accuracy",
            "macro_f1": "macro-F1",
            "ece": "calibration error (ECE) after calibration",
            "spearman": "rank correlation",
            "coverage": "share of test rows within the promised interval",
        }.items()
    },
    "cpu.serve_requests_vs_naive_fastapi": "Serving MiniLM on a CPU to 32 clients, against a plain FastAPI server",
    "cpu.serve_added_latency_ms_p50": "What serving adds to the forward pass for one client, median",
    "cpu.serve_overload_goodput": "Answers a second under three times the load it can take, over its capacity",
    "cpu.serve_seconds_to_ready": "From start to ready, MiniLM on a CPU",
    "h100.serve_requests_vs_naive_fastapi": "Serving RoBERTa-base on a GPU, against a plain FastAPI server",
    "h100.serve_batch_over_engine": "Documents through `/predict/batch`, over the engine alone",
    "h100.serve_idle_p50_ms_500_tokens": "A text of 500 tokens on an idle server, median",
}
"""What each claim says, in words; a claim that is not here is shown by its name."""

HEAD = f"""# Performance

Made by `python tools/performance_page.py` from `{RESULTS}`, which the benchmarks write; `make check`
compares it. Each script under `benchmarks/` measures one claim and, in the same run, what it is compared with.
"""

EMPTY = """
No result has been recorded yet, so nothing is claimed here.
"""

TAIL = """
A figure holds for the hardware and versions beside it. Where a value is a ratio, above 1 means that Assay does more
in the same time, or, for memory, that it takes more.

On a GPU the usual recipe is transformers in bf16, sorted by length, padded, batch 256. Models there have random weights
of the real shapes, and documents are random ids or, where a row says text, real text: mean 229 tokens, for long ones
1,489. A ceiling is what the same card reached beside them in a product of large squares. What these figures leave
open, and which fall short of what was hoped, stands in notes on
[scoring](decisions/2026-11-22-gpu-measurements.md), [training](decisions/2026-11-22-training-engine.md) and
[serving](decisions/2026-11-22-serving.md).

## Run them again

`make bench` installs what the benchmarks compare with and runs all of them on a CPU; it takes a while. `make bench-gpu`
does the same for those that need a CUDA GPU, below `benchmarks/gpu/`. One by one, with the command in the table:

```sh
make setup
.venv/bin/python benchmarks/tokenize_throughput.py
```

The last line printed is the result. With `--record` it is added to `benchmarks/results.jsonl`; this page then has to be
made again. Results are never edited. Run on a machine that does nothing else.
"""

HEADER = ("claim", "value", "compared with", "hardware", "versions", "date", "command")
KEYS = ("claim", "value", "unit", "baseline", "hardware", "versions", "date", "command")

Result = Mapping[str, object]


def performance_page(root: Path) -> str:
    """The text of the page for the project at `root`; raises ValueError naming a line that is no result."""
    results = read_results(root / RESULTS)
    return HEAD + (_table(results) if results else EMPTY) + TAIL


def read_results(path: Path) -> list[Result]:
    """The last result of each claim, in the order of CLAIMS and then of the file."""
    latest: dict[str, Result] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            result = json.loads(line)
            missing = [key for key in KEYS if key not in result]
            if missing:
                msg = f"{path}:{number}: no {missing[0]!r}; a result has {', '.join(KEYS)}; run the benchmark again"
                raise ValueError(msg)
            latest[str(result["claim"])] = result
    known = [claim for claim in CLAIMS if claim in latest]
    return [latest[claim] for claim in [*known, *(claim for claim in latest if claim not in CLAIMS)]]


def _table(results: Sequence[Result]) -> str:
    rows = [HEADER, tuple("---" for _ in HEADER), *(_row(result) for result in results)]
    return "\n" + "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _row(result: Result) -> tuple[str, ...]:
    claim, versions = str(result["claim"]), result["versions"]
    shown = (
        ", ".join(f"{name} {number}" for name, number in versions.items())
        if isinstance(versions, dict)
        else ""
    )
    ceiling = f"; ceiling: {result['ceiling']}" if "ceiling" in result else ""
    cells = (
        CLAIMS.get(claim, f"`{claim}`"),
        f"{_figure(result['value'])} {result['unit']}",
        f"{result['baseline']}{ceiling}",
        str(result["hardware"]),
        shown,
        str(result["date"]),
        f"`{result['command']}`",
    )
    return tuple(cell.replace("|", "\\|") for cell in cells)


def _figure(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) and value < 1000 else f"{value:,}"


if __name__ == "__main__":
    sys.stdout.write(performance_page(ROOT))
