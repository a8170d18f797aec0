"""What a docstring of a public name owes its reader, read from the source."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from functools import cache

import griffe
import public_api

# In the annotation (jaxtyping), or said as (b, k, h, w).
SHAPE = r"\b[A-Z]\w+\[[\w. |]*\bTensor\b[\w. |]*, |\([a-z*][\w']*,\)|\([a-z*][\w' ]*(?:, [\w'* ]+)*\)|state dict"


def audited(package: griffe.Module) -> dict[str, griffe.Object]:
    """Each public object once, and each method that it has of its own; magic methods say what they are."""
    found: dict[str, griffe.Object] = {}
    seen: set[str] = set()
    for place, target in public_api.public_objects(package).items():
        members = public_api.public_members(target) if isinstance(target, griffe.Class) else {}
        for name, one in {"": target, **members}.items():
            silent = name.startswith("__") and name != "__call__"
            value = one.is_attribute and name and "property" not in one.labels
            if not (silent or value or one.canonical_path in seen):
                seen.add(one.canonical_path)
                found[f"{place}.{name}" if name else place] = one
    return found


def faults(place: str, target: griffe.Object) -> Iterator[str]:
    """Everything that one docstring lacks."""
    if target.docstring is None:
        yield "docstring"
        return
    if isinstance(target, griffe.Class):
        yield from _class_faults(target)
    elif isinstance(target, griffe.Function):
        yield from _function_faults(target, method=place.count(".") > 1)
    if place.count(".") < 2 and shows_only_refusals(target.docstring.value):
        yield "Example that does something"


def shows_only_refusals(docstring: str) -> bool:
    """Whether there is an example, and each of its statements but imports ends in an error."""
    parsed = doctest.DocTestParser().get_examples(docstring)
    shown = [one for one in parsed if not one.source.startswith(("import ", "from "))]
    return bool(shown) and all(one.exc_msg is not None for one in shown)


def _class_faults(target: griffe.Class) -> Iterator[str]:
    sections = _sections(target)
    holds = "dataclass" in target.labels or bool(public_api.named_tuple_fields(target))
    is_record = holds and "__call__" not in target.all_members
    is_asked_for = any(re.match(r"Protocol|ABC\b", str(base)) for base in target.bases)
    named = {parameter.name for parameter in target.parameters} | set(public_api.named_tuple_fields(target))
    named = {name for name in named - {"self"} if not name.startswith("_")}
    told = {name for one in (target, *target.mro()) for name in _named_in(one)}
    if missing := sorted(named - told):
        yield f"Args: {', '.join(missing)}"
    made_in = (target.members.get(name) for name in ("__init__", "__post_init__"))
    written = [one for one in made_in if isinstance(one, griffe.Function) and one.lineno]
    if any(raises_value_error(one) for one in written) and "raises" not in sections:
        yield "Raises"
    if not (is_record or is_asked_for) and ">>>" not in str(target.docstring.value if target.docstring else ""):
        yield "Example"


def _named_in(target: griffe.Class) -> set[str]:
    sections = _sections(target)
    return sections.get("parameters", set()) | sections.get("attributes", set())


def _function_faults(target: griffe.Function, *, method: bool) -> Iterator[str]:
    sections = _sections(target)
    texts = _texts(target)
    named = {parameter.name for parameter in target.parameters} - {"self", "cls"}
    told = {name.lstrip("*") for name in sections.get("parameters", set())}
    if raises_value_error(target) and "raises" not in sections:
        yield "Raises"
    if method and (not takes_tensors(target) or _told_by_base(target)):
        return
    if missing := sorted(named - told):
        yield f"Args: {', '.join(missing)}"
    if str(target.returns) not in ("None", "Never") and not ({"returns", "yields"} & sections.keys()):
        yield "Returns"
    for parameter in target.parameters:
        if takes_tensor(parameter) and not re.search(SHAPE, f"{parameter.annotation} {texts.get(parameter.name)}"):
            yield f"shape of {parameter.name}"
    if not method and ">>>" not in str(target.docstring.value if target.docstring else ""):
        yield "Example"


def takes_tensors(function: griffe.Function) -> bool:
    """Whether a parameter is annotated as a tensor, or as something made of them."""
    return any(map(takes_tensor, function.parameters))


def takes_tensor(parameter: griffe.Parameter) -> bool:
    """Whether it is a tensor whose numbers count: no function or table of tensors, nor one that gives a dtype."""
    annotation = str(parameter.annotation)
    return (
        parameter.name != "like"
        and bool(re.search(r"\bTensor\b", annotation))
        and not re.search(r"Callable\[|Mapping\[", annotation)
    )


def raises_value_error(function: griffe.Function) -> bool:
    """Whether ``raise ValueError(...)`` stands in the function's own body."""
    return any(
        isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") == "ValueError"
        for statement in _definition(function).body
        for node in _own_nodes(statement)
    )


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _own_nodes(child)


def _definition(function: griffe.Function) -> ast.FunctionDef:
    definitions = _definitions(str(function.filepath))
    first = function.decorators[0].lineno if function.decorators else function.lineno
    return definitions.get(function.lineno) or definitions[first]


@cache
def _definitions(path: str) -> dict[int | None, ast.FunctionDef]:
    with open(path, encoding="utf-8") as source:  # noqa: PTH123 (a string is what can be remembered)
        nodes = ast.walk(ast.parse(source.read()))
    found = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return {line: node for node in found for line in (node.lineno, *(d.lineno for d in node.decorator_list))}


def _told_by_base(target: griffe.Function) -> bool:
    """Whether a class above it, or the function that its one sentence points to, says it in full."""
    owner = target.parent
    pointed = re.fullmatch(r"[\w ]+; see `(\w+)`\.", target.docstring.value if target.docstring else "")
    if pointed is not None and isinstance(function := target.module.members.get(pointed[1]), griffe.Function):
        return {"parameters", "returns"} <= _sections(function).keys()
    above = [base.members.get(target.name) for base in owner.mro()] if isinstance(owner, griffe.Class) else []
    return any(one is not None and {"parameters", "returns"} <= _sections(_final(one)).keys() for one in above)


def _texts(target: griffe.Object) -> dict[str, str]:
    parsed = target.docstring.parse("google", warnings=False) if target.docstring else []
    listed = [section.value for section in parsed if section.kind is griffe.DocstringSectionKind.parameters]
    return {one.name: one.description for values in listed for one in values}


def _sections(target: griffe.Object) -> dict[str, set[str]]:
    parsed = target.docstring.parse("google", warnings=False) if target.docstring else []
    return {
        section.kind.value: {
            one.name for one in (section.value if isinstance(section.value, list) else []) if hasattr(one, "name")
        }
        for section in parsed
    }


def _final(member: griffe.Object | griffe.Alias) -> griffe.Object:
    return member.final_target if isinstance(member, griffe.Alias) else member
