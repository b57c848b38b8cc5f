"""A tiny encoder with a real tokenizer, and rows that it can learn."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from assay.train.rows import LabelledRows

WORDS = ("cat", "dog", "the", "a", "sat", "ran", "on", "under", "mat", "hill", "red", "blue", "saw", "heard")


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Folder of an encoder without a head: 2 layers, 32 wide, 20 words."""
    folder = tmp_path_factory.mktemp("base")
    vocabulary = {word: index for index, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def animal_rows(num_rows, *, seed, labels=("cat", "dog")):
    """Sentences whose label is the animal in them; no two alike."""
    rng = random.Random(seed)
    texts = {}
    while len(texts) < num_rows:
        label = labels[len(texts) % len(labels)]
        words = rng.choices(WORDS[2:], k=rng.randint(4, 14))
        words.insert(rng.randrange(len(words)), label)
        texts.setdefault(" ".join(words), label)
    return LabelledRows(texts=tuple(texts), labels=tuple(texts.values()))


@pytest.fixture
def rows():
    """64 rows to train on and 32 others to validate on."""
    everything = animal_rows(96, seed=1)
    return everything.take(range(64)), everything.take(range(64, 96))


@pytest.fixture
def save_rows(tmp_path):
    """Writes rows to a Parquet file and returns its path."""

    def save(name, labelled, **columns):
        table = {"text": labelled.texts, "label": labelled.labels, **columns}
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({key: list(value) for key, value in table.items()}), path)
        return str(path)

    return save
