"""[pure] What a device is expected to do with a model, before anything has run. It only sizes units."""

from collections.abc import Mapping

FLOPS_PER_SECOND = {"cpu": 4e10, "cuda": 2e14}
"""What a device is expected to do, a process each."""
FAKE_TOKENS_PER_SECOND = 1e8


def expected_tokens_per_second(
    config: Mapping[str, object], *, engine: str, kind: str, num_workers: int
) -> float:
    """Return what one worker of some is expected to do: two operations a weight and token.

    Workers on a CPU share it. `engine` fake computes nothing.
    """
    if engine == "fake":
        return FAKE_TOKENS_PER_SECOND
    share = num_workers if kind == "cpu" else 1
    return FLOPS_PER_SECOND[kind] / share / operations_per_token(config)


def operations_per_token(config: Mapping[str, object]) -> float:
    """Two operations for each weight of the layers."""
    hidden, inner, layers = encoder_sizes(config)
    return 2.0 * layers * (4 * hidden * hidden + 2 * hidden * inner)


def encoder_sizes(config: Mapping[str, object]) -> tuple[int, int, int]:
    """Hidden size, feed-forward size and layers, by any name that a family gives them; else as BERT-base has them."""
    hidden = _size(config, ("hidden_size", "dim", "d_model"), 768)
    inner = _size(config, ("intermediate_size", "hidden_dim", "encoder_ffn_dim", "ffn_dim"), 4 * hidden)
    return hidden, inner, _size(config, ("num_hidden_layers", "n_layers", "encoder_layers"), 12)


def _size(config: Mapping[str, object], names: tuple[str, ...], otherwise: int) -> int:
    """The first of these sizes that the config gives; one below 1 tells nothing about the work."""
    found = (config.get(name) for name in names)
    return next((size for size in found if isinstance(size, int) and size > 0), otherwise)
