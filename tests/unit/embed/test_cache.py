"""The cache of vectors: by content, shared, and never believed where it is damaged."""

import numpy as np
import pytest

from assay.embed.cache import VectorCache, keys_of
from assay.embed.kind import EmbedIdentity
from assay.engine.fake import FakeEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.errors import StorageError, UsageError
from assay.runs.pipeline import run_unit

DIMENSION = 6
IDENTITY = EmbedIdentity(
    tokenizer="t",
    max_length=16,
    on_long="truncate",
    stride=0,
    bundle="b",
    pooling="mean",
    normalized=True,
    precision="fp32",
    engine="auto",
)


def sequences_of(*lists, starts=None):
    """Token ids laid end to end."""
    lengths = [len(ids) for ids in lists]
    return Sequences(
        flat_ids=np.array([i for ids in lists for i in ids], dtype=np.uint16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        second_starts=None if starts is None else np.array(starts, dtype=np.int32),
    )


class Counting:
    """An engine that counts the sequences it is given."""

    def __init__(self):
        self.engine = FakeEngine(output_shape=(DIMENSION,))
        self.seen = 0

    def __call__(self, sequences):
        self.seen += sequences.num_sequences
        return run_sequences(self.engine, sequences)


def open_cache(folder, **changes):
    """The cache of an identity with some changes."""
    return VectorCache(folder, IDENTITY.model_copy(update=changes), dimension=DIMENSION)


def test_what_is_there_is_not_computed_again(tmp_path):
    """The second time nothing runs; of a mixture the new ones do, each row its own vector."""
    first = sequences_of([5, 6], [7], [5, 6], [8, 9, 10])
    run = Counting()
    vectors, stats = open_cache(tmp_path).around(run)(first)
    assert (run.seen, stats.num_cached) == (4, 0)
    np.testing.assert_array_equal(vectors, run_sequences(run.engine, first)[0])
    again = Counting()
    cache = open_cache(tmp_path).around(again)
    found, stats = cache(first)
    assert (again.seen, stats.num_cached) == (0, 4)
    np.testing.assert_array_equal(found, vectors)
    mixed = sequences_of([1, 2, 3], [8, 9, 10], [4], [7])
    found, stats = cache(mixed)
    assert (again.seen, stats.num_cached) == (2, 2)
    np.testing.assert_array_equal(found, run_sequences(FakeEngine(output_shape=(DIMENSION,)), mixed)[0])


def test_keys_are_of_content():
    """The ids alone count, in whatever type and place they lie; a second segment makes another key."""
    keys = keys_of(sequences_of([5, 6], [5, 6, 7], [5, 6]))
    assert (keys[0] == keys[2]).all()
    assert (keys[0] != keys[1]).any()
    wide = sequences_of([9], [5, 6])
    wide = Sequences(flat_ids=wide.flat_ids.astype(np.int32), offsets=wide.offsets)
    assert (keys_of(wide)[1] == keys[0]).all()
    assert (keys_of(sequences_of([5, 6], starts=[1]))[0] != keys[0]).any()


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "c"},
        {"pooling": "first_token"},
        {"normalized": False},
        {"precision": "bf16"},
        {"engine": "padded"},
    ],
    ids=str,
)
def test_another_model_has_other_vectors(tmp_path, change):
    """What makes another vector is another cache; lengths, strides and types of parts are not."""
    sequences = sequences_of([5, 6], [7])
    open_cache(tmp_path).around(Counting())(sequences)
    other = Counting()
    open_cache(tmp_path, **change).around(other)(sequences)
    assert other.seen == 2
    same = Counting()
    open_cache(tmp_path, max_length=8, on_long="head-tail", dtype="float16", tokenizer="u").around(same)(
        sequences
    )
    assert same.seen == 0


def test_two_workers_share(tmp_path):
    """What one has finished the other finds, without being opened again; the same work twice does no harm."""
    left, right = open_cache(tmp_path), open_cache(tmp_path)
    sequences = sequences_of([5, 6], [7])
    left.around(Counting())(sequences)
    run = Counting()
    found, _ = right.around(run)(sequences)
    assert run.seen == 0
    both = keys_of(sequences)
    left.add(both, found)
    right.add(both, found)
    again = Counting()
    np.testing.assert_array_equal(open_cache(tmp_path).around(again)(sequences)[0], found)
    assert again.seen == 0


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: b"", lambda data: b"\0" * len(data)]
)
def test_a_file_that_is_not_whole_is_left_out(tmp_path, damage):
    """Cut short, empty or zeros: what it held is computed again, and stays right."""
    sequences = sequences_of([5, 6], [7])
    expected, _ = open_cache(tmp_path).around(Counting())(sequences)
    (file,) = tmp_path.glob("*/*.arrow")
    file.write_bytes(damage(file.read_bytes()))
    run = Counting()
    found, _ = open_cache(tmp_path).around(run)(sequences)
    assert run.seen == 2
    np.testing.assert_array_equal(found, expected)


def test_what_a_killed_worker_left_is_not_read(tmp_path):
    """A scratch file is not a segment."""
    sequences = sequences_of([5, 6], [7])
    open_cache(tmp_path).around(Counting())(sequences)
    (file,) = tmp_path.glob("*/*.arrow")
    file.rename(file.with_name(f".{file.name}"))
    run = Counting()
    open_cache(tmp_path).around(run)(sequences)
    assert run.seen == 2


def test_vectors_that_are_not_finite_are_not_kept(tmp_path):
    """They are computed again: the next release of a driver may do better."""
    cache = open_cache(tmp_path)
    sequences = sequences_of([5, 6], [7])
    vectors = np.ones((2, DIMENSION), dtype=np.float32)
    vectors[0, 0] = np.inf
    cache.add(keys_of(sequences), vectors)
    out = np.empty_like(vectors)
    assert cache.take(keys_of(sequences), out).tolist() == [False, True]


def test_many_segments(tmp_path):
    """Segments that joined the index are found as those that are new."""
    cache = open_cache(tmp_path)
    lists = [[k, k + 1] for k in range(1, 100)]
    for ids in lists:
        cache.around(Counting())(sequences_of(ids))
    run = Counting()
    everything = sequences_of(*lists)
    for held in (cache, open_cache(tmp_path)):
        found, _ = held.around(run)(everything)
        assert run.seen == 0
        np.testing.assert_array_equal(
            found, run_sequences(FakeEngine(output_shape=(DIMENSION,)), everything)[0]
        )


def test_a_run_takes_from_an_earlier_one(tmp_path):
    """A second run over other rows of the same texts computes nothing new, and its parts say so."""
    from support.encoders import embed_here, make_encoder_folder, open_work, plan_here, settings_of
    from support.scoring import make_texts, read_parts, write_parquet

    encoder = make_encoder_folder(tmp_path / "encoder")
    texts = make_texts(24, longest=30)
    source = write_parquet(tmp_path / "a.parquet", texts)
    other = write_parquet(tmp_path / "b.parquet", texts[::-1])
    first = embed_here(source, encoder, tmp_path / "first", cache=str(tmp_path / "cache"))
    run = plan_here(settings_of(other, encoder, tmp_path / "second", cache=str(tmp_path / "cache")))
    work = open_work(run)

    def refuse(batch):
        raise AssertionError(batch)

    work._finisher().engine.forward = refuse
    for unit in run.manifest.units():
        run_unit(run, work, unit)
    assert work.stats()["cached_sequences"] > 0
    assert read_parts(run)["embedding"].to_pylist() == read_parts(first)["embedding"].to_pylist()[::-1]


def test_a_folder_that_cannot_be_one_is_refused(tmp_path):
    """A file in its place, and a bucket: one line each."""
    from support.encoders import make_encoder_folder, plan_here, settings_of
    from support.scoring import write_parquet

    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="give a writable folder"):
        open_cache(tmp_path / "file")
    encoder = make_encoder_folder(tmp_path / "encoder")
    source = write_parquet(tmp_path / "a.parquet", ["a"])
    with pytest.raises(UsageError, match="give a folder on a disk"):
        plan_here(settings_of(source, encoder, tmp_path / "run", cache="s3://bucket/cache"))
