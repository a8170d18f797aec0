"""CSV tables that come with data sets: read with checks, so that a wrong file is named and not misread."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path


def read_groups(path: str | Path) -> dict[str, str]:
    r"""The group of every case in a CSV file with the columns case and group.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or a case stands in two groups.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "groups.csv"
        >>> _ = path.write_text("case,group\nbenign (1),7\nbenign (2),7\n")
        >>> read_groups(path)
        {'benign (1)': '7', 'benign (2)': '7'}
    """
    group_of: dict[str, str] = {}
    for row in read_table(path, ["case", "group"]):
        if group_of.setdefault(row["case"], row["group"]) != row["group"]:
            message = f"{path} puts {row['case']!r} into two groups; a case has one group: merge them"
            raise ValueError(message)
    return group_of


def check_named(names: Sequence[str], groups: Collection[str], table: str | Path | None) -> None:
    """Raise if a table of groups lacks a case.

    Raises:
        ValueError: it does.

    Example:
        >>> check_named(["a", "b"], {"a": "7", "b": "7", "c": "8"}, "groups.csv")
    """
    missing = [name for name in names if name not in groups]
    if missing:
        message = (
            f"{table} gives no group to {len(missing)} of the {len(names)} cases, the first is {missing[0]!r}; "
            "a case without near-duplicates needs a line with a group of its own: take the table of this data set, "
            "or add the lines"
        )
        raise ValueError(message)


def read_table(path: str | Path, columns: list[str], *, delimiter: str = ",") -> list[dict[str, str]]:
    r"""The rows of a CSV file as dictionaries, without surrounding blanks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or a row is too short.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text("ID,Case\nbus_0001-l, 1\n")
        >>> read_table(path, ["ID", "Case"])
        [{'ID': 'bus_0001-l', 'Case': '1'}]
    """
    path = Path(path)
    if not path.is_file():
        message = f"there is no table {path}; check the path, and that the data set was unpacked completely"
        raise FileNotFoundError(message)
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter)
        found = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = found
        rows = list(reader)
    missing = [name for name in columns if name not in found]
    if missing:
        message = (
            f"{path} lacks the column {missing[0]!r}, it has {', '.join(found) or 'none'}; "
            f"expected {', '.join(columns)} in the first line, separated by {delimiter!r}"
        )
        raise ValueError(message)
    for number, row in enumerate(rows, start=2):
        if any(row[name] is None for name in columns):
            message = (
                f"line {number} of {path} is too short: it lacks one of {', '.join(columns)}; the file may be truncated"
            )
            raise ValueError(message)
    return [{name: row[name].strip() for name in columns} for row in rows]
