"""The commands by name, with their settings classes and parsers, for tests that look at all of them."""

from assay.cli.flags import parse_settings
from assay.cli.help import parser_of
from assay.cli.verb import Listed
from assay.cli.verbs import ASSAY

LISTED = {" ".join(words): node for words, node in ASSAY.walk() if isinstance(node, Listed)}
VERBS = {name: node.load() for name, node in LISTED.items()}


def parser(name):
    """The parser of a command."""
    return parser_of(tuple(name.split()), LISTED[name].summary, VERBS[name])


def parse(name, words):
    """The settings that a command makes of the words after its name."""
    return parse_settings(parser(name), VERBS[name].settings, [str(word) for word in words])
