"""A text as it is kept: Unicode form, white space, control characters. Pure."""

import re
import unicodedata
from typing import Literal

from assay.prepare.labelled.settings import UnicodeForm, Whitespace

_FORMS: dict[UnicodeForm, Literal["NFC", "NFKC"]] = {"nfc": "NFC", "nfkc": "NFKC"}
_LINE_ENDS = re.compile("\r\n?|\u2028|\u2029|\x85")
# Tab and line feed stay; a byte order mark within a text is left over from joined files.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")


def clean_text(text: str, *, unicode_form: UnicodeForm, whitespace: Whitespace) -> str:
    """The text as it is written; cleaning it again changes nothing.

    Under `trim` the inner white space stays, so that lines and indented code survive.
    """
    form = _FORMS.get(unicode_form)
    if whitespace == "as-is":
        return text if form is None else unicodedata.normalize(form, text)
    text = _CONTROL.sub("", _LINE_ENDS.sub("\n", text))
    # After that, as a control character may stand between a letter and its accent.
    if form is not None:
        text = unicodedata.normalize(form, text)
    return text.strip() if whitespace == "trim" else " ".join(text.split())
