"""Makes docs/performance.md and its charts from benchmarks/results.jsonl, so that no figure is typed by hand.

    python tools/performance_page.py      writes docs/performance.md and docs/performance/*.svg

Answers questions with the last result of each claim, then lists all of them. A sentence or a bar whose result is
missing is left out; a missing or empty results file gives a page that says so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from performance_charts import Bar, bar_drawing

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results.jsonl"
PAGE = "docs/performance.md"
CHARTS = "docs/performance"

CLAIMS: Mapping[str, str] = {
    "quickstart.seconds_after_install": "The quickstart, from start to report, once everything is installed",
    "cpu.command_seconds_small_file_again": "`assay score` of 200 short rows, rows that an earlier run has scored",
    "cpu.command_seconds_small_file": "The same, rows that no run has seen",
    "cpu.load_and_predict_seconds": "`assay.load(...).predict` of one text in a fresh process",
    "cpu.train_seconds_to_first_step": "`assay train`, start to the end of its first step",
    "cpu.score_vs_transformers_pipeline": "Scoring a real corpus, against the `transformers` pipeline",
    "cpu.score_vs_cross_encoder": "Scoring the same documents, against sentence-transformers with length sorting",
    "cpu.tokenize_vs_tokenizers": "Tokenizing, against the `tokenizers` library alone",
    "cpu.clean_gutenberg_mb_per_second_core": "Cleaning books of headers, licences and notes, a core",
    "cpu.train_busy_default_over_one_thread": "Training beside a busy loop a core: default threads over one thread",
    "cpu.overhead_docs_per_second_core": "Everything but the forward pass, a core",
    "cpu.overhead_vs_pyarrow_loop": "The same, against a plain pyarrow loop that reads and writes",
    "cpu.text_to_score_docs_per_second_core": "Texts of 68 tokens, from file to file, without a model, a core",
    "memory.peak_1e7_rows_over_1e5_rows": "Peak memory of a worker, 10 million rows over 100,000",
    "memory.prepare_50000_books_over_500": "Peak memory of preparing 50,000 books, over 500",
    "memory.worker_gb_minilm_cpu": "Peak memory of a worker with MiniLM on a CPU",
    "cpu.prepare_books_vs_reference_path": "99 novels to pairs, CPU time, against the usual way with spaCy",
    "cpu.split_sentences_vs_spacy": "Splitting novels into sentences, a core, against spaCy's sentencizer",
    "books.boundaries_right_of_55": "Sentence boundaries told rightly, of 55 labelled places",
    "h100.hrm_member_vs_eager": "A member of an HRM ensemble, 2,323 puzzles, against the plain module eager",
    "h100.hrm_member_vs_compiled": "The same, against the plain module compiled",
    "h100.ensemble_hrm_15_vs_threads_eager": "15 HRM members, 2,323 puzzles, in full, against a thread a task, eager",
    "h100.ensemble_hrm_15_vs_compiled": "The same, against compiled threads or one after the other, the faster",
    "h100.ensemble_hrm_15_memory_vs_threads": "Its peak memory, over that of the most threads that run",
    "h100.ensemble_hrm_15_checked_vs_best_reference": "15 trained members, checked puzzles left out, against threads",
    "h100.ensemble_hrm_64_puzzles_vs_eager": "64 puzzles and three HRM checkpoints, against eager",
    "h100.train_hrm_step_vs_compiled": "A training step of HRM, 768 puzzles, against the plain module compiled",
    "books.en.same_book_mixed_auc_1_chunk": "Unseen British authors: same book, one chunk a side, AUC",
    "books.en.same_book_hard_auc_1_chunk": "Unseen British authors: a book among its author's, one chunk",
    "books.en.same_author_auc_1_chunk": "Unseen British authors: same author, one chunk a side, AUC",
    "books.en.same_author_auc_8_chunks": "Unseen British authors: same author, 8 chunks a side, AUC",
    "books.en.same_book_vs_same_author_auc_8_chunks": "Unseen British authors: a book among its author's, 8 chunks",
    "books.cascade_auc_over_cross_encoder": "Unseen British authors: a cascade's AUC, over both models on every pair",
    "books.cascade_cost_over_cross_encoder": "The cascade's time on pairs that share texts, over the cross-encoder",
    "books.pl.same_book_mixed_auc_1_chunk": "Unseen Polish authors: same book, one chunk a side, AUC",
    "books.pl.same_book_hard_auc_1_chunk": "Unseen Polish authors: a book among its author's, one chunk",
    "books.pl.same_author_auc_1_chunk": "Unseen Polish authors: same author, one chunk a side, AUC",
    "books.pl.same_author_auc_8_chunks": "Unseen Polish authors: same author, 8 chunks a side, AUC",
    "books.pl.same_book_vs_same_author_auc_8_chunks": "Unseen Polish authors: a book among its author's, 8 chunks",
    "books.plan_seconds": "Planning 50,000 books, from the first import",
    "cpu.sudoku_puzzles_per_second_core": "Sudokus of one solution made and rated, a core",
    "merge.speed_vs_duckdb": "Verify and merge, against DuckDB's join on a string id",
    "merge.memory_vs_duckdb": "Peak memory of verify and merge, over that of DuckDB's join",
    "simulation.makespan_over_ideal_static": "Simulated: 100 machines that share a run, makespan over the ideal",
    "simulation.makespan_over_ideal_dynamic": "Simulated: one driver of 100 machines, makespan over the ideal",
    "simulation.doubled_work_share": "Simulated: work that 100 machines do twice, of all",
    "cpu.list_100000_parts_vs_page_after_page": "Listing 100,000 parts of a bucket, 0.1 s a page, against page by page",
    "simulation.store_requests_per_unit": "Simulated: requests to the store a unit, beside the part itself",
    **{
        f"simulation.{case}_{claim}": f"Simulated, {fleet}: {words}"
        for case, fleet in (
            ("corpus_160m", "12 machines, 1,352 units of a minute each"),
            ("billion", "1,000 machines, 100 units of ten seconds each"),
            ("minutes_360k", "1,000 machines, 360 units of a minute each"),
        )
        for claim, words in (
            ("makespan_over_ideal_static", "a shared run, makespan over the ideal"),
            ("makespan_over_ideal_dynamic", "one driver, makespan over the ideal"),
            ("doubled_work_share", "work done twice, of all"),
            ("store_requests_per_unit", "requests a unit beside the part itself"),
        )
    },
    "estimate.relative_error": "`assay estimate` against the run that it was made for, the larger error of two times",
    "cpu.status_seconds_100000_parts": "`assay status` of 100,000 parts and 1,000 commands",
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
    "h100.fp16_over_bf16_speed": "fp16 over bf16, the engine alone, the slowest of ten models",
    "h100.roberta_base.end_to_end_ids_over_engine": "`assay score` on token ids, over the engine alone, RoBERTa-base",
    "h100.roberta_base.end_to_end_text_over_engine": "`assay score` on text, over the engine alone, RoBERTa-base",
    "h100.minilm.end_to_end_ids_docs_per_second": "`assay score` on token ids, MiniLM-L6",
    "h100.embed_minilm_vs_sentence_transformers": "`assay embed` with MiniLM-L6, against sentence-transformers in fp16",
    "h100.mine_1m_chunks_vs_sentence_transformers": "`assay mine` over a million chunks, against `mine_hard_negatives`",
    "h100x2.score_scaling": "`assay score` on two GPUs, over one",
    "h100.cold_start_seconds_roberta_base": "From a fresh process to the first document, empty caches, RoBERTa-base",
    "h100.warm_start_seconds_roberta_base": "The same with the caches that a first start has left",
    "h100.command_seconds_to_first_part_cold": "`assay score` from its start to its first part, empty caches",
    "h100.command_seconds_to_first_part_warm": "The same with the caches that a first start has left",
    "cpu.train_vs_trainer": "Fine-tuning MiniLM on texts of mixed length on a CPU, against `transformers.Trainer`",
    "h100.train_distilbert_b32_vs_ddp_recipe": "Fine-tuning DistilBERT, 32 documents a step, over a plain fp32 loop",
    "h100.train_distilbert_b32_vs_trainer": "The same, against `transformers.Trainer` in bf16",
    "h100.train_distilbert_b256_samples_per_second": "Fine-tuning DistilBERT, 256 documents a step",
    "h100.train_roberta_base_pairs_vs_trainer": "Fine-tuning RoBERTa-base on long pairs, against Trainer",
    "h100.train_time_to_accuracy_vs_trainer": "Time to a validation accuracy on a real task, over Trainer's",
    "h100.train_siamese_vs_plain_transformers": "Siamese training of RoBERTa-base, against plain transformers in bf16",
    "h100x2.fleet_static_scaling": "Two processes on one run, a GPU each, over one",
    "h100x2.fleet_ray_scaling": "Two Ray workers, a GPU each, over one without Ray",
    "h100x8.score_scaling": "`assay score` on eight GPUs, over one",
    "h100x8.score_text_scaling": "The same, from texts",
    "h100x8.minilm_68_tokens_scaling": "MiniLM on texts of 68 tokens, eight GPUs over one",
    "h100x8.minilm_68_tokens_docs_per_second": "The same, from files of texts to files of scores",
    "h100x8.train_roberta_base_scaling": "Fine-tuning RoBERTa-base on long pairs on eight GPUs, over one",
    "h100x2.train_contrastive_scaling": "The same on two GPUs over one, negatives of both",
    "h100x2.train_scaling": "Fine-tuning DistilBERT on two GPUs over one, 32 documents on each",
    "h100x2.train_roberta_base_scaling": "The same, RoBERTa-base on long pairs",
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
    "cpu.ray_overhead_fraction": "What the Ray executor adds to the time of a run, beside processes of this machine",
    "cpu.vs_ray_data_map_batches": "A run on the Ray executor, against Ray Data's `map_batches` with the same engine",
    "cpu.serve_requests_vs_naive_fastapi": "Serving MiniLM on a CPU to 32 clients, against a plain FastAPI server",
    "cpu.serve_added_latency_ms_p50": "What serving adds to the forward pass for one client, median",
    "cpu.serve_overload_goodput": "Answers a second under three times the load it can take, over its capacity",
    "cpu.serve_seconds_to_ready": "From start to ready, MiniLM on a CPU",
    "h100.serve_requests_vs_naive_fastapi": "Serving RoBERTa-base on a GPU, against a plain FastAPI server",
    "h100.serve_batch_over_engine": "Documents through `/predict/batch`, over the engine alone",
    "h100.serve_idle_p50_ms_500_tokens": "A text of 500 tokens on an idle server, median",
}
"""What each claim says, in words; a claim that is not here is shown by its name."""

Result = Mapping[str, object]
PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """A bar of a chart of ratios, or of seconds: a claim and what it is called there."""

    claim: str
    label: str
    ceiling: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A section of the page: a question, its answer, and a chart."""

    title: str
    answer: tuple[str, ...]
    """Sentences; `{claim}` and `{claim/details/key}` stand for recorded figures."""
    chart: str
    """Name of the SVG file."""
    chart_title: str
    bars: tuple[Ratio, ...] = ()
    one: str | None = None
    """What the line at 1 is, where the bars are ratios."""
    ceiling: str = "the most that could be had"
    unit: str = "\u00d7"
    engines: tuple[Ratio, ...] = ()
    """Claims of engine throughput: each gives two bars of TFLOP/s, and the card's ceiling."""


QUESTIONS = (
    Question(
        title="How fast is scoring on a GPU?",
        answer=(
            (
                "The engine scores {h100.roberta_base.bf16.docs_per_second} documents a second with "
                "RoBERTa-base in bf16 on one H100, {h100.roberta_base.bf16_vs_sorted_padded} times what the "
                "usual recipe (transformers in bf16, sorted by length, padded) does with the same documents, "
                "and {h100.roberta_base.fp8.docs_per_second} in fp8."
            ),
            (
                "`assay score` on token ids keeps {h100.roberta_base.end_to_end_ids_over_engine} of the "
                "engine's rate, on text {h100.roberta_base.end_to_end_text_over_engine}; two GPUs do "
                "{h100x2.score_scaling} times what one does."
            ),
        ),
        chart="scoring-gpu",
        chart_title="Arithmetic done, TFLOP/s on one H100, and documents a second",
        engines=(
            Ratio(claim="h100.roberta_base.bf16.docs_per_second", label="RoBERTa-base, bf16"),
            Ratio(claim="h100.roberta_base.fp8.docs_per_second", label="RoBERTa-base, fp8"),
            Ratio(claim="h100.roberta_large.bf16_vs_sorted_padded", label="RoBERTa-large, bf16"),
            Ratio(claim="h100.roberta_large.fp8_vs_sorted_padded", label="RoBERTa-large, fp8"),
            Ratio(claim="h100.minilm.bf16.docs_per_second", label="MiniLM-L6, bf16"),
            Ratio(claim="h100.deberta_v3_base.docs_per_second", label="DeBERTa-v3-base, bf16"),
            Ratio(
                claim="h100.modernbert_base_long.bf16_vs_sorted_padded", label="ModernBERT, long documents"
            ),
        ),
        ceiling="a product of large squares on the same card",
    ),
    Question(
        title="How fast is scoring on a CPU?",
        answer=(
            (
                "On two cores MiniLM scores a real corpus at {cpu.score_vs_transformers_pipeline} times the "
                "rate of the `transformers` pipeline and {cpu.score_vs_cross_encoder} times that of "
                "sentence-transformers with its sorting by length."
            ),
            (
                "Reading, writing and checking cost little: without a forward pass, a core does "
                "{cpu.overhead_docs_per_second_core} documents a second."
            ),
        ),
        chart="scoring-cpu",
        chart_title="Assay over another way, 2 CPU cores",
        bars=(
            Ratio(claim="cpu.score_vs_transformers_pipeline", label="scoring, over transformers pipeline"),
            Ratio(claim="cpu.score_vs_cross_encoder", label="scoring, over CrossEncoder.predict"),
            Ratio(claim="cpu.tokenize_vs_tokenizers", label="tokenizing, over tokenizers alone"),
            Ratio(claim="cpu.overhead_vs_pyarrow_loop", label="all but the model, over a pyarrow loop"),
        ),
        one="as fast as the other",
    ),
    Question(
        title="How fast is training?",
        answer=(
            (
                "Fine-tuning DistilBERT with 32 documents a step on one H100 goes "
                "{h100.train_distilbert_b32_vs_trainer} times as fast as `transformers.Trainer` in bf16; "
                "RoBERTa-base on long pairs {h100.train_roberta_base_pairs_vs_trainer} times, MiniLM on two "
                "CPU cores {cpu.train_vs_trainer} times."
            ),
            (
                "To the same validation accuracy on 20 Newsgroups it takes "
                "{h100.train_time_to_accuracy_vs_trainer} of Trainer's time."
            ),
        ),
        chart="training",
        chart_title="Documents trained on a second, over another way",
        bars=(
            Ratio(
                claim="h100.train_distilbert_b32_vs_ddp_recipe", label="DistilBERT, over a plain fp32 loop"
            ),
            Ratio(claim="h100.train_distilbert_b32_vs_trainer", label="DistilBERT, over Trainer"),
            Ratio(
                claim="h100.train_roberta_base_pairs_vs_trainer", label="RoBERTa-base, pairs, over Trainer"
            ),
            Ratio(claim="cpu.train_vs_trainer", label="MiniLM, 2 CPU cores, over Trainer"),
            Ratio(claim="h100x2.train_scaling", label="DistilBERT, 2 GPUs over 1", ceiling=2),
            Ratio(claim="h100x2.train_roberta_base_scaling", label="RoBERTa-base, 2 GPUs over 1", ceiling=2),
        ),
        one="as fast as the other",
        ceiling="two GPUs, nothing lost",
    ),
    Question(
        title="How fast is serving?",
        answer=(
            (
                "One H100 answers {h100.serve_requests_vs_naive_fastapi} times as many requests as a plain "
                "asynchronous handler with the same model; two CPU cores "
                "{cpu.serve_requests_vs_naive_fastapi} times as many, or "
                "{cpu.serve_requests_vs_naive_fastapi/details/ratio_without_padding} times where it does not "
                "pad."
            ),
            (
                "Lists of documents over HTTP get {h100.serve_batch_over_engine} of the engine's own rate. A "
                "text of 500 tokens on an idle server takes {h100.serve_idle_p50_ms_500_tokens} ms; serving "
                "adds {cpu.serve_added_latency_ms_p50} ms to the forward pass on a CPU."
            ),
        ),
        chart="serving",
        chart_title="Requests or documents a second, over another way",
        bars=(
            Ratio(claim="h100.serve_requests_vs_naive_fastapi", label="H100, over a plain handler"),
            Ratio(claim="cpu.serve_requests_vs_naive_fastapi", label="2 CPU cores, over a plain handler"),
            Ratio(
                claim="h100.serve_batch_over_engine", label="/predict/batch, over the engine alone", ceiling=1
            ),
            Ratio(claim="cpu.serve_overload_goodput", label="3 times the load, over its capacity", ceiling=1),
        ),
        one="as fast as the other",
    ),
    Question(
        title="How long does starting take?",
        answer=(
            (
                "From a fresh process to the first document RoBERTa-base takes "
                "{h100.cold_start_seconds_roberta_base} s on a machine that has compiled nothing yet, "
                "{h100.warm_start_seconds_roberta_base} s afterwards. A server with MiniLM on a CPU is ready "
                "after {cpu.serve_seconds_to_ready} s."
            ),
            (
                "A run of 10,000 published parts goes on after {resume.seconds_10000_parts} s. The whole "
                "quickstart takes {quickstart.seconds_after_install} s on two cores."
            ),
        ),
        chart="starting",
        chart_title="Seconds until the first document, answer or new unit",
        bars=(
            Ratio(claim="h100.cold_start_seconds_roberta_base", label="engine, H100, empty caches"),
            Ratio(claim="h100.warm_start_seconds_roberta_base", label="engine, H100, warm caches"),
            Ratio(claim="cpu.serve_seconds_to_ready", label="server, MiniLM, CPU"),
            Ratio(claim="resume.seconds_10000_parts", label="run of 10,000 parts goes on"),
        ),
        unit=" s",
    ),
    Question(
        title="How fast is merging, and in how much memory?",
        answer=(
            (
                "Verifying and merging 10 million rows runs at {merge.speed_vs_duckdb} times the rate of "
                "DuckDB's join on a string id and peaks at {merge.memory_vs_duckdb} of its memory."
            ),
            (
                "Memory does not grow with the corpus: a worker peaks at {memory.peak_1e7_rows_over_1e5_rows}"
                " times as much for 10 million rows as for 100,000."
            ),
        ),
        chart="merging",
        chart_title="Verify and merge over DuckDB's join, 10 million rows",
        bars=(
            Ratio(claim="merge.speed_vs_duckdb", label="rows a second (more is better)"),
            Ratio(claim="merge.memory_vs_duckdb", label="peak memory (less is better)"),
        ),
        one="DuckDB",
    ),
)

HEAD = f"""# Performance

Made by `python tools/performance_page.py` from `{RESULTS}`, which the benchmarks write; `make check`
compares it. Each script under `benchmarks/` measures one claim and, in the same run, what it is compared with. The
[table](#all-results) below has hardware, versions, date and command of each figure.
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
made again with `python tools/performance_page.py`. Results are never edited. Run on a machine that does nothing else.
"""

HEADER = ("claim", "value", "compared with", "hardware", "versions", "date", "command")
KEYS = ("claim", "value", "unit", "baseline", "hardware", "versions", "date", "command")


def performance_files(root: Path) -> dict[str, str]:
    """The page and its charts by path, for the project at `root`.

    Raises ValueError naming a line that is not a result.
    """
    results = read_results(root / RESULTS)
    if not results:
        return {PAGE: HEAD.replace("[table](#all-results) below", "table") + EMPTY + TAIL}
    by_claim = {str(result["claim"]): result for result in results}
    drawings = {question.chart: _drawing(question, by_claim) for question in QUESTIONS}
    sections = "".join(_section(question, by_claim, drawings[question.chart]) for question in QUESTIONS)
    page = HEAD + sections + "\n## All results\n" + _table(results) + TAIL
    return {PAGE: page} | {f"{CHARTS}/{name}.svg": svg for name, svg in drawings.items() if svg}


def _section(question: Question, results: Mapping[str, Result], drawing: str) -> str:
    said = [sentence for template in question.answer if (sentence := _filled(template, results))]
    if not said:
        return ""
    picture = f"\n![{question.chart_title}](performance/{question.chart}.svg)\n" if drawing else ""
    return f"\n## {question.title}\n\n" + "\n".join(said) + "\n" + picture


def _filled(template: str, results: Mapping[str, Result]) -> str | None:
    """The sentence with its figures; None where one of them has not been recorded."""
    values = {name: _look_up(results, name) for name in PLACEHOLDER.findall(template)}
    if None in values.values():
        return None
    return PLACEHOLDER.sub(lambda found: f"**{_short(values[found[1]])}**", template)


def _look_up(results: Mapping[str, Result], name: str) -> float | None:
    """`claim` is the value of a claim, `claim/details/key` what its result holds below."""
    claim, *below = name.split("/")
    found: object = results.get(claim)
    for key in below or ["value"]:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _drawing(question: Question, results: Mapping[str, Result]) -> str:
    bars = [bar for engine in question.engines for bar in _engine_bars(engine, results)]
    for each in question.bars:
        value = _look_up(results, each.claim)
        if value is not None:
            shown = f"{_short(value)}{question.unit}"
            bars.append(Bar(label=each.label, value=value, shown=shown, ceiling=each.ceiling))
    if not bars:
        return ""
    return bar_drawing(question.chart_title, bars, one=question.one, ceiling=question.ceiling)


def _engine_bars(engine: Ratio, results: Mapping[str, Result]) -> list[Bar]:
    """Two bars of a claim about an engine, ours and the usual recipe's, with the card's ceiling."""
    bars = []
    for side, label in (("ours", engine.label), ("baseline", "usual recipe, bf16")):
        teraflops, rate, share = (
            _look_up(results, f"{engine.claim}/details/{side}/{key}")
            for key in ("teraflops", "docs_per_second", "ceiling_share")
        )
        if teraflops is None or rate is None or share is None:
            return []
        bars.append(
            Bar(
                label=label,
                value=teraflops,
                shown=f"{_short(teraflops)}, {_short(rate)} docs/s",
                is_ours=side == "ours",
                ceiling=teraflops / share,
            )
        )
    return bars


def _short(value: float | None) -> str:
    """A figure for a sentence: three digits, or all of those before the point."""
    assert value is not None
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


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


def write(root: Path) -> None:
    """Write the page and its charts, and remove charts that it no longer has."""
    wanted = performance_files(root)
    for path in (root / CHARTS).glob("*.svg"):
        if path.relative_to(root).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(ROOT)
