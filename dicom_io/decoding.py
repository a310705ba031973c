"""Decoding by libraries of compiled code, in the process that calls: that of `decoder`, or of a test that looks inside."""

from typing import Any, Final

import PIL.Jpeg2KImagePlugin  # noqa: F401  it makes itself known to Pillow
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from dicom_io.errors import UndecodablePixels
from dicom_io.foreign import any_error_as
from dicom_io.frame import Cells, Frame

_DECODERS: Final = ("pyjpegls", "pylibjpeg", "pillow")
"""In the order of trust. GDCM is not among them: it aborts on some damaged images."""

Image.preinit()  # or Pillow would load its readers at the first image, when the process may open no file any more


def decode(frame: Frame) -> tuple[Cells, str | None]:
    """Decode a frame by the first library that reads it.

    Returns
    -------
    tuple[Cells, str | None]
        Shape ``(rows, columns)``, the raw content of each cell; and a note where another library had refused it.

    Raises
    ------
    UndecodablePixels
        None reads it.
    """
    transfer_syntax = UID(frame.transfer_syntax)
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError as error:
        raise UndecodablePixels(f"No decoder for {transfer_syntax.name}.") from error
    source = encapsulate([frame.data], has_bot=False)
    options: dict[str, Any] = {
        "rows": frame.rows,
        "columns": frame.columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": frame.bits_allocated,
        "bits_stored": frame.bits_stored,
        "pixel_representation": int(frame.signed),
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }
    tried: list[str] = []
    for plugin in _DECODERS:
        if plugin not in decoder.available_plugins:
            continue
        try:
            with any_error_as(UndecodablePixels, f"{plugin} ({{}})"):
                decoded, _ = decoder.as_array(source, raw=True, index=0, decoding_plugin=plugin, **options)
        except UndecodablePixels as error:  # the next one may do better
            tried.append(str(error))
            continue
        except MemoryError:  # of this process's share, which is enough for any image that may be asked of it
            tried.append(f"{plugin} (MemoryError)")
            continue
        if decoded.shape != (frame.rows, frame.columns):
            tried.append(f"{plugin} (gave another size)")
            continue
        width = frame.bits_allocated // 8
        cells: Cells = decoded.astype(f"{'i' if frame.signed else 'u'}{width}", copy=False).view(f"u{width}")
        return cells, f"read by {plugin}, refused by {', '.join(tried)}" if tried else None
    raise UndecodablePixels(f"No decoder read this {transfer_syntax.name} image; tried {', '.join(tried) or 'none'}.")
