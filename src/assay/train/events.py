"""What a rank tells the process that started it: progress, lines and phases, as events of one key each."""

from collections.abc import Callable
from dataclasses import asdict

from assay.processes import Json
from assay.train.history import Listener, TrainProgress


def telling(send: Callable[[Json], None]) -> Listener:
    """A listener that sends on all that it hears; `hear` is the other end."""
    return Listener(
        on_progress=lambda progress: send({"event": "progress", "value": asdict(progress)}),
        on_message=lambda line: send({"event": "message", "value": line}),
        on_phase=lambda phase: send({"event": "phase", "value": phase}),
    )


def hear(event: Json, listener: Listener) -> None:
    """Tell the listener what an event of `telling` says."""
    match event:
        case {"event": "progress", "value": progress}:
            listener.on_progress(TrainProgress(**progress))
        case {"event": "message", "value": line}:
            listener.on_message(line)
        case {"event": "phase", "value": phase}:
            listener.on_phase(phase)
