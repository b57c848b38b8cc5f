"""[pure] Whether a text is whole, as far as the text itself tells.

A server that states too small a length cuts a book without any error in the protocol. A text that opens with the
publisher's line and lacks the one that closes it was cut. Texts older than these lines say nothing, and pass.
"""

import re

_START = re.compile(rb"^\*{2,} ?START OF TH(?:E|IS) PROJECT GUTENBERG", re.IGNORECASE | re.MULTILINE)
_END = re.compile(
    rb"END OF (?:TH(?:E|IS) )?PROJECT GUTENBERG|End of The Project Gutenberg|Ende dieses Projekt Gutenberg",
    re.IGNORECASE,
)


def is_cut_short(content: bytes) -> bool:
    """Whether a text has the line that opens a book of the publisher and not the line that closes it."""
    start = _START.search(content)
    return start is not None and _END.search(content, start.end()) is None
