"""A sentence encoder's folder: checked, and what it says of the vectors that it gives.

Any encoder will do: a sentence-transformers folder, a plain transformers one, a fine-tuned classifier, whose
head is then left out.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from assay.errors import UsageError
from assay.model.checkpoint import Checkpoint, canonical_digest, hash_file, read_checkpoint
from assay.model.sentence_files import PoolingName, SentenceFiles, hidden_size_of, read_sentence_files
from assay.model.tokenizer_files import read_tokenizer, tokenizer_fingerprint, tokenizer_notes


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedder:
    """A checked folder of an encoder: what makes vectors of texts, and its identity."""

    checkpoint: Checkpoint
    """The model in it: its files, as they were when they were hashed."""
    files: SentenceFiles
    """What it says of pooling, projections, lengths and prompts."""
    default_max_length: int
    """Tokens that texts are cut to; `max_length` where nothing says so."""
    fingerprint: str
    """Hash of all that can change a vector, 32 hex digits; how it is pooled and normalised aside."""
    tokenizer_fingerprint: str
    """Hash of what turns text into ids, 32 hex digits."""
    notes: tuple[str, ...] = ()
    """Things the user should hear of, a sentence each."""

    @property
    def path(self) -> Path:
        """The folder."""
        return self.checkpoint.path

    @property
    def max_length(self) -> int:
        """Most tokens, special tokens included, that the model can take."""
        return self.checkpoint.max_length

    @property
    def dimension(self) -> int:
        """D, the length of its vectors."""
        return self.files.dense[-1].num_outputs if self.files.dense else hidden_size_of(self.checkpoint)

    def pooling(self, asked: PoolingName | Literal["auto"]) -> PoolingName:
        """How hidden states are pooled: as asked, for `auto` as the files say, else their mean.

        Raises UsageError for attention, which is trained, where the model has none.
        """
        if asked == "attention" and self.files.pooling != "attention":
            msg = (
                f"pooling attention; {self.path} has no weights for it (1_Pooling with pooling_mode attention); "
                "use --pooling mean or first_token, or a model that was trained with it"
            )
            raise UsageError(msg)
        return (self.files.pooling or "mean") if asked == "auto" else asked

    def normalized(self, asked: Literal["auto", "yes", "no"]) -> bool:
        """Whether vectors have length 1: as asked, for `auto` as the files say, else they do."""
        if asked != "auto":
            return asked == "yes"
        return True if self.files.normalized is None else self.files.normalized


def load_embedder(path: str | os.PathLike[str]) -> Embedder:
    """The encoder in a folder, after every check that needs no weights in memory.

    Reads the weights once to hash them (about a second a gigabyte). Raises `BundleError` for a folder that
    cannot be used (no tokenizer, modules that are not computed here) or must not be (pickles, remote code).
    """
    checkpoint = read_checkpoint(path)
    files = read_sentence_files(checkpoint.path)
    tokenizer = read_tokenizer(checkpoint.path)
    limit = checkpoint.max_length
    return Embedder(
        checkpoint=checkpoint,
        files=files,
        default_max_length=limit if files.max_length is None else min(files.max_length, limit),
        fingerprint=canonical_digest(
            {
                "config": checkpoint.config,
                "weights": {file.name: hash_file(file) for file in checkpoint.weights},
                "modules": {str(file.relative_to(checkpoint.path)): hash_file(file) for file in files.files},
            }
        ),
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        notes=(
            *checkpoint.notes,
            *tokenizer_notes(checkpoint.path, tokenizer, checkpoint.vocab_size),
            *_notes(checkpoint.path, files),
        ),
    )


def _notes(folder: Path, files: SentenceFiles) -> tuple[str, ...]:
    if files.pooling is not None:
        return ()
    told = "unless told otherwise they are means over all tokens, of length 1"
    return (f"{folder}: no modules.json says how vectors are made; {told}",)
