"""Novels for the tests of this room."""

import pytest
from support.novels import write_novel

from assay.prepare.listing import list_books


@pytest.fixture(scope="module")
def novels(tmp_path_factory):
    """Twelve novels of six authors, an edition of one among them, and a text that is too short."""
    folder = tmp_path_factory.mktemp("novels")
    for number in range(12):
        author = "abcdef"[number // 2]
        write_novel(
            folder / f"{author}_{number}.txt", number, names=(f"Name{'abcdefghijkl'[number]}", "Common")
        )
    text = (folder / "b_2.txt").read_text(encoding="utf-8")
    (folder / "e_edition.txt").write_text(
        "The preface is new.\n" + text.replace("The", "\u201cThe"), encoding="utf-8"
    )
    (folder / "f_short.txt").write_text("Short.\n", encoding="utf-8")
    return list_books(str(folder), None, tmp_path_factory.mktemp("listing") / "books.arrow")
