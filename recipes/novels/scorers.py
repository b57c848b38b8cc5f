"""What scores pairs of sides: counts of words, networks trained by Assay, an encoder as it is.

A scorer takes `Sides` and gives a number a pair, the higher the likelier that both sides belong together.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from chunk_pairs import Chunks, Sides
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from assay.labelled.rows import LabelledRows
from assay.siamese.evidence import EvidenceTexts, PairEvidence, Regression
from assay.siamese.lexicon import SIMILARITIES, similarities

REGRESSION, WORDS = "regression on TF-IDF, Delta, style", "words and style"
PENALTY = 0.01
"""Of the regressions on a part of the evidence: that of the evidence itself."""
Floats = npt.NDArray[np.float64]
Scorer = Callable[[Sides], Floats]


def without_network(
    chunks: Chunks, train: Sides, language: str, *, ablation: bool = False
) -> dict[str, Scorer]:
    """Cosines, a plain regression on three of them and the style, and the product's words and style.

    With `ablation` also the last without its words, and without its style.
    """
    evidence = PairEvidence.fit(
        train.texts(chunks),
        train.first_M,
        train.second_M,
        train.is_positive_M,
        books=train.books(chunks),
        language=language,
    )

    @lru_cache(maxsize=2)
    def encoded(sides: Sides) -> EvidenceTexts:
        return evidence.encode(sides.texts(chunks))

    def cosines(sides: Sides) -> Floats:
        return similarities(encoded(sides).lexical, sides.first_M, sides.second_M).astype(np.float64)

    def styles(sides: Sides) -> Floats:
        style_NF = encoded(sides).style_NF
        return np.abs(style_NF[sides.first_M] - style_NF[sides.second_M]).astype(np.float64)

    used = [SIMILARITIES.index(name) for name in ("words", "delta_400", "delta_100")]
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1_000))

    def plainly_seen(sides: Sides) -> Floats:
        return np.hstack([cosines(sides)[:, used], styles(sides)])

    regression.fit(plainly_seen(train), train.is_positive_M)
    scorers: dict[str, Scorer] = {
        "TF-IDF cosine": lambda sides: cosines(sides)[:, SIMILARITIES.index("words")],
        "Cosine Delta": lambda sides: cosines(sides)[:, SIMILARITIES.index("delta_400")],
        REGRESSION: lambda sides: regression.decision_function(plainly_seen(sides)),
        WORDS: lambda sides: evidence.log_odds(encoded(sides), sides.first_M, sides.second_M),
    }
    if ablation:
        for name, seen in (("words, no style", cosines), ("style, no words", styles)):
            part = Regression.fit(seen(train), train.is_positive_M, penalty=PENALTY)
            scorers[name] = lambda sides, part=part, seen=seen: part(seen(sides))
    return scorers


# ---------------------------------------------------------------- networks


def labelled(chunks: Chunks, sides: Sides) -> LabelledRows:
    """Pairs of single chunks as `assay train` takes them."""
    texts, labels = sides.texts(chunks), np.where(sides.is_positive_M, "1", "0")
    return LabelledRows(
        texts=tuple(texts[row] for row in sides.first_M),
        text_pairs=tuple(texts[row] for row in sides.second_M),
        labels=tuple(labels.tolist()),
        keys={
            f"{name}{number}": tuple(column[sides.sides[row][0]] for row in rows_M)
            for name, column in (("book", chunks.books), ("author", chunks.authors))
            for number, rows_M in ((1, sides.first_M), (2, sides.second_M))
        },
    )


TRAINING: Mapping[str, Any] = {
    "text_pair_column": "text2",
    "batch_size": 32,
    "epochs": 3,
    "evaluate_every": 40,
    "patience": 6,
    "best_by": "nll",
    "near_duplicates": False,
}
"""Settings of every network here; no chunk is looked for on both sides, since authors are held out."""
SIAMESE: Mapping[str, Any] = {
    "architecture": "siamese",
    "book_columns": ("book1", "book2"),
    "author_columns": ("author1", "author2"),
    "style": "none",
    "evidence": "none",
    "max_length": 384,
}
"""Those of a Siamese network; 384 tokens a side."""
CROSS_ENCODER: Mapping[str, Any] = {"max_length": 512}
"""Those of a cross-encoder: both sides and three special tokens, so at most 254 of a side where both are longer."""


def train_network(
    train: LabelledRows,
    validation: LabelledRows,
    out: Path,
    *,
    base: str,
    language: str,
    settings: Mapping[str, Any],
) -> None:
    """A bundle at `out`, by `assay train`; stopped on authors that it was not trained on."""
    from assay.train.settings import TrainSettings
    from assay.train.train import fit

    values = {"language": language, **TRAINING, **settings}
    report = fit(
        TrainSettings(base=base, out=str(out), data=("pairs of novels",), **values), train, validation
    )
    print(
        f"  {out.name}: step {report.best.step}, {report.seconds:.0f} s, {dict(report.validation)}",
        flush=True,
    )


def siamese_scorer(chunks: Chunks, folder: Path, device: str) -> Scorer:
    """The network of a Siamese bundle, without evidence; a side's vector is the mean of its chunks'."""
    from assay.siamese.pairs import load_siamese
    from assay.siamese.scoring import margins

    model = load_siamese(folder, device=device)

    def score(sides: Sides) -> Floats:
        numbers = {row: number for number, row in enumerate(sorted({row for s in sides.sides for row in s}))}
        encoded = model.encode([chunks.texts[row] for row in numbers])
        means = np.stack(
            [encoded.vectors_ND[[numbers[row] for row in side]].mean(axis=0) for side in sides.sides]
        )
        whole = replace(
            encoded,
            vectors_ND=means / np.linalg.norm(means, axis=1, keepdims=True),
            style_NF=np.zeros((len(means), 0), dtype=np.float32),
            evidence=None,
        )
        return margins(model.score(whole, sides.first_M, sides.second_M).logits_MC)

    return score


def cross_scorer(chunks: Chunks, folder: Path, device: str) -> Scorer:
    """A cross-encoder; where sides are several chunks, the mean log-odds of the first with the first, and so on."""
    from assay.score.cascade.decide import log_odds_of
    from assay.score.classifier import load

    model = load(folder, device=device)

    def score(sides: Sides) -> Floats:
        rows = [
            each
            for one, two in zip(sides.first_M, sides.second_M, strict=True)
            for each in zip(sides.sides[one], sides.sides[two], strict=True)
        ]
        table = model.predict([chunks.texts[one] for one, _ in rows], [chunks.texts[two] for _, two in rows])
        found = table.column("prob_1").to_numpy(zero_copy_only=False).astype(np.float64)
        return log_odds_of(found).reshape(len(sides.first_M), -1).mean(axis=1)

    return score


def zero_shot_scorer(chunks: Chunks, folder: str, device: str) -> Scorer:
    """The cosine of an encoder's own vectors, the means of its hidden states; a side's is the mean of its chunks'."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    found = []
    for start in range(0, len(chunks.texts), 32):
        batch = tokenizer(
            chunks.texts[start : start + 32],
            truncation=True,
            max_length=SIAMESE["max_length"],
            padding=True,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            hidden_NTH = model(**batch).last_hidden_state
        mask_NT1 = batch["attention_mask"][:, :, None]
        mean_NH = (hidden_NTH * mask_NT1).sum(dim=1) / mask_NT1.sum(dim=1)
        found.append(torch.nn.functional.normalize(mean_NH, dim=1).cpu().numpy().astype(np.float64))
    vectors_NH = np.concatenate(found)

    def score(sides: Sides) -> Floats:
        means = np.stack([vectors_NH[list(side)].mean(axis=0) for side in sides.sides])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return np.einsum("mh,mh->m", means[sides.first_M], means[sides.second_M])

    return score
