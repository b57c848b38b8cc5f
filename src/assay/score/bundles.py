"""What kind of bundle a folder holds, and what scores rows with it. Imports no torch until an engine is wanted.

an ensemble     several classifiers: the engine gives the logits of all of them, the decider pools them
a classifier    a row, be it a text or a pair, is one sequence: its logits are the engine's
Siamese         each text of a pair is a sequence of its own: the engine gives vectors, a head the logits
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from assay.bundle.bundle import Bundle
from assay.bundle.ensemble import Ensemble, read_ensemble
from assay.bundle.folders import is_ensemble, is_siamese
from assay.bundle.load import load_bundle
from assay.bundle.texts import refuse_other_texts
from assay.embed.plan import make_encoder
from assay.siamese.files import Siamese, read_siamese
from assay.tokenize.encode import Encoder
from assay.tokenize.kind import TokenizeIdentity
from assay.tokenize.plan import bundle_encoder, choose_max_length
from assay.tokenize.settings import LongDocuments

if TYPE_CHECKING:
    from assay.engine.engine import Engine
    from assay.score.scorer import Scorer


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The bundle in a folder, of whatever kind; raises BundleError as `load_bundle` does."""
    if is_ensemble(path):
        return read_ensemble(path)
    return read_siamese(path) if is_siamese(path) else load_bundle(path)


def encoder_of(bundle: Bundle, documents: LongDocuments | TokenizeIdentity) -> Encoder:
    """What makes token ids of a bundle's texts, for documents of these lengths.

    Raises UsageError for a length or policy that the bundle cannot have, RefusedError where its folder holds
    another tokenizer now.
    """
    if not isinstance(bundle, Siamese):
        return bundle_encoder(bundle, documents)
    length = documents.max_length
    return make_encoder(
        bundle.embedder,
        max_length=bundle.default_max_length if length is None else choose_max_length(bundle, length),
        on_long=documents.on_long,
        stride=documents.stride,
    )


def refuse_texts(bundle: Bundle, encoder: Encoder, *, are_pairs: bool) -> None:
    """Raise UsageError where a bundle gets pairs for single texts, or pairs under a policy that has no pairs."""
    refuse_other_texts(bundle, are_pairs=are_pairs)
    if are_pairs and not isinstance(bundle, Siamese):
        encoder.check_pairs()


def engine_of(
    bundle: Bundle,
    *,
    device: str = "cpu",
    precision: str = "auto",
    num_threads: int | None = None,
    packed: bool = True,
    deterministic: bool = False,
) -> "Engine":
    """The engine that gives what a bundle's scorer takes; settings and errors are those of `load_engine`."""
    from assay.engine.load import load_engine

    if isinstance(bundle, Ensemble):
        from assay.engine.several import SeveralEngines

        engines = [
            engine_of(
                member,
                device=device,
                precision=precision,
                num_threads=num_threads,
                packed=packed,
                deterministic=deterministic,
            )
            for member in bundle.members
        ]
        return SeveralEngines(engines, bundle.label_orders)
    head = None
    if isinstance(bundle, Siamese):
        from assay.siamese.pairs import vector_head

        head = vector_head(bundle)
    return load_engine(
        bundle.checkpoint,
        device=device,
        precision=precision,
        num_threads=num_threads,
        packed=packed,
        deterministic=deterministic,
        head=head,
    )


def num_outputs(bundle: Bundle) -> int:
    """How many numbers that engine gives of a sequence."""
    if isinstance(bundle, Ensemble):
        return len(bundle.members) * len(bundle.labels)
    return bundle.embedder.dimension if isinstance(bundle, Siamese) else len(bundle.labels)


def scorer_of(
    bundle: Bundle,
    engine: "Engine",
    encoder: Encoder,
    *,
    device: str,
    max_batch_tokens: int | None = None,
    deduplicate: bool = True,
    should_stop: Callable[[], bool] | None = None,
) -> "Scorer":
    """What scores rows with a bundle, its engine on `device` and its encoder."""
    if isinstance(bundle, Siamese):
        from assay.score.pairs import PairScorer

        return PairScorer(
            bundle,
            engine,
            encoder,
            device=device,
            max_batch_tokens=max_batch_tokens,
            deduplicate=deduplicate,
            should_stop=should_stop,
        )
    from assay.score.scorer import Scorer

    return Scorer(
        bundle,
        engine,
        encoder,
        max_batch_tokens=max_batch_tokens,
        deduplicate=deduplicate,
        should_stop=should_stop,
    )
