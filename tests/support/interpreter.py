"""Triton kernels on a machine without a GPU: its interpreter, made to work with numpy 2.4.

Importing this sets TRITON_INTERPRET where there is no CUDA device; it must come before any kernel is
imported. `WHY_NOT` says why kernels cannot run here, or is None.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _mend_index() -> None:
    """Let Triton count: numpy 2.4 refuses int() of an array of one element, which Triton 3.6 hands to range()."""
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


try:
    import triton  # noqa: F401
except ImportError:
    WHY_NOT: str | None = "Triton is not installed"
else:
    WHY_NOT = None
    if os.environ.get("TRITON_INTERPRET") == "1":
        _mend_index()
