"""Signals as a shell at a terminal has them, whatever the suite was started with."""

import signal


def heed_stopping_signals():
    """Heed SIGINT and SIGTERM here and in every process that a test starts.

    A suite that `nohup` or `&` in a script started ignores SIGINT, and its children would too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
