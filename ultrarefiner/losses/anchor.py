"""Weight anchoring: stay near where training began."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class WeightAnchor(nn.Module):
    r"""Mean squared distance of a module's trainable parameters from where they were when it was made.

    .. math:: A = \frac{1}{N} \sum_j (\theta_j - \theta_j^0)^2

    N counts scalars, so that one weight of this term means the same for a network of a thousand and of a
    hundred million parameters; the sum of the published code does not. AdamW's weight decay pulls the same
    parameters towards 0: set it to 0 for the anchored parameters, or the two fight.

    The start values are buffers: they follow ``.to()`` and are in ``state_dict``, so a resumed run is
    anchored to the true start and not to where it was resumed. The module itself is not a submodule: its
    parameters appear neither among the anchor's parameters nor twice in a checkpoint.

    Parameters that are frozen when the anchor is made are not anchored; those frozen later stay in the mean
    and get no gradient. So for staged unfreezing, make the anchor before freezing.

    Source: Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional
    Networks" (L2-SP), ICML 2018, there as a sum.

    Args:
        module: the module to hold back.

    Raises:
        ValueError: if no parameter of the module is trainable.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> anchor = WeightAnchor(layer)
        >>> anchor().item()
        0.0
        >>> with torch.no_grad():
        ...     _ = layer.weight.add_(1.0)
        >>> round(anchor().item(), 4)  # 4 of 6 scalars moved by 1
        0.6667
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = tuple(name for name, parameter in module.named_parameters() if parameter.requires_grad)
        if not self.names:
            message = (
                f"module ({type(module).__name__}) must have a trainable parameter to anchor; got none. "
                "Make the anchor before freezing, or leave this term out."
            )
            raise ValueError(message)
        # In a tuple, so that nn.Module does not register it as a submodule.
        self._subject = (module,)
        for name in self.names:
            self.register_buffer(_buffer(name), module.get_parameter(name).detach().clone())

    def forward(self) -> Float[Tensor, ""]:
        """The mean squared distance, a scalar in float32 or wider, differentiable in the module's parameters.

        Raises:
            RuntimeError: if the module has lost a parameter since the anchor was made.
        """
        # Looked up by name each time: load_state_dict(assign=True) replaces the parameter objects.
        current = dict(self._subject[0].named_parameters())
        missing = [name for name in self.names if name not in current]
        if missing:
            message = (
                f"module must still have the {len(self.names)} parameters it was anchored with; "
                f"{missing[0]!r} is gone. Make a new WeightAnchor after changing the module."
            )
            raise RuntimeError(message)
        live = [_wide(current[name]) for name in self.names]
        start = [_wide(self.get_buffer(_buffer(name))) for name in self.names]
        norms = torch._foreach_norm(torch._foreach_sub(live, start))
        return torch.stack(norms).square().sum() / sum(parameter.numel() for parameter in live)


def _buffer(name: str) -> str:
    return "start/" + name.replace(".", "/")


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
