"""What a sample of every unit, run again in fp32, says of all documents of a run."""

import math

from assay.embed.differences import CONFIDENCE, EDGES_SHOWN, Differences, sum_of
from assay.embed.engine_work import DIFFERENCES
from assay.embed.kind import EMBED
from assay.pages import Facts, Section, Table
from assay.runs.manifest import Manifest
from assay.score.kind import SCORE
from assay.score.report.tally import Tally
from assay.score.report.words import count_and_share

TITLE = "Differences to fp32, of all documents"
QUANTILES_SHOWN = {0.5: "half", 0.9: "90%", 0.99: "99%", 0.999: "99.9%"}


def sampled_differences(tally: Tally) -> Differences | None:
    """The samples of all parts as one; None where no part has any."""
    return sum_of(stats.get(DIFFERENCES) for _, stats in tally.stats)


def evidence_section(manifest: Manifest, tally: Tally, found: Differences | None) -> Section:
    """Quantiles of the sample, and what it bounds of the whole; empty for a run without an engine."""
    if manifest.kind == SCORE.name:
        share = manifest.read(SCORE)[0].parity_share
    elif manifest.kind == EMBED.name:
        share = manifest.read(EMBED)[0].parity_share
    else:
        return Section(title=TITLE)
    if not share:
        why = "No document was run in fp32 too: the run is in fp32, or was told not to, or scores pairs of vectors."
        return Section(title=TITLE, note=why)
    if found is None or not found.num_documents:
        none = f"Each document had a chance of {share:g} to be run in fp32 too, and none was drawn."
        return Section(title=TITLE, note=f"{none} A larger --parity-share, in a new run, draws more.")
    note = (
        f"Each document of the run had the same chance, {share:g}, to be run in fp32 too, on its own device. "
        f"Bounds hold for all documents of the run, each with {CONFIDENCE:.0%} confidence (Clopper and Pearson)."
    )
    if manifest.kind == EMBED.name:
        note += " A difference is the distance of a vector to fp32's, as a share of its length."
    return Section(
        title=TITLE,
        note=note,
        facts=_facts(found, tally),
        table=_table(found, has_labels=manifest.kind == SCORE.name),
    )


def _facts(found: Differences, tally: Tally) -> Facts:
    facts = [("documents compared", count_and_share(found.num_documents, tally.rows))]
    facts += [
        (f"{share_name} of them differ by at most", f"{found.quantile(share):.2g}")
        for share, share_name in QUANTILES_SHOWN.items()
        if (1 - share) * found.num_documents >= 1
    ]
    facts.append(("largest difference", f"{found.largest:.3g}"))
    facts.append(("seconds that it took the devices", f"{found.milliseconds / 1000:,.1f}"))
    return facts


def _table(found: Differences, *, has_labels: bool) -> Table:
    total = found.num_documents
    rows = [
        (
            f"differs by more than {edge:g}",
            count_and_share(found.num_beyond(edge), total),
            _at_most(found.most_beyond(edge)),
        )
        for edge in EDGES_SHOWN
    ]
    if has_labels:
        changed = count_and_share(found.labels_changed, total)
        rows.append(("has another label", changed, _at_most(found.most_changed())))
    return Table(header=("a document", "in the sample", "of all documents, at most"), rows=rows)


def _at_most(share: float) -> str:
    """An upper bound in per cent, rounded up to two digits."""
    places = 1 - math.floor(math.log10(share * 100))
    return f"{math.ceil(share * 100 * 10**places) / 10**places:.{max(places, 0)}f}%"
