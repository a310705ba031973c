"""The Grayscale Softcopy Presentation State: the radiographs as they are, and the answer in a corner (PS3.3 A.33.1).

A presentation state replaces the whole grayscale pipeline of its images (PS3.4 N.2), so what an image says of it is copied:
without that the viewer would show it in another contrast.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from dicom_io import uids
from dicom_io.attributes import Unreadable, integers, strings
from dicom_io.errors import InvalidReport
from dicom_io.foreign import any_error_as
from dicom_io.header import read_header
from dicom_io.identity import SourceImage, put, read_source_image
from dicom_io.kinds import Kind, new_object
from dicom_io.provenance import local_time, sign
from dicom_io.sr_document import reference
from dicom_io.stored import Layout, read_layout
from dicom_io.values import ImageFindings, SeriesUID, StudyFindings
from dicom_io.voi import finite_number, is_inverted, lookup_table, modality_values

_LAYER: Final = "AI"
_CORNER: Final = ([0.01, 0.01], [0.25, 0.15])
"""Box of the text, left and top, right and bottom, as shares of what is displayed: over the shoulder, clear of the lungs."""

_SHUTTERS: Final = {
    "RECTANGULAR": (
        "ShutterLeftVerticalEdge",
        "ShutterRightVerticalEdge",
        "ShutterUpperHorizontalEdge",
        "ShutterLowerHorizontalEdge",
    ),
    "CIRCULAR": ("CenterOfCircularShutter", "RadiusOfCircularShutter"),
    "POLYGONAL": ("VerticesOfThePolygonalShutter",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Film:
    findings: ImageFindings
    source: SourceImage
    shared: Dataset
    """What a presentation state holds but once for all its images: Modality LUT, polarity and shutter."""
    voi: Dataset
    """Item of the Softcopy VOI LUT Sequence, empty where the image has no VOI."""


def build_presentation_state(findings: StudyFindings) -> Dataset:
    """Write findings beside the lungs of their images, as a presentation state in the study of the images.

    It refers to all images that share Modality LUT, polarity and shutter with the first that raises concern, or else with the
    first: one presentation state cannot hold two of any.

    Parameters
    ----------
    findings
        Their image files are read, without the pixels.

    Returns
    -------
    Dataset
        With file meta information, Explicit VR Little Endian; equal findings give equal bytes.

    Raises
    ------
    InvalidReport
        An image cannot be read, is not of the same patient and study, or does not say how it is displayed.
    """
    films = [_film(image) for image in findings.images]
    leading = next((film for film in films if any(one.raises_concern for one in film.findings.findings)), films[0])
    shown = [film for film in films if film.shared == leading.shared]
    sources = [film.source for film in films]
    made_at = local_time(findings.analysed_at, sources[0])
    ds = new_object(Kind.PRESENTATION_STATE, sources, result_key=findings.result_key, language=findings.language)
    ds.BodyPartExamined = "CHEST"
    ds.PresentationCreationDate, ds.PresentationCreationTime = f"{made_at:%Y%m%d}", f"{made_at:%H%M%S.%f}"
    ds.ContentLabel = "AI_RESULT"
    ds.ContentDescription = ds.SeriesDescription
    ds.ContentCreatorName = f"{uids.MODEL_NAME}^AI"
    ds.ReferencedSeriesSequence = _by_series(shown)
    ds.DisplayedAreaSelectionSequence = [_displayed_area(film) for film in shown]
    ds.GraphicLayerSequence = [_layer(ds.SeriesDescription)]
    ds.GraphicAnnotationSequence = [_annotation(film, findings) for film in shown]
    if any(len(film.voi) for film in shown):
        ds.SoftcopyVOILUTSequence = [_referring(film, film.voi) for film in shown if len(film.voi)]
    ds.update(leading.shared)
    sign(ds, made_at)
    del ds.ContentDate, ds.ContentTime  # the IOD has the Presentation Creation Date and Time in their place
    return ds


def _film(image: ImageFindings) -> _Film:
    source = read_source_image(image.path)
    with any_error_as(InvalidReport, "A source image does not say how it is displayed ({})."):
        header = read_header(image.path)
        layout = read_layout(header)
        shared = _modality(header, layout)
        shared.PresentationLUTShape = "INVERSE" if is_inverted(header)[0] else "IDENTITY"
        shared.update(_shutter(header))
        return _Film(findings=image, source=source, shared=shared, voi=_voi(header, layout))


def _modality(header: Dataset, layout: Layout) -> Dataset:
    """Modality LUT module (PS3.3 C.11.1), empty where the image leaves its values as they are."""
    ds = Dataset()
    if header.get("ModalityLUTSequence"):
        item = header.ModalityLUTSequence[0]
        ds.ModalityLUTSequence = [_lut(item, signed=layout.signed, name="ModalityLUTSequence")]
        ds.ModalityLUTSequence[0].ModalityLUTType = "US"  # unspecified: what it maps to is of no concern here
        return ds
    slope, intercept = finite_number(header, "RescaleSlope", 1.0), finite_number(header, "RescaleIntercept", 0.0)
    if slope is not None and intercept is not None and (slope, intercept) != (1.0, 0.0):
        ds.RescaleSlope, ds.RescaleIntercept = format_number_as_ds(slope), format_number_as_ds(intercept)
        ds.RescaleType = "US"
    return ds


def _voi(header: Dataset, layout: Layout) -> Dataset:
    """The first VOI LUT, else the first window, as `voi.display_values` chooses too (PS3.3 C.11.8)."""
    ds = Dataset()
    if header.get("VOILUTSequence"):
        negative = bool(layout.signed or modality_values(header, layout.cell_values(), layout).min() < 0)
        ds.VOILUTSequence = [_lut(header.VOILUTSequence[0], signed=negative, name="VOILUTSequence")]
        return ds
    center, width = finite_number(header, "WindowCenter"), finite_number(header, "WindowWidth")
    function = next(iter(strings(header, "VOILUTFunction")), "LINEAR")
    exact = function in {"LINEAR_EXACT", "SIGMOID"}
    if center is not None and width is not None and (width > 0 if exact else width >= 1):
        ds.WindowCenter, ds.WindowWidth = format_number_as_ds(center), format_number_as_ds(width)
        if exact:
            ds.VOILUTFunction = function
    return ds


def _shutter(header: Dataset) -> Dataset:
    """The shutter, in black (PS3.3 C.7.6.11, C.11.12); none where a shape cannot be read whole."""
    ds = Dataset()
    with suppress(Unreadable):
        shapes = [shape for shape in strings(header, "ShutterShape") if shape in _SHUTTERS]
        edges = {keyword: integers(header, keyword) for shape in shapes for keyword in _SHUTTERS[shape]}
        if edges and all(edges.values()):
            ds.ShutterShape, ds.ShutterPresentationValue = shapes, 0
            for keyword, values in edges.items():
                setattr(ds, keyword, list(values))
    return ds


def _lut(item: Dataset, *, signed: bool, name: str) -> Dataset:
    """The same table again, whatever bytes and value representations it came in."""
    data, first, bits = lookup_table(item, signed=signed, name=name)
    entries = data.astype(np.uint8 if bits == 8 else "<u2").tobytes()
    ds = Dataset()
    ds["LUTDescriptor"] = DataElement("LUTDescriptor", "SS" if first < 0 else "US", [len(data) % 0x10000, first, bits])
    ds["LUTData"] = DataElement("LUTData", "OW", entries + bytes(len(entries) % 2))
    return ds


def _by_series(films: Sequence[_Film]) -> list[Dataset]:
    """Items of the Referenced Series Sequence (PS3.3 C.11.11)."""
    series: dict[SeriesUID, Dataset] = {}
    for film in films:
        item = series.setdefault(film.source.reference.series_uid, Dataset())
        put(item, "SeriesInstanceUID", film.source.reference.series_uid)
        item.ReferencedImageSequence = [*item.get("ReferencedImageSequence", []), reference(film.source.reference)]
    return list(series.values())


def _referring(film: _Film, item: Dataset) -> Dataset:
    """Let an item speak of one image."""
    item.ReferencedImageSequence = [reference(film.source.reference)]
    return item


def _displayed_area(film: _Film) -> Dataset:
    """The whole image, as large as fits (PS3.3 C.10.4)."""
    item = _referring(film, Dataset())
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [film.source.columns, film.source.rows]
    item.PresentationSizeMode = "SCALE TO FIT"
    if film.source.spacing_mm and min(film.source.spacing_mm) > 0:
        item.PresentationPixelSpacing = [format_number_as_ds(value) for value in film.source.spacing_mm]
    else:
        item.PresentationPixelAspectRatio = [1, 1]
    return item


def _layer(description: str) -> Dataset:
    item = Dataset()
    item.GraphicLayer = _LAYER
    item.GraphicLayerOrder = 1
    item.GraphicLayerDescription = description
    return item


def _annotation(film: _Film, findings: StudyFindings) -> Dataset:
    """The triage level, the probabilities and the limits, in the corner of the display, not of the image (PS3.3 C.10.5)."""
    words = findings.wording
    text = Dataset()
    text.BoundingBoxAnnotationUnits = "DISPLAY"
    text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner = _CORNER
    text.BoundingBoxTextHorizontalJustification = "LEFT"
    lines = [
        f"{words.triage}:",
        words.levels[findings.assessment],
        *(f"{words.conditions[one.condition]} {one.probability * 100:.1f} %" for one in film.findings.findings),
        *[words.undetermined] * film.findings.undetermined,
        *words.disclaimer.replace(". ", ".\n").splitlines(),
    ]
    text.UnformattedTextValue = "\r\n".join(lines)
    item = _referring(film, Dataset())
    item.GraphicLayer = _LAYER
    item.TextObjectSequence = [text]
    return item
