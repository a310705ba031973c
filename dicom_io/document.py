"""The Encapsulated PDF: the page and every figure as a document (PS3.3 A.45.1), for archives and for printing."""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.codes import Heading
from dicom_io.film import Shown, require_image
from dicom_io.identity import SourceImage, put, read_source_image
from dicom_io.kinds import Kind, new_object
from dicom_io.pdf import write_pdf
from dicom_io.provenance import local_time, sign
from dicom_io.sr_document import coded
from dicom_io.values import StudyFindings


def build_document(findings: StudyFindings, *, image: int, pixels: NDArray[np.float32]) -> Dataset:
    """Write findings as a PDF document in the study of their images.

    Parameters
    ----------
    findings
        Their image files are read, without the pixels.
    image
        Which image of the findings is shown, from 0.
    pixels
        Rows, columns; that image as displayed, 0 (black) to 1 (white).

    Returns
    -------
    Dataset
        With file meta information, Explicit VR Little Endian; equal arguments give equal bytes.

    Raises
    ------
    InvalidReport
        An image cannot be read or is not of the same patient and study, or the pixels are no image between 0 and 1.
    """
    require_image(findings, image)
    shown = Shown(number=image, pixels=pixels)
    sources = [read_source_image(of_image.path) for of_image in findings.images]
    made_at = local_time(findings.analysed_at, sources[0])
    pdf = write_pdf(findings, shown, [source.view_position for source in sources], made_at=made_at)
    ds = new_object(Kind.PDF, sources, result_key=findings.result_key, language=findings.language)
    ds.ConversionType = "WSD"
    ds.AcquisitionDateTime = ""
    # What we write names nobody; what the radiograph itself shows stays shown.
    ds.BurnedInAnnotation = "YES" if sources[image].annotated else "NO"
    ds.DocumentTitle = findings.wording.document
    ds.ConceptNameCodeSequence = [coded(Heading.REPORT.value)]
    ds.SourceInstanceSequence = [_reference(source) for source in sources]
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocumentLength = len(pdf)
    ds.EncapsulatedDocument = pdf + bytes(len(pdf) % 2)
    sign(ds, made_at)
    return ds


def _reference(source: SourceImage) -> Dataset:
    item = Dataset()
    put(item, "ReferencedSOPClassUID", source.reference.sop_class_uid)
    put(item, "ReferencedSOPInstanceUID", source.reference.sop_instance_uid)
    return item
