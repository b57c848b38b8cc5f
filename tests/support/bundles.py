"""A small bundle for runs whose engine or workers are fake: real configuration and tokenizer, no real weights."""

import json

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ("document", "of", *map(str, range(100)))
CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "id2label": {"0": "ham", "1": "spam"},
    "label2id": {"ham": 0, "spam": 1},
}


def write_bundle(folder, *, weight=0.0):
    """A bundle folder; another `weight` makes it another model."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {
        word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS))
    }
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    names = {f"{name}_token": token for name, token in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **names}))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": len(vocab)}))
    save_file({"classifier.bias": np.full(2, weight, np.float32)}, folder / "model.safetensors")
    return folder


def write_encoder(folder, *, normalize=True, prompts=None):
    """A folder of sentence-transformers' making for runs whose engine is fake: vectors of 8 numbers, means."""
    write_bundle(folder)
    config = {name: value for name, value in CONFIG.items() if name not in {"id2label", "label2id"}}
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": ["BertModel"], "vocab_size": vocab_size})
    )
    kinds = ("Transformer", "Pooling", *(("Normalize",) if normalize else ()))
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": "" if index == 0 else f"{index}_{kind}",
            "type": f"s.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder
