"""Kinds of GPU, as each cloud spells them; a name that none knows is refused with those nearest to it. Pure.

SkyPilot takes any name and looks for it for ever, Modal takes any until an app is deployed, RunPod wants an id such as
"NVIDIA GeForce RTX 4090". Sources: SkyPilot's table for RunPod, Modal's guide to GPUs.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from assay.errors import UsageError

Cloud = Literal["runpod", "skypilot", "modal"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind; None where a cloud does not have it."""

    skypilot: str
    """The name that users type, too."""
    runpod: str | None = None
    modal: str | None = None


GPUS = (
    Gpu("RTX3080", "NVIDIA GeForce RTX 3080"),
    Gpu("RTX3090", "NVIDIA GeForce RTX 3090"),
    Gpu("RTX4070Ti", "NVIDIA GeForce RTX 4070 Ti"),
    Gpu("RTX4080", "NVIDIA GeForce RTX 4080"),
    Gpu("RTX4090", "NVIDIA GeForce RTX 4090"),
    Gpu("RTX5080", "NVIDIA GeForce RTX 5080"),
    Gpu("RTX5090", "NVIDIA GeForce RTX 5090"),
    Gpu("RTXA4000", "NVIDIA RTX A4000"),
    Gpu("RTXA4500", "NVIDIA RTX A4500"),
    Gpu("RTXA5000", "NVIDIA RTX A5000"),
    Gpu("RTXA6000", "NVIDIA RTX A6000"),
    Gpu("RTX2000-Ada", "NVIDIA RTX 2000 Ada Generation"),
    Gpu("RTX4000-Ada", "NVIDIA RTX 4000 Ada Generation"),
    Gpu("RTX6000-Ada", "NVIDIA RTX 6000 Ada Generation"),
    Gpu("RTXPRO6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
    Gpu("T4", None, "T4"),
    Gpu("V100"),
    Gpu("A10", None, "A10"),
    Gpu("A10G", None, "A10"),
    Gpu("A30", "NVIDIA A30"),
    Gpu("A40", "NVIDIA A40"),
    Gpu("A100", None, "A100-40GB"),
    Gpu("A100-80GB", "NVIDIA A100 80GB PCIe", "A100-80GB"),
    Gpu("A100-80GB-SXM", "NVIDIA A100-SXM4-80GB"),
    Gpu("L4", "NVIDIA L4", "L4"),
    Gpu("L40", "NVIDIA L40"),
    Gpu("L40S", "NVIDIA L40S", "L40S"),
    Gpu("H100", "NVIDIA H100 PCIe", "H100"),
    Gpu("H100-NVL", "NVIDIA H100 NVL"),
    Gpu("H100-SXM", "NVIDIA H100 80GB HBM3"),
    Gpu("H200", "NVIDIA H200", "H200"),
    Gpu("B200", "NVIDIA B200", "B200"),
    Gpu("MI300X", "AMD Instinct MI300X OAM"),
)


def spell_gpu(cloud: Cloud, asked: str) -> str:
    """The cloud's spelling of a kind of GPU; raises UsageError for one that it does not have, with those near."""
    known: dict[str, str] = {}
    names: dict[str, str] = {}
    for gpu in GPUS:
        if spelling := getattr(gpu, cloud):
            for each in (gpu.skypilot, spelling):
                known[_key(each)] = spelling
            names[_key(gpu.skypilot)] = gpu.skypilot
    if (found := known.get(_key(asked))) is not None:
        return found
    key = _key(asked)
    near = [names[each] for each in difflib.get_close_matches(key, names, n=3, cutoff=0.6)]
    near += [name for each, name in names.items() if len(key) > 2 and key in each and name not in near]
    which = f"did you mean {' or '.join(near[:3])}?" if near else f"known are {', '.join(names.values())}"
    msg = f"gpu_type is {asked!r}, which {cloud} is not known to have; {which}"
    raise UsageError(msg)


def _key(name: str) -> str:
    """A name without maker, case, blanks and dashes: "NVIDIA GeForce RTX 4090" and "rtx-4090" are one."""
    return re.sub(r"nvidia|geforce|amd instinct|generation|[^a-z0-9]", "", name.lower())
