"""What must hold for the repository as a whole: floors, docstrings, sizes, pages, names that may not stand anywhere."""

from __future__ import annotations

import ast
import doctest
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import tamiz
from tamiz.cli.main import app, run_command
from tamiz.encoders.own import OWN

ROOT = Path(__file__).parents[1]
SOURCE = Path(tamiz.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES = 450
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}


def python(program: str, *arguments: str) -> list[str]:
    """Run a program in a fresh interpreter; return the words it prints."""
    found = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return found.stdout.split()


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def repository() -> tuple[Path, ...]:
    """Return the files that are, or are about to be, under version control."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git repository")
    return tuple(ROOT / name for name in found.split("\0") if name and (ROOT / name).is_file())


# --- what `import tamiz` costs and gives


def test_importing_tamiz_loads_the_standard_library_alone():
    loaded = python("import sys; import tamiz; print(*sorted({n.partition('.')[0] for n in sys.modules}))")
    foreign = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign - at_start() == {"tamiz"}


@cache
def at_start() -> frozenset[str]:
    """Modules that every interpreter of this environment loads, such as those of editable installs."""
    return frozenset(python("import sys; print(*sorted({n.partition('.')[0] for n in sys.modules}))"))


def test_importing_tamiz_is_quick():
    begun = time.perf_counter()
    python("import tamiz")
    assert time.perf_counter() - begun < 1.0 + elapsed_by("pass")


def elapsed_by(program: str) -> float:
    begun = time.perf_counter()
    python(program)
    return time.perf_counter() - begun


@pytest.mark.parametrize(
    "module", ["tamiz.model", "tamiz.store", "tamiz.package", "tamiz.cleaning", "tamiz.api", "tamiz.cli"]
)
def test_what_serving_needs_loads_no_training_library(module):
    loaded = set(python(f"import sys, {module}; print(*sorted({{n.partition('.')[0] for n in sys.modules}}))"))
    heavy = {"scipy", "sklearn", "pandas", "polars", "pyarrow", "deltalake", "mlflow", "boto3", "fastapi"}
    assert not heavy & (loaded - at_start())


def test_the_public_surface():
    assert sorted(tamiz.__all__) == ["Model", "Prediction", "Project", "TamizError", "__version__", "load", "run"]
    assert dir(tamiz) == sorted(tamiz.__all__)
    for name in tamiz.__all__:
        assert getattr(tamiz, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        tamiz.laod  # noqa: B018


def test_versions_agree():
    from importlib import metadata

    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    newest = next(heading for heading in headings if heading.lower() != "unreleased")
    assert newest == tamiz.__version__ == metadata.version("tamiz")


def test_what_is_built_holds_the_package_and_nothing_of_the_tests():
    tracked = {path.relative_to(ROOT).as_posix() for path in repository()}
    wheel = {found.path for found in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert wheel >= {str(ROOT / name) for name in tracked if name.startswith("src/")}
    archive = {
        Path(found.path).relative_to(ROOT).parts[0] for found in SdistBuilder(str(ROOT)).recurse_included_files()
    }
    given = {"src", "docs", "examples", "benchmarks", "recipes", "README.md", "LICENSE", "CHANGELOG.md"}
    assert archive - {".gitignore", "pyproject.toml"} == given


# Brought by what an extra names, whatever its release.
BROUGHT = {"botocore": "boto3", "pandas": "mlflow"}


def needed(extra: str) -> set[str]:
    """Return the names of what an extra installs, with those of the extras that it takes in."""
    found = set()
    for text in EXTRAS[extra]:
        name, inner = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?.*", text).groups()
        found |= {name.lower().replace("-", "_")} if name != "tamiz" else set().union(*map(needed, inner.split(",")))
    return found


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
REQUIRED = re.compile(r'require\("(\w+)[\w.]*", extra=(?:"(\w+)"|_EXTRA)\)')


def test_every_extra_brings_what_the_code_asks_of_it():
    asked = {(path, *found) for path in FILES for found in REQUIRED.findall(path.read_text(encoding="utf-8"))}
    assert len(asked) > 40
    lacking = {
        (name_of(path), module, extra)
        for path, module, extra in asked
        if BROUGHT.get(module, module) not in needed(extra or "transformers")
    }
    assert lacking == set()


# --- code


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(tamiz.__path__, "tamiz."):
        yield import_module(found.name)


def test_the_floors_hold():
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    assert "1 kept, 0 broken" in found.stdout


def test_every_module_says_what_it_gives():
    public = [path for path in FILES if not path.name.startswith("_")]
    assert [name_of(path) for path in public if "__all__" not in path.read_text(encoding="utf-8")] == []
    for module in modules():
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__}.{name}"


def test_every_public_name_is_documented():
    bare = []
    for path in FILES:
        if not ast.get_docstring(tree_of(path)):
            bare.append(name_of(path))
        bare += [f"{name_of(path)}.{name}" for name in undocumented(tree_of(path))]
    assert bare == []


def undocumented(node: ast.AST, inside: str = "") -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        if not ast.get_docstring(child):
            yield inside + child.name
        if isinstance(child, ast.ClassDef):
            yield from undocumented(child, f"{inside}{child.name}.")


def test_docstring_examples_are_true():
    tried = 0
    for module in modules():
        found = doctest.testmod(module)
        assert found.failed == 0, module.__name__
        tried += found.attempted
    assert tried > 10


def test_no_module_is_too_long():
    """Counted are lines that say something."""
    sizes = {name_of(p): sum(bool(line.strip()) for line in p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(path):
    tree = tree_of(path)
    imported = {alias.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {(n.module or "").partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not imported & {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}
    for function, call in calls(tree):
        assert function not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"}, function
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        assert not isinstance(shell := given.get("shell"), ast.Constant) or shell.value is False
        if function.endswith("np.load") or function == "numpy.load":
            assert ast.unparse(given["allow_pickle"]) == "False"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_entry_points_read_the_environment(path):
    entry_points = ("tamiz.settings", "tamiz.cli", "tamiz.apps", "tamiz.api")
    if name_of(path).startswith(entry_points):
        return
    reads = [n for n in ast.walk(tree_of(path)) if ast.unparse(n) in ("os.environ", "os.getenv")]
    # The package index is found as pip finds it, by pip's own variables; a family finds encoders where they are cached.
    assert not reads or name_of(path) in ("tamiz.package_index", "tamiz.encoders.cache", "tamiz.data.lake")


def test_every_error_comes_from_one_tree():
    import tamiz.errors as errors

    for name in errors.__all__:
        found = getattr(errors, name)
        if inspect.isclass(found):
            assert issubclass(found, errors.TamizError)
            assert str(found("a 'quoted' message")) == "a 'quoted' message"


# --- the repository


# Put together here, for this file is searched as well.
HOSTS = [
    "pypi" + ".org", "python" + "hosted.org", "hugging" + "face.co", "docker" + ".io", "ghcr" + ".io",
    "anaconda" + ".org", "npm" + "js.org", "proxy" + ".golang", "crates" + ".io",
]  # fmt: skip
PLACES = ["/" + "work/", "/" + "root/.", "/" + "Users/", "C:" + "\\Users"]
SHARED = "shared" + "/data"


def texts() -> Iterator[tuple[str, str]]:
    for path in repository():
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_file_names_a_package_registry():
    found = [(name, host) for name, text in texts() for host in HOSTS if host in text]
    assert found == []


def test_no_file_names_a_place_on_a_developers_machine():
    found = [(name, place) for name, text in texts() for place in PLACES if place in text]
    home = re.compile(r"/home/[a-z][a-z0-9_-]*/")
    found += [(name, home.pattern) for name, text in texts() if home.search(text)]
    found += [(name, SHARED) for name, text in texts() if SHARED in text and name != ".ci/run"]
    assert found == []


def test_no_file_is_large():
    packages = ROOT / "packages"
    weights = [packages / name / "model" / "model-int8.safetensors" for name in OWN]
    weights.append(packages / "tamiz-zero-shot-multilingual" / "model" / "tokenizer.json")
    assert {path for path in repository() if path.stat().st_size > 1_000_000} == set(weights)


def test_generated_pages_are_up_to_date():
    found = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_variable_that_is_read_stands_on_its_page():
    reads = re.compile(
        r'environ(?:ment)?(?:\.get\(|\.setdefault\(|\[)"([A-Z_]+)"|^[A-Z]+_VARIABLE = "([A-Z_]+)"', re.MULTILINE
    )
    found = {one or other for path in FILES for one, other in reads.findall(path.read_text(encoding="utf-8"))}
    assert {"TAMIZ_STORE", "TAMIZ_WORKERS", "TAMIZ_HTTP_SETTINGS", "TOKIO_WORKER_THREADS"} <= found
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    assert {name for name in found if f"`{name}`" not in page} == set()


def test_the_page_of_the_benchmarks_shows_their_results():
    from benchmarks.record import RESULTS
    from benchmarks.report import README, tables

    shown = tables(RESULTS)
    assert shown in README.read_text(encoding="utf-8"), "run: python -m benchmarks report"
    assert "asked for 99.5 % and 0.05 and so kept fp32; the defaults are 99 % and 0.1 now" in shown


MARKDOWN = [path for path in repository() if path.suffix == ".md"] if (ROOT / ".git").exists() else []


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_snippets_of_pages_can_be_read(path):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for language, block in blocks:
        if language == "python":
            compile(block, str(path), "exec")
        elif language in ("bash", "sh"):
            subprocess.run(["bash", "-n"], input=block, text=True, check=True)
            for line in block.splitlines():
                check_command(line.removeprefix("$ "))


def check_command(line: str) -> None:
    """A `tamiz` command of a page must be one, and its long options must be its own."""
    words = line.partition("  #")[0].split()
    if not words or words[0].rpartition("/")[2] != "tamiz":
        return
    command = COMMANDS[()]
    names: tuple[str, ...] = ()
    for word in words[1:]:
        if is_group(command) and not word.startswith("-"):
            names = (*names, word)
            assert names in COMMANDS, line
            command = COMMANDS[names]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    used = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
    assert used <= known, f"{line}: {used - known}"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_pages_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (path.parent / target).exists()] == []


# --- the command line


def is_group(command: Any) -> bool:
    return hasattr(command, "commands")


def commands(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield names, command
    if is_group(command):
        for name, found in command.commands.items():
            yield from commands(found, (*names, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_help(names, capsys):
    assert run_command([*names, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: " in shown
    if not is_group(COMMANDS[names]):
        assert f"Example: tamiz {' '.join(names)}" in " ".join(shown.split())


def test_the_commands_there_are():
    assert {names[0] for names in COMMANDS if names} == {
        "init", "schema", "check", "run", "ingest", "clean", "split", "train", "evaluate", "compare", "versions",
        "promote", "rollback", "thresholds", "reproduce", "predict", "explain", "serve", "keys", "fetch", "models",
        "tune", "distill", "ladder",
    }  # fmt: skip


def test_the_version_is_shown(capsys):
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"tamiz {tamiz.__version__}\n"


def test_no_command_shows_help(capsys):
    assert run_command([]) == 2
    captured = capsys.readouterr()
    assert "Usage: tamiz" in captured.out + captured.err
