"""What a scoring run fixes, whole, for tests that care about a part of it."""

from assay.score.kind import ScoreIdentity, ScoreRecord


def score_identity(**changes):
    """What makes the scores of a run."""
    return ScoreIdentity(
        **{
            "bundle": "b" * 32,
            "tokenizer": "t" * 32,
            "max_length": 256,
            "on_long": "truncate",
            "stride": 0,
            "precision": "fp32",
            "engine": "auto",
            **changes,
        }
    )


def score_record(**changes):
    """What the workers of a run need besides."""
    return ScoreRecord(**{"bundle": "/models/minilm-bbc", "task": "single_label", "labels": (), **changes})
