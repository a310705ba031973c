"""What every object that we make says of us: equipment, time, limits, file meta information."""

from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_io import uids
from dicom_io.identity import SourceImage


def local_time(moment: datetime, image: SourceImage) -> datetime:
    """The same moment in the zone of the source image.

    Timezone Offset From UTC (0008,0201) speaks for every date and time of an object, those copied from the image included
    (PS3.3 C.12.1.1.8), so ours have to be in the zone of the image where it names one.
    """
    return moment.astimezone(image.timezone) if image.timezone else moment


def sign(ds: Dataset, made_at: datetime) -> None:
    """Add equipment, times and file meta information, in the place of what a library may have written there.

    Parameters
    ----------
    ds
        With its SOP Class UID and SOP Instance UID.
    made_at
        Time zone aware; no clock is read, so that the same result gives the same bytes.
    """
    date, time = made_at.strftime("%Y%m%d"), made_at.strftime("%H%M%S.%f")
    for event in ("InstanceCreation", "Content", "Series"):
        setattr(ds, f"{event}Date", date)
        setattr(ds, f"{event}Time", time)
    ds.TimezoneOffsetFromUTC = made_at.strftime("%z")[:5]
    ds.InstanceCreatorUID = uids.DEVICE_UID
    ds.Manufacturer = uids.MANUFACTURER
    ds.ManufacturerModelName = uids.MODEL_NAME
    ds.DeviceSerialNumber = uids.DEVICE_SERIAL_NUMBER
    ds.DeviceUID = uids.DEVICE_UID
    ds.SoftwareVersions = uids.SOFTWARE_VERSION
    ds.ContributingEquipmentSequence = [_contribution(ds.TimezoneOffsetFromUTC, date + time)]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.FileMetaInformationVersion = b"\x00\x01"
    ds.file_meta.MediaStorageSOPClassUID = UID(ds.SOPClassUID)
    ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = UID(uids.IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = uids.IMPLEMENTATION_VERSION_NAME
    ds.preamble = b"\x00" * 128


def _contribution(offset: str, moment: str) -> Dataset:
    """Item of the Contributing Equipment Sequence (PS3.3 C.12.1.1.5): what processed the images of the examination."""
    purpose, item = Dataset(), Dataset()
    code = codes.DCM.ProcessingEquipment
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, code.scheme_designator, code.meaning
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = uids.MANUFACTURER
    item.ManufacturerModelName = uids.MODEL_NAME
    item.DeviceSerialNumber = uids.DEVICE_SERIAL_NUMBER
    item.SoftwareVersions = uids.SOFTWARE_VERSION
    item.ContributionDateTime = moment + offset
    return item
