"""The evidence of a Siamese bundle on the disk: `pair_head/evidence.json` and `pair_head/lexicon.parquet`.

    evidence.json     weights of the pieces of evidence, the style features' spread, and how much network and
                      evidence count
    lexicon.parquet   a row a token: kind, token, num_documents (rarities), mean and deviation (frequent words)

A model without evidence has neither.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assay.bundle.description import FORMAT_VERSION, check_version, pretty
from assay.errors import BundleError
from assay.model.checkpoint import is_number, read_json
from assay.siamese.evidence import Combination, PairEvidence, Regression, evidence_names
from assay.siamese.lexicon import FrequentWords, Lexicon, Rarity
from assay.siamese.style_files import read_style, style_content

EVIDENCE_FILE, LEXICON_FILE = "evidence.json", "lexicon.parquet"
_WAY_OUT = "copy the whole bundle again, or train it again"
_RARITIES = ("words_by_text", "words_by_book", "stems_by_book", "names_by_book")
_FREQUENT = "frequent"
_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("token", pa.string(), nullable=False),
        pa.field("num_documents", pa.int32()),
        pa.field("mean", pa.float64()),
        pa.field("deviation", pa.float64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeighedEvidence:
    """Evidence of words and style, and how much it counts beside the network."""

    evidence: PairEvidence
    combination: Combination


def evidence_files(folder: Path) -> tuple[Path, ...]:
    """The files in a folder `pair_head` that `read_evidence` reads; none where the model has no evidence."""
    return (folder / EVIDENCE_FILE, folder / LEXICON_FILE) if (folder / EVIDENCE_FILE).is_file() else ()


def read_evidence(folder: Path) -> WeighedEvidence | None:
    """What `write_evidence` wrote into a folder `pair_head`, or None where there is none.

    Raises `BundleError` for files that are damaged or of a newer version.
    """
    if not evidence_files(folder):
        return None
    file = folder / EVIDENCE_FILE
    content: dict[str, Any] = dict(read_json(file, missing=_WAY_OUT))
    check_version(file, content)
    style = read_style(content.get("style"))
    combination, regression = (content.get(name) for name in ("combination", "regression"))
    if style is None or not isinstance(combination, dict) or not isinstance(regression, dict):
        raise _damaged(file, "style, regression and combination are needed")
    numbers = [combination.get(name) for name in ("network", "evidence", "bias")]
    columns = [regression.get(name) for name in ("means", "deviations", "weights")]
    expected = len(evidence_names(style))
    whole = all(
        isinstance(column, list) and len(column) == expected and all(map(is_number, column))
        for column in columns
    )
    if not whole or not all(map(is_number, [*numbers, regression.get("bias")])):
        raise _damaged(file, f"{expected} means, deviations and weights, a bias and a combination are needed")
    return WeighedEvidence(
        evidence=PairEvidence(
            lexicon=_read_lexicon(folder / LEXICON_FILE),
            style=style,
            regression=Regression(
                means=tuple(regression["means"]),
                deviations=tuple(regression["deviations"]),
                weights=tuple(regression["weights"]),
                bias=float(regression["bias"]),
            ),
        ),
        combination=Combination(
            **{name: float(combination[name]) for name in ("network", "evidence", "bias")}
        ),
    )


def write_evidence(folder: Path, weighed: WeighedEvidence) -> None:
    """Writes both files into a folder `pair_head` that is still being made."""
    evidence, combination = weighed.evidence, weighed.combination
    regression = evidence.regression
    content = {
        "format_version": FORMAT_VERSION,
        "combination": {
            "network": combination.network,
            "evidence": combination.evidence,
            "bias": combination.bias,
        },
        "regression": {
            "names": list(evidence.names),
            "means": list(regression.means),
            "deviations": list(regression.deviations),
            "weights": list(regression.weights),
            "bias": regression.bias,
        },
        "style": style_content(evidence.style),
    }
    folder.mkdir(exist_ok=True)
    (folder / EVIDENCE_FILE).write_bytes(pretty(content))
    _write_lexicon(folder / LEXICON_FILE, evidence.lexicon)


def _write_lexicon(file: Path, lexicon: Lexicon) -> None:
    rarities: dict[str, Rarity] = {name: getattr(lexicon, name) for name in _RARITIES}
    rows = [
        {"kind": name, "token": token, "num_documents": count}
        for name, rarity in rarities.items()
        for token, count in rarity.counts.items()
    ]
    frequent = lexicon.frequent
    rows += [
        {"kind": _FREQUENT, "token": token, "mean": mean, "deviation": deviation}
        for token, mean, deviation in zip(frequent.tokens, frequent.means, frequent.deviations, strict=True)
    ]
    documents = {name: rarity.num_documents for name, rarity in rarities.items()}
    schema = _SCHEMA.with_metadata({"num_documents": json.dumps(documents)})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")


def _read_lexicon(file: Path) -> Lexicon:
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(file, str(error).splitlines()[0]) from None
    metadata = table.schema.metadata or {}
    try:
        documents = json.loads(metadata.get(b"num_documents", b"null"))
        table = table.cast(_SCHEMA.with_metadata(table.schema.metadata))
        sizes = {name: int(documents[name]) for name in _RARITIES}
    except (ValueError, TypeError, KeyError):
        raise _damaged(file, "its columns are not a lexicon's") from None
    kinds: dict[str, list[tuple[Any, ...]]] = {name: [] for name in (*_RARITIES, _FREQUENT)}
    columns = [table.column(name).to_pylist() for name in _SCHEMA.names]
    for kind, *values in zip(*columns, strict=True):
        if kind in kinds:
            kinds[kind].append(tuple(values))
    frequent = kinds[_FREQUENT]
    return Lexicon(
        **{
            name: Rarity(
                counts={token: count for token, count, _, _ in kinds[name]}, num_documents=sizes[name]
            )
            for name in _RARITIES
        },
        frequent=FrequentWords(
            tokens=tuple(token for token, _, _, _ in frequent),
            means=tuple(mean for _, _, mean, _ in frequent),
            deviations=tuple(deviation for _, _, _, deviation in frequent),
        ),
    )


def _damaged(file: Path, why: str) -> BundleError:
    return BundleError(f"{file}: {why}; {_WAY_OUT}")
