"""A client of `assay serve`, sync and async, with the same rules for both.

    with assay.Client("http://127.0.0.1:8000") as client:
        client.predict("Shares fell sharply.").label
        client.predict_batch(texts)                      # any number, in order
        for row in client.stream(rows, text_column="body"): ...
        client.embed(texts)                              # of an encoder: float32 [N, D]

    texts -> calls (what to send) -> wire (send, try again) -> replies (what came back) -> rows of a stream

All of that is plain functions and one generator that touch no socket and no clock. The two clients only send,
wait and keep several requests in flight; `connection` is what both are made with.

Needs httpx, which the extra `serve` brings. Training, scoring and embedding of whole corpora and the TEI
routes are not covered: a client of text-embeddings-inference works with this server as it is.
"""
