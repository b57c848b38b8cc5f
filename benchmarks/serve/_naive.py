"""The usual design of a served classifier, as the baseline of the serving benchmarks.

    python benchmarks/serve/_naive.py BUNDLE --port 8001

FastAPI on uvicorn with an `async def` handler: it tokenizes one text, padded to a fixed 128 tokens, runs the
transformers model on it in fp32, and answers with every label's probability, rounded; all of it in the event
loop, one request after another. In three ways it is kinder than the designs that it stands for: no access log,
uvloop and httptools where they are installed, and `--padding longest` pads to the text's own length. Where
FastAPI is not installed the same handler runs on starlette, beneath FastAPI, which costs less.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import uvicorn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

try:
    from fastapi import FastAPI
    from pydantic import BaseModel, Field
except ImportError:
    FastAPI = None

MOST_CHARS = 10_000


class Predictor:
    """Model and tokenizer."""

    def __init__(self, folder: Path, device: str, dtype: str, max_length: int, padding: str) -> None:
        """Load both."""
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
        self.device = torch.device(device)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype))
        self.model = loaded.to(self.device).eval()
        self.labels = [loaded.config.id2label[index] for index in range(loaded.config.num_labels)]
        self.max_length = max_length
        self.padding = padding

    def predict(self, text: str) -> dict[str, Any]:
        """Label, confidence and all probabilities of a text; a single output's own value as its score."""
        inputs = self.tokenizer(
            text, max_length=self.max_length, padding=self.padding, truncation=True, return_tensors="pt"
        )
        given = {name: inputs[name].to(self.device) for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            logits = self.model(**given).logits
        if len(self.labels) == 1:
            return {"score": logits[0, 0].item()}
        probabilities = torch.softmax(logits, dim=1)[0]
        confidence, index = torch.max(probabilities, dim=0)
        return {
            "label": self.labels[int(index.item())],
            "confidence": round(confidence.item(), 4),
            "all_probabilities": {
                label: round(value.item(), 4) for label, value in zip(self.labels, probabilities, strict=True)
            },
        }


def fastapi_app(predictor: Predictor) -> Any:  # noqa: ANN401  of a package that may be missing
    """The application."""
    app = FastAPI()

    class Asked(BaseModel):
        text: str = Field(min_length=1, max_length=MOST_CHARS)

    class Answer(BaseModel):
        label: str | None = None
        confidence: float | None = None
        all_probabilities: dict[str, float] | None = None
        score: float | None = None

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "healthy", "model_loaded": True}

    @app.post("/predict", response_model=Answer)
    async def predict(asked: Asked) -> dict[str, Any]:
        return predictor.predict(asked.text)

    return app


def starlette_app(predictor: Predictor) -> Any:  # noqa: ANN401  as above
    """The same without FastAPI's validation."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def health(request: Request) -> JSONResponse:
        del request
        return JSONResponse({"status": "healthy", "model_loaded": True})

    async def predict(request: Request) -> JSONResponse:
        text = (await request.json())["text"]
        if not 1 <= len(text) <= MOST_CHARS:
            return JSONResponse({"detail": "text"}, status_code=422)
        return JSONResponse(predictor.predict(text))

    routes = [Route("/health", health), Route("/predict", predict, methods=["POST"])]
    return Starlette(routes=routes)


def main() -> None:
    """Serve."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("bundle", type=Path)
    flags.add_argument("--port", type=int, required=True)
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    flags.add_argument("--max-length", type=int, default=128)
    flags.add_argument("--padding", default="max_length", choices=("max_length", "longest"))
    arguments = flags.parse_args()
    predictor = Predictor(
        arguments.bundle, arguments.device, arguments.dtype, arguments.max_length, arguments.padding
    )
    app = starlette_app(predictor) if FastAPI is None else fastapi_app(predictor)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
