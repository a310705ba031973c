"""What PixelMed's DicomSRValidator says of Structured Reports, all in one Java machine: each start costs seconds."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydicom import dcmwrite
from pydicom.dataset import Dataset

ARCHIVE = "/usr/share/java/pixelmed.jar"
"""Where Debian puts it."""
OPTIONS = (
    "-Djdk.xml.xpathTotalOpLimit=0",  # without these a Java machine of today refuses the validator's style sheets
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
)


def pixelmed_says(documents: Mapping[str, Dataset], folder: Path) -> dict[str, list[str]]:
    """Lines that the validator prints of each document, by its name."""
    from tests.requirements import lacking, need  # noqa: PLC0415  not at hand where this file is run as a program

    need("java")
    if not Path(ARCHIVE).exists():
        lacking(ARCHIVE)
    for name, ds in documents.items():
        dcmwrite(folder / f"{name}.dcm", ds, enforce_file_format=True)
    paths = [folder / f"{name}.dcm" for name in documents]
    said = subprocess.run([sys.executable, __file__, *paths], capture_output=True, text=True, check=True).stdout
    return dict(zip(documents, json.loads(said), strict=True))


def validated(paths: Iterable[str]) -> list[list[str]]:
    """Start a Java machine in this process, which can have but one, and validate files in it."""
    import jpype  # noqa: PLC0415  only a process of its own can afford it

    jpype.startJVM(*OPTIONS, classpath=[ARCHIVE])
    validator = jpype.JClass("com.pixelmed.validate.DicomSRValidator")()
    return [str(validator.validate(path)).splitlines() for path in paths]


if __name__ == "__main__":
    print(json.dumps(validated(sys.argv[1:])))  # noqa: T201  a program's output
