"""The head of pairs: two vectors and the style of two texts to the logits of a relation.

It sees `[h1, h2, |h1 - h2|, h1 * h2, style1, style2]` (Reimers and Gurevych 2019, with the product and the style
beside it), the vectors scaled so that their numbers are about 1.

Axes: N pairs, D dimensions of a vector, F style features, C outputs.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from assay.bundle.folders import HEAD_FOLDER
from assay.errors import BundleError
from assay.model.pretrained import one_line
from assay.siamese.files import HEAD_WEIGHTS, PairHeadConfig, Siamese


class PairHead(nn.Module):
    """Vectors of length 1 and standardised style features of two texts to logits."""

    def __init__(self, config: PairHeadConfig, *, dropout: float = 0.0, temperature: float = 0.07) -> None:
        """Make new weights from the global generator; `dropout` is that of the inner layer in training."""
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.inner = nn.Linear(config.num_inputs, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.num_labels, bias=config.kind == "mlp")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        """Of the cosines that contrastive training compares; its logarithm, so that it stays positive."""

    def forward(
        self,
        first_ND: torch.Tensor,
        second_ND: torch.Tensor,
        first_style_NF: torch.Tensor,
        second_style_NF: torch.Tensor,
    ) -> torch.Tensor:
        """Return the logits [N, C], float32."""
        logits_NC = self._in_order(first_ND, second_ND, first_style_NF, second_style_NF)
        if not self.config.symmetric:
            return logits_NC
        return (logits_NC + self._in_order(second_ND, first_ND, second_style_NF, first_style_NF)) / 2

    @property
    def temperature(self) -> torch.Tensor:
        """Return what cosines are divided by, above 0."""
        return self.log_temperature.exp()

    def _in_order(
        self, u_ND: torch.Tensor, v_ND: torch.Tensor, u_style_NF: torch.Tensor, v_style_NF: torch.Tensor
    ) -> torch.Tensor:
        size = math.sqrt(self.config.dimension)
        u_ND, v_ND = u_ND.float() * size, v_ND.float() * size
        seen = torch.cat([u_ND, v_ND, (u_ND - v_ND).abs(), u_ND * v_ND, u_style_NF, v_style_NF], dim=1)
        inner_NI = F.dropout(F.gelu(self.inner(seen)), self.dropout, training=self.training)
        if self.config.kind == "mlp":
            logits: torch.Tensor = self.out(inner_NI)
            return logits
        return self.config.scale * F.normalize(inner_NI, dim=1) @ F.normalize(self.out.weight, dim=1).T


def load_head(bundle: Siamese) -> PairHead:
    """Return the head of a bundle in evaluation mode on the CPU; raises BundleError for other weights."""
    head = PairHead(bundle.head)
    try:
        head.load_state_dict(load_file(bundle.head_weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BundleError(
            f"{bundle.head_weights}: {one_line(error)}; the weights must be those of"
            f" {HEAD_FOLDER}/config.json; copy the bundle again, or train it again"
        ) from None
    return head.eval().requires_grad_(requires_grad=False)


def save_head(folder: Path, head: PairHead) -> None:
    """Write the weights of a head into a bundle that is still being made."""
    tensors = {name: each.detach().cpu().contiguous() for name, each in head.state_dict().items()}
    (folder / HEAD_FOLDER).mkdir(exist_ok=True)
    save_file(tensors, folder / HEAD_FOLDER / HEAD_WEIGHTS)
