"""Saving and loading whole systems as the Hugging Face ecosystem does: a folder with config.json and safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ultrarefiner.checkpoints import fill_strictly, pretrained_folder, read_pretrained, write_pretrained
from ultrarefiner.checkpoints.files import Location
from ultrarefiner.systems.describing import describe_part
from ultrarefiner.systems.part_kinds import name_of
from ultrarefiner.systems.rebuilding import build_system

System = TypeVar("System", bound="PretrainedSystem")


class PretrainedSystem:
    """What a system needs to be saved and loaded whole; its classes are registered with `register_part`."""

    def save_pretrained(self, folder: Location, *, dtype: torch.dtype | None = None) -> Path:
        """Write config.json with every setting, and model.safetensors with the weights.

        The files are replaced together; a process that is killed while it writes leaves the old ones whole, and a
        pair that does not belong together is noticed when it is read. What is not stored: which weights are frozen, and
        their memory format (a model in ``channels_last`` comes back row by row; its answers may differ by rounding).

        Args:
            folder: is made if there is none.
            dtype: of the floating-point weights on the disk: float16 or bfloat16 for half the size, float32, float64;
                None for what they are. Whole numbers stay whole.

        Returns:
            The folder.

        Raises:
            ValueError: the folder is a file, a weight does not fit ``dtype``, or the system is of a class that is not
                registered.

        Example:
            >>> import tempfile
            >>> from ultrarefiner.sam import build_sam
            >>> from ultrarefiner.systems import SAMRefiner
            >>> folder = SAMRefiner(build_sam("tiny", image_size=64)).save_pretrained(tempfile.mkdtemp())
            >>> SAMRefiner.from_pretrained(folder).sam.name
            'tiny'

        The layout is that of github.com/huggingface/huggingface_hub.
        """
        described = describe_part(self)
        system = name_of(type(self))
        settings = {name: value for name, value in described.items() if name != "part"}
        return write_pretrained(folder, cast("nn.Module", self), system=system, settings=settings, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls: type[System],
        folder_or_hub_id: Location,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: Location | None = None,
        local_files_only: bool = False,
        device: torch.device | str = "cpu",
        **parts: Any,
    ) -> System:
        """Load what `save_pretrained` wrote; nothing in the files is executed.

        Args:
            folder_or_hub_id: a folder, or "owner/name" on the Hugging Face hub (``pip install 'ultrarefiner[hub]'``).
                A folder of that name wins.
            revision: a branch, tag or commit on the hub.
            token: for private repositories.
            cache_dir: where files of the hub are kept; None for its own cache.
            local_files_only: whether to take only what was fetched before.
            device: where the system is put.
            **parts: finished parts that take the place of saved ones, above all those of your own classes, which the
                library cannot build: ``coarse=my_network``; deeper ones as ``**{"refiner.sam": my_sam}``. Their
                weights are loaded too.

        Returns:
            The system in evaluation mode, in float32 (float64 where that was saved).

        Raises:
            FileNotFoundError: neither a folder nor a repository of that name, or a file in it is missing.
            ValueError: a folder of another system, of a newer version, damaged or changed; or a part has to be given.
            ModuleNotFoundError: the hub is needed, and huggingface-hub is not installed.

        Example:
            >>> from ultrarefiner.systems import SAMRefiner
            >>> SAMRefiner.from_pretrained("no such folder")
            Traceback (most recent call last):
            FileNotFoundError: There is no folder no such folder (looked in ...), and it is no repository ...
        """
        name = name_of(cls)
        folder = pretrained_folder(
            folder_or_hub_id, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        saved = read_pretrained(folder)
        if saved.system != name:
            message = (
                f"{folder} holds a system of the class {saved.system!r:.80}, not {name}; load it with that class's "
                "from_pretrained, if this version has one."
            )
            raise ValueError(message)
        # The weights that are drawn here, and replaced, are drawn on the CPU and cost nobody a random number.
        with torch.inference_mode(False), torch.device("cpu"), torch.random.fork_rng(devices=[]):
            system = build_system(name, saved.settings, given=parts)
            fill_strictly(system, saved.tensors, source=str(folder))
            return cast("System", system.to(device).eval())
