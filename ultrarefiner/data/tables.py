"""CSV tables that come with data sets: read with checks, so that a wrong file is named and not misread."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Sequence
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


def groups_of(
    names: Sequence[str], *, groups: str | Path | None = None, group: Callable[[str], str] | None = None
) -> dict[str, str]:
    r"""The group of every case: from a table, from a function of its name, or, with neither, its own name.

    Args:
        names: of the cases.
        groups: a CSV file with the columns case and group. It names every case; names of other cases are passed over.
        group: the group of a case, from its name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: both are given, or the table lacks a column or a case.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "groups.csv"
        >>> _ = path.write_text("case,group\na1,7\na2,7\n")
        >>> groups_of(["a1", "a2"], groups=path)
        {'a1': 'group 7', 'a2': 'group 7'}
        >>> groups_of(["a1", "a2"], group=lambda name: name[0]), groups_of(["a1"])
        ({'a1': 'a', 'a2': 'a'}, {'a1': 'a1'})
    """
    if groups is None:
        return {name: name if group is None else group(name) for name in names}
    if group is not None:
        message = f"a case has one group, but both the table groups={groups} and the function group say it; give one."
        raise ValueError(message)
    group_of = read_groups(groups)
    check_named(names, group_of, groups)
    return {name: f"group {group_of[name]}" for name in names}


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
