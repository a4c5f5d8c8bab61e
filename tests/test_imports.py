"""Who may import whom, read from the sources; and that the light parts load no torch.

Top to bottom, never up and never in a circle: cli (and attengait/__main__), benchmarks, pipelines, attengait, kernels.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from attengait.cli.options import CHUNK_FRAMES
from attengait.store.layout import DEFAULT_CHUNK_FRAMES

ROOT = Path(__file__).parents[1]
LINKED = ("kernels", "pipelines", "benchmarks", "cli")
LINKED_MODULES = tuple(f"attengait.{folder}" for folder in LINKED)
LAYERS = ("kernels", "attengait", "pipelines", "benchmarks", "cli")
KERNELS_MAY_IMPORT = ("attengait.errors", "attengait.kernels", "attengait.system.lookup")


def module_name(path: Path) -> str:
    """The name a file of the project is imported by: kernels/flow.py is attengait.kernels.flow.backends."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "attengait" else ("attengait", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, str]:
    """Every module's source, each once: the links in attengait/ are not followed."""
    folders = [folder for folder in (ROOT / "attengait").iterdir() if folder.is_dir() and not folder.is_symlink()]
    paths = [*(ROOT / "attengait").glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    paths += [path for folder in LINKED for path in (ROOT / folder).rglob("*.py")]
    return {module_name(path): path.read_text(encoding="utf-8") for path in paths}


def layer(module: str) -> int:
    parts = module.split(".")
    if parts[1:] == ["__main__"]:
        return LAYERS.index("cli")
    return LAYERS.index(parts[1] if len(parts) > 1 and parts[1] in LINKED else "attengait")


def imported(statement: ast.AST, modules: dict[str, str]) -> list[str]:
    """The modules that one statement imports; `from package import name` means the module `name` if there is one."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        if statement.level:
            return ["." * statement.level + (statement.module or "")]
        full = [f"{statement.module}.{alias.name}" for alias in statement.names]
        return [name if name in modules or name in LINKED_MODULES else str(statement.module) for name in full]
    return []


def run_at_import(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements executed when a module is imported: not those in functions or for type checking only."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from run_at_import(statement.orelse)
            continue
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from run_at_import(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from run_at_import(handler.body)


def faults(modules: dict[str, str]) -> list[str]:
    """Every import, wherever in a module it stands, that goes up, is relative, or uses a linked folder's bare name."""
    found = []
    for module, source in sorted(modules.items()):
        for name in (name for node in ast.walk(ast.parse(source)) for name in imported(node, modules)):
            if name.startswith("."):
                found.append(f"{module} imports relatively: {name}")
            elif name.split(".")[0] in LINKED:
                found.append(f"{module} imports a linked folder by its bare name: {name}")
            elif name.split(".")[0] != "attengait":
                continue
            elif layer(module) == 0 and not name.startswith(KERNELS_MAY_IMPORT):
                found.append(f"{module} knows more than arrays: {name}")
            elif module == "attengait" and layer(name) <= LAYERS.index("pipelines"):
                continue  # the public face names what lies in all rooms, and imports it when it is asked for
            elif layer(name) > layer(module) and name not in KERNELS_MAY_IMPORT:
                found.append(f"{module} imports upwards: {name}")
    return found


def circle(modules: dict[str, str]) -> list[str] | None:
    """Modules that import each other in a circle when they are imported, if there are any."""
    graph = {
        module: {
            name
            for statement in run_at_import(ast.parse(source).body)
            for name in imported(statement, modules)
            if name in modules
        }
        for module, source in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names: list[str] = error.args[1]
        return names
    return None


def test_every_import_goes_down_and_is_absolute():
    assert faults(sources()) == []


def test_the_look_up_that_kernels_share_imports_the_errors_only():
    modules = sources()
    statements = ast.walk(ast.parse(modules["attengait.system.lookup"]))
    names = {name for statement in statements for name in imported(statement, modules)}
    assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} == {"attengait.errors"}


def test_no_modules_import_each_other_in_a_circle():
    assert circle(sources()) is None


def test_the_sources_are_found():
    modules = sources()
    assert {"attengait", "attengait.errors", "attengait.evaluation.distances", "attengait.cli.main"} <= set(modules)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("attengait.training.trainer", "from attengait.pipelines.stream import ClipStream"),
        ("attengait.store", "def f():\n    import attengait.cli.main"),
        ("attengait.pipelines.train", "from attengait import benchmarks"),
        ("attengait.benchmarks.loader", "from attengait.cli.progress import ProgressLine"),
        ("attengait.kernels.flow.backends", "from attengait.store import open_store"),
        ("attengait.kernels.flow.backends", "from attengait.system.machine import usable_cores"),
        ("attengait.kernels.flow.backends", "import attengait"),
        ("attengait.cli.main", "from .train import train"),
        ("attengait.cli.main", "import kernels.flow"),
    ],
)
def test_an_import_against_the_rules_is_found(module: str, source: str):
    assert len(faults({module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("attengait.__main__", "from attengait.cli.main import main"),
        (
            "attengait.kernels.flow.backends",
            "from attengait.errors import ParameterError\nfrom attengait.kernels.crop import crop",
        ),
        ("attengait.cli.main", "from attengait.benchmarks import loader\nimport numpy"),
    ],
)
def test_an_import_within_the_rules_is_not(module: str, source: str):
    assert faults({module: source}) == []


def test_a_circle_is_found_unless_one_side_waits_until_it_is_needed():
    one = {"attengait.a": "from attengait import b"}
    assert circle(one | {"attengait.b": "try:\n    import attengait.a\nfinally:\n    pass"}) is not None
    assert circle(one | {"attengait.b": "def f():\n    import attengait.a"}) is None
    assert circle(one | {"attengait.b": "if TYPE_CHECKING:\n    import attengait.a"}) is None


def loads_torch(program: str) -> bool:
    """Whether a fresh interpreter has loaded torch at the end of `program`."""
    program += "\nprint('torch loaded:', 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", "import sys\n" + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] == "torch loaded: True"


def test_loading_torch_would_be_seen():
    assert loads_torch("import torch")


@pytest.mark.parametrize(
    "module",
    [
        "attengait",
        "attengait.kernels",
        "attengait.store",
        "attengait.datasets",
        "attengait.synth",
        "attengait.evaluation",
        "attengait.export.pickles",
        "attengait.preprocessing.run",
        "attengait.training.run_list",
    ],
)
def test_the_light_parts_load_no_torch(module: str):
    assert not loads_torch(f"import {module}")


def test_asking_for_help_loads_neither_numpy_nor_zarr():
    program = "import sys, attengait.cli.main; print(sorted({'numpy', 'zarr', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_command_line_has_the_library_s_defaults():
    assert CHUNK_FRAMES == DEFAULT_CHUNK_FRAMES


def test_asking_for_help_loads_no_torch():
    assert not loads_torch(
        "import runpy\n"
        "sys.argv = ['attengait', '--help']\n"
        "try:\n"
        "    runpy.run_module('attengait', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
    )
