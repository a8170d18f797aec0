"""What trains and when: parts that are frozen stay frozen, weights, batch norm and dropout alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

_MARK = "_frozen_by_ultrarefiner"


@dataclass
class _Frozen:
    """What `freeze` did to a module, so that `unfreeze` undoes that and no more."""

    hook: RemovableHandle
    parameters: list[nn.Parameter]


def freeze(module: nn.Module) -> nn.Module:
    """Freeze a module: no gradient, and evaluation mode that survives ``train()`` of the model around it.

    Without the second half a "frozen" network still drifts: batch norm goes on averaging and dropout goes on
    drawing.

    Args:
        module: any module; freezing it twice is the same as once.

    Returns:
        The module.

    Example:
        >>> import torch
        >>> part = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5))
        >>> model = nn.Sequential(freeze(part), nn.Conv2d(1, 1, 1))
        >>> images = torch.rand(2, 1, 4, 4)
        >>> torch.equal(model.train()(images), model.train()(images))
        True
    """
    if not is_frozen(module):
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        setattr(module, _MARK, _Frozen(module.register_forward_pre_hook(_stay_in_evaluation), trainable))
        for parameter in trainable:
            parameter.requires_grad_(False)
    return module.eval()


def unfreeze(module: nn.Module) -> nn.Module:
    """Undo `freeze`: the parameters that it switched off train again, and no others.

    So the frozen base of a low-rank adapter stays frozen.

    Args:
        module: a module that may be frozen; parts inside it that were frozen by their own `freeze` stay
            frozen.

    Returns:
        The module.

    Example:
        >>> layer = freeze(nn.Linear(2, 2))
        >>> unfreeze(layer).weight.requires_grad, is_frozen(layer)
        (True, False)
    """
    if not is_frozen(module):
        return module
    done: _Frozen = getattr(module, _MARK)
    done.hook.remove()
    delattr(module, _MARK)
    inner = {id(parameter): part for part in module.modules() if is_frozen(part) for parameter in part.parameters()}
    for parameter in done.parameters:
        if id(parameter) in inner:
            getattr(inner[id(parameter)], _MARK).parameters.append(parameter)
        else:
            parameter.requires_grad_(True)
    return module


def is_frozen(module: nn.Module) -> bool:
    """Whether `freeze` was called on this very module (not on one around it).

    Args:
        module: the one that is asked about.

    Returns:
        True from `freeze` until `unfreeze`.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> is_frozen(layer), is_frozen(freeze(layer))
        (False, True)
    """
    return _MARK in vars(module)


def _stay_in_evaluation(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001 - a hook's signature
    if module.training:
        module.eval()


@dataclass(frozen=True)
class Unfreezing:
    """From which epoch each part trains.

    Args:
        starts: the dotted name of a part of the model to the first epoch (counted from 0) in which it trains;
            None for never. Parts that are not named train from the start. Where names nest, the longer one
            decides.

    It is asked as ``epoch >= start``, so a resumed run never misses it.

    Example:
        >>> model = nn.ModuleDict({"coarse": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> stages = Unfreezing({"coarse": 3}).bind(model)
        >>> stages.enter(0), model["coarse"].weight.requires_grad, model["coarse"].training
        (None, False, False)
        >>> stages.enter(5), model["coarse"].weight.requires_grad, model["coarse"].training
        (None, True, True)
    """

    starts: Mapping[str, int | None] = field(default_factory=dict)

    def bind(self, model: nn.Module) -> Stages:
        """The schedule for one model.

        Raises:
            ValueError: a name that the model has not, a negative epoch, or nothing that trains in epoch 0.
        """
        return Stages(model, self.starts)


class Stages:
    """An `Unfreezing` for one model: puts it into the state of an epoch, and back into the one it came in.

    Args:
        model: parameters that do not require a gradient now never will, and parts that hold no others stay in
            evaluation mode.
        starts: as in `Unfreezing`.

    Raises:
        ValueError: as in `Unfreezing.bind`.
    """

    def __init__(self, model: nn.Module, starts: Mapping[str, int | None]) -> None:
        parts = dict(model.named_modules())
        for name, start in starts.items():
            _check_start(name, start, parts)
        self._model = model
        self._starts = starts
        # Outer parts first, so that the longer name has the last word.
        self._parts = [(parts[name], starts[name]) for name in sorted(starts, key=len)]
        self._trainable = [
            (parameter, self._start_of(name)) for name, parameter in model.named_parameters() if parameter.requires_grad
        ]
        # What somebody froze by hand, as a whole: its batch norm and dropout are to be still, too.
        self._still = [part for part in model.modules() if _has_only_frozen_parameters(part)]
        if not any(start == 0 for _, start in self._trainable):
            message = (
                f"nothing of the model trains in epoch 0: unfreezing is {dict(starts)} and "
                f"{len(self._trainable)} parameters require a gradient. Let a part start at 0, or unfreeze it."
            )
            raise ValueError(message)

    def prepare(self) -> None:
        """Require gradients of exactly what will ever train: data parallelism asks once, at the start."""
        for parameter, start in self._trainable:
            parameter.requires_grad_(start is not None)

    def enter(self, epoch: int) -> None:
        """Training mode and gradients for what trains in this epoch, neither for the rest."""
        self._model.train()
        for part, start in self._parts:
            part.train(_trains(start, epoch))
        for part in self._model.modules():
            if is_frozen(part):
                part.eval()
        for part in self._still:
            part.eval()
        for parameter, start in self._trainable:
            parameter.requires_grad_(_trains(start, epoch))

    def leave(self) -> None:
        """Evaluation mode, and gradients as they were required when the schedule was bound."""
        self._model.eval()
        for parameter, _ in self._trainable:
            parameter.requires_grad_(True)

    def _start_of(self, parameter: str) -> int | None:
        around = [name for name in self._starts if name == "" or parameter.startswith(f"{name}.")]
        return self._starts[max(around, key=len)] if around else 0


def _has_only_frozen_parameters(part: nn.Module) -> bool:
    parameters = list(part.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _trains(start: int | None, epoch: int) -> bool:
    return start is not None and epoch >= start


def _check_start(name: str, start: int | None, parts: Mapping[str, nn.Module]) -> None:
    if name not in parts:
        children = ", ".join(sorted(part for part in parts if part and "." not in part)) or "no parts"
        message = f"unfreezing names the part {name!r}, which the model has not; at its top it has {children}."
        raise ValueError(message)
    if start is not None and start < 0:
        message = f"unfreezing must give {name!r} an epoch of at least 0, or None for never; it gives {start}."
        raise ValueError(message)
