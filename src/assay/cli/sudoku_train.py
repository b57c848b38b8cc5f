"""`assay sudoku train`: puzzles to snapshots of a model that solves them."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.exits import INTERRUPTED
from assay.train.puzzles.settings import PuzzleTraining


def run(settings: PuzzleTraining) -> int:
    """Train, with progress on stderr, and say how it went."""
    from assay.train.checkpoints import training_folder, way_out
    from assay.train.display import TrainDisplay
    from assay.train.history import Listener
    from assay.train.puzzles.train import sudoku_train

    try:
        with TrainDisplay("accuracy") as display:
            listener = Listener.of(display.update, say, display.phase)
            report = sudoku_train(settings, listener)
    except KeyboardInterrupt:
        say(f"interrupted: {way_out(training_folder(settings.out))}")
        return INTERRUPTED
    stdout(str(report))
    return 0


VERB = Verb(
    settings=PuzzleTraining,
    run=run,
    example="example: assay sudoku train puzzles/ --out model/ --hidden-size 256 --num-heads 4",
    config="flag",
)
