"""What kind of bundle a folder holds, and what scores rows with it. Imports no torch until an engine is wanted.

an ensemble     several classifiers: the engine gives the logits of all of them, the decider pools them
a classifier    a row, be it a text or a pair, is one sequence: its logits are the engine's
Siamese         each text of a pair is a sequence of its own: the engine gives vectors, a head the logits
a cascade       two of these: the first decides what is clear, the second the rest
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from assay.bundle.bundle import Bundle
from assay.bundle.ensemble import Ensemble
from assay.bundle.folders import cascade_file
from assay.bundle.texts import refuse_other_texts
from assay.embed.plan import make_encoder
from assay.engine import half
from assay.errors import BundleError, UsageError
from assay.metrics import BoolArray, FloatArray
from assay.outcome.maps import apply_link
from assay.score.cascade.bundle import Cascade, open_single, read_cascade
from assay.score.cascade.reading import CascadeReader
from assay.siamese.files import Siamese
from assay.siamese.reading import PairReader
from assay.tasks import Task
from assay.tokenize.chunks import ReadChunks, read_with
from assay.tokenize.encode import Encoder
from assay.tokenize.kind import TokenizeIdentity
from assay.tokenize.plan import bundle_encoder, choose_max_length
from assay.tokenize.settings import LongDocuments

if TYPE_CHECKING:
    from assay.engine.engine import Engine
    from assay.engine.precision import Computed
    from assay.score.scorer import Scorer


AS_TUNED = LongDocuments()
"""How the models of a cascade read texts: as they were trained to, and as they were tuned."""


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The bundle in a folder, of whatever kind, or the cascade in a file or folder.

    Raises BundleError for what cannot be used, as `load_bundle` does.
    """
    return open_single(path) if cascade_file(path) is None else read_cascade(path)


def open_pair_classifier(
    path: str, label: str | None, *, setting: str, label_setting: str
) -> tuple[Bundle, str]:
    """A model of pairs, of any kind, and the label that means positive: `label`, or the second of two.

    `setting` and `label_setting` are what the two are given by. Raises BundleError for another kind of model.
    """
    bundle = open_bundle(path)
    refuse_other_texts(bundle, are_pairs=True, setting=setting, error=BundleError)
    if bundle.task != Task.SINGLE_LABEL:
        raise BundleError(
            f"{path} is a {bundle.task} model; {setting} needs the probability of one label: give a single_label one"
        )
    if label is None and len(bundle.labels) != 2:
        flag = "--" + label_setting.replace("_", "-")
        raise BundleError(
            f"{path} has {len(bundle.labels)} labels; say with {flag} which of them means positive"
        )
    chosen = bundle.labels[1] if label is None else label
    if chosen not in bundle.labels:
        raise BundleError(
            f"{label_setting} {chosen!r}; {path} has the labels {', '.join(bundle.labels[:10])}; give one of these"
        )
    return bundle, chosen


def refuse_lengths(bundle: Bundle, documents: LongDocuments) -> None:
    """Raise UsageError where a cascade is asked to read texts otherwise than it was tuned to."""
    if isinstance(bundle, Cascade) and any(
        getattr(documents, name) != getattr(AS_TUNED, name) for name in ("max_length", "on_long", "stride")
    ):
        raise UsageError(
            f"{bundle.path} is a cascade, whose models read texts as they were tuned; leave --max-length, --on-long"
            " and --stride out"
        )


def read_chunks(
    bundle: Bundle, documents: LongDocuments | TokenizeIdentity, *, deduplicate: bool = True
) -> ReadChunks:
    """What makes rows chunks that a bundle's scorer takes; raises as `encoder_of` does."""
    if isinstance(bundle, Cascade):
        return CascadeReader(read_chunks(bundle.first, AS_TUNED, deduplicate=deduplicate)).chunks
    encoder = encoder_of(bundle, documents)
    if isinstance(bundle, Siamese):
        return PairReader(bundle, encoder, deduplicate=deduplicate).chunks
    return read_with(encoder)


def encoder_of(bundle: Bundle, documents: LongDocuments | TokenizeIdentity) -> Encoder:
    """What makes token ids of a bundle's texts, for documents of these lengths; a cascade has two, `open_scorer` both.

    Raises UsageError for a length or policy that the bundle cannot have (an ensemble that reads windows at several
    offsets has no policy without them), RefusedError where its folder holds another tokenizer now.
    """
    assert not isinstance(bundle, Cascade), "each of its models has an encoder"
    if not isinstance(bundle, Siamese):
        encoder = bundle_encoder(bundle, documents)
        if isinstance(bundle, Ensemble) and bundle.num_offsets > 1:
            return encoder.at_offsets(bundle.num_offsets)
        return encoder
    length = documents.max_length
    return make_encoder(
        bundle.embedder,
        max_length=bundle.default_max_length if length is None else choose_max_length(bundle, length),
        on_long=documents.on_long,
        stride=documents.stride,
    )


def refuse_texts(bundle: Bundle, documents: LongDocuments | TokenizeIdentity, *, are_pairs: bool) -> None:
    """Raise UsageError where a bundle gets pairs for single texts, or pairs under a policy that has no pairs."""
    refuse_other_texts(bundle, are_pairs=are_pairs)
    if are_pairs and not isinstance(bundle, Siamese | Cascade):
        encoder_of(bundle, documents).check_pairs()


def is_noted(bundle: Bundle) -> bool:
    """Whether `why_not_fp16` can say so at once."""
    if isinstance(bundle, Cascade):
        return is_noted(bundle.first) and is_noted(bundle.second)
    members = bundle.members if isinstance(bundle, Ensemble) else (bundle,)
    return all(half.is_noted(member.checkpoint, headless=isinstance(bundle, Siamese)) for member in members)


def why_not_fp16(bundle: Bundle) -> str | None:
    """Why one of a bundle's models does not run in fp16, in a clause; None where all hold.

    Takes seconds the first time on a machine.
    """
    if isinstance(bundle, Cascade):
        return why_not_fp16(bundle.first) or why_not_fp16(bundle.second)
    members = bundle.members if isinstance(bundle, Ensemble) else (bundle,)
    return half.first_reason((member.checkpoint for member in members), headless=isinstance(bundle, Siamese))


def parse_precision(name: str, bundle: Bundle, *, device: str) -> "Computed":
    """The precision of that name for a bundle on a device, `auto` resolved for all its models together.

    UsageError for a name or device that is not known.
    """
    from assay.engine import devices

    return devices.parse_precision(name, devices.parse_device(device), lambda: why_not_fp16(bundle))


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

    assert not isinstance(bundle, Cascade), "each of its models has an engine"
    if isinstance(bundle, Ensemble):
        from assay.engine.several import SeveralEngines

        chosen = parse_precision(precision, bundle, device=device)
        engines = [
            engine_of(
                member,
                device=device,
                precision=chosen,
                num_threads=num_threads,
                packed=packed,
                deterministic=deterministic,
            )
            for member in bundle.members
        ]
        return in_orders(bundle, SeveralEngines(engines, bundle.label_orders))
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


def in_orders(bundle: Ensemble, members: "Engine") -> "Engine":
    """The engine of an ensemble's members, of pairs in both orders where the ensemble says so."""
    orders = bundle.second_order
    if orders is None:
        return members
    from assay.engine.both_orders import BothOrders

    def needed(outputs_NC: FloatArray) -> BoolArray:
        return orders.needed(apply_link(bundle.pooling.pool(outputs_NC, bundle.task), bundle.task))

    return BothOrders(members, orders, needed)


def num_outputs(bundle: Bundle) -> int:
    """How many numbers that engine gives of a sequence."""
    if isinstance(bundle, Ensemble):
        num_orders = 1 if bundle.second_order is None else 2
        return num_orders * len(bundle.members) * len(bundle.labels)
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


def open_scorer(
    bundle: Bundle,
    documents: LongDocuments | TokenizeIdentity,
    make_engine: "Callable[[Bundle], Engine]",
    *,
    device: str,
    max_batch_tokens: int | None = None,
    deduplicate: bool = True,
    should_stop: Callable[[], bool] | None = None,
) -> "Scorer":
    """What scores rows with a bundle of any kind; `make_engine` gives its engine, or each of a cascade's models one.

    Takes seconds. Raises as `encoder_of` and `make_engine` do.
    """

    def scorer(single: Bundle, lengths: LongDocuments | TokenizeIdentity) -> "Scorer":
        return scorer_of(
            single,
            make_engine(single),
            encoder_of(single, lengths),
            device=device,
            max_batch_tokens=max_batch_tokens,
            deduplicate=deduplicate,
            should_stop=should_stop,
        )

    if not isinstance(bundle, Cascade):
        return scorer(bundle, documents)
    from assay.score.cascade.scorer import CascadeScorer

    return CascadeScorer(bundle, *(scorer(stage, AS_TUNED) for stage in (bundle.first, bundle.second)))
