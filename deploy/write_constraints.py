#!/usr/bin/env python3
"""Writes ``constraints.txt``: the exact version of everything that a deployment of this environment's cxr-worker brings in.

The libraries of CUDA are left to torch, which fixes their versions itself, and other ones in each of its builds.
"""

from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
OF_TORCH = ("cuda-", "nvidia-", "triton")
HEAD = """\
# What was tested, written by 'make constraints', for pip install --constraint deploy/constraints.txt '.[postgresql]'
"""


def deployed(name: str, extras: frozenset[str] = frozenset()) -> dict[str, str]:
    """What a distribution needs on this platform, with all that needs in turn: version by normalized name, without itself."""
    found: dict[str, str] = {}
    waiting = [(name, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        for text in distribution(wanted[0]).requires or ():
            requirement = Requirement(text)
            needed = canonicalize_name(requirement.name)
            if needed.startswith(OF_TORCH) or not _applies(requirement, wanted[1]):
                continue
            found[needed] = Version(distribution(needed).version).public  # torch's +cpu is on no index but its own
            waiting.append((needed, frozenset(requirement.extras)))
    found.pop(canonicalize_name(name), None)
    return found


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""}) | {""})


def text() -> str:
    """The file as it should be."""
    versions = deployed("cxr-worker", frozenset({"postgresql"}))
    return HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


if __name__ == "__main__":
    CONSTRAINTS.write_text(text(), encoding="utf-8")
