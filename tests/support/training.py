"""What tests of training share: a tiny encoder with a real tokenizer, rows that it learns, settings for both."""

import random

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

from assay.labelled.rows import LabelledRows
from assay.train.settings import TrainSettings

WORDS = ("cat", "dog", "the", "a", "sat", "ran", "on", "under", "mat", "hill", "red", "blue", "saw", "heard")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
TINY_BERT = BertConfig(
    vocab_size=len(SPECIALS) + len(WORDS),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
)
"""2 layers, 32 wide."""


def write_base(folder, config=TINY_BERT, words=WORDS):
    """An encoder without a head: random weights of this config, and a tokenizer of these words."""
    vocabulary = {word: index for index, word in enumerate((*SPECIALS, *words))}
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
    AutoModel.from_config(config).save_pretrained(folder)
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


def settings(base, out, **changes):
    """Settings under which the tiny encoder learns the animals in a second."""
    values = {
        "base": str(base),
        "out": str(out),
        "data": ("rows",),
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "max_length": 32,
        "num_threads": 1,
        "near_duplicates": False,
    }
    return TrainSettings(**{**values, **changes})


def fit_forked(values, train_rows, validation_rows, sender):
    """Train in a process of its own, and send the report as plain values; for `multiprocessing`."""
    from assay.train.train import fit

    report = fit(TrainSettings(**values), train_rows, validation_rows)
    sender.send(report.to_json())
