"""Settings, bundle and sources to the manifest of a scoring run."""

from collections.abc import Sequence
from pathlib import Path

from assay._version import __version__
from assay.bundle.bundle import Bundle
from assay.bundle.texts import refuse_other_texts
from assay.data.finding import find_sources
from assay.data.sources import Columns, Source
from assay.embed.plan import choose_parity_share
from assay.engine.expected import expected_tokens_per_second
from assay.engine.precision import Computed
from assay.errors import RefusedError, UsageError
from assay.runs.cut import cut_sources, id_field
from assay.runs.manifest import Manifest, new_manifest
from assay.runs.placement import Placement, planned_workers
from assay.runs.run import PARTS, Run, part_path
from assay.score.bundles import open_bundle, read_chunks, refuse_lengths, refuse_texts
from assay.score.cascade.bundle import Cascade
from assay.score.kind import SCORE, ScoreIdentity, ScoreRecord, TokenRunRecord
from assay.score.schema import part_schema
from assay.score.settings import ScoreSettings
from assay.siamese.files import Siamese
from assay.tokenize.kind import TOKENIZE, TokenizeIdentity
from assay.tokenize.plan import (
    choose_max_length,
    find_token_run,
    holds_pairs,
    other_lengths,
)


def plan_score(
    settings: ScoreSettings,
    placement: Placement,
    precision: Computed,
    *,
    bundle: Bundle | None = None,
    precision_why: str | None = None,
) -> tuple[Manifest, Bundle]:
    """The manifest of the run that `settings` ask for, and its bundle; reads the sources' footers.

    `placement` is where its workers will run, here or on other machines; units are sized for it. `bundle` is that of
    the settings where it is open already, `precision_why` what `auto` chose and why.
    """
    bundle = bundle or open_bundle(settings.bundle)
    token_run = find_token_run(settings.sources)
    if isinstance(bundle, Siamese | Cascade) and (
        token_run is not None or settings.input_ids_column is not None
    ):
        kind = "Siamese" if isinstance(bundle, Siamese) else "a cascade"
        msg = (
            f"stored token ids; {bundle.path} is {kind} and takes the texts of pairs themselves; score the sources"
            " that hold them with --text-column and --text-pair-column"
        )
        raise UsageError(msg)
    refuse_lengths(bundle, settings)
    if token_run is not None:
        refuse_other_texts(
            bundle, are_pairs=holds_pairs(token_run), setting="--text-pair-column of assay tokenize"
        )
    if token_run is None:
        tokens = TokenizeIdentity(
            tokenizer=bundle.tokenizer_fingerprint,
            max_length=choose_max_length(bundle, settings.max_length),
            on_long=settings.on_long,
            stride=settings.stride,
        )
        # Refuses a policy, length or stride that this tokenizer cannot have, before there is a run of it.
        read_chunks(bundle, tokens)
        if settings.input_ids_column is None:
            refuse_texts(bundle, tokens, are_pairs=settings.text_pair_column is not None)
        patterns, columns = settings.sources, _columns(settings)
    else:
        tokens, _ = token_run.manifest.read(TOKENIZE)
        _refuse_other_tokens(settings, bundle, tokens)
        patterns = (f"{token_run.url}/{PARTS}*.parquet",)
        id_name = token_run.manifest.arrow_schema().names[0]
        columns = Columns(text=None, text_pair=None, id=id_name, input_ids="input_ids")
    sources = find_sources(patterns, format=settings.format, delimiter=settings.delimiter, columns=columns)
    id_ = id_field(sources, columns)
    if token_run is not None:
        # Rows that were counted when they were tokenized are row numbers still, not ids.
        id_ = token_run.manifest.arrow_schema().field(0)
        sources = _in_row_order(sources, token_run)
    boundaries = cut_sources(
        sources,
        unit_rows=settings.unit_rows,
        limit_rows=settings.limit_rows,
        max_length=tokens.max_length,
        tokens_per_second=expected_tokens_per_second(
            bundle.checkpoint.config,
            engine=settings.engine,
            kind=placement.kind,
            num_workers=placement.num_workers,
        ),
        num_workers=planned_workers(settings, placement),
    )
    manifest = new_manifest(
        kind=SCORE,
        assay_version=__version__,
        identity=ScoreIdentity(
            **tokens.model_dump(),
            bundle=bundle.fingerprint,
            precision=precision,
            engine=settings.engine,
            deterministic=settings.deterministic,
            parity_share=_parity_share(settings, bundle, precision),
        ),
        settings=_record(settings, bundle, token_run, precision_why),
        columns=columns,
        sources=sources,
        boundaries=boundaries,
        part_schema=part_schema(id_, bundle),
    )
    return manifest, bundle


def other_lengths_of(manifest: Manifest) -> str | None:
    """A sentence where a scoring run cuts texts otherwise than its bundle's calibration did; else None."""
    identity, settings = manifest.read(SCORE)
    if not settings.calibration:
        return None
    return other_lengths(
        settings.calibration,
        max_length=identity.max_length,
        on_long=identity.on_long,
        stride=identity.stride,
    )


def _in_row_order(parts: Sequence[Source], token_run: Run) -> list[Source]:
    """The token parts as the rows lie in their sources: a listing has rows 1000 to 1200 before 200 to 400."""
    by_path = {PARTS + part.uri.rpartition("/")[2]: part for part in parts}
    return [by_path[part_path(unit)] for unit in token_run.units]


def _columns(settings: ScoreSettings) -> Columns:
    stored = settings.input_ids_column is not None
    return Columns(
        text=None if stored else settings.text_column,
        text_pair=None if stored else settings.text_pair_column,
        id=settings.id_column,
        input_ids=settings.input_ids_column,
    )


def _parity_share(settings: ScoreSettings, bundle: Bundle, precision: Computed) -> float:
    """The share of documents that run in fp32 too; raises UsageError for one that nothing can be compared of."""
    why_none = None
    if isinstance(bundle, Siamese | Cascade):
        why_none = "scores of pairs of vectors are compared by the parity gate alone"
    return choose_parity_share(
        settings.parity_share, engine=settings.engine, precision=precision, why_none=why_none
    )


def _record(
    settings: ScoreSettings, bundle: Bundle, token_run: Run | None, precision_why: str | None
) -> ScoreRecord:
    calibration = bundle.calibration
    return ScoreRecord(
        bundle=str(Path(settings.bundle).resolve()),
        task=bundle.task,
        labels=tuple(bundle.labels),
        threshold=None if calibration is None else calibration.threshold,
        max_batch_tokens=settings.max_batch_tokens,
        deduplicate=settings.deduplicate,
        strict=settings.strict,
        parity_documents=settings.parity_documents,
        parity_tolerance=settings.parity_tolerance,
        token_run=None
        if token_run is None
        else TokenRunRecord(url=token_run.url, run_id=token_run.manifest.run_id),
        precision_why=precision_why,
        calibration=None
        if calibration is None
        else {
            "method": calibration.method,
            **({"temperature": calibration.temperature} if calibration.method == "temperature" else {}),
            **dict(calibration.selection_metrics),
            **dict(calibration.meta),
        },
    )


def _refuse_other_tokens(settings: ScoreSettings, bundle: Bundle, tokens: TokenizeIdentity) -> None:
    """Refuse a tokenize run of another tokenizer, and settings that it was not made with."""
    if tokens.tokenizer != bundle.tokenizer_fingerprint:
        msg = (
            f"{settings.sources[0]} was made with tokenizer {tokens.tokenizer}, {bundle.path} has "
            f"{bundle.tokenizer_fingerprint}; tokenize again with --bundle {settings.bundle}"
        )
        raise RefusedError(msg)
    if tokens.max_length > bundle.max_length:
        msg = (
            f"{settings.sources[0]} holds documents of up to {tokens.max_length} tokens, {bundle.path} takes "
            f"{bundle.max_length}; tokenize again with --max-length {bundle.max_length}"
        )
        raise RefusedError(msg)
    if settings.max_length not in (None, tokens.max_length):
        msg = (
            f"max_length {settings.max_length}; {settings.sources[0]} was tokenized with {tokens.max_length}; "
            "leave --max-length out, or tokenize again"
        )
        raise UsageError(msg)
    for name, asked, default in (("on_long", settings.on_long, "truncate"), ("stride", settings.stride, 0)):
        made = getattr(tokens, name)
        if asked not in (default, made):
            flag = "--" + name.replace("_", "-")
            msg = (
                f"{name} {asked}; {settings.sources[0]} was tokenized with {made}; "
                f"leave {flag} out, or tokenize again"
            )
            raise UsageError(msg)
