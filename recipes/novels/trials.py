"""What might help a Siamese network on unseen authors: a row a way of training, on the same test pairs.

    python recipes/novels/trials.py british_fiction --base ENCODER --out trials --device cuda --jobs 8

    plain                  as in unseen_authors.py
    easy negatives         same book: no training negative is by the same author
    names masked           Xx for names, in training and in the test
    masked words first     the encoder is trained on masked words of the training authors' novels before the pairs
    meeting books          SupCon by book and author; four pairs of a book and two books of an author meet in a step
    two more authors       the network is trained on two of the five test authors too, and tested on the other three

All but the last are measured on the pairs of five held-out authors, k chunks a side, and on those of the three of them
that the last is measured on. Jobs are a way, a split by author and a seed; lines of JSON go to `--out` as jobs end.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from cascade_tables import grouped, mean_by_split, of_seeds
from chunk_pairs import (
    NUM_TEST,
    NUM_TEST_WIDE,
    NUM_TRAIN,
    Chunks,
    Sides,
    draw_pairs,
    hold_out,
    interval,
    read_chunks,
    sides_of,
)
from scorers import SIAMESE, labelled, siamese_scorer, train_network
from timed_jobs import Lines, append_lines, read_lines, run_jobs
from two_stages import HELD_OUT, authors_of_cascade

from assay.books.normal_forms import normalise_typography

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

MASKED_SHARE, MASKED_LENGTH, MASKED_BATCH, MASKED_EPOCHS, MASKED_RATE = 0.15, 256, 64, 3, 1e-4
PLAIN, EASY, MASKED, LANGUAGE, MEETING, MORE = (
    "plain",
    "easy negatives",
    "names masked",
    "masked words first",
    "meeting books",
    "two more authors",
)
TASKS: Mapping[str, Sequence[str]] = {
    PLAIN: ("same_author", "same_book"),
    MORE: ("same_author", "same_book"),
    LANGUAGE: ("same_author", "same_book"),
    MEETING: ("same_author", "same_book"),
    MASKED: ("same_author", "same_book"),
    EASY: ("same_book",),
}
"""What each way is tried for, in the order of the jobs."""
MEETING_SETTINGS: Mapping[str, Any] = {
    "contrastive": "supcon",
    "contrastive_weight": 1.0,
    "author_weight": 0.5,
    "rows_per_book": 4,
    "books_per_author": 2,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one process does at a time."""

    way: str
    split: int
    seed: int

    @property
    def name(self) -> str:
        """In its lines."""
        return f"{self.way}-{self.split}-{self.seed}"


class Shared:
    """What each process is given once."""

    chunks: Mapping[bool, Chunks]
    """By whether names are masked."""
    options: argparse.Namespace


def share(chunks: Mapping[bool, Chunks], options: argparse.Namespace) -> None:
    """Called in each process before its first job."""
    Shared.chunks, Shared.options = chunks, options


def work(job: Job) -> Lines:
    """The AUCs of one way of training."""
    options, chunks = Shared.options, Shared.chunks[job.way == MASKED]
    began = time.monotonic()
    train_authors, validation_authors, test_authors = hold_out(chunks, HELD_OUT, job.split)
    two, three = authors_of_cascade(chunks, test_authors, Random(f"{job.split}-0"))
    tests = {"five": test_authors, "three": three}
    if job.way == MORE:
        train_authors, tests = sorted([*train_authors, *two]), {"three": three}
    lines: Lines = []
    with tempfile.TemporaryDirectory() as name:
        folder, base = Path(name), options.base
        if job.way == LANGUAGE:
            base = str(folder / "encoder")
            train_on_masked_words(novels_of(train_authors), options, base, seed=job.seed)
        for task in TASKS[job.way]:
            train = sides_of(chunks, task, train_authors, options.num_train, 1, 10 * job.split)
            if job.way == EASY:
                pairs = draw_pairs(chunks, train_authors, options.num_train, 1, Random(10 * job.split))
                train = Sides.of(pairs.same_book, pairs.others)
            validation = sides_of(
                chunks, task, validation_authors, options.num_test // 2, 1, 10 * job.split + 1
            )
            train_network(
                labelled(chunks, train),
                labelled(chunks, validation),
                folder / task,
                base=base,
                language=options.language,
                settings={
                    **SIAMESE,
                    **(MEETING_SETTINGS if job.way == MEETING else {}),
                    "seed": job.seed,
                    **dict(options.set),
                },
            )
            network = siamese_scorer(chunks, folder / task, options.device)
            for k in options.chunks_a_side:
                num_test = options.num_test if k == 1 else NUM_TEST_WIDE
                for among, authors in tests.items():
                    test = draw_pairs(chunks, authors, num_test, k, Random(99 + job.split))
                    for question, (positives, negatives) in test.of(task).items():
                        sides = Sides.of(positives, negatives)
                        lines.append(
                            {
                                "kind": "row",
                                "question": question,
                                "k": k,
                                "among": among,
                                "row": job.way,
                                "auc": sides.auc(network(sides)),
                                "split": job.split,
                                "seed": job.seed,
                            }
                        )
    return [*lines, {"kind": "done", "job": job.name, "seconds": time.monotonic() - began}]


# ---------------------------------------------------------------- masked words


def novels_of(authors: Sequence[str]) -> list[str]:
    """The whole novels of authors, as chunks are made of them."""
    options = Shared.options
    texts = [
        normalise_typography(file.read_text(encoding="utf-8", errors="replace"))
        for file in sorted(options.folder.glob("*.txt"))
        if file.stem.split("_")[0] in authors
    ]
    return [text[:20_000] for text in texts] if options.tiny else texts


def train_on_masked_words(texts: Sequence[str], options: argparse.Namespace, out: str, *, seed: int) -> None:
    """An encoder that has learned to fill in masked words of texts (Devlin et al. 2019), written to `out`.

    Plain transformers, for BERT: three passes, 15% of the tokens, of which 80% masked, 10% others and 10% as they are.
    """
    import torch
    from transformers import AutoTokenizer, BertForMaskedLM

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = BertForMaskedLM.from_pretrained(options.base, dtype=torch.float32).to(options.device).train()
    inner = MASKED_LENGTH - 2
    ids = [
        id_ for text in texts for id_ in tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    ]
    rows = np.array(ids[: len(ids) // inner * inner]).reshape(-1, inner)
    rows = np.pad(rows, ((0, 0), (1, 1)))
    rows[:, 0], rows[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    data_NT = torch.from_numpy(rows).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=MASKED_RATE, weight_decay=0.01)
    epochs = 1 if options.tiny else MASKED_EPOCHS
    num_steps = epochs * -(-len(data_NT) // MASKED_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, MASKED_RATE, total_steps=num_steps, pct_start=0.1, anneal_strategy="linear"
    )
    draw = torch.Generator(options.device).manual_seed(seed)
    began, losses = time.monotonic(), []
    for _ in range(epochs):
        order_N = torch.randperm(len(data_NT), generator=draw, device=options.device)
        for pick in order_N.split(MASKED_BATCH):
            input_ids, labels = _masked(data_NT[pick], tokenizer, draw)
            with torch.autocast(options.device, torch.bfloat16):
                hidden_NTH = model.base_model(input_ids=input_ids).last_hidden_state
                words_KV = model.cls(hidden_NTH[labels >= 0])  # of the masked places alone
            loss = torch.nn.functional.cross_entropy(words_KV.float(), labels[labels >= 0])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
    found = torch.stack(losses).float().cpu().numpy()
    print(
        f"  masked words: {len(ids):,} tokens, {num_steps} steps, {time.monotonic() - began:.0f} s, "
        f"loss {found[:20].mean():.2f} to {found[-20:].mean():.2f}",
        flush=True,
    )
    shutil.copytree(options.base, out, ignore=shutil.ignore_patterns("*.safetensors"))
    model.base_model.save_pretrained(out)


def _masked(
    ids_NT: "torch.Tensor", tokenizer: "PreTrainedTokenizerBase", draw: "torch.Generator"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Token ids with some masked, and the ids to be found, -100 elsewhere."""
    import torch

    chance_NT, kind_NT = (torch.rand(ids_NT.shape, generator=draw, device=ids_NT.device) for _ in range(2))
    special_NT = (ids_NT == tokenizer.cls_token_id) | (ids_NT == tokenizer.sep_token_id)
    chosen_NT = (chance_NT < MASKED_SHARE) & ~special_NT
    labels_NT = ids_NT.masked_fill(~chosen_NT, -100)
    other_NT = torch.randint(len(tokenizer), ids_NT.shape, generator=draw, device=ids_NT.device)
    masked_NT = ids_NT.masked_fill(chosen_NT & (kind_NT < 0.8), tokenizer.mask_token_id)
    return torch.where(chosen_NT & (kind_NT >= 0.9), other_NT, masked_NT), labels_NT


# ---------------------------------------------------------------- what is printed


def print_tables(lines: Lines) -> None:
    """Means over splits, each seed's in brackets; then the difference to the plain way on the splits of both."""
    for (among, question, k, row), each in grouped(lines, "row", "among", "question", "k", "row").items():
        mean, half = interval(mean_by_split(each))
        splits = len({line["split"] for line in each})
        plain = {
            (line["split"], line["seed"]): line["auc"]
            for line in lines
            if line["kind"] == "row"
            and (line["among"], line["question"], line["k"], line["row"]) == (among, question, k, PLAIN)
        }
        differences = [
            {**line, "auc": line["auc"] - plain[line["split"], line["seed"]]}
            for line in each
            if (line["split"], line["seed"]) in plain
        ]
        gain, spread = interval(mean_by_split(differences)) if differences else (0.0, 0.0)
        print(
            f"{among:5} {question:17} k={k:<2} {row:19} {mean:.3f} +- {half:.3f} ({of_seeds(each)}) of {splits} splits"
            f"  over plain {gain:+.3f} +- {spread:.3f}"
        )


def main() -> None:
    """Jobs, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", required=True, help="encoder that networks start from")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--language", default="en")
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--chunks-a-side", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop in time to print the table")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="other training settings")
    parser.add_argument("--tiny", action="store_true", help="few pairs and steps: a smoke test, no result")
    options = parser.parse_args()
    began = time.monotonic()
    options.set = [
        (name, json.loads(value)) for name, _, value in (each.partition("=") for each in options.set)
    ]
    options.num_train, options.num_test = (40, 60) if options.tiny else (NUM_TRAIN, NUM_TEST)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "lines.jsonl"
    chunks = {
        mask: read_chunks(options.folder, options.language, mask=mask)
        for mask in sorted({way == MASKED for way in options.ways})
    }
    print(f"{time.monotonic() - began:.0f} s to read the novels", flush=True)
    done = {line["job"] for line in read_lines(file) if line["kind"] == "done"}
    jobs = [
        Job(way=way, split=split, seed=seed)
        for seed in options.seeds
        for split in range(options.splits)
        for way in options.ways
    ]
    for lines in run_jobs(
        [job for job in jobs if job.name not in done],
        work,
        num_processes=options.jobs,
        initializer=share,
        initargs=(chunks, options),
        until=began + options.seconds,
    ):
        append_lines(file, lines)
        found = defaultdict(dict)
        for line in lines[:-1]:
            found[line["question"]][line["k"], line["among"]] = round(line["auc"], 3)
        print(f"{time.monotonic() - began:4.0f} s {lines[-1]['job']}: {dict(found)}", flush=True)
    print_tables(read_lines(file))


if __name__ == "__main__":
    main()
