"""What is deployed has exact versions that fit, and the code runs nothing that it was not written to run."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FOLDERS = ("cxr_models", "deploy", "dicom_io", "migrations", "worker")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
NEVER_CALLED = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "yaml.load",
    "pandas.read_pickle",
}
NEVER_IMPORTED = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def constraints() -> dict[str, Version]:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pinned = [line.partition("==") for line in lines if not line.startswith("#")]
    return {name: Version(version) for name, _, version in pinned}


def offences(source: str) -> Iterator[str]:
    """What a module does that none of ours may."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {name}" for name in names if name.partition(".")[0] in NEVER_IMPORTED)
            if isinstance(node, ast.ImportFrom) and node.module == "pickle":
                yield "imports from pickle"
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("pickle.") and node.attr != "UnpicklingError":
            yield f"uses {ast.unparse(node)}"
        if isinstance(node, ast.Call):
            yield from _offences_of_a_call(
                ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
            )


def _offences_of_a_call(name: str, keywords: dict[str | None, str]) -> Iterator[str]:
    if name in NEVER_CALLED:
        yield f"calls {name}"
    if keywords.get("shell", "False") != "False":
        yield "starts a shell"
    if keywords.get("allow_pickle", "False") != "False":
        yield "lets NumPy unpickle"
    if name == "torch.load" and keywords.get("weights_only") != "True":
        yield "lets torch unpickle"


def test_every_dependency_has_an_exact_version_in_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = constraints()
    for text in project["dependencies"] + project["optional-dependencies"]["postgresql"]:
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has none: make constraints"
        assert version in requirement.specifier, f"{text}: {version} does not fit"


def test_constraints_hold_versions_and_nothing_of_one_machine() -> None:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    assert len(lines) > 20
    for line in lines:
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
    assert lines[1:] == sorted(lines[1:], key=lambda line: line.partition("==")[0])


def test_the_image_is_built_from_the_exact_versions() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "--constraint deploy/constraints.txt" in dockerfile
    assert "!deploy/constraints.txt" in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    assert len(FILES) > 100
    found = {f"{path.relative_to(ROOT)} {offence}" for path in FILES for offence in offences(path.read_text(encoding="utf-8"))}
    assert not found


@pytest.mark.parametrize(
    ("source", "offence"),
    [
        ("import pickle\npickle.loads(b'')", "uses pickle.loads"),
        ("from pickle import load", "imports from pickle"),
        ("import joblib", "imports joblib"),
        ("subprocess.run('ls', shell=True)", "starts a shell"),
        ("torch.load(path)", "lets torch unpickle"),
        ("np.load(path, allow_pickle=True)", "lets NumPy unpickle"),
        ("eval('1')", "calls eval"),
    ],
)
def test_the_check_would_find_it(source: str, offence: str) -> None:
    assert offence in set(offences(source))


def test_every_exception_from_bandit_names_its_rule_and_its_reason() -> None:
    for path in FILES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if "# nosec" in line:
                assert re.search(r"#.*\w{4,}.*# nosec B\d{3}$", line), f"{path.relative_to(ROOT)}:{number}"
