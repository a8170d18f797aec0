"""A refiner, or coarse network and refiner, as an ONNX file of a fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.checkpoints.files import Location, replaced_file
from ultrarefiner.systems.at_rest import at_rest
from ultrarefiner.systems.refiner import SAMRefiner
from ultrarefiner.systems.ultrarefiner import UltraRefiner

OPSET = 18
"""The first with the antialiased resizing that SAM's input wants."""

_MOST_BYTES = 2**31
_INSTALL = "pip install 'ultrarefiner[onnx]'"


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file that was written.

    Attributes:
        path: the file.
        opset: version of ONNX's operators.
        inputs: names and shapes of the inputs.
        outputs: names and shapes of the outputs.
        difference: largest difference between a probability of the file's (by onnxruntime) and the model's own; None
            where onnxruntime is not installed.
    """

    path: Path
    opset: int
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    difference: float | None


class _Coarse(nn.Module):
    """A whole model with tensors as its answer."""

    inputs = ("images",)
    outputs = ("coarse_logits", "refined_logits", "iou")

    def __init__(self, model: UltraRefiner) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor, Tensor]:
        out = self.model(images)
        return out.coarse_logits, out.refined_logits, out.iou


class _Refiner(nn.Module):
    """A refiner with tensors as its answer."""

    inputs = ("images", "probability")
    outputs = ("refined_logits", "iou")

    def __init__(self, model: SAMRefiner) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"], probability: Float[Tensor, "b k h w"]) -> tuple[Tensor, Tensor]:
        refinement = self.model(images, probability)
        return refinement.logits, refinement.iou


def export_onnx(
    model: UltraRefiner | SAMRefiner,
    path: Location,
    *,
    size: Sequence[int],
    batch: int = 1,
    channels: int = 1,
    masks: int = 1,
    tolerance: float = 1e-3,
) -> OnnxExport:
    """Write a model as one ONNX file (opset 18) for images of a fixed size, and compare it with the model.

    An `UltraRefiner` becomes a file with the input ``images`` (b, c, h, w) and the outputs ``coarse_logits``,
    ``refined_logits`` (b, k, h, w) and ``iou`` (b, k); a `SAMRefiner` one with the inputs ``images`` and
    ``probability`` (b, k, h, w) and the outputs ``refined_logits`` and ``iou``. Values are as in PyTorch: images in [0,
    1], logits on the images' pixels; gate and acceptance rule are inside, as in evaluation mode. The normalisation
    belongs to the file, a check of ranges does not: what is outside [0, 1] is not noticed there.

    Where onnxruntime is installed, the file is run before it takes its name, on random images, flat ones, and (for a
    refiner) empty masks. The file is written in one step and holds the weights.

    Args:
        model: on the CPU, in float32.
        path: the file.
        size: (height, width) of the images; masks come and go at that size.
        batch: images a call.
        channels: 1 for grey images, 3 for RGB.
        masks: masks an image, for a `SAMRefiner`.
        tolerance: how far a probability may be from the model's own.

    Returns:
        Names and shapes, and the difference that was found.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        ValueError: a model of another class, elsewhere or of another precision, numbers out of range, weights of 2 GB
            or more (one file cannot hold them), or a file that answers otherwise than the model, or with NaN.

    Example:
        >>> from ultrarefiner.systems import export_onnx
        >>> from ultrarefiner.sam import build_sam
        >>> export_onnx(SAMRefiner(build_sam("tiny", image_size=64)), "model.onnx", size=(64, 64), channels=2)
        Traceback (most recent call last):
        ValueError: size must be (height, width), batch and masks at least 1 and channels 1 or 3, but they are ...

    The format is that of github.com/onnx/onnx.
    """
    wrapped = _wrapped(model)
    if len(size) != 2 or min(*size, batch, masks) < 1 or channels not in (1, 3):
        message = (
            "size must be (height, width), batch and masks at least 1 and channels 1 or 3, but they are "
            f"{tuple(size)}, {batch}, {masks} and {channels}."
        )
        raise ValueError(message)
    _refuse_weights([*model.parameters(), *model.buffers()])
    shapes = {"images": (batch, channels, *size), "probability": (batch, masks, *size)}
    inputs = {name: tuple(int(side) for side in shapes[name]) for name in wrapped.inputs}
    with at_rest(wrapped), torch.no_grad():
        examples = _examples(inputs)
        content = _exported(wrapped, examples[0])
        outputs = [wrapped(*example) for example in examples]
        difference = _difference(content, wrapped, examples, outputs, tolerance)
    with replaced_file(path) as file:
        file.write(content)
    shapes = {name: tuple(tensor.shape) for name, tensor in zip(wrapped.outputs, outputs[0], strict=True)}
    return OnnxExport(Path(path), OPSET, inputs, shapes, difference)


def _wrapped(model: Any) -> _Coarse | _Refiner:
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    if isinstance(model, UltraRefiner):
        return _Coarse(model)
    if isinstance(model, SAMRefiner):
        return _Refiner(model)
    message = (
        f"model must be an UltraRefiner or a SAMRefiner, but its class is {type(model).__name__}; a coarse network "
        "alone is exported with torch.onnx.export."
    )
    raise ValueError(message)


def _refuse_weights(tensors: Sequence[Tensor]) -> None:
    """Raise if a file cannot hold them, or they cannot be run beside it."""
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) >= _MOST_BYTES:
        message = (
            "model must have less than 2 GB of weights, which one ONNX file can hold; use SAM's ViT-B or a light one."
        )
        raise ValueError(message)
    for tensor in tensors:
        if tensor.device.type != "cpu" or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            message = (
                f"model must be on the CPU in float32, but it has weights on {tensor.device} in {tensor.dtype}; export "
                "copy.deepcopy(model).cpu().float()."
            )
            raise ValueError(message)


def _examples(inputs: dict[str, tuple[int, ...]]) -> list[tuple[Tensor, ...]]:
    """Random inputs and empty ones; where there are masks, too, random images with empty masks."""
    generator = torch.Generator().manual_seed(0)
    random = {name: torch.rand(shape, generator=generator) for name, shape in inputs.items()}
    flat = {name: torch.zeros(shape) for name, shape in inputs.items()}
    examples = [tuple(random.values()), tuple(flat.values())]
    return [*examples, (random["images"], flat["probability"])] if "probability" in inputs else examples


def _exported(wrapped: _Coarse | _Refiner, example: tuple[Tensor, ...]) -> bytes:
    """The file's content."""
    _need("onnx", "onnxscript")
    program: Any = torch.onnx.export(
        wrapped,
        example,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(wrapped.inputs),
        output_names=list(wrapped.outputs),
        verbose=False,
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def _need(*packages: str) -> None:
    for name in packages:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            message = f"{name} is needed to write ONNX files, and is not installed: {_INSTALL}."
            raise ModuleNotFoundError(message, name=name) from error


def _difference(
    content: bytes,
    wrapped: _Coarse | _Refiner,
    examples: Sequence[tuple[Tensor, ...]],
    outputs: Sequence[tuple[Tensor, ...]],
    tolerance: float,
) -> float | None:
    """How far the file's probabilities are from the model's."""
    try:
        runtime = import_module("onnxruntime")
    except ModuleNotFoundError:
        return None
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    largest = 0.0
    for example, expected in zip(examples, outputs, strict=True):
        given = {name: tensor.numpy() for name, tensor in zip(wrapped.inputs, example, strict=True)}
        found = dict(zip(wrapped.outputs, session.run(list(wrapped.outputs), given), strict=True))
        for name, own in zip(wrapped.outputs, expected, strict=True):
            theirs = torch.from_numpy(found[name])
            apart = (theirs - own) if name == "iou" else (theirs.sigmoid() - own.sigmoid())
            worst = apart.abs().max().item()
            largest = max(largest, math.inf if math.isnan(worst) else worst)  # of 0 and NaN, max takes 0
    if not largest <= tolerance:
        message = (
            f"the exported file must answer as the model does, but a probability differs by {largest:.3g}, more than "
            f"tolerance={tolerance}; nothing was written. Look for an operation whose meaning in ONNX is another."
        )
        raise ValueError(message)
    return largest
