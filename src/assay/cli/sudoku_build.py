"""`assay sudoku build`: puzzles of one solution, rated, split and written for HRM and TRM."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.sudoku.settings import SudokuBuildSettings


def run(settings: SudokuBuildSettings) -> int:
    """Build, with news on stderr, and say what is in the folder."""
    from assay.sudoku.build import sudoku_build

    report = sudoku_build(settings, on_message=say)
    stdout(str(report))
    stdout(f"built {settings.out}")
    return 0


VERB = Verb(
    settings=SudokuBuildSettings,
    run=run,
    example="example: assay sudoku build puzzles/ --num-puzzles 20000 --strata 0=0.4 1-4=0.4 10-29=0.2",
    config="flag",
)
