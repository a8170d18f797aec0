"""What one phase of training is made of. The loop knows nothing else of a phase."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.checkpoints.settings import describe
from ultrarefiner.ops.overlap import dice_coefficient
from ultrarefiner.training.freezing import Unfreezing
from ultrarefiner.training.identity import inner_sets


class StepResult(NamedTuple):
    """What a recipe makes of one batch. A named tuple, because Fabric looks for tensors in those.

    Attributes:
        loss: the scalar to minimise, a mean over the batch's images.
        terms: what to log by name, scalars without a gradient, means over the batch's images as well.
        dice: mean Dice of the masks at 0.5, image by image, without a gradient.
    """

    loss: Tensor
    terms: Mapping[str, Tensor]
    dice: Tensor


class Prediction(NamedTuple):
    """What a recipe predicts for validation.

    Attributes:
        probability: the masks by which checkpoints are chosen.
        coarse_probability: the masks before refinement, where the recipe refines.
    """

    probability: Tensor
    coarse_probability: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn at one rate.

    Attributes:
        name: in the logs, the learning rate's name.
        module: all its parameters are meant, frozen ones too: they are skipped until they are unfrozen.
        learning_rate: at the schedule's peak.
        weight_decay: decoupled with AdamW, part of the gradient with SGD.
    """

    name: str
    module: nn.Module
    learning_rate: float
    weight_decay: float


class Recipe(ABC):
    """One phase of training: which model, what trains, on what, with which terms.

    A recipe is a frozen dataclass that derives from this class; its fields are its settings. To train
    something else with the same loop, write one: `CoarseRecipe` is the shortest to read.

    Attributes:
        YOUNGER: fields that older checkpoints do not have. Their defaults are what was done before there was a choice,
            so that a run which was begun then goes on.
    """

    YOUNGER: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """The module whose weights are trained and saved."""

    @abstractmethod
    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Every parameter that ever trains, each in one group."""

    @abstractmethod
    def step(self, batch: Any, generator: torch.Generator) -> StepResult:
        """Loss and terms of one batch, on the batch's device.

        Args:
            batch: images and masks: a `Batch`, or a `VolumeBatch`.
            generator: on the CPU, seeded for this step: the only source of what is drawn here.
        """

    @abstractmethod
    def predict(self, batch: Any, cases: Sequence[int]) -> Prediction:
        """Masks for validation, the same in every epoch.

        Args:
            batch: images and masks, never augmented.
            cases: each image's index in the validation set, to seed what must be drawn.
        """

    def check_data(self, dataset: Any) -> None:
        """Raise if a data set does not go with the model; called before a run begins.

        Raises:
            ValueError: stored embeddings, for a recipe that has no use for them.
        """
        if getattr(dataset, "cache", None) is not None:
            message = (
                f"dataset brings stored embeddings, but {type(self).__name__} has no use for them; give the data set "
                "inside CachedEmbeddings."
            )
            raise ValueError(message)
        for inner in inner_sets(dataset):
            self.check_data(inner)

    def dice(self, probability: Tensor, masks: Tensor) -> Tensor:
        """By which checkpoints are chosen, one value an image; `dice_of_images` unless there is a better one.

        Another one goes with another `score_name`.

        Args:
            probability: (b, k, h, w).
            masks: (b, k, h, w), the true ones.

        Returns:
            (b,), in [0, 1].
        """
        return dice_of_images(probability, masks)

    @property
    def score_name(self) -> str:
        """What `dice` is, as pictures and results call it: "Dice", of masks, or what it is the Dice of."""
        return "Dice"

    @property
    def algorithm(self) -> Callable[..., torch.optim.Optimizer]:
        """What makes the optimiser from parameter groups: a class, or a `functools.partial` of one."""
        return torch.optim.AdamW

    @property
    def unfreezing(self) -> Unfreezing:
        """From which epoch each part trains; by default all from the start."""
        return Unfreezing()

    def parts(self) -> Mapping[str, nn.Module]:
        """Parts of the model that other phases may take over, by name; a checkpoint says where they are."""
        return {}

    def auxiliary(self) -> nn.Module:
        """Modules beside the model (losses, an anchor): moved with it, saved with it, not trained."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type] # subclasses are dataclasses
        values = {field.name: getattr(self, field.name) for field in fields}
        own = set(self.module.modules())
        return nn.ModuleDict(
            {name: value for name, value in values.items() if isinstance(value, nn.Module) and value not in own}
        )

    def optimizer(self) -> torch.optim.Optimizer:
        """The algorithm over the groups.

        Raises:
            ValueError: a parameter that trains is in no group, or one is in two.
        """
        groups = self.parameter_groups()
        check_groups(self.module, groups)
        return self.algorithm(
            {
                "params": list(group.module.parameters()),
                "lr": group.learning_rate,
                "initial_lr": group.learning_rate,
                "weight_decay": group.weight_decay,
                "name": group.name,
            }
            for group in groups
        )

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type] # subclasses are dataclasses
        names = [field.name for field in fields if not field.name.startswith("_")]
        return {
            "recipe": type(self).__qualname__,
            **{name: describe(getattr(self, name), f"recipe.{name}") for name in names},
        }

    def earlier_settings(self) -> dict[str, Any]:
        """What `settings` would have said of the fields in `YOUNGER` before they were there."""
        fields: Any = {field.name: field for field in dataclasses.fields(self)}  # type: ignore[arg-type] # as above
        return {name: describe(_default_of(fields[name]), f"recipe.{name}") for name in self.YOUNGER}


def _default_of(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context without automatic mixed precision, for what happens before a network sees anything.

    Args:
        tensor: says on which device.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def check_cache(dataset: Any, sam: Any, policy: Any) -> None:
    """Raise if a data set brings embeddings of another SAM, or of another input policy.

    Raises:
        ValueError: it does.

    Example:
        >>> check_cache([], None, None)
    """
    cache = getattr(dataset, "cache", None)
    if cache is not None:
        cache.refuse_other(sam, policy)
    for inner in inner_sets(dataset):
        check_cache(inner, sam, policy)


def refuse_side_logits(loss: nn.Module) -> None:
    """Raise if a loss wants side logits, which only phase 1 sees.

    Raises:
        ValueError: it does.

    Example:
        >>> refuse_side_logits(nn.BCEWithLogitsLoss())
    """
    if getattr(loss, "takes_side_logits", False):
        message = (
            f"loss must work on the mask's logits alone, but {type(loss).__name__} wants side logits, which only phase "
            "1 has; give it to CoarseRecipe or AnnotationGuidedRecipe."
        )
        raise ValueError(message)


def check_groups(model: nn.Module, groups: Sequence[ParameterGroup]) -> None:
    """Raise unless each parameter that requires a gradient is in exactly one group, or it would stay as it is.

    Args:
        model: the model.
        groups: the optimiser's groups.

    Raises:
        ValueError: a parameter in no group or in two.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> check_groups(layer, [ParameterGroup("layer", layer, 1e-3, 0.0)])
    """
    members = [(group.name, {id(parameter) for parameter in group.module.parameters()}) for group in groups]
    for name, parameter in model.named_parameters():
        homes = [group for group, parameters in members if id(parameter) in parameters]
        if len(homes) == 1 or not (homes or parameter.requires_grad):
            continue
        message = (
            f"every parameter that trains must be in exactly one parameter group, but {name} is in "
            f"{' and '.join(homes) or 'none'}; correct parameter_groups(), or freeze the part."
        )
        raise ValueError(message)


def inside_content(content_sizes: Tensor, size: Sequence[int]) -> Tensor:
    """Which pixels of a frame are no padding.

    Args:
        content_sizes: (height, width) of each image's content, integers (b, 2).
        size: (height, width) of the frame.

    Returns:
        Booleans (b, 1, height, width).

    Example:
        >>> inside_content(torch.tensor([[1, 2]]), (2, 3)).int()[0, 0]
        tensor([[1, 1, 0],
                [0, 0, 0]], dtype=torch.int32)
    """
    rows = torch.arange(size[0], device=content_sizes.device) < content_sizes[:, :1]
    columns = torch.arange(size[1], device=content_sizes.device) < content_sizes[:, 1:]
    return rows[:, None, :, None] & columns[:, None, None, :]


def dice_of_images(probability: Float[Tensor, "b k h w"], masks: Float[Tensor, "b k h w"]) -> Float[Tensor, " b"]:
    """Dice of each image at 0.5: of each of its masks, then their mean. Never over pooled pixels of a batch.

    Args:
        probability: predicted masks.
        masks: true masks.

    Returns:
        One value an image, in float32; an empty mask that is predicted empty counts 1.

    Example:
        >>> mask = torch.eye(4)[None, None]
        >>> dice_of_images(torch.cat([0.9 * mask, 0 * mask]), torch.cat([mask, mask]))
        tensor([1., 0.])
    """
    return dice_coefficient((probability.detach() > 0.5).float(), (masks > 0.5).float()).mean(1)
