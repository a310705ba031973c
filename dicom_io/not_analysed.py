"""The report that says that and why nothing was analysed. It states no probability and no label."""

from contextlib import suppress

from pydicom.dataset import Dataset

from dicom_io import uids
from dicom_io.codes import Heading
from dicom_io.errors import InvalidReport
from dicom_io.identity import SourceImage, read_source_image
from dicom_io.kinds import Kind
from dicom_io.provenance import local_time, sign
from dicom_io.sr_document import new_document, paragraph, readable_time, report_in_words, section
from dicom_io.values import RefusedImage, RefusedStudy


def build_not_analysed_report(refused: RefusedStudy) -> Dataset:
    """Write why the images of a study were not analysed, as a Basic Text SR in that study.

    Parameters
    ----------
    refused
        Its files are read, without the pixels. One whose header cannot be read is told of and not referred to; several of the
        same SOP Instance UID, as a repeated image has, are referred to once.

    Returns
    -------
    Dataset
        With file meta information, Explicit VR Little Endian; equal arguments give equal bytes.

    Raises
    ------
    InvalidReport
        No image can be read, they are not of one patient and study, or the time has no time zone.
    """
    if refused.decided_at.utcoffset() is None:
        raise InvalidReport("The time of the decision has no time zone.")
    sources = [_source(image) for image in refused.images]
    images = [*{source.reference.sop_instance_uid: source for source in sources if source is not None}.values()]
    if not images:
        raise InvalidReport("No image of the study can be read.")
    words, made_at = refused.wording, local_time(refused.decided_at, images[0])
    decided = words.decided.format(model=f"{uids.MODEL_NAME} {uids.SOFTWARE_VERSION}", time=readable_time(made_at))
    answer = paragraph(Heading.IMPRESSION, words, words.none_analysed)
    limits = paragraph(Heading.CONCLUSION, words, words.disclaimer)
    root = report_in_words(
        words,
        [
            section(Heading.IMPRESSIONS, words, [answer, limits]),
            section(Heading.FINDINGS, words, _reasons(refused, sources)),
            section(Heading.PROCEDURES, words, [paragraph(Heading.PROCEDURE, words, decided)]),
        ],
    )
    ds = new_document(Kind.NOT_ANALYSED, refused, images, root=root)
    sign(ds, made_at)
    return ds


def _source(image: RefusedImage) -> SourceImage | None:
    with suppress(InvalidReport):  # what cannot be read is one of the reasons that there are
        return read_source_image(image.path)
    return None


def _reasons(refused: RefusedStudy, sources: list[SourceImage | None]) -> list[Dataset]:
    """A paragraph per image."""
    words, told = refused.wording, []
    for number, (image, source) in enumerate(zip(refused.images, sources, strict=True), start=1):
        reason = words.reasons.get(image.code, image.reason.rstrip("."))
        text = words.not_analysed.format(image=words.image.format(number), reason=reason)
        told.append(paragraph(Heading.FINDING, words, text, about=source))
    return told
