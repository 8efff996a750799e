"""A head, or a model with its head, for other runtimes: torch.export and ONNX."""

from .onnx import to_exported, to_onnx

__all__ = ["to_exported", "to_onnx"]
