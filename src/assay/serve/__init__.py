"""Serving: a process that answers HTTP, or several before one core, and an engine process a device that computes.

settings.py        what a user may set
verb.py            `assay serve`: check, listen, start the engines, then the server
placement.py       which engine processes, and where
server.py          the event loop: uvicorn, signals, drain
protocol.py        one connection: bytes to requests, within limits
edge.py            the outermost layer: request ids, keys, headers, log, errors as answers
routes.py          what each address does; models.py and bodies.py check what comes in
answers.py         scores and vectors -> JSON; docs.py the OpenAPI document and its page
service.py         which deployment answers now: admit, start, reload, end
kinds.py           what is served: a classifier or an encoder
deployment.py      one model with its tokenizer and its pool; tickets.py a request on its way
tokenizing.py      texts -> documents of token ids, in threads
engine_pool.py     the engines of one model with the queue before them
dispatcher.py      documents -> batches -> engines -> answers
policy.py          which documents the device gets next (pure)
engines.py         engine processes, from the server's side; links.py the socket to one
engine_process.py  the process that computes; frames.py what goes between (pure)
parity.py          some documents in fp32 too, while it has nothing else to do
cascade.py         two deployments, the second asked about what the first leaves open
pairs.py           pairs of a Siamese model -> distinct texts, and their vectors -> scores
scores.py          logits -> probabilities -> decisions, as a scored row
vectors.py         vectors of windows -> vectors of documents, as an embed run
keys.py            API keys and rate limits
refusals.py        one table from reasons to HTTP statuses
metrics.py, log.py what operators see; page/ what people see

Where several front processes share the port:

fronts.py          the core's side of them; front_process.py one of them, started and watched
front.py           the process that has clients and tokenizer
remote_pool.py     its pool, whose engines are behind the core; core_link.py its end of the socket
document_frames.py what goes between (pure)
board.py           numbers that all of them see at once, in shared memory
"""
