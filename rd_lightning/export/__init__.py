"""A head, or a model with its head, for other runtimes: torch.export and ONNX."""

from .onnx import to_onnx
from .program import to_exported

__all__ = ["to_exported", "to_onnx"]
