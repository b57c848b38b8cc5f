"""Which files of a mirror are wanted is decided from its listing."""

import pytest

from assay.gutenberg.mirroring import best_files, filters, preference, read_listing

LISTING = """drwxrwxr-x          4,096 2024/05/01 10:00:00 1/2/12
-rw-rw-r--        152,089 2024/05/01 10:00:00 1/2/12/12-8.txt
-rw-rw-r--        152,345 2024/05/01 10:00:00 1/2/12/12-0.txt
-rw-rw-r--        150,000 2024/05/01 10:00:00 1/2/12/12.txt
-rw-rw-r--        150,000 2004/05/01 10:00:00 1/2/12/old/12.txt
-rw-rw-r--         99,000 2024/05/01 10:00:00 1/3/13/13-8.txt
-rw-rw-r--             10 2024/05/01 10:00:00 1/3/13/13-h/13.txt
-rw-rw-r--             10 2024/05/01 10:00:00 1/index.txt
-rw-r--r--        444,444 2024/05/01 10:00:00 158/pg158.txt
lrwxrwxrwx             10 2024/05/01 10:00:00 1/4/14/14.txt -> ../x
sent 20 bytes  received 1,000 bytes
"""


def test_a_listing_gives_the_texts_of_books():
    """Folders, links, older editions, pages and summaries are not texts of books."""
    found = [(file.gutenberg_id, file.path, file.size_bytes) for file in read_listing(LISTING.splitlines())]
    assert found == [
        (12, "1/2/12/12-8.txt", 152089),
        (12, "1/2/12/12-0.txt", 152345),
        (12, "1/2/12/12.txt", 150000),
        (13, "1/3/13/13-8.txt", 99000),
        (158, "158/pg158.txt", 444444),
    ]


@pytest.mark.parametrize(("utf8_only", "paths"), [(False, ["12-0.txt", "13-8.txt"]), (True, ["12-0.txt"])])
def test_one_file_a_book_utf8_first(utf8_only, paths):
    """The order of the listing does not matter."""
    files = read_listing(LISTING.splitlines())[:4]
    for order in (files, files[::-1]):
        best = best_files(order, utf8_only=utf8_only)
        assert [file.path.rpartition("/")[2] for file in best] == paths


def test_names_are_preferred_in_order():
    """Generated, -0, utf-8, -8, plain; nothing else."""
    names = ("1/pg1.txt", "1/1-0.txt", "1/1.txt.utf-8", "1/1-8.txt", "1/1.txt", "1/1.zip", "1/1.html")
    scores = [preference(name) for name in names]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == 0
    assert len(set(scores)) == len(scores)


def test_older_editions_are_excluded_before_any_folder_is_included():
    """The first rule that matches decides."""
    rules = filters("7")
    assert rules[0] == "--exclude=old/"
    assert rules.index("--exclude=old/") < rules.index("--include=*/")
