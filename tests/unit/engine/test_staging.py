"""How a batch comes to the device, and how positions are counted on the way."""

import itertools

import numpy as np
import pytest
import torch
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from assay.engine.kernels.layout import plan_blocks, rounded
from assay.engine.positions import positions_without_pads, token_positions
from assay.engine.staging import BATCHES_AHEAD, PadPositions, Staging
from assay.model.packing import pack

PAD = 1
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def random_sequences(lengths, seed=0):
    """Small random ids, pad ids among them."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 6, length).tolist() for length in lengths]


def bounds_of(sequences):
    """Where each begins and ends, int32 [N + 1]."""
    return np.cumsum([0, *(len(sequence) for sequence in sequences)]).astype(np.int32)


def test_positions_begin_at_0_in_each_sequence():
    """One position a token; a sequence does not know what is before it."""
    bounds = np.array([0, 1, 4, 6], dtype=np.int32)
    positions = token_positions(bounds)
    assert positions.tolist() == [0, 0, 1, 2, 0, 1]
    assert positions.dtype == np.int32


def test_positions_without_pads_are_those_of_transformers():
    """A pad id inside a text takes the pad's row and is not counted, as in RoBERTa."""
    sequences = [*random_sequences([1, 2, 7, 40, 3, 129]), [PAD], [PAD, PAD, 5], [5, PAD], [3, 4]]
    expected = []
    for sequence in sequences:
        # transformers: PAD for a pad id, else PAD + 1, PAD + 2, ...
        theirs = RobertaEmbeddings.create_position_ids_from_input_ids(torch.tensor([sequence]), PAD)[0]
        expected += [500 if place == PAD else place - PAD - 1 for place in theirs.tolist()]
    ids = np.array([i for sequence in sequences for i in sequence], dtype=np.int32)
    positions = positions_without_pads(ids, bounds_of(sequences), PAD, 500)
    assert positions.tolist() == expected
    assert positions.dtype == np.int32


def test_texts_without_pad_ids_need_no_positions():
    """None: the kernel counts by itself."""
    assert (
        positions_without_pads(np.array([3, 4, 5], np.int32), np.array([0, 2, 3], np.int32), PAD, 9) is None
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("has_types", [False, True])
@pytest.mark.parametrize("has_pads", [False, True])
def test_a_batch_arrives_whole(device, has_types, has_pads):
    """Ids, bounds, blocks, types and positions arrive as they were, filled up with zeros to the rows asked for."""
    sequences = [[4, PAD, 3], [5], [2] * 70]
    types = [[0, 0, 1], [0], [1] * 70]
    batch = pack(sequences, types if has_types else None)
    staging = Staging(torch.device(device), PadPositions(pad_token_id=PAD, pad_row=99) if has_pads else None)
    with staging.put(batch, 80) as placed:
        assert placed.input_ids_T.device.type == device
        assert placed.input_ids_T.tolist() == [*batch.input_ids_T.tolist(), *[0] * 6]
        assert placed.cu_seqlens.tolist() == [0, 3, 4, 74]
        assert placed.blocks_B4.tolist() == plan_blocks(np.array([0, 3, 4, 74], np.int32)).tolist()
        assert (placed.num_rows, placed.num_sequences, placed.max_seqlen) == (80, 3, 70)
        given = {"types": placed.token_types_T, "positions": placed.positions_T}
        for part in (placed.input_ids_T, placed.cu_seqlens, placed.blocks_B4, *given.values()):
            assert part is None or part.dtype == torch.int32
        expected_types = [*batch.token_type_ids_T.tolist(), *[0] * 6] if has_types else None
        assert (given["types"].tolist() if has_types else given["types"]) == expected_types
        expected_positions = [0, 99, 1, 0, *range(70), *[0] * 6] if has_pads else None
        assert (given["positions"].tolist() if has_pads else given["positions"]) == expected_positions
    assert staging.device_seconds() >= 0.0


@pytest.mark.parametrize("device", DEVICES)
def test_batches_in_few_shapes_are_filled_up_with_nothing(device):
    """Spare sequences and blocks hold no token; what is real comes first, as it was."""
    staging = Staging(torch.device(device), PadPositions(pad_token_id=PAD, pad_row=9))
    shapes = set()
    for num in (9, 10, 13, 15):
        batch = pack([[3] * 70, *[[2, PAD]] * (num - 1)])
        with staging.put(batch, 128, in_few_shapes=True) as placed:
            assert placed.num_sequences >= num
            assert placed.num_rows == 128
            assert placed.max_seqlen >= 70
            bounds = placed.cu_seqlens.tolist()
            assert len(bounds) == placed.num_sequences + 1
            assert bounds[: num + 1] == batch.cu_seqlens.tolist()
            assert all(later <= earlier for earlier, later in itertools.pairwise(bounds[num:]))
            blocks = placed.blocks_B4.tolist()
            real = plan_blocks(batch.cu_seqlens.numpy()).tolist()
            assert blocks[: len(real)] == real
            assert all(length == 0 for *_, length in blocks[len(real) :])
            assert placed.positions_T.tolist()[70:74] == [0, 9, 0, 9]
            # kernels that load 16 bytes at a time meet one alignment
            assert all(
                part.data_ptr() % 16 == placed.flat.data_ptr() % 16
                for part in (placed.input_ids_T, placed.cu_seqlens, placed.blocks_B4, placed.positions_T)
            )
            shapes.add(placed.shape)
    assert len(shapes) == 1


def test_numbers_are_rounded_to_few():
    """Never down, at most by an eighth or to a multiple of 8, and few of them."""
    numbers = [rounded(number) for number in range(1, 10_001)]
    assert all(number <= up <= max(number + 7, number * 1.125) for number, up in enumerate(numbers, 1))
    assert numbers == sorted(numbers)
    assert len(set(numbers)) < 80


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_is_not_written_over_by_those_that_follow(device):
    """Far more batches than buffers, none waited for: each arrives as it was."""
    staging = Staging(torch.device(device))
    batches = [
        pack(random_sequences([1 + k % 7, 2 + 31 * (k % 5)], seed=k)) for k in range(5 * BATCHES_AHEAD)
    ]
    kept = []
    for batch in batches:
        with staging.put(batch, 200) as placed:
            kept.append((placed.input_ids_T + 0, placed.cu_seqlens + 0))
    for batch, (ids_T, bounds) in zip(batches, kept, strict=True):
        assert ids_T[: batch.num_tokens].tolist() == batch.input_ids_T.tolist()
        assert bounds.tolist() == batch.cu_seqlens.tolist()


@pytest.mark.gpu
def test_seconds_are_those_of_the_device():
    """Work on a batch is told once, whoever asks when; work between batches is not."""
    device = torch.device("cuda")
    staging = Staging(device)
    a = torch.randn(4096, 4096, device=device)
    # loads the library
    a @ a
    torch.cuda.synchronize()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(3 * BATCHES_AHEAD):
        with staging.put(pack([[1, 2]]), 128):
            for _ in range(5):
                a @ a
    ended.record()
    seconds = staging.device_seconds()
    whole = began.elapsed_time(ended) / 1000.0
    assert 0.5 * whole < seconds <= whole
    for _ in range(50):
        a @ a
    assert staging.device_seconds() == seconds


@pytest.mark.gpu
def test_a_batch_that_failed_leaves_the_buffers_sound():
    """After an error inside a batch the next ones arrive as they were."""
    staging = Staging(torch.device("cuda"))
    for k in range(3 * BATCHES_AHEAD):
        with pytest.raises(torch.OutOfMemoryError), staging.put(pack([[1]]), 128):
            raise torch.OutOfMemoryError
        with staging.put(pack([[k, k + 1]]), 128) as placed:
            assert placed.input_ids_T[:2].tolist() == [k, k + 1]
