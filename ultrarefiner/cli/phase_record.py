"""What a phase leaves beside its checkpoints for the phases after it: ``phase.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.cli.phase_setting import PhaseSetting

FILE = "phase.json"
_FORMAT = 1
_Parts = TypeVar("_Parts")


@dataclass(frozen=True)
class PhaseRecord:
    """A phase that is finished: what later phases need to build what it trained, and to be sure it fits.

    Attributes:
        phase: "coarse", "refiner", "joint" or "correction".
        frame: side of the square that images were fitted to.
        cases: `PhaseSetting.cases`.
        parts: what its network is built from.
        behind: the parts of the coarse network that was there when the phase was trained; None where there was none.
    """

    phase: str
    frame: int
    cases: Mapping[str, Any]
    parts: Mapping[str, Any]
    behind: Mapping[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write the record; it appears whole or not at all.

        Args:
            folder: of the run.

        Example:
            >>> import tempfile
            >>> folder = Path(tempfile.mkdtemp())
            >>> PhaseRecord("coarse", 64, {"fold": 0}, {"size": 64}).write(folder)
            >>> PhaseRecord.read(folder).parts
            {'size': 64}
        """
        with replaced_file(folder / FILE) as file:
            file.write(json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, default=str).encode())

    @classmethod
    def read(cls, folder: Path) -> PhaseRecord:
        """Read the record of a run.

        Raises:
            FileNotFoundError: the phase is not finished, or was never begun.
            ValueError: the file is damaged, or of another version.
        """
        path = folder / FILE
        if not path.exists():
            message = f"there is no {path}, which a finished phase leaves."
            raise FileNotFoundError(message)
        try:
            saved = json.loads(path.read_text())
            if saved.pop("format") != _FORMAT:
                raise ValueError("it is of another version")
            return cls(**saved)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"{path} is no whole record of a phase ({error}); train that phase once more, which writes it."
            raise ValueError(message) from error

    def built(self, kind: type[_Parts], folder: Path) -> _Parts:
        """The parts as an object again.

        Args:
            kind: a dataclass.
            folder: of the run, for the complaint.

        Raises:
            ValueError: there are others, or of the wrong kind.
        """
        wanted = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # all kinds are dataclasses
        if set(self.parts) != wanted:
            message = (
                f"{folder / FILE} must name {', '.join(sorted(wanted))} as parts, but it names "
                f"{', '.join(sorted(self.parts))}; train that phase once more, which writes it."
            )
            raise ValueError(message)
        try:
            return kind(**self.parts)
        except TypeError as error:
            message = f"{folder / FILE} has parts of the wrong kind ({error}); train that phase once more."
            raise ValueError(message) from error


def earlier_phase(setting: PhaseSetting, phase: str, *, by: str) -> PhaseRecord:
    """The record of an earlier phase of the same fold, in the same folder.

    Args:
        setting: of the command.
        phase: which.
        by: who asks for it, as the shell knows it.

    Raises:
        ValueError: it is not there, damaged, or of other cases than these.
    """
    folder = setting.run_folder(phase)
    try:
        record = PhaseRecord.read(folder)
    except FileNotFoundError as error:
        message = (
            f"{by} takes over what train {phase} leaves in {folder}, but it is not finished there; run ultrarefiner "
            f"train {phase} first, with the same out, fold and cases."
        )
        raise ValueError(message) from error
    _refuse_other(record, setting, folder, by)
    return record


def finished_phase(setting: PhaseSetting, phase: str, *, by: str) -> PhaseRecord | None:
    """`earlier_phase`, or None where it is not finished."""
    if not (setting.run_folder(phase) / FILE).exists():
        return None
    return earlier_phase(setting, phase, by=by)


def refuse_told(what: str, told: object, remembered: object, folder: Path) -> None:
    """Raise if a flag says something else than what an earlier phase was trained with; None says nothing.

    Args:
        what: the flag.
        told: its value.
        remembered: the earlier phase's.
        folder: of the earlier phase.

    Raises:
        ValueError: they differ.

    Example:
        >>> refuse_told("frame", None, 384, Path("out"))
    """
    if told is not None and told != remembered:
        message = (
            f"{what} is {told!r}, but {folder} was trained with {remembered!r}; leave {what} out, or train that phase "
            "anew in another out."
        )
        raise ValueError(message)


def _refuse_other(record: PhaseRecord, setting: PhaseSetting, folder: Path, by: str) -> None:
    now = setting.cases()
    for name, before in record.cases.items():
        if now.get(name) != before:
            message = (
                f"{folder} was trained with {name} {before!r}, but {by} was told {now.get(name)!r}; give the same in "
                "every phase, or another out."
            )
            raise ValueError(message)
