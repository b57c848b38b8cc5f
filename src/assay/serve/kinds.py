"""What is served: a classifier, whose outputs become scores, or an encoder, whose outputs are vectors.

The server and its engine processes open a folder by one rule, `open_model`, so that all have the same model.
Imports no torch: the server has none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from assay.bundle.bundle import Bundle
from assay.bundle.embedder import Embedder, load_embedder
from assay.bundle.folders import is_ensemble, is_siamese
from assay.embed.plan import make_encoder
from assay.engine.half import why_not_fp16
from assay.engine.precision import Computed
from assay.model.checkpoint import architectures, is_headless, read_config
from assay.model.sentence_files import MODULES, PoolingName
from assay.score.bundles import encoder_of, engine_of, num_outputs, open_bundle, parse_precision
from assay.score.cascade.bundle import Cascade, kind_of
from assay.serve.scores import Scoring
from assay.serve.settings import ModelKind
from assay.serve.vectors import Vectorizing
from assay.siamese.files import Siamese
from assay.tokenize.encode import Encoder
from assay.tokenize.plan import choose_max_length, other_lengths
from assay.tokenize.settings import LongDocuments
from assay.tokenize.views import Views

if TYPE_CHECKING:
    from assay.engine.engine import Engine

_TEI_POOLINGS: dict[PoolingName, str] = {"mean": "mean", "first_token": "cls", "attention": "attention"}
"""Poolings as text-embeddings-inference names them; it has no attention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedClassifier:
    """A classifier: labels, or a number; of texts, of pairs, or of pairs whose texts are encoded apart."""

    bundle: Bundle

    @property
    def siamese(self) -> Siamese | None:
        """The bundle, where its engines give the vectors of single texts and a head the scores of pairs."""
        return self.bundle if isinstance(self.bundle, Siamese) else None

    @property
    def path(self) -> Path:
        """What is served: the folder of the model, the file of a cascade."""
        return self.bundle.path

    @property
    def fingerprint(self) -> str:
        """Hash of all that can change an answer."""
        return self.bundle.fingerprint

    @property
    def num_outputs(self) -> int:
        """Numbers that the engine gives of a sequence."""
        return num_outputs(self.bundle)

    @property
    def is_pair(self) -> bool | None:
        """Whether it takes two texts; None where the folder does not say."""
        return self.bundle.is_pair

    def parse_precision(self, name: str, *, device: str) -> Computed:
        """The precision of that name on a device, `auto` resolved for this model."""
        return parse_precision(name, self.bundle, device=device)

    def load_engine(
        self, *, device: str, precision: str, num_threads: int | None, packed: bool, deterministic: bool
    ) -> "Engine":
        """The engine that answers are made of; settings and errors are those of `engine.load.load_engine`."""
        return engine_of(
            self.bundle,
            device=device,
            precision=precision,
            num_threads=num_threads,
            packed=packed,
            deterministic=deterministic,
        )

    def make_encoder(self, settings: LongDocuments) -> Encoder:
        """What makes token ids of texts."""
        encoder = encoder_of(self.bundle, settings)
        if self.bundle.is_pair and self.siamese is None:
            encoder.check_pairs()
        return encoder

    def answering(self, views: Views) -> Scoring | Vectorizing:
        """What makes scores of outputs, or the vectors that scores are then made of."""
        return Scoring(self.bundle.decider, views) if self.siamese is None else Vectorizing(views)

    def notes(self, encoder: Encoder) -> list[str]:
        """What the user should hear of the model and of how it is served."""
        meta = None if self.bundle.calibration is None else self.bundle.calibration.meta
        lengths = other_lengths(
            meta, max_length=encoder.max_length, on_long=encoder.on_long, stride=encoder.stride
        )
        return [*self.bundle.notes, *([lengths] if lengths else [])]

    def info(self) -> dict[str, object]:
        """What `/info` says of it beside what it says of every model."""
        labels = self.bundle.labels
        kind = "reranker" if self.bundle.is_pair and len(labels) == 1 else "classifier"
        return {
            "model_type": {
                kind: {
                    "id2label": {str(index): label for index, label in enumerate(labels)},
                    "label2id": {label: index for index, label in enumerate(labels)},
                }
            },
            "kind": "cascade" if isinstance(self.bundle, Cascade) else kind_of(self.bundle),
            "task": self.bundle.task,
            "labels": list(labels),
            "calibrated": self.bundle.calibration is not None or isinstance(self.bundle, Cascade),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedEncoder:
    """A sentence encoder: vectors."""

    embedder: Embedder
    pooling: PoolingName
    normalized: bool
    """Whether vectors have length 1 where a request does not say."""

    @property
    def path(self) -> Path:
        """The folder of the model."""
        return self.embedder.checkpoint.path

    @property
    def fingerprint(self) -> str:
        """Hash of all that can change a vector, how it is pooled and normalised aside."""
        return self.embedder.fingerprint

    @property
    def num_outputs(self) -> int:
        """D, the length of its vectors."""
        return self.embedder.dimension

    @property
    def is_pair(self) -> bool:
        """False: an encoder takes single texts."""
        return False

    def parse_precision(self, name: str, *, device: str) -> Computed:
        """The precision of that name on a device, `auto` resolved for this model."""
        from assay.engine import devices

        return devices.parse_precision(
            name,
            devices.parse_device(device),
            lambda: why_not_fp16(self.embedder.checkpoint, headless=True),
        )

    def load_engine(
        self, *, device: str, precision: str, num_threads: int | None, packed: bool, deterministic: bool
    ) -> "Engine":
        """The engine of vectors of any length, since each request says whether it is to be 1."""
        from assay.engine.load import load_engine
        from assay.model.embedding import embedding_head

        return load_engine(
            self.embedder.checkpoint,
            device=device,
            precision=precision,
            num_threads=num_threads,
            packed=packed,
            deterministic=deterministic,
            head=embedding_head(
                self.embedder.checkpoint, self.embedder.files, pooling=self.pooling, normalized=False
            ),
        )

    def make_encoder(self, settings: LongDocuments) -> Encoder:
        """What makes token ids of texts."""
        return make_encoder(
            self.embedder,
            max_length=choose_max_length(self.embedder, settings.max_length),
            on_long=settings.on_long,
            stride=settings.stride,
        )

    def answering(self, views: Views) -> Vectorizing:
        """What makes vectors of outputs."""
        return Vectorizing(views)

    def notes(self, encoder: Encoder) -> list[str]:
        """What the user should hear of the model."""
        del encoder
        return list(self.embedder.notes)

    def info(self) -> dict[str, object]:
        """What `/info` says of it beside what it says of every model."""
        return {
            "model_type": {"embedding": {"pooling": _TEI_POOLINGS[self.pooling]}},
            "dimension": self.embedder.dimension,
            "normalized": self.normalized,
            "prompts": dict(self.embedder.files.prompts),
        }


ServedModel = ServedClassifier | ServedEncoder


def open_model(
    folder: str,
    *,
    kind: ModelKind,
    pooling: PoolingName | Literal["auto"],
    normalize: Literal["auto", "yes", "no"] = "auto",
) -> ServedModel:
    """The model in a folder, of the kind asked for.

    Under `auto` a classifier is what has a head of pairs beside it, or a classification head by its config, or
    says nothing and has no modules of sentence-transformers; all else is an encoder. Raises BundleError for what
    cannot be served, UsageError for a pooling that the model has no weights for.
    """
    if kind == "auto":
        kind = "classifier" if is_siamese(folder) or is_ensemble(folder) else _kind_of(folder)
    if kind == "classifier":
        return ServedClassifier(bundle=open_bundle(folder))
    embedder = load_embedder(folder)
    return ServedEncoder(
        embedder=embedder, pooling=embedder.pooling(pooling), normalized=embedder.normalized(normalize)
    )


def _kind_of(folder: str) -> Literal["classifier", "encoder"]:
    path, config = read_config(folder)
    if architectures(config):
        return "encoder" if is_headless(config) else "classifier"
    return "encoder" if (Path(path) / MODULES).exists() else "classifier"
