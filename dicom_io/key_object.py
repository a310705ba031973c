"""The Key Object Selection: points at the images that raise concern, for viewers that show key images first."""

from pydicom.dataset import Dataset

from dicom_io.codes import Heading
from dicom_io.errors import InvalidReport
from dicom_io.identity import read_source_image
from dicom_io.kinds import Kind, new_object
from dicom_io.provenance import local_time, sign
from dicom_io.sr_document import image_item, language_item, name_evidence, observer, paragraph, root_item
from dicom_io.values import StudyFindings


def build_key_object(findings: StudyFindings) -> Dataset:
    """Select the images that raise concern (PS3.3 A.35.4; TID 2010 of PS3.16), in the study of the images.

    Parameters
    ----------
    findings
        Their image files are read, without the pixels. Images without concern are not referred to.

    Returns
    -------
    Dataset
        With file meta information, Explicit VR Little Endian; equal findings give equal bytes.

    Raises
    ------
    InvalidReport
        No image raises concern, or an image cannot be read or is not of the same patient and study.
    """
    images = [read_source_image(image.path) for image in findings.images]
    concern = [any(finding.raises_concern for finding in image.findings) for image in findings.images]
    flagged = [image for image, concerns in zip(images, concern, strict=True) if concerns]
    if not flagged:
        raise InvalidReport("No image raises concern.")
    ds = new_object(Kind.KEY_OBJECT, images, result_key=findings.result_key, language=findings.language)
    name_evidence(ds, flagged)
    words = findings.wording
    description = paragraph(Heading.KEY_OBJECT_DESCRIPTION, words, f"{findings.impression} {words.disclaimer}")
    items = [*language_item(words), *observer(), description, *(image_item(image) for image in flagged)]
    ds.update(root_item(Heading.KEY_OBJECT, words, items, template="2010"))
    sign(ds, local_time(findings.analysed_at, images[0]))
    return ds
