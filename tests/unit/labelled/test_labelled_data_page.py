"""The page on labelled data: its Python runs as written and prints what the page shows."""

import json
import random

from support.pages import ROOT, run_page


def test_the_page_shows_what_it_prints(tmp_path, monkeypatch):
    """200 reviews of 40 authors, ten of them nearly repeated."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    words = [f"w{index}" for index in range(2000)]
    texts = [" ".join(rng.choices(words, k=20)) for _ in range(200)]
    for author in range(10):
        texts[5 * author + 1] = " ".join([*texts[5 * author].split()[:-1], "changed"])
    rows = [
        {"id": row, "text": text, "stars": 5 if row % 4 == 0 else 1, "author": f"author {row // 5}"}
        for row, text in enumerate(texts)
    ]
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_page(ROOT / "docs" / "how-to" / "labelled-data.md")
