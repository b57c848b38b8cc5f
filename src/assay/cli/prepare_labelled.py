"""`assay prepare labelled`: a labelled corpus to clean splits."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.prepare.labelled.settings import LabelledSettings


def run(settings: LabelledSettings) -> int:
    """Prepare the rows, and say what became of them and what comes next."""
    from shlex import quote

    from assay.prepare.labelled.prepare import prepare_labelled

    result = prepare_labelled(settings, on_message=say)
    stdout(str(result.report))
    if settings.dry_run:
        stdout(f"nothing is written; without --dry-run it goes to {result.out}")
        return 0
    stdout(f"{'prepared' if result.is_new else 'already prepared: the same rows are'} in {result.out}")
    validation = (
        f" --validation-data {quote(str(result.out / 'validation.parquet'))}"
        if "validation" in settings.held_out
        else ""
    )
    flags = [
        f" --{name.replace('_', '-')} {quote(value)}"
        for name, value in (
            ("text_column", settings.text_column),
            ("text_pair_column", settings.text_pair_column),
            ("label_column", settings.label_column),
            ("group_column", settings.group_column),
            ("id_column", settings.id_column),
            ("task", settings.task),
        )
        if value is not None and value != getattr(LabelledSettings, name, None)
    ]
    stdout(
        f"next: assay train --data {quote(str(result.out / 'train.parquet'))}{validation}{''.join(flags)}"
        " --base MODEL --out BUNDLE"
    )
    return 0


VERB = Verb(
    settings=LabelledSettings,
    run=run,
    example="example: assay prepare labelled 'reviews/*.jsonl' --label-column stars --out prepared/",
    config="flag",
)
