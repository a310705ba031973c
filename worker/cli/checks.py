"""What `doctor` looks at on the machine and around it: each answers what it found in words, or raises what is wrong."""

import re
import shutil
import stat
import tomllib
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from cxr_models.gate import FrontalGate
from cxr_models.predict import Predictor, choose_device
from cxr_models.values import Card
from dicom_io.confinement import landlock_version
from dicom_io.decoders import Decoders
from dicom_io.frame import Frame
from worker.configuration import DEFAULT_FILE
from worker.destination import Destination
from worker.errors import ConfigurationError, WorkerError
from worker.registry import ModelFolder
from worker.service import make_data_dir
from worker.settings import Settings
from worker.steps.deliver import greet
from worker.tls import key_files, known_certificate

_LOW_SPACE_BYTES = 5 * 1024**3


def disk(settings: Settings) -> str:
    """How much of it is free."""
    make_data_dir(settings)
    usage = shutil.disk_usage(settings.data_dir)
    for section, wanted in (("keeping", settings.keeping.minimum_free_bytes), ("dicom", settings.dicom.minimum_free_bytes)):
        if wanted > usage.total:
            raise ConfigurationError(f"{section}.minimum_free_bytes is {wanted}, and all of the disk has {usage.total} bytes")
    words = f"{settings.data_dir.resolve()}: {usage.free / 1024**3:.1f} GiB free"
    if usage.free < _LOW_SPACE_BYTES:
        raise OSError(f"{words}, less than {_LOW_SPACE_BYTES // 1024**3}")
    return words


def secrets(settings: Settings, config: Path | None) -> str:
    """Whether keys and passwords are kept from other accounts."""
    files = key_files(settings)
    path = config or DEFAULT_FILE
    if path.exists() and _holds_a_secret(tomllib.loads(path.read_text(encoding="utf-8"))):
        files.append(path)
    shown = [str(file) for file in files if file.exists() and file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)]
    if shown:
        raise ConfigurationError(f"every account of this machine may read or write {', '.join(shown)}")
    return "keys and passwords in files are not for every account"


def _holds_a_secret(value: Any, key: str = "") -> bool:
    if isinstance(value, dict):
        return any(_holds_a_secret(value[each], each) for each in value)
    if isinstance(value, list):
        return any(_holds_a_secret(each) for each in value)
    if key == "database_url":
        return re.search("://[^/@]*:[^@]+@", str(value)) is not None
    return key in {"password", "token", "key_password"} and value != ""


def valid(path: Path, key: str, *, now: datetime) -> str:
    """How long a certificate is valid."""
    certificate = known_certificate(path, key)
    if certificate.not_after <= now:
        raise ConfigurationError(f"{path} expired on {certificate.not_after:%Y-%m-%d}")
    if certificate.not_before > now:
        raise ConfigurationError(f"{path} is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC")
    return f"{path} ends on {certificate.not_after:%Y-%m-%d}, in {(certificate.not_after - now).days} days"


def load(model: ModelFolder) -> Card:
    """Load it as the worker would, so that what is wrong with its weights shows; answer its card."""
    card = model.read_card()
    Predictor.load(str(model.path.resolve()), device="cpu")
    return card


def gate() -> str:
    """The one that looks at pixels, loaded."""
    card = FrontalGate.load().card
    return f"{card.name} {card.version} looks at pixels, weights {card.weights_sha256[:12]}"


def decoders() -> str:
    """Whether a compressed image is decoded, in the process apart that does it."""
    side, image = 8, BytesIO()
    Image.new("L", (side, side)).save(image, "JPEG")
    apart = Decoders()
    try:
        apart.decode(
            Frame(
                transfer_syntax=JPEGBaseline8Bit,
                rows=side,
                columns=side,
                bits_allocated=8,
                bits_stored=8,
                signed=False,
                data=image.getvalue(),
            )
        )
    finally:
        apart.close()
    return "a JPEG is read by a process apart"


def confinement() -> str:
    """What those processes can reach."""
    version = landlock_version()
    if not version:
        raise WorkerError("this kernel has no Landlock: a decoder that an image took over could end processes of this account")
    return f"by Landlock {version}: decoders reach no file, no network and no other process"


def device(settings: Settings) -> str:
    """On which the model answers."""
    chosen = choose_device(settings.inference.device)
    return f"{chosen}: {torch.cuda.get_device_name(chosen)}" if chosen.type == "cuda" else "cpu: no GPU is used"


def echo(destination: Destination, settings: Settings) -> str:
    """Whether a destination answers."""
    greet(destination, settings)
    if destination.url:
        return f"{destination.url} answers"
    over = " over TLS" if destination.tls else ""
    return f"{destination.ae_title} at {destination.host}:{destination.port} answers C-ECHO{over}"
