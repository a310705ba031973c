"""``python -m tests.benchmarks [NAME…]``: runs these benchmarks, or all; a result is a ratio or a share within one run."""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path
from shutil import which

import torch

from tests.benchmarks import inference, latency, outputs, receive, send, stages, training

BENCHMARKS = ("stages", "outputs", "inference", "training", "latency", "send", "receive")


def main() -> int:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all where none is given")
    names = parser.parse_args().names or BENCHMARKS
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if {"latency", "send", "receive"} & set(names) and not _orthanc_is_there():
        print("The benchmarks latency, send and receive need Orthanc and DCMTK: apt-get install orthanc dcmtk", file=sys.stderr)
        return 1
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    for module in (stages, outputs, inference, training):
        if module.__name__.rpartition(".")[2] in names:
            module.run()
    for against_orthanc in (latency, send, receive):
        if against_orthanc.__name__.rpartition(".")[2] in names:
            with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
                against_orthanc.run(Path(folder))
    return 0


def _orthanc_is_there() -> bool:
    return which("Orthanc") is not None and which("storescu") is not None


if __name__ == "__main__":
    sys.exit(main())
