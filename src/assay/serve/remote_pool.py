"""The pool of a front process: its engines are behind the core."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from assay.serve import document_frames
from assay.serve.board import MODEL_COLUMNS, OPEN, RATE, TOKENS, Board
from assay.serve.core_link import CoreLink
from assay.serve.dispatcher import Deliver
from assay.serve.document_frames import DocumentsFrame, ScoresFrame
from assay.serve.engine_pool import PoolStatus
from assay.serve.engines import Child, EngineSpec
from assay.serve.tickets import QueuedDocument, Ticket

_STARTING = PoolStatus(trouble="starting", is_faulty=False, engines=())


@dataclass(slots=True)
class _Asked:
    """A request whose documents the core has."""

    number: int
    documents: set[int] = field(default_factory=set)
    """Numbers of those that are not answered."""


class RemotePool:
    """Documents to the core, outputs back. What comes in one turn of the event loop goes out together."""

    def __init__(self, link: CoreLink, board: Board, index: int, number: int, *, deliver: Deliver) -> None:
        """Pool `number` of the core, asked by front `index`; outputs go to `deliver`."""
        self.state = _STARTING
        self._link = link
        self._rows = board.rows
        self._index = index
        self._number = number
        self._column = MODEL_COLUMNS * (number & 1)
        self._deliver = deliver
        self._is_published = True
        self._asked: dict[Ticket, _Asked] = {}
        self._tickets: dict[int, Ticket] = {}
        """By number."""
        self._documents: dict[int, QueuedDocument] = {}
        """By number, those that are not answered."""
        self._last_request = self._last_document = 0
        self._outgoing: list[tuple[int, int, QueuedDocument]] = []
        """Number of the request and of the document."""
        self._cancelled: list[int] = []
        self._is_called = False

    # ------------------------------------------------------------ the state

    @property
    def num_documents(self) -> int:
        """Documents that wait in the core and in the other fronts."""
        return int(self._elsewhere(self._column) + self._rows[0, self._column])

    @property
    def num_tokens(self) -> int:
        """Tokens that wait or are being computed, those of the other fronts too."""
        column = self._column + TOKENS
        return int(self._elsewhere(column) + self._rows[0, column])

    @property
    def tokens_per_second(self) -> float:
        """What all engines do together, as last measured; 0 before any was ready."""
        return float(self._rows[0, self._column + RATE])

    def status(self) -> PoolStatus:
        """How the engines are, as the core last said."""
        return self.state

    def publish(self, num_documents: int, num_tokens: int) -> None:
        """Tell the other fronts what waits here."""
        if self._is_published:
            row = self._rows[self._index]
            row[self._column], row[self._column + TOKENS] = num_documents, num_tokens

    def open_elsewhere(self, num_documents: int) -> int:
        """Documents of requests open in other fronts; tells them how many are here."""
        if self._is_published:
            self._rows[self._index, OPEN] = num_documents
        return int(self._elsewhere(OPEN))

    def stop_publishing(self) -> None:
        """Another model is served now; what waits here is not for it."""
        self._is_published = False

    def _elsewhere(self, column: int) -> float:
        return float(self._rows[1:, column].sum() - self._rows[self._index, column])

    # ------------------------------------------------------------ documents

    def add(self, ticket: Ticket, documents: list[QueuedDocument]) -> None:
        """Send tokenized documents of a request to the core."""
        asked = self._asked.get(ticket)
        if asked is None:
            self._last_request += 1
            asked = self._asked[ticket] = _Asked(self._last_request)
            self._tickets[asked.number] = ticket
        for document in documents:
            self._last_document += 1
            number = self._last_document
            self._documents[number] = document
            asked.documents.add(number)
            self._outgoing.append((asked.number, number, document))
        self._call()

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request; nothing where all of it is answered."""
        asked = self._asked.pop(ticket, None)
        if asked is not None:
            del self._tickets[asked.number]
            for number in asked.documents:
                del self._documents[number]
            self._cancelled.append(asked.number)
            self._call()

    def take_scores(self, frame: ScoresFrame) -> None:
        """Outputs of documents came; those that nobody waits for any more are thrown away."""
        documents: list[QueuedDocument] = []
        is_wanted_N = np.ones(len(frame.documents_N), np.bool_)
        started_N = frame.started_N.tolist()
        for row, number in enumerate(frame.documents_N.tolist()):
            document = self._documents.pop(number, None)
            if document is None:
                is_wanted_N[row] = False
                continue
            ticket = document.ticket
            asked = self._asked[ticket]
            asked.documents.discard(number)
            if not asked.documents:
                del self._asked[ticket], self._tickets[asked.number]
            ticket.started_at = ticket.started_at or started_N[row]
            documents.append(document)
        outputs_SC = frame.outputs_SC
        if not is_wanted_N.all():
            outputs_SC = outputs_SC[np.repeat(is_wanted_N, frame.num_views_N)]
        if documents:
            self._deliver(documents, outputs_SC, frame.seconds)

    def refuse(self, number: int, refusal: Exception) -> None:
        """The core refuses a request."""
        ticket = self._tickets.get(number)
        if ticket is not None:
            ticket.fail(refusal)

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_called = False
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            self._link.write(document_frames.pack_documents(self._number, _frame(outgoing)))
        if self._cancelled:
            cancelled, self._cancelled = self._cancelled, []
            self._link.write(document_frames.pack_cancel(self._number, cancelled))

    # ------------------------------------------------------------ start and end

    async def start(self, children: Sequence[tuple[EngineSpec, Child]]) -> None:
        """The core starts the engines."""

    async def stop(self) -> None:
        """The core ends the engines."""


def _frame(outgoing: Sequence[tuple[int, int, QueuedDocument]]) -> DocumentsFrame:
    documents = [document for _, _, document in outgoing]
    return DocumentsFrame(
        requests_N=np.array([request for request, _, _ in outgoing], np.int64),
        documents_N=np.array([number for _, number, _ in outgoing], np.int64),
        deadlines_N=np.array([document.ticket.deadline for document in documents], np.float64),
        second_starts_N=np.array([document.second_start for document in documents], np.int32),
        normalize_N=np.array([document.ticket.how.normalize for document in documents], np.int32),
        num_views_N=np.array([len(document.lengths) for document in documents], np.int32),
        lengths=np.array([length for document in documents for length in document.lengths], np.int32),
        flat_ids=np.concatenate([document.flat_ids for document in documents]),
    )
