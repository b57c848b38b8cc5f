"""The engine alone, in a process of its own: texts are tokenized beforehand, a line of stdin asks for a round.

Prints a line of JSON a round: the seconds of all texts together, or of each text alone, or of the one whose number the
line gave. A first round is not printed. Between rounds the process waits for input and takes nothing from others.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


class Bare:
    """The process, from the benchmark's side."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Talk to a process that was started."""
        self._process = process

    def round(self, which: int | None = None) -> list[float]:
        """Seconds of a round: one figure for all texts together, or one for each, or that of one text."""
        assert self._process.stdin is not None, "it was started with a pipe"
        assert self._process.stdout is not None, "it was started with a pipe"
        self._process.stdin.write("\n" if which is None else f"{which}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the bare engine ended")
        found: list[float] = json.loads(line)
        return found


@contextlib.contextmanager
def bare_engine(
    bundle: Path,
    texts: Sequence[str],
    *,
    device: str,
    max_length: int,
    at_once: bool,
    environment: dict[str, str],
) -> Iterator[Bare]:
    """The engine on these texts, loaded and warm by its first round."""
    told = {
        "bundle": str(bundle),
        "texts": list(texts),
        "device": device,
        "max_length": max_length,
        "at_once": at_once,
    }
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        assert process.stdin is not None, "it was started with a pipe"
        try:
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
            yield Bare(process)
        finally:
            process.kill()


def main() -> None:
    """Load, then a round a line."""
    import pyarrow as pa

    from assay.engine.load import load_engine
    from assay.engine.run import run_sequences
    from assay.engine.sequences import Sequences
    from assay.tokenize.encode import Encoder

    told = json.loads(sys.stdin.readline())
    encoder = Encoder.from_bundle(told["bundle"], max_length=told["max_length"], on_long="truncate")
    engine = load_engine(told["bundle"], device=told["device"])
    groups = [told["texts"]] if told["at_once"] else [[text] for text in told["texts"]]
    found = [encoder.encode(pa.array(group, pa.large_string())) for group in groups]
    given = [Sequences(flat_ids=tokens.flat_ids, offsets=tokens.offsets) for tokens in found]

    def seconds(sequences: Sequences) -> float:
        began = time.perf_counter()
        run_sequences(engine, sequences)
        return time.perf_counter() - began

    for sequences in given:
        seconds(sequences)
    for line in sys.stdin:
        chosen = [given[int(line)]] if line.strip() else given
        print(json.dumps([seconds(sequences) for sequences in chosen]), flush=True)


if __name__ == "__main__":
    main()
