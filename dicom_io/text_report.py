"""The report in words, for viewers that show the text of a Structured Report and not its numbers."""

from datetime import datetime

from pydicom.dataset import Dataset

from dicom_io.codes import Condition, Heading
from dicom_io.identity import SourceImage, read_source_image
from dicom_io.kinds import Kind
from dicom_io.provenance import local_time, sign
from dicom_io.sr_document import new_document, paragraph, readable_time, report_in_words, section
from dicom_io.values import Algorithm, ImageFindings, StudyFindings
from dicom_io.wording import Wording


def build_text_report(findings: StudyFindings) -> Dataset:
    """Write findings as a Basic Text SR, unverified and preliminary, in the study of their images.

    Its title is that of TID 2000 (PS3.16), which viewers show as text; where they find that of TID 1500 some show nothing.

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
        An image cannot be read or is not of the same patient and study.
    """
    images = [read_source_image(image.path) for image in findings.images]
    made_at, words = local_time(findings.analysed_at, images[0]), findings.wording
    sections = [
        section(Heading.IMPRESSIONS, words, _impressions(findings)),
        section(Heading.FINDINGS, words, _findings(findings, images)),
        section(Heading.PROCEDURES, words, _procedures(findings.algorithm, words, made_at)),
    ]
    ds = new_document(Kind.TEXT_SR, findings, images, root=report_in_words(words, sections))
    sign(ds, made_at)
    return ds


def _impressions(findings: StudyFindings) -> list[Dataset]:
    words = findings.wording
    asked = [one.condition for one in findings.images[0].findings if one.condition is not Condition.NORMAL]
    known = ", ".join(words.conditions[condition] for condition in asked)
    limits = f"{words.disclaimer} {words.scope.format(known)} {words.not_ruled_out}"
    return [paragraph(Heading.IMPRESSION, words, findings.impression), paragraph(Heading.CONCLUSION, words, limits)]


def _findings(findings: StudyFindings, images: list[SourceImage]) -> list[Dataset]:
    """A paragraph per image, a line per class: what tells of an image is shown by some viewers without breaking its lines."""
    words, told = findings.wording, []
    for number, (of_image, image) in enumerate(zip(findings.images, images, strict=True), start=1):
        name = words.told(of_image.correction, number=number - 1) or f"{words.image.format(number)}."
        text = "\r\n".join([name, *_sentences(of_image, words)])
        told.append(paragraph(Heading.FINDING, words, text, about=image))
    return told


def _sentences(image: ImageFindings, words: Wording) -> list[str]:
    said = []
    for finding in image.findings:
        threshold = "" if finding.threshold is None else f" ({words.threshold.format(_percent(finding.threshold))})"
        presence = words.presences[image.presence(finding)]
        said.append(f"{words.conditions[finding.condition]}: {presence}, {_percent(finding.probability)}{threshold}.")
    return said


def _procedures(algorithm: Algorithm, words: Wording, made_at: datetime) -> list[Dataset]:
    model = f"{algorithm.name} {algorithm.version} ({algorithm.manufacturer})"
    analysed = words.analysed.format(model=model, time=readable_time(made_at))
    parameters = [paragraph(Heading.PARAMETERS, words, parameter) for parameter in algorithm.parameters]
    return [paragraph(Heading.PROCEDURE, words, analysed), *parameters]


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
