"""The wheel claims one name, holds everything, and works from elsewhere."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import attengait

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the checkout, so that building leaves nothing in the tree."""
    source = tmp_path_factory.mktemp("source")
    out = tmp_path_factory.mktemp("wheel")
    # The checkout may belong to another user.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.split("\0")):
        path, copy = ROOT / name, source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_file() and not name.startswith("tests/"):
            copy.write_bytes(path.read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", out, source]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_claims_one_name_and_holds_every_module_and_kernel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"attengait"}
    modules = {path.relative_to(ROOT / "attengait").as_posix() for path in (ROOT / "attengait").rglob("*.py")}
    for folder in ("kernels", "pipelines", "cli", "benchmarks"):
        modules |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    assert {f"attengait/{module}" for module in modules} <= set(names)
    sources = [path for path in (ROOT / "kernels").rglob("*") if path.suffix in (".cpp", ".cu", ".h")]
    assert sources
    assert {f"attengait/{path.relative_to(ROOT).as_posix()}" for path in sources} <= set(names)
    assert {"attengait/py.typed", "attengait/training/presets/casia-b.toml"} <= set(names)
    assert "attengait/evaluation/rules/grew.toml" in names


def test_the_version_has_one_source_and_a_place_without_installation(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == attengait.__version__
    assert 'version = "' not in (ROOT / "pyproject.toml").read_text().partition("[tool.")[0]
    # -I -S: no site-packages, so that no installed package can answer.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import attengait; print(attengait.__version__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == attengait.__version__


def test_the_wheel_works_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import attengait, attengait.kernels, attengait.pipelines.stream, attengait.cli.main;"
        "from attengait.training.config import load_preset; load_preset('demo'); print(attengait.__file__)"
    )
    # -P and the path first: neither the checkout nor its editable install may answer.
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "site" / "attengait" / "__init__.py"
