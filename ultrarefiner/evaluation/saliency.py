"""What a network looks at: attention through all layers of a transformer, and Grad-CAM of a convolutional layer."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.ops.checks import check_images, check_probability
from ultrarefiner.ops.coordinates import accumulation_dtype
from ultrarefiner.types import MultiScaleLogits


@runtime_checkable
class Attentive(Protocol):
    """A network that says what each patch takes from each; `ultrarefiner.TransUNet` is one."""

    def attention_weights(self, images: Tensor) -> Tensor:
        """(b, layers, heads, n, n), rows sum to 1, the square patches row by row and no other token.

        Args:
            images: (b, c, h, w), grey or RGB in [0, 1].

        Returns:
            (b, layers, heads, n, n).
        """
        ...


def attention_rollout(weights: Float[Tensor, "b layers heads n n"]) -> Float[Tensor, "b n n"]:
    r"""What each last token (row) takes from each first token (column), through all layers.

    .. math:: R = \hat A_L \cdots \hat A_1, \qquad \hat A_l = N\Big(I + \frac{1}{H} \sum_h A_{l,h}\Big)

    N divides each row by its sum. The identity stands for the path around the attention.

    Args:
        weights: attention from the first layer to the last; rows sum to 1.

    Returns:
        Rows that sum to 1, in float32 or wider.

    Raises:
        ValueError: the weights are not (b, layers, heads, n, n) with at least one layer, head and token.

    Example:
        >>> attention_rollout(torch.tensor([[0.0, 1.0], [0.5, 0.5]])[None, None, None])
        tensor([[[0.5000, 0.5000],
                 [0.2500, 0.7500]]])

    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.
    """
    if weights.ndim != 5 or weights.shape[-1] != weights.shape[-2] or not weights.numel():
        message = (
            "weights must be (b, layers, heads, n, n) with at least one layer, head and token, but their shape is "
            f"{tuple(weights.shape)}; stack the layers' weights with torch.stack(weights, 1)."
        )
        raise ValueError(message)
    with torch.autocast(weights.device.type, enabled=False):
        mixed = weights.to(accumulation_dtype(weights)).mean(2)
        mixed = mixed + torch.eye(mixed.shape[-1], dtype=mixed.dtype, device=mixed.device)
        first, *others = (mixed / mixed.sum(-1, keepdim=True)).unbind(1)
        for layer in others:
            first = layer @ first
    return first


@torch.no_grad()
def attention_map(
    network: Attentive, images: Float[Tensor, "b c h w"], inside: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 h w"]:
    """Where the patches under a mask take from, by `attention_rollout`.

    Each patch asks with the share of its pixels that the mask covers; their rows are averaged, laid out on the patch
    grid, enlarged bilinearly and divided by their maximum. A patch always takes much from itself: the rollout counts
    the path around the attention. The map sees the transformer alone: what a stem had mixed into a patch before, and
    what skips carry past it, is not in it.

    Attention says where information *may* come from. It is no explanation of the answer: other weights can give the
    same answer (Jain and Wallace, "Attention is not Explanation", NAACL 2019).

    Args:
        network: a network with ``attention_weights``, such as `ultrarefiner.TransUNet`. A module is read in evaluation
            mode and left as it is.
        images: what the network takes, in [0, 1].
        inside: the pixels asked about, in [0, 1], on the images' pixels.

    Returns:
        Maps in [0, 1] on the images' pixels, each with maximum 1, or 0 everywhere where ``inside`` is empty; without a
        gradient, in float32 or wider.

    Raises:
        ValueError: the network has no ``attention_weights``, images or mask are not as said, or the number of tokens
            does not fit square patches.

    Example:
        >>> from ultrarefiner import build_transunet
        >>> inside = torch.zeros(1, 1, 64, 64)
        >>> inside[..., 16:32, 16:32] = 1.0
        >>> attention_map(build_transunet("tiny", image_size=64), torch.rand(1, 1, 64, 64), inside).max().item()
        1.0
    """
    if not hasattr(network, "attention_weights"):
        message = (
            f"network must have attention_weights, as ultrarefiner.TransUNet, but it is a {type(network).__name__}; "
            "give the network inside of a wrapper, or use grad_cam."
        )
        raise ValueError(message)
    check_images(images)
    _check_inside(inside, images)
    reader = cast("Attentive", _twin(network, {}).eval()) if isinstance(network, nn.Module) else network
    weights = reader.attention_weights(images)
    patch, grid = _patches(weights.shape[-1], images)
    asking = functional.avg_pool2d(inside.to(accumulation_dtype(inside)), patch).flatten(1)
    asking = asking / asking.sum(1, keepdim=True).clamp(min=torch.finfo(asking.dtype).tiny)
    rollout = attention_rollout(weights)
    taken = (asking.to(rollout.dtype)[:, :, None] * rollout).sum(1)
    return _to_peak(functional.interpolate(torch.unflatten(taken, 1, (1, *grid)), images.shape[-2:], mode="bilinear"))


def grad_cam(
    network: nn.Module,
    images: Float[Tensor, "b c h w"],
    layer: nn.Module,
    *,
    inside: Float[Tensor, "b 1 mask_h mask_w"] | None = None,
) -> Float[Tensor, "b 1 h w"]:
    r"""Grad-CAM of a segmentation: where a layer's channels that raise the mask's logits are active.

    .. math::
        M = \mathrm{ReLU}\Big(\sum_c \alpha_c F_c\Big), \quad
        \alpha_c = \frac{1}{|F|} \sum_p \frac{\partial s}{\partial F_{cp}}, \quad
        s = \frac{\sum_p m_p z_p}{\sum_p m_p}

    F is the layer's output, z the logits, m the mask ``inside``, held constant. MONAI's ``GradCAM`` computes it, on a
    twin of the network that shares its weights: training flags, gradients and hooks of the network stay as they are.
    Each image has a score and a map of its own.

    One weight a channel says nothing of *where* a channel mattered, and what lowers the logits is cut off. Large values
    mean agreement with the gradient at this image, no cause.

    Args:
        network: images to logits of one mask (b, 1, h', w'), or to `MultiScaleLogits`. It is read in evaluation mode.
        images: what the network takes, in [0, 1].
        layer: a module inside of the network that runs once and returns (b, channels, rows, columns).
        inside: the pixels asked about, in [0, 1], on the logits' pixels; None for those with a logit over 0.

    Returns:
        Maps in [0, 1] on the images' pixels, enlarged bilinearly, each with maximum 1, or 0 everywhere where ``inside``
        is empty or no channel raises the logits; without a gradient, in float32 or wider.

    Raises:
        ValueError: the layer is not in the network, does not run exactly once, returns no feature map or has no
            influence on the logits; or images, mask or logits are not as said.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
        >>> grad_cam(network, torch.rand(2, 1, 8, 12), network[1]).shape
        torch.Size([2, 1, 8, 12])

    Selvaraju et al., "Grad-CAM", ICCV 2017; for segmentation Vinogradova, Dibrov and Myers, "Towards Interpretable
    Semantic Segmentation via Gradient-weighted Class Activation Mapping", AAAI 2020.
    """
    from monai.visualize import GradCAM  # takes seconds

    check_images(images)
    name = _name_in(network, layer)
    # Tensors made in inference mode cannot be differentiated; their clones can.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        memory: dict[int, object] = {}
        twin = _twin(network, memory)
        score = _Score(twin, twin.get_submodule(name), None if inside is None else inside.detach().clone())
        target = f"network.{name}" if name else "network"
        cam = GradCAM(score, target, upsampler=lambda _: _identity, postprocessing=_identity)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Backward hook for")
            try:
                coarse = cam(images.detach().clone().requires_grad_(), class_idx=0)
            except IndexError as error:
                if target in cam.nn_module.gradients:
                    raise
                message = (
                    f"layer must have an influence on the logits, but nothing leads from {name or 'it'} to them; "
                    "choose a layer between the images and the logits."
                )
                raise ValueError(message) from error
        coarse = coarse.detach().to(accumulation_dtype(coarse))
        return _to_peak(functional.interpolate(coarse, images.shape[-2:], mode="bilinear"))


class _Score(nn.Module):
    """A network as a classifier of one class: the mean logit inside of a mask, (b, 1)."""

    def __init__(self, network: nn.Module, layer: nn.Module, inside: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self._inside = inside
        self._outputs: list[object] = []
        layer.register_forward_hook(lambda _module, _inputs, output: self._outputs.append(output))

    def forward(self, images: Tensor) -> Tensor:
        answer = self.network(images)
        logits = answer.logits if isinstance(answer, MultiScaleLogits) else answer
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[1] != 1:
            came = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            message = (
                f"network must answer with the logits of one mask, (b, 1, h, w), but it answers with {came}; wrap it "
                "in ultrarefiner.ForegroundLogits, or in a module that picks one channel."
            )
            raise ValueError(message)
        self._check_layer()
        inside = (logits > 0).to(logits.dtype) if self._inside is None else self._inside.to(logits)
        _check_inside(inside, logits)
        wide = accumulation_dtype(logits)
        covered = inside.to(wide).sum((2, 3))
        total = (logits.to(wide) * inside.to(wide)).sum((2, 3))
        # An empty mask has the score 0, with a gradient of 0.
        return total / covered.clamp(min=torch.finfo(wide).tiny)

    def _check_layer(self) -> None:
        if len(self._outputs) != 1:
            message = (
                f"layer must run once, but it ran {len(self._outputs)} times; choose a layer that is not shared and "
                "that evaluation uses."
            )
            raise ValueError(message)
        output = self._outputs[0]
        if not isinstance(output, Tensor) or output.ndim != 4:
            came = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            message = (
                f"layer must return one feature map (b, channels, rows, columns), but it returns {came}; choose a "
                "convolution, or a stage of them."
            )
            raise ValueError(message)


def _twin(network: nn.Module, memory: dict[int, object]) -> nn.Module:
    """A copy that shares the parameters' memory, but neither their gradients nor any flag or hook."""
    for parameter in network.parameters():
        memory[id(parameter)] = nn.Parameter(parameter.detach(), parameter.is_floating_point())
    twin = copy.deepcopy(network, memory)
    for module in twin.modules():
        # What a hook has seen must not be written over.
        if getattr(module, "inplace", None) is True:
            module.inplace = False  # type: ignore[assignment]  # torch types attributes as modules or tensors
    return twin


def _name_in(network: nn.Module, layer: nn.Module) -> str:
    names: dict[nn.Module, str] = {module: name for name, module in network.named_modules()}
    if layer in names:
        return names[layer]
    message = (
        f"layer must be a module of the network, but this {type(layer).__name__} is not in the "
        f"{type(network).__name__}; take it from the network itself, for example network.decoder.stages[0]."
    )
    raise ValueError(message)


def _patches(tokens: int, images: Tensor) -> tuple[int, tuple[int, int]]:
    """Side of a square patch, and (rows, columns) of patches."""
    height, width = images.shape[-2:]
    patch = math.isqrt(height * width // max(tokens, 1))
    if patch < 1 or height % patch or width % patch or height * width != tokens * patch**2:
        message = (
            f"network must have one token for each square patch, but it has {tokens} tokens for {height} x {width} "
            "pixels; leave class tokens out of attention_weights."
        )
        raise ValueError(message)
    return patch, (height // patch, width // patch)


def _check_inside(inside: Tensor, picture: Tensor) -> None:
    check_probability(inside, "inside")
    if inside.shape != (picture.shape[0], 1, *picture.shape[-2:]):
        message = (
            f"inside must be {(picture.shape[0], 1, *picture.shape[-2:])}, one mask on the pixels of each picture, but "
            f"its shape is {tuple(inside.shape)}; resize or expand it."
        )
        raise ValueError(message)


def _to_peak(maps: Tensor) -> Tensor:
    """Each map over its maximum; an empty one stays 0."""
    peak = maps.amax((1, 2, 3), keepdim=True)
    return torch.where(peak > 0, maps / torch.where(peak > 0, peak, 1.0), 0.0)


def _identity(maps: Tensor) -> Tensor:
    return maps
