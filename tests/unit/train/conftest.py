"""A tiny encoder with a real tokenizer, and rows that it can learn."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.training import animal_rows, write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Folder of an encoder without a head: 2 layers, 32 wide, 18 words."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def rows():
    """64 rows to train on and 32 others to validate on."""
    everything = animal_rows(96, seed=1)
    return everything.take(range(64)), everything.take(range(64, 96))


@pytest.fixture
def save_rows(tmp_path):
    """Writes rows to a Parquet file and returns its path."""

    def save(name, labelled, **columns):
        table = {"text": labelled.texts, "label": labelled.labels, **columns}
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({key: list(value) for key, value in table.items()}), path)
        return str(path)

    return save
