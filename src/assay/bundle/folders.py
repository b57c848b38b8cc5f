"""What kind of model a folder holds, by the files in it. Reads none of them."""

import os
from pathlib import Path

HEAD_FOLDER = "pair_head"
HEAD_CONFIG = "config.json"
"""In `HEAD_FOLDER`: what the head of pairs of a Siamese model is."""
CASCADE_FILE = "cascade.json"


def is_siamese(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a head of pairs, and so is a Siamese model's."""
    return (Path(path) / HEAD_FOLDER / HEAD_CONFIG).is_file()


ENSEMBLE_FILE = "ensemble.json"
"""Says which models an ensemble is of, and how their outputs become one."""


def is_ensemble(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds several models that answer as one."""
    return (Path(path) / ENSEMBLE_FILE).is_file()


def cascade_file(path: str | os.PathLike[str]) -> Path | None:
    """The JSON file of a cascade that a path names, itself or the folder that it is in; None for a model's folder."""
    given = Path(path)
    if given.is_file():
        return given if given.suffix == ".json" else None
    return given / CASCADE_FILE if (given / CASCADE_FILE).is_file() else None
