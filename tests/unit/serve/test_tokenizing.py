"""Texts to documents of token ids, one text at a time refused."""

import asyncio
import contextlib
import json

from support.bundles import write_bundle

from assay.serve.refusals import Refusal
from assay.serve.tickets import How, QueuedDocument, Text, Ticket
from assay.serve.tokenizing import Tokenizer
from assay.tokenize.encode import Encoder


def test_a_text_with_a_token_that_has_no_embedding_is_refused_alone(tmp_path):
    """The tokenizer may know a token that the model does not: that text gets a reason, the others their ids."""
    folder = write_bundle(tmp_path / "b")
    content = json.loads((folder / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"].append({"id": 107, "content": "<user>", **flags})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    encoder = Encoder.from_bundle(folder, max_length=16, on_long="truncate")
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        ticket = Ticket(
            request_id="r",
            num_documents=2,
            deadline=0.0,
            how=How(),
            done=loop.create_future(),
            arrived_at=0.0,
        )
    texts = [Text(ticket, 0, "document of 3", None), Text(ticket, 1, "a <user> document", None)]
    fine, refused = Tokenizer(encoder).documents(texts)
    assert isinstance(fine, QueuedDocument)
    assert fine.flat_ids.tolist() == [2, 5, 6, 10, 3]
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.message) == (
        "invalid",
        "text 1 holds a token that the model has no embedding for; leave the token out",
    )
