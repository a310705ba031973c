"""The saliency as a fractional segmentation, for viewers that lay it over the radiograph themselves (PS3.3 A.51, C.8.20).

It is written uncompressed: what we send travels as it lies on disk, and a PACS that takes no RLE would lose it. It has every
row and column of the film, since without a Frame of Reference nothing else tells a viewer where a pixel belongs.
"""

from typing import Final

from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from dicom_io import uids
from dicom_io.capture import source_item
from dicom_io.errors import InvalidReport
from dicom_io.film import as_picture, require_image, require_shares
from dicom_io.header import read_header
from dicom_io.identity import SourceImage, put, read_source_image
from dicom_io.kinds import Kind, new_object
from dicom_io.provenance import local_time, sign
from dicom_io.sr_document import coded
from dicom_io.standing import AS_TOLD, Correction, Standing
from dicom_io.values import Saliency, StudyFindings

HIGHEST: Final = 255
_ORANGE_IN_CIELAB: Final = [46367, 40796, 47939]
"""What a viewer may draw it in (0062,000D): the upper third of the heat map's colours."""


def build_segmentation(findings: StudyFindings, *, image: int, saliency: Saliency, correction: Correction = AS_TOLD) -> Dataset:
    """Write what spoke for a condition as a segmentation of one image, in the rows and columns of its file.

    Parameters
    ----------
    findings
        Their image files are read, without the pixels.
    image
        Which image of the findings the saliency is of, from 0.
    saliency
        Over that image as displayed. 1 is what spoke most, not what is certain: the values compare places of one image.
    correction
        With which that image was read.

    Returns
    -------
    Dataset
        With file meta information, Explicit VR Little Endian, uncompressed; equal arguments give equal bytes.

    Raises
    ------
    InvalidReport
        An image cannot be read or is not of the same patient and study, or the saliency is not between 0 and 1.
    """
    require_image(findings, image)
    require_shares(saliency.map)
    sources = [read_source_image(of_image.path) for of_image in findings.images]
    source = sources[image]
    if not (source.rows and source.columns):
        raise InvalidReport("The image that the saliency is of has no rows or columns.")
    ds = new_object(Kind.SEGMENTATION, sources, result_key=findings.result_key, language=findings.language)
    _describe_image(ds, source)
    ds.ContentLabel = "SALIENCY"
    ds.ContentDescription = findings.wording.spoke_for.format(findings.wording.conditions[saliency.condition])
    ds.ContentCreatorName = ""
    ds.ImageComments = findings.wording.disclaimer
    ds.SegmentSequence = [_segment(findings, saliency)]
    ds.ReferencedSeriesSequence = [_referenced(source)]
    _add_functional_groups(ds, source)
    stored = Standing.of(read_header(findings.images[image].path), correction).as_stored(saliency.map)
    frame = as_picture(stored).resize((source.columns, source.rows), Image.Resampling.BICUBIC)
    ds.add_new("PixelData", "OB", frame.tobytes() + bytes(source.rows * source.columns % 2))
    sign(ds, local_time(findings.analysed_at, sources[0]))
    return ds


def _describe_image(ds: Dataset, source: SourceImage) -> None:
    """General Image, Image Pixel and Segmentation Image modules."""
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.BodyPartExamined = "CHEST"
    ds.PatientOrientation = [*source.orientation] or None
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "01" if source.lossy else "00"
    ds.SamplesPerPixel, ds.NumberOfFrames = 1, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PresentationLUTShape = "IDENTITY"
    ds.Rows, ds.Columns = source.rows, source.columns
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.SegmentationType = "FRACTIONAL"
    ds.SegmentationFractionalType = "PROBABILITY"  # the other choice, OCCUPANCY, speaks of parts of a pixel
    ds.MaximumFractionalValue = HIGHEST
    ds.SegmentsOverlap = "NO"


def _segment(findings: StudyFindings, saliency: Saliency) -> Dataset:
    words, algorithm = findings.wording, findings.algorithm
    kind = coded(codes.DCM.Saliency)
    kind.SegmentedPropertyTypeModifierCodeSequence = [coded(saliency.condition.value)]
    made_by = Dataset()
    made_by.AlgorithmFamilyCodeSequence = [coded(codes.DCM.ArtificialIntelligence)]
    made_by.AlgorithmName = algorithm.name[:64]
    made_by.AlgorithmVersion = algorithm.version[:64]
    made_by.AlgorithmSource = algorithm.manufacturer[:64]
    made_by.AlgorithmParameters = "\n".join(algorithm.parameters)
    segment = Dataset()
    segment.SegmentNumber = 1
    segment.SegmentLabel = words.spoke_for.format(words.conditions[saliency.condition])
    segment.SegmentDescription = f"{words.caution} {words.disclaimer}"
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = algorithm.name[:64]
    segment.SegmentationAlgorithmIdentificationSequence = [made_by]
    segment.SegmentedPropertyCategoryCodeSequence = [coded(codes.cid7150.SpatialAndRelationalConcept)]
    segment.SegmentedPropertyTypeCodeSequence = [kind]
    segment.RecommendedDisplayCIELabValue = _ORANGE_IN_CIELAB
    return segment


def _referenced(source: SourceImage) -> Dataset:
    """Item of the Referenced Series Sequence (PS3.3 C.12.2)."""
    instance, series = Dataset(), Dataset()
    put(instance, "ReferencedSOPClassUID", source.reference.sop_class_uid)
    put(instance, "ReferencedSOPInstanceUID", source.reference.sop_instance_uid)
    series.ReferencedInstanceSequence = [instance]
    put(series, "SeriesInstanceUID", source.reference.series_uid)
    return series


def _add_functional_groups(ds: Dataset, source: SourceImage) -> None:
    """One frame of one segment, every pixel of it over the pixel of the image in the same row and column."""
    organization = Dataset()
    organization.DimensionOrganizationUID = uids.derived_uid("dimensions", ds.SOPInstanceUID)
    index = Dataset()
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer = Tag("ReferencedSegmentNumber")
    index.FunctionalGroupPointer = Tag("SegmentIdentificationSequence")
    index.DimensionDescriptionLabel = "Referenced Segment Number"
    ds.DimensionOrganizationSequence, ds.DimensionIndexSequence = [organization], [index]
    identification, shared = Dataset(), Dataset()
    identification.ReferencedSegmentNumber = 1
    shared.SegmentIdentificationSequence = [identification]
    ds.SharedFunctionalGroupsSequence = [shared]
    derived_from = source_item(source)
    derived_from.SpatialLocationsPreserved = "YES"
    derivation, content, frame = Dataset(), Dataset(), Dataset()
    derivation.SourceImageSequence = [derived_from]
    derivation.DerivationCodeSequence = [coded(codes.cid7203.SegmentationImageDerivation)]
    content.DimensionIndexValues = 1
    frame.DerivationImageSequence, frame.FrameContentSequence = [derivation], [content]
    ds.PerFrameFunctionalGroupsSequence = [frame]
