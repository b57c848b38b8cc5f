"""The packed batch."""

from assay.model.packing import pack


def test_pack_lays_sequences_end_to_end():
    """Ids, bounds and types lie flat; counts follow."""
    batch = pack([[5, 6], [7]], [[0, 1], [0]])
    assert batch.input_ids_T.tolist() == [5, 6, 7]
    assert batch.cu_seqlens.tolist() == [0, 2, 3]
    assert batch.token_type_ids_T.tolist() == [0, 1, 0]
    assert (batch.num_sequences, batch.num_tokens, batch.max_seqlen) == (2, 3, 2)


def test_pack_of_nothing():
    """No sequences make an empty batch."""
    batch = pack([])
    assert (batch.num_sequences, batch.num_tokens, batch.max_seqlen) == (0, 0, 0)
