"""What the package promises: every public name of every room with its signature, and whether a change of it is told.

The promise is kept in ``public_names.json``. After a change of what is public::

    python tests/public_api.py

writes it again, and refuses while CHANGELOG.md does not name what went or changed. Once a version is out, its names are
kept in ``released_names.json``, which is written only when CHANGELOG.md has the new version's heading::

    python tests/public_api.py release

What went or changed since then must be told in CHANGELOG.md, whatever ``public_names.json`` says.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import griffe

ROOT = Path(__file__).parent.parent
SNAPSHOT = ROOT / "tests" / "public_names.json"
RELEASED = ROOT / "tests" / "released_names.json"  # absent: nothing was released
CHANGELOG = ROOT / "CHANGELOG.md"
NOT_ROOMS = ("cli", "__main__", "deprecation")  # a command, and what only the package itself uses
LATE = ("EmbeddingCache",)  # at the front door when first asked for, hence not in its __all__
SPELT = ("__call__", "__contains__", "__enter__", "__exit__", "__getitem__", "__iter__", "__len__", "__next__")

Api = dict[str, dict[str, str]]


def load_package(name: str = "ultrarefiner", folder: Path = ROOT) -> griffe.Module:
    """The package as its source says it, without importing it."""
    package = griffe.load(
        name, search_paths=[folder], resolve_aliases=True, resolve_external=False, allow_inspection=False
    )
    if not isinstance(package, griffe.Module):
        raise TypeError(package)
    return package


def room_names(room: griffe.Module) -> list[str]:
    """``__all__``, or of a module without one all that it defines and does not hide."""
    if room.exports is None:
        return sorted(name for name, member in room.members.items() if not member.is_alias and not name.startswith("_"))
    return sorted(str(name) for name in room.exports)


def rooms(package: griffe.Module) -> dict[str, griffe.Module]:
    """The modules right below the package that are public."""
    return {name: room for name, room in sorted(package.modules.items()) if name not in NOT_ROOMS}


def public_objects(package: griffe.Module) -> dict[str, griffe.Object]:
    """``room.Name`` to what stands behind it, for the names of all rooms."""
    found = {}
    for room, module in rooms(package).items():
        for name in room_names(module):
            member = module[name]
            found[f"{room}.{name}"] = member.final_target if isinstance(member, griffe.Alias) else member
    return found


def public_members(owner: griffe.Class) -> dict[str, griffe.Object]:
    """Methods, properties and class attributes that users may touch, those of the package's own base classes too."""
    found: dict[str, griffe.Object] = {}
    in_constructor = {*(parameter.name for parameter in owner.parameters), *named_tuple_fields(owner)}
    for name, member in sorted(owner.all_members.items()):
        target = member.final_target if isinstance(member, griffe.Alias) else member
        hidden = name.startswith("_") and name not in SPELT
        written_inside = target.is_attribute and not ({"property", "class-attribute"} & target.labels)
        a_field = target.is_attribute and "property" not in target.labels
        if not (hidden or written_inside or (a_field and name in in_constructor)):
            found[name] = target
    return found


def named_tuple_fields(owner: griffe.Class) -> dict[str, str]:
    """The fields of a NamedTuple as parameters; of any other class, none."""
    if not any(str(base).endswith("NamedTuple") for base in owner.bases):
        return {}
    fields = {name: one for name, one in owner.members.items() if isinstance(one, griffe.Attribute)}
    fields = {name: one for name, one in fields.items() if "property" not in one.labels}
    return {n: f"{n}: {f.annotation}" + ("" if f.value is None else f" = {f.value}") for n, f in fields.items()}


def read_api(package: griffe.Module) -> Api:
    """Each room's names with their signatures; at the front door, the room that a name comes from."""
    homes: dict[str, str] = {}
    api: Api = {package.name: {}}
    for place, target in public_objects(package).items():
        room, name = place.split(".")
        homes.setdefault(target.canonical_path, place)
        api.setdefault(room, {})[name] = described(target)
        if isinstance(target, griffe.Class):
            api[room].update({f"{name}.{key}": described(one) for key, one in public_members(target).items()})
    for name in sorted({*room_names(package), *(late for late in LATE if late in package.members)}):
        member = package[name]
        target = member.final_target if isinstance(member, griffe.Alias) else member
        api[package.name][name] = f"= {homes.get(target.canonical_path, 'module' if target.is_module else 'value')}"
    return api


def described(target: griffe.Object) -> str:
    """A signature as a person would write it; of a value its type, or itself where that is not written."""
    if isinstance(target, griffe.Class):
        kind = "protocol" if any(str(base).startswith("Protocol") for base in target.bases) else "class"
        fields = ", ".join(named_tuple_fields(target).values())
        return f"{kind} {target.signature() or f'{target.name}({fields})'}"
    if isinstance(target, griffe.Function):
        kind = next((f"{label} " for label in ("classmethod", "staticmethod", "async") if label in target.labels), "")
        return f"{kind}def {target.signature(return_type=True)}"
    if isinstance(target, griffe.Attribute):
        kind = "property " if "property" in target.labels else ""
        return f"{kind}{target.annotation}" if target.annotation is not None else f"{kind}= {target.value}"
    return target.kind.value


@dataclass
class Difference:
    """What became of the promise."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def untold(self, changelog: str) -> list[str]:
        """What went or changed and is not named in the changelog's Unreleased section, below Added."""
        told = told_changes(changelog)
        return [place for place in [*self.removed, *self.changed] if not any(names_it(line, place) for line in told)]


def differences(before: Api, after: Api) -> Difference:
    """Names that came, went, or mean something else; a new parameter with a default is a name that came."""
    old, new = ({f"{r}.{n}": text for r, names in api.items() for n, text in names.items()} for api in (before, after))
    found = Difference(removed=sorted(old.keys() - new.keys()))
    for place in sorted(new):
        owner = new.get(place.rpartition(".")[0], "")
        if place not in old:
            if owner.startswith("protocol ") and place.rpartition(".")[0] in old:
                found.changed[place] = "a protocol asks for it now, which those who satisfy the protocol lack"
            else:
                found.added.append(place)
        elif old[place] != new[place]:
            reason = why_incompatible(old[place], new[place])
            if reason is None:
                found.added.append(f"{place} (parameters with a default)")
            else:
                found.changed[place] = f"{reason}\n      was  {old[place]}\n      is   {new[place]}"
    return found


def why_incompatible(before: str, after: str) -> str | None:
    """What a caller of yesterday stumbles over; None if they notice nothing."""
    old, new = parsed(before), parsed(after)
    if old is None or new is None or before.split(" ")[0] != after.split(" ")[0]:
        return "it is of another kind or type"
    if ast.dump(old.returns or ast.Constant(None)) != ast.dump(new.returns or ast.Constant(None)):
        return "it returns something else"
    was, now = parameters(old), parameters(new)
    for name, one in was.items():
        if name not in now:
            return f"parameter {name!r} is gone"
        if one != now[name]:
            return f"parameter {name!r} is another one"
    for name, (kind, _, _, default) in now.items():
        if name not in was and default is None and not kind.startswith("*"):
            return f"parameter {name!r} is new and has no default"
    ordered, reordered = ([name for name, one in which.items() if one[0] == "positional"] for which in (was, now))
    if reordered[: len(ordered)] != ordered:
        return "its positional parameters stand in another order"
    return None


def parsed(text: str) -> ast.FunctionDef | None:
    """The signature as a syntax tree; None of a value."""
    call = re.sub(r"^(?:classmethod |staticmethod |async )?(?:def|class|protocol) ", "", text)
    if call == text:
        return None
    node = ast.parse(f"def {call}: ...").body[0]
    return node if isinstance(node, ast.FunctionDef) else None


def parameters(node: ast.FunctionDef) -> dict[str, tuple[str, bool, str, str | None]]:
    """Each parameter's kind, whether it may also be given by name, annotation and default."""
    given = node.args
    ordered = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(ordered) - len(given.defaults)), *given.defaults]
    rows = [("positional", one, default) for one, default in zip(ordered, defaults, strict=True)]
    rows += [("keyword", one, default) for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    rows += [(star, one, None) for star, one in (("*", given.vararg), ("**", given.kwarg)) if one is not None]
    return {
        one.arg: (
            kind,
            one not in given.posonlyargs,
            "" if one.annotation is None else ast.unparse(one.annotation),
            None if default is None else ast.unparse(default),
        )
        for kind, one, default in rows
    }


def told_changes(changelog: str) -> list[str]:
    """The points of the Unreleased section that do not tell of something new."""
    unreleased = re.search(r"^## \[?Unreleased\]?.*?$(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE)
    parts = re.split(r"^### ", unreleased[1] if unreleased else "", flags=re.MULTILINE)[1:]
    return [
        point for part in parts if not part.startswith("Added") for point in re.split(r"^[*-] ", part, flags=re.M)[1:]
    ]


def names_it(point: str, place: str) -> bool:
    """Whether a point of the changelog holds the name as a word of code; of a member, its class as well."""
    code = " ".join(re.findall(r"`([^`]+)`", point))
    return all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", code) for word in place.split(".")[1:])


def told(found: Difference, changelog: str) -> str:
    """What a person reads who changed the promise."""
    untold = found.untold(changelog)
    lines = ["What is public is not what tests/public_names.json promises."]
    lines += [f"  removed  {place}" for place in found.removed]
    lines += [f"  changed  {place}: {reason}" for place, reason in found.changed.items()]
    lines += [f"  added    {place}" for place in found.added]
    if untold:
        lines.append(
            "Others may build on what went or changed. Put it back, or keep the old name for a while "
            "(docs/how-to/versions.md), or say so in CHANGELOG.md, in Unreleased, under Changed, Deprecated or "
            f"Removed, in a point that holds in `backticks`: {', '.join(place.partition('.')[2] for place in untold)}."
        )
    lines.append(f"{'Then accept' if untold else 'Accept'} the new state: python tests/public_api.py")
    return "\n".join(lines)


def newest_version(changelog: str) -> str | None:
    """The version whose heading stands first in the changelog; None before the first release."""
    found = re.search(r"^## \[?v?([0-9]+\.[0-9]+\.[0-9]+)", changelog, re.MULTILINE)
    return None if found is None else found[1]


def broken_promises(api: Api, changelog: str) -> str:
    """What was released, then went or changed, and is not told; empty where all is well."""
    released = json.loads(RELEASED.read_text()) if RELEASED.exists() else {"version": None, "names": {}}
    if released["version"] != newest_version(changelog):
        return (
            f"CHANGELOG.md's newest version is {newest_version(changelog)}, but tests/released_names.json is of "
            f"{released['version']}; with the release, run: python tests/public_api.py release"
        )
    found = differences(released["names"], api)
    return told(found, changelog) if found.untold(changelog) else ""


def release() -> int:
    """Keep the names of the version that the changelog has as its newest."""
    version, api = newest_version(CHANGELOG.read_text()), read_api(load_package())
    if version is None:
        sys.stderr.write("CHANGELOG.md has no heading of a version, such as '## 0.1.0'; write it first.\n")
        return 1
    RELEASED.write_text(json.dumps({"version": version, "names": api}, indent=1) + "\n")
    return 0


def main() -> int:
    """Write the promise again, if what went or changed is told."""
    if sys.argv[1:] == ["release"]:
        return release()
    api = read_api(load_package())
    before: Api = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    found, changelog = differences(before, api), CHANGELOG.read_text()
    if found.untold(changelog):
        sys.stderr.write(told(found, changelog) + "\n")
        return 1
    SNAPSHOT.write_text(json.dumps(api, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
