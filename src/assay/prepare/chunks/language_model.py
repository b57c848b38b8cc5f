"""py3langid's model, unpacked once for this machine: a file in the user's cache, mapped by every process.

The package keeps its model in 4.6 MB that take half a second of a core and 68 MB of memory to unpack, in each process.
The file is named by a hash of those, so another model is another file; deleting it costs the next start that time.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa

from assay.proofs import Note, notes_folder

Classify = Callable[[str], tuple[str, float]]
"""Language and score of a text."""
_SCORES, _TABLE = np.dtype(np.float16), np.dtype(np.uint32)
_PRIORS, _FEATURES = np.dtype(np.float32), np.dtype(np.int32)


@functools.cache
def classifier() -> Classify:
    """What says the language of a text, exactly as py3langid does."""
    from py3langid import langid

    try:
        return identifier(langid.MODEL_DIR / langid.MODEL_FILE).classify  # type: ignore[no-any-return]
    except (OSError, AttributeError, ImportError, TypeError):
        # a cache that cannot be used, or a release of py3langid that is built otherwise
        return langid.classify  # type: ignore[no-any-return]


def identifier(packed: Path) -> Any:  # noqa: ANN401  of a package without types
    """py3langid's identifier over the unpacked model, which is made where it is missing."""
    from py3langid import langid

    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    file = notes_folder() / "language" / f"{digest}.arrow"
    if (found := _mapped(file)) is None:
        with Note.of("language model", digest).turn():
            if (found := _mapped(file)) is None:
                _unpack(packed, file)
                found = _mapped(file)
    assert found is not None, "it was written a moment ago"
    classes = json.loads(found["classes"].to_pybytes())
    # plain lists and a view of memory: an element of an array of numpy takes several times as long to get
    return langid.LanguageIdentifier(
        np.frombuffer(found["scores"], _SCORES).reshape(-1, len(classes)),
        np.frombuffer(found["priors"], _PRIORS),
        classes,
        memoryview(found["transitions"]).cast("I"),
        np.frombuffer(found["features"], _FEATURES).tolist(),
        tk_row=np.frombuffer(found["rows"], _TABLE).tolist(),
    )


def _mapped(file: Path) -> dict[str, pa.Buffer] | None:
    """The parts of the unpacked model, not yet read; None where it is missing or damaged."""
    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as reader:
            batch = reader.get_batch(0)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return {name: column[0].as_buffer() for name, column in zip(batch.schema.names, batch, strict=True)}


def _unpack(packed: Path, file: Path) -> None:
    """Write the unpacked model, whole or not at all. Raises TypeError where it is of other types than are known."""
    from py3langid.modelio import load_model

    scores, priors, classes, transitions, rows, features = load_model(packed)
    if (scores.dtype, priors.dtype) != (_SCORES, _PRIORS):
        raise TypeError(f"{packed}: scores are {scores.dtype} and {priors.dtype}")
    columns = {
        "scores": scores,
        "priors": priors,
        "classes": json.dumps(classes).encode(),
        "transitions": np.asarray(transitions, _TABLE),
        "rows": np.asarray(rows, _TABLE),
        "features": np.asarray(features, _FEATURES),
    }
    batch = pa.record_batch({name: _one_value(pa.py_buffer(value)) for name, value in columns.items()})
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f"{file.name}.{uuid4().hex}")
    try:
        with scratch.open("wb") as out:
            with pa.ipc.new_file(out, batch.schema) as writer:
                writer.write_batch(batch)
            out.flush()
            os.fsync(out.fileno())
        scratch.rename(file)
    finally:
        scratch.unlink(missing_ok=True)


def _one_value(content: pa.Buffer) -> pa.Array:
    """A column of one value, which is not copied."""
    ends = pa.py_buffer(np.array([0, content.size], dtype=np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, content])
