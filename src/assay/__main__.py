"""The command `assay` from its first moment: what Ctrl-C does is settled before anything else is imported.

Within an import an interrupt ends the process at once, with status 130: raised there it may be swallowed, or
come out as the ImportError of a library. Anywhere else it is a KeyboardInterrupt, which the command answers.
A process that was started with a signal ignored (`nohup`, `&` in a script) goes on ignoring it.
"""

# `signal` itself takes milliseconds, in which an interrupt would show a traceback
import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False  # as typing has it, which takes as long
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

INTERRUPTED = 130
SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGUSR1)  # a preempted pod stops as on Ctrl-C


def main() -> int:
    """Run the command line; returns the exit status."""
    answer(interrupt)
    try:
        from assay import machine

        os.environ.update(machine.yielding(os.environ))  # before torch is loaded, here and in every child
        from assay.cli.main import main as run_command

        return run_command()
    except KeyboardInterrupt:  # between the import and the command's own answer
        return quit_now()
    finally:
        answer(quit_now)  # nothing is left to stop but the interpreter


def answer(handler: "Callable[[int, FrameType | None], object]") -> None:
    """Have `handler` called on each of the signals that stop a command and are not ignored."""
    for number in SIGNALS:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, handler)


def interrupt(number: int, frame: "FrameType | None") -> None:
    """End the process within an import; anywhere else raise a KeyboardInterrupt that holds the signal's number."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            quit_now(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt(number)


def quit_now(*_: object) -> int:
    """End the process without a traceback, and without what the interpreter does at its end."""
    show_cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar hides it
    os.write(2, show_cursor + b"interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
