"""The design on one tested page: imports go one way, registries are documented, and what must not be anywhere is nowhere."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import clipvet
from clipvet.cli.registries import Kind, Method, methods

PACKAGE = Path(clipvet.__file__).parent
NOUNS = {"errors", "types"}
METHODS = {*NOUNS, "metrics", "data", "triggers", "models"}
# part -> the other parts that it may import; a part is a folder or file of the package
ALLOWED = {
    "types": set(),
    "errors": set(),
    "metrics": NOUNS,
    "data": NOUNS,
    "triggers": NOUNS,
    "models": NOUNS | {"data"},
    "attacks": METHODS,
    "inspection": METHODS,
    "scan": METHODS,
    "repair": METHODS,
    "reports": {"types", "errors"},
    "pocket": METHODS,
    "api": {*METHODS, "inspection", "reports", "pocket"},
    "cli": {*METHODS, "inspection", "scan", "repair", "attacks", "reports", "pocket", "api"},
    "__init__": {*NOUNS, "api"},
    "__main__": {"cli"},
}
MAY_USE_ATTACKS = ("cli", "attacks")
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of all imported modules, at any depth of the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_parts(tree: ast.AST) -> set[str]:
    return {name.split(".")[1] for name in imports(tree) if name.startswith("clipvet.")}


def calls(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of everything that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func)


def offenders(rule: Callable[[Path, ast.AST], set[str]], *, but: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Return what a rule found in every file, by file; ``but`` names files and parts that the rule is not about."""
    found = {
        str(path.relative_to(PACKAGE)): rule(path, tree)
        for path, tree in TREES.items()
        if not {path.name, part_of(path)} & set(but)
    }
    return {name: problems for name, problems in found.items() if problems}


def test_imports_go_one_way() -> None:
    assert offenders(lambda path, tree: own_parts(tree) - ALLOWED[part_of(path)] - {part_of(path), "__version__"}) == {}


def test_only_the_command_line_prints_and_exits() -> None:
    said = {"print", "exit", "quit", "sys.exit", "os._exit", "input"}
    # the child process of the reader speaks to its parent only
    assert offenders(lambda _, tree: said & set(calls(tree)), but=("cli", "__main__", "_child.py")) == {}


def test_nothing_loads_weights_but_the_reader() -> None:
    unsafe = {"torch.load", "torch.jit.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "np.load"}
    assert offenders(lambda _, tree: unsafe & set(calls(tree))) == {}


def test_the_global_generators_are_left_alone() -> None:
    seeded = {"torch.manual_seed", "torch.random.manual_seed", "np.random.seed", "random.seed", "np.random.rand", "random.random"}
    assert offenders(lambda _, tree: seeded & set(calls(tree))) == {}


def test_the_network_has_one_door() -> None:
    outside = ("urllib.request", "http.client", "requests", "socket", "huggingface_hub", "ftplib")
    used = offenders(lambda _, tree: {name for name in imports(tree) if name.startswith(outside)}, but=("_remote.py",))
    assert used == {}


def test_files_stay_readable() -> None:
    long = {path.name: lines for path in FILES if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert long == {}


def test_the_rules_are_about_the_files_that_there_are() -> None:
    assert len(FILES) >= 50
    assert {part_of(path) for path in FILES} == set(ALLOWED)


def test_attacks_are_imported_by_the_command_line_only() -> None:
    users = {part_of(path) for path, tree in TREES.items() if "attacks" in own_parts(tree)}
    assert users <= set(MAY_USE_ATTACKS)


def test_light_parts_do_not_load_torch() -> None:
    code = "import sys, clipvet, clipvet.cli, clipvet.types, clipvet.errors, clipvet.reports; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def registered() -> list[Method]:
    return [method for kind in Kind for method in methods(kind)]


def test_every_registered_class_is_documented() -> None:
    found = registered()
    assert len(found) >= 15
    silent = [f"{method.kind}: {method.name}" for method in found if len(method.doc) < 40]
    assert silent == []


def test_every_attack_and_check_names_its_paper() -> None:
    unnamed = [
        method.name
        for method in registered()
        if method.kind in (Kind.ATTACKS, Kind.PAIR_ATTACKS, Kind.CHECKS) and "Reference:" not in method.doc
    ]
    assert unnamed == []


def test_methods_are_frozen_values() -> None:
    """The fields of a method are its whole configuration; prompts are modules and are tuned instead."""
    for method in registered():
        if method.kind is Kind.FAMILIES:
            continue
        assert dataclasses.is_dataclass(method.cls), method.name
        assert vars(method.cls)["__dataclass_params__"].frozen, method.name


def test_a_method_is_registered_under_its_own_name() -> None:
    for method in registered():
        own = getattr(method.cls, "family" if method.kind is Kind.FAMILIES else "name", method.name)
        assert own == method.name
