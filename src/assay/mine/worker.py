"""The process that mines: `python -m assay.mine.worker RUN --device cuda:0`."""

import logging
import sys
from collections.abc import Callable, Sequence

from assay.errors import RefusedError
from assay.mine.kind import MINE, MineIdentity
from assay.mine.miner import Guarding, Miner
from assay.mine.pairs import read_pairs
from assay.mine.select import SelectionRules
from assay.mine.store import VectorStore, build_store
from assay.mine.vectors import open_vectors
from assay.mine.work import MineWork, columns_of
from assay.runs.pipeline import StopRequestedError
from assay.runs.run import Run
from assay.runs.worker import Mailbox, worker_command


def open_mine_work(
    run: Run,
    *,
    device: str,
    num_threads: int | None,
    should_stop: Callable[[], bool] = lambda: False,
    block_rows: int | None = None,
) -> MineWork:
    """The work of a mine run on one device; its `load` reads the embed runs.

    Raises RefusedError where an embed run is no longer the one of the plan.
    """
    identity, settings = run.manifest.read(MINE)
    corpus = _same_runs(settings.corpus, identity.corpus, "--corpus")
    anchors = _same_runs(settings.anchors, identity.anchors, "--anchors")

    def load() -> Miner:
        return load_miner(
            run,
            corpus,
            anchors,
            device=device,
            num_threads=num_threads,
            should_stop=should_stop,
            block_rows=block_rows,
        )

    return MineWork(run.manifest, load, device=device)


def load_miner(
    run: Run,
    corpus_runs: Sequence[Run],
    anchor_runs: Sequence[Run],
    *,
    device: str,
    num_threads: int | None,
    should_stop: Callable[[], bool],
    block_rows: int | None,
) -> Miner:
    """Stores, pairs, search and guard of a run on one device."""
    from assay import machine
    from assay.mine import search

    identity, settings = run.manifest.read(MINE)
    chosen = search.parse_device(device)
    count = machine.choose_threads(num_threads).count
    search.use_threads(count)

    def check() -> None:
        if should_stop():
            raise StopRequestedError

    def store_of(runs: Sequence[Run]) -> VectorStore:
        return build_store(runs, group=identity.exclude_same, folder=settings.scratch, on_batch=check)

    corpus = store_of(corpus_runs)
    is_same = identity.anchors == identity.corpus
    anchors = corpus if is_same else store_of(anchor_runs)
    manifest = run.manifest
    sources = [manifest.source(index) for index in range(len(manifest.sources))]
    pairs = read_pairs(sources, columns_of(manifest), identity.keys, anchors, corpus)
    searcher = search.open_searcher(
        corpus, chosen, index=identity.index, block_rows=block_rows, num_threads=count
    )
    return Miner(
        anchors=anchors,
        corpus=corpus,
        pairs=pairs,
        searcher=searcher,
        rules=rules_of(identity),
        max_positives=identity.max_positives,
        guard=_open_guard(run, device, num_threads),
        guard_max=1.0 if identity.guard is None else identity.guard.max_probability,
    )


def rules_of(identity: MineIdentity) -> SelectionRules:
    """The rules of a run."""
    return SelectionRules(
        num_negatives=identity.num_negatives,
        range_min=identity.range_min,
        range_max=identity.range_max,
        max_score=identity.max_score,
        min_score=identity.min_score,
        absolute_margin=identity.absolute_margin,
        relative_margin=identity.relative_margin,
        percentile=identity.percentile,
        sampling_strategy=identity.sampling_strategy,
        seed=identity.seed,
    )


def _open_guard(run: Run, device: str, num_threads: int | None) -> Guarding | None:
    identity, settings = run.manifest.read(MINE)
    if identity.guard is None or settings.guard_bundle is None:
        return None
    from assay.mine.guard import Guard, open_guard_bundle

    bundle, label = open_guard_bundle(settings.guard_bundle, identity.guard.label)
    if bundle.fingerprint != identity.guard.bundle:
        raise RefusedError(
            f"the bundle {settings.guard_bundle} was {identity.guard.bundle[:12]}... when the run was planned and is "
            f"{bundle.fingerprint[:12]}... now; put it back, or use another --run"
        )
    return Guard(bundle, label, device=device, num_threads=num_threads).probabilities


def _same_runs(urls: Sequence[str], run_ids: Sequence[str], flag: str) -> list[Run]:
    runs = open_vectors(urls, flag)
    for run, planned in zip(runs, run_ids, strict=True):
        if run.manifest.run_id != planned:
            raise RefusedError(
                f"{run.url} holds another embed run than when this run was planned; put it back, or use another --run"
            )
    return runs


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    logging.getLogger("transformers").setLevel(logging.ERROR)

    def open_work(run: Run, mailbox: Mailbox, device: str, num_threads: int | None) -> MineWork:
        return open_mine_work(run, device=device, num_threads=num_threads, should_stop=mailbox.should_stop)

    return worker_command(__doc__, open_work)


if __name__ == "__main__":
    sys.exit(main())
