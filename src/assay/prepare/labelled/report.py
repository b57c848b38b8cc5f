"""What was prepared: read, changed, dropped and split, as JSON beside the data and as lines for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.errors import RefusedError
from assay.prepare.labelled.decide import REASONS

PREPARED_FILE = "prepare.json"
FORMAT_VERSION = 1
_LIMITS = (128, 256, 512)
_WAY_OUT = "name another --out, or give --overwrite to replace it"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """How long the texts of a split are, in tokens, special ones included."""

    total: int
    median: int
    p95: int
    longest: int
    longer_than: Mapping[str, float]
    """Share of the texts over so many tokens."""

    @classmethod
    def of(cls, lengths: NDArray[np.int32]) -> "TokenCounts":
        """The counts of texts with these lengths."""
        size = max(1, len(lengths))
        some = lengths if len(lengths) else np.zeros(1, np.int32)
        return cls(
            total=int(lengths.sum()),
            median=int(np.median(some)),
            p95=int(np.quantile(some, 0.95)),
            longest=int(some.max()),
            longer_than={str(limit): float((lengths > limit).sum() / size) for limit in _LIMITS},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReport:
    """What became of the rows of the sources."""

    identity: Mapping[str, Any]
    """Version, settings and sources: what decides the result."""
    num_read: int
    num_changed: int
    """Texts that cleaning changed."""
    num_dropped: Mapping[str, int]
    """Rows by reason."""
    num_conflicts: int
    """Rows whose text occurs with another label."""
    num_rows: Mapping[str, int]
    """Rows by split."""
    split: str
    """The splits in lines for people."""
    rows_by_label: Mapping[str, Mapping[str, int]]
    tokens: Mapping[str, TokenCounts] | None = None
    """By split, where a tokenizer was named."""
    warnings: tuple[str, ...] = ()

    def with_tokens(self, tokens: Mapping[str, TokenCounts] | None) -> "PrepareReport":
        """The report with the token counts of its splits."""
        return replace(self, tokens=tokens)

    def to_bytes(self) -> bytes:
        """The report as the content of `prepare.json`."""
        content = {"format_version": FORMAT_VERSION, "kind": "labelled", **asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"

    def __str__(self) -> str:
        """For people: what was read, dropped and split, and what is odd."""
        lines = [f"read {self.num_read:,} rows; cleaning changed {self.num_changed:,} texts"]
        total = sum(self.num_dropped.values())
        reasons = [
            f"{count:,} {REASONS.get(code, code)}"
            for code, count in sorted(self.num_dropped.items(), key=lambda item: (-item[1], item[0]))
        ]
        lines.append(f"dropped {total:,} rows" + (f": {'; '.join(reasons)}" if reasons else ""))
        lines.append(self.split)
        for name, tokens in (self.tokens or {}).items():
            over = ", ".join(f"{share:.1%} over {limit}" for limit, share in tokens.longer_than.items())
            lines.append(
                f"tokens of {name}: median {tokens.median:,}, 95% up to {tokens.p95:,},"
                f" longest {tokens.longest:,}; {over}"
            )
        return "\n".join([*lines, *(f"warning: {line}" for line in self.warnings)])


def read_report(out: Path) -> PrepareReport | None:
    """The report of what was prepared into a folder; None where nothing was, or by another format."""
    try:
        content = json.loads((out / PREPARED_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.pop("kind", None) != "labelled":
        return None
    if content.pop("format_version", None) != FORMAT_VERSION:
        return None
    tokens = content.pop("tokens", None)
    warnings = tuple(content.pop("warnings", ()))
    try:
        counts = tokens and {name: TokenCounts(**each) for name, each in tokens.items()}
        return PrepareReport(**content, tokens=counts, warnings=warnings)
    except TypeError:
        return None


def refuse_other(
    out: Path, earlier: PrepareReport | None, identity: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Raise `RefusedError` where the folder holds anything but what may be replaced."""
    if earlier is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RefusedError(f"{out} holds other files; nothing is written among them; name a new --out")
        return
    if overwrite:
        return
    name = next(key for key in identity if earlier.identity.get(key) != identity[key])
    then, now = earlier.identity.get(name), identity[name]
    what = "from other sources" if name == "sources" else f"with {name} {then!r}, now {now!r}"
    raise RefusedError(f"{out} was prepared {what}; {_WAY_OUT}")
