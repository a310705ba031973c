"""``python -m tests.benchmarks``: runs each benchmark and prints its figures; a result is a ratio or a share within one run."""

import os
import platform
import sys
import tempfile
from pathlib import Path
from shutil import which

import torch

from tests.benchmarks import latency, stages


def main() -> int:
    """Run them all."""
    if not _orthanc_is_there():
        print("The benchmarks need Orthanc and DCMTK: apt-get install orthanc dcmtk", file=sys.stderr)
        return 1
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        stages.run()
        latency.run(Path(folder))
    return 0


def _orthanc_is_there() -> bool:
    return which("Orthanc") is not None and which("storescu") is not None


if __name__ == "__main__":
    sys.exit(main())
