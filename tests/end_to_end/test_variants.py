"""Variants of a pair model are compared from the command line: trained, scored on the same pairs, on one page."""

import json

import numpy as np
from support.bundles import WORDS
from support.models import write_model
from support.rendered import Page

from assay.cli.main import main

NUM_PAIRS = 120


def write_pairs(file):
    """Pairs of short texts by 30 authors, some by one and the same."""
    rng = np.random.default_rng(0)
    with file.open("w", encoding="utf-8") as sink:
        for _ in range(NUM_PAIRS):
            first = int(rng.integers(30))
            second = first if rng.random() < 0.4 else int(rng.integers(30))
            row = {
                **{f"text{side}": " ".join(rng.choice(WORDS, size=rng.integers(2, 20))) for side in (1, 2)},
                "author1": f"a{first}",
                "author2": f"a{second}",
                "label": "spam" if first == second else "ham",
            }
            sink.write(json.dumps(row) + "\n")
    return file


def test_two_variants_are_compared_with_a_first_on_the_same_pairs(tmp_path, capsys):
    """A table each for people, the same in JSON, and a page with the calibration of all three side by side."""
    for seed, name in enumerate(("base", "small", "large")):
        write_model(tmp_path / name, seed=seed)
    pairs, page = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "page.html"
    command = [
        *("evaluate", str(tmp_path / "base"), str(pairs), "--text-column", "text1"),
        *("--text-pair-column", "text2", "--group-columns", "author1", "author2"),
        *("--against", str(tmp_path / "small"), str(tmp_path / "large"), "--resamples", "200"),
    ]
    assert main([*command, "--out", str(page)]) == 0
    said = capsys.readouterr().out
    for line in (
        "base, against small, large: 120 rows",
        "base less small",
        "base less large",
        "c@1",
        "F0.5u",
    ):
        assert line in said
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["intervals"]["drawn"] == "groups of both sides"
    assert [each["name"] for each in found["against"]] == ["small", "large"]
    part = found["parts"][0]
    for other in part["against"]:
        for name, difference in other["differences"].items():
            ours, theirs = part["metrics"][name]["value"], other["metrics"][name]["value"]
            assert difference["value"] == ours - theirs
        assert other["differences"]["brier"]["low"] < other["differences"]["brier"]["high"]
    html = page.read_text()
    captions = [f"<figcaption>Reliability of {name}</figcaption>" for name in ("base", "small", "large")]
    places = [html.index(caption) for caption in captions]
    assert places == sorted(places)
    # Beside each other: in one grid, with nothing but the diagrams themselves between.
    assert "</section>" not in html[places[0] : places[-1]]
    assert Page(html)
