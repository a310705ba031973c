"""The Secondary Capture: one page per study that every viewer shows, since few show a Structured Report well."""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_io.film import Shown, require_image
from dicom_io.identity import SourceImage, put, read_source_image
from dicom_io.kinds import Kind, new_object
from dicom_io.page import draw_page
from dicom_io.provenance import local_time, sign
from dicom_io.sr_document import coded
from dicom_io.values import StudyFindings


def build_capture(findings: StudyFindings, *, image: int, pixels: NDArray[np.float32]) -> Dataset:
    """Draw findings beside one of their images, as an RGB Secondary Capture in the study of the images.

    Parameters
    ----------
    findings
        Their image files are read, without the pixels.
    image
        Which image of the findings is shown, from 0: the one that the triage level comes from.
    pixels
        Rows, columns; that image as displayed, 0 (black) to 1 (white).

    Returns
    -------
    Dataset
        With file meta information, Explicit VR Little Endian, uncompressed; equal arguments give equal bytes.

    Raises
    ------
    InvalidReport
        An image cannot be read or is not of the same patient and study, or the pixels are no image between 0 and 1.
    """
    return page_capture(
        Kind.CAPTURE,
        findings,
        Shown(number=image, pixels=pixels),
        derivation="Image with the results of {} drawn beside it",
    )


def page_capture(kind: Kind, findings: StudyFindings, shown: Shown, *, derivation: str) -> Dataset:
    """Write the page as a Secondary Capture; see `build_capture`.

    Parameters
    ----------
    derivation
        Derivation Description (0008,2111), with a place for the model.
    """
    require_image(findings, shown.number)
    sources = [read_source_image(of_image.path) for of_image in findings.images]
    made_at = local_time(findings.analysed_at, sources[0])
    page = draw_page(findings, shown, made_at=made_at)
    ds = new_object(kind, sources, result_key=findings.result_key, language=findings.language)
    ds.ConversionType = "WSD"
    ds.BodyPartExamined = "CHEST"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = None  # the page is no view of the patient; the radiograph on it is only a part
    ds.ImageComments = findings.wording.disclaimer
    ds.DerivationDescription = derivation.format(f"{findings.algorithm.name} {findings.algorithm.version}")
    ds.SourceImageSequence = [source_item(source) for source in sources]
    # What we draw names nobody; what the radiograph itself shows stays shown.
    ds.BurnedInAnnotation = "YES" if sources[shown.number].annotated else "NO"
    if sources[shown.number].lossy:
        ds.LossyImageCompression = "01"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = page.shape
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.PixelData = page.tobytes()
    sign(ds, made_at)
    return ds


def source_item(image: SourceImage) -> Dataset:
    """Item of the Source Image Sequence (PS3.3 C.7.6.1.1.4)."""
    item = Dataset()
    put(item, "ReferencedSOPClassUID", image.reference.sop_class_uid)
    put(item, "ReferencedSOPInstanceUID", image.reference.sop_instance_uid)
    item.PurposeOfReferenceCodeSequence = [coded(codes.DCM.SourceImageForImageProcessingOperation)]
    return item
