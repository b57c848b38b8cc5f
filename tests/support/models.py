"""Small real classifiers: a random BERT with the tokenizer of `write_bundle`; an answer in milliseconds."""

import json

import torch
from support.bundles import write_bundle
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification

PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def write_model(folder, *, labels=("ham", "spam"), task="single_label", nan_word=None, seed=0):
    """A bundle folder whose weights are those of a whole model; texts with `nan_word` make it give NaN."""
    write_bundle(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            # far from zero, so that a mix-up moves the scores
            initializer_range=0.3,
            problem_type=PROBLEM_TYPES[task],
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
    )
    if nan_word is not None:
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[tokenizer.token_to_id(nan_word)] = float("nan")
    model.save_pretrained(folder)
    return folder


def change_json(file, **changes):
    """Write `changes` over the top level of a JSON file; None removes a key."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
