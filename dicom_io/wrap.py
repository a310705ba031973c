"""A picture wrapped as a DX image for presentation (PS3.3 A.26), for demonstrations, tests and benchmarks."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.errors import InvalidObject
from dicom_io.foreign import any_error_as
from dicom_io.uids import (
    DEVICE_UID,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MODEL_NAME,
    SOFTWARE_VERSION,
    derived_uid,
)
from dicom_io.values import SOPInstanceUID, StudyUID, TransferSyntaxUID

View = Literal["PA", "AP", "LL"]
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]

_VIEWS: Final[dict[View, tuple[Code, str]]] = {
    "PA": (Code("272479007", "SCT", "postero-anterior"), "L\\F"),
    "AP": (Code("399348003", "SCT", "antero-posterior"), "L\\F"),
    "LL": (Code("399173006", "SCT", "left lateral"), "A\\F"),
}
_EXPLICIT: Final = TransferSyntaxUID(ExplicitVRLittleEndian)
_CHEST: Final = Code("816094009", "SCT", "Chest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Whom the picture is said to show. Any characters: what is written is UTF-8."""

    name: str
    patient_id: str
    birth_date: str = ""
    """``YYYYMMDD`` or empty."""
    sex: Literal["", "F", "M", "O"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Which picture of which study. Equal values give equal UIDs."""

    study_uid: StudyUID
    taken_at: datetime
    accession_number: str = ""
    instance_number: int = 1
    sop_instance_uid: SOPInstanceUID | None = None
    """None: derived from the study and the instance number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the pixels are written."""

    photometric: Photometric = "MONOCHROME2"
    bits_stored: int | None = None
    """6 to 16; None: as many as the picture's type has."""
    window: tuple[float, float] | None = None
    """Center and width in stored values; None: the whole range, so that display values are those of the picture."""
    transfer_syntax: TransferSyntaxUID = _EXPLICIT
    """Little endian, or a lossless compression that an installed encoder writes: RLE, JPEG-LS, JPEG 2000."""


PLAIN: Final = Encoding()
"""MONOCHROME2, all bits, no compression."""


def dx_from_grayscale(
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    patient: Patient,
    *,
    exposure: Exposure,
    view: View = "PA",
    encoding: Encoding = PLAIN,
) -> Dataset:
    """Make a DX image object around a picture.

    Parameters
    ----------
    pixels
        Shape ``(rows, columns)``, bright is dense, over the whole range of its type.
    patient, exposure
        Identity.
    view
        PA and AP make a frontal chest image, LL a lateral one.
    encoding
        Bits, polarity, window, compression.

    Returns
    -------
    Dataset
        With file meta information; ``ds.save_as(path, enforce_file_format=True)`` writes it. `pixels.read_image` gives the
        picture back, divided by the largest value of its type.

    Raises
    ------
    InvalidObject
        The picture is no such array, or no encoder writes the transfer syntax.
    """
    stored, bits_stored = _stored(pixels, encoding)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    _identify(ds, patient, exposure)
    _equip(ds)
    _position(ds, view)
    _describe_pixels(ds, encoding, bits_stored)
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated = stored.dtype.itemsize * 8
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    _encode(ds, stored, UID(encoding.transfer_syntax))
    return ds


def _stored(pixels: NDArray[np.uint8] | NDArray[np.uint16], encoding: Encoding) -> tuple[NDArray[np.uint8 | np.uint16], int]:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16) or 0 in pixels.shape or max(pixels.shape) > 0xFFFF:
        raise InvalidObject("The picture is not one grey plane of 8 or 16 bits, at most 65,535 pixels a side.")
    own_bits = pixels.dtype.itemsize * 8
    bits = encoding.bits_stored or own_bits
    if not 6 <= bits <= 16:
        raise InvalidObject(f"BitsStored is {bits}; 6 to 16 are allowed in DX (PS3.3 C.8.11.3.1.1).")
    most, own_most = (1 << bits) - 1, (1 << own_bits) - 1
    values = pixels if bits == own_bits else np.rint(pixels * (most / own_most))
    if encoding.photometric == "MONOCHROME1":
        values = most - values
    return values.astype("<u1" if bits <= 8 else "<u2"), bits


def _identify(ds: Dataset, patient: Patient, exposure: Exposure) -> None:
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    derived = derived_uid("wrapped image", exposure.study_uid, str(exposure.instance_number))
    ds.SOPInstanceUID = UID(exposure.sop_instance_uid or derived)
    ds.StudyInstanceUID = exposure.study_uid
    ds.SeriesInstanceUID = UID(derived_uid("wrapped series", exposure.study_uid))
    date, time = exposure.taken_at.strftime("%Y%m%d"), exposure.taken_at.strftime("%H%M%S")
    for kind in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{kind}Date", date)
        setattr(ds, f"{kind}Time", time)
    ds.AccessionNumber = exposure.accession_number
    ds.ReferringPhysicianName = ""
    ds.StudyID = "1"
    ds.SeriesNumber = 1
    ds.InstanceNumber = exposure.instance_number
    ds.StudyDescription = "Chest radiograph"
    ds.PatientName = patient.name
    ds.PatientID = patient.patient_id
    ds.PatientBirthDate = patient.birth_date
    ds.PatientSex = patient.sex


def _equip(ds: Dataset) -> None:
    ds.Modality = "DX"
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = MODEL_NAME
    ds.SoftwareVersions = SOFTWARE_VERSION
    ds.DeviceSerialNumber = "0"
    ds.DeviceUID = DEVICE_UID
    ds.DetectorType = "DIRECT"
    ds.PositionerType = "NONE"
    ds.AcquisitionContextSequence = Sequence()


def _position(ds: Dataset, view: View) -> None:
    view_code, orientation = _VIEWS[view]
    ds.BodyPartExamined = "CHEST"
    ds.AnatomicRegionSequence = Sequence([_coded(_CHEST)])
    ds.ViewPosition = view
    ds.ViewCodeSequence = Sequence([_coded(view_code)])
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence()
    ds.PatientOrientation = orientation.split("\\")
    ds.ImageLaterality = "U"


def _describe_pixels(ds: Dataset, encoding: Encoding, bits_stored: int) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = encoding.photometric
    ds.PresentationLUTShape = "INVERSE" if encoding.photometric == "MONOCHROME1" else "IDENTITY"
    ds.BitsStored = bits_stored
    ds.HighBit = bits_stored - 1
    ds.PixelRepresentation = 0
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if encoding.photometric == "MONOCHROME1" else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    center, width = encoding.window or (1 << bits_stored - 1, 1 << bits_stored)
    ds.WindowCenter, ds.WindowWidth = f"{center:g}", f"{width:g}"
    ds.ImagerPixelSpacing = ["0.143", "0.143"]


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _encode(ds: Dataset, stored: NDArray[np.uint8 | np.uint16], transfer_syntax: UID) -> None:
    frame = stored.tobytes()
    ds.add_new("PixelData", "OW", frame + bytes(len(frame) % 2))
    if transfer_syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        ds.file_meta.TransferSyntaxUID = transfer_syntax
        return
    with any_error_as(InvalidObject, f"No encoder writes this picture as {transfer_syntax.name}."):
        ds.compress(transfer_syntax, stored, generate_instance_uid=False)
