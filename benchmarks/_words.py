"""Made-up words and their tokenizer, for models with random weights; and transformers kept quiet."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BEGIN, PAD, END = 0, 1, 2
FIRST_WORD = len(SPECIALS)
"""Ids below are special ones in the vocabularies at hand."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, advice and load reports; afterwards it speaks as it did before."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    library, accelerate = transformers.utils.logging, logging.getLogger("accelerate")
    before = library.get_verbosity(), library.is_progress_bar_enabled(), accelerate.level
    library.set_verbosity_error()
    library.disable_progress_bar()
    accelerate.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.set_verbosity(before[0])
        if before[1]:
            library.enable_progress_bar()
        accelerate.setLevel(before[2])


def write_tokenizer(folder: Path, tokenizer: Tokenizer, max_length: int) -> None:
    """The two files of a tokenizer with `SPECIALS` into a folder; documents begin and end as RoBERTa's do."""
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", END), ("<s>", BEGIN))
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def word_tokenizer(folder: Path, vocab_size: int, max_length: int) -> None:
    """A tokenizer whose words are `w5`, `w6` and so on, each its own id: where ids are made up anyway."""
    vocab = {name: index for index, name in enumerate(SPECIALS)}
    vocab |= {f"w{index}": index for index in range(FIRST_WORD, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    write_tokenizer(folder, tokenizer, max_length)
