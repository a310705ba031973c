"""The commented configuration file that ``cxr-worker init`` writes; a test reads it back and finds every default."""

from pathlib import Path

from worker.errors import ConfigurationError

EXAMPLE = """\
# cxr-worker: configuration. Every key is also an environment variable: CXR_DICOM__PORT=11112, CXR_DATA_DIR=/srv/cxr …
# Check it with 'cxr-worker doctor'.

data_dir = "var"                        # received objects, reports, and the embedded database; keep it on a durable disk
# database_url = "postgresql+psycopg://cxr@127.0.0.1/cxr"   # default: SQLite in data_dir

[dicom]
ae_title = "CXRWORKER"                  # what the PACS calls
host = "127.0.0.1"                      # address to listen on; 0.0.0.0 for all, :: for those of IPv6 too
port = 11112
called_ae_titles = []                   # empty: whatever the caller calls us; else only these
calling_ae_titles = []                  # empty: anybody; else only these
addresses = []                          # empty: from anywhere; else only these networks, as "192.0.2.0/24"
receivers = 1                           # processes that receive, on the same port; limits count for each
maximum_associations = 64
maximum_associations_per_caller = 0     # of one calling AE title at one address; 0: no other limit
maximum_object_bytes = 4294967296       # a larger object is refused
minimum_free_bytes = 268435456          # while less is free on the disk, senders are told to try again later (0xA700)

# A second port for senders with a certificate, TLS 1.2 and 1.3 (BCP 195). Files in PEM; renewed ones are read by themselves.
# [dicom.tls]
# certificate = "/etc/cxr-worker/tls/certificate.pem"
# key = "/etc/cxr-worker/tls/key.pem"
# key_password_file = "/etc/cxr-worker/tls/password"   # or key_password, best as CXR_DICOM__TLS__KEY_PASSWORD
# ca = "/etc/cxr-worker/tls/ca.pem"     # signed the certificates of those who may call
# host = "127.0.0.1"
# port = 2762
# require_client_certificate = true

[study]
quiet_seconds = 5.0                     # a study is complete when no image came for so long
minimum_quiet_seconds = 1.0             # the same once its PACS was asked (below) and has no more images than are here

# Senders for whom that differs. Their PACS, where one is named, is asked by C-FIND how many images a study has.
# [[study.senders]]
# calling_ae_title = "MODALITY"
# quiet_seconds = 20.0
# query = { ae_title = "ORTHANC", host = "127.0.0.1", port = 4242 }

[gate]
minimum_age_years = 0                   # younger patients, and those of unknown age, are not analysed; 0: of any age
pixels = true                           # look at the pixels too: no film, turned, inverted, or a header that says nothing

[inference]
model = "lenet5"                        # a shipped model, NAME@VERSION of a registered one, or a folder with weights and card
shadow = ""                             # another model that answers too, is recorded and never reported; empty: none
device = "auto"                         # auto, cpu, cuda or cuda:N
batch_size = 32                         # images in one forward pass
decode_threads = 2

[schedule]
interval_seconds = 1.0                  # safety net: arrivals and finished steps start the next one at once
reprocess = true                        # every night, studies whose result is by another model than the active one
reprocess_cron = "0 22 * * *"           # minute hour day month weekday, local time

[keeping]                               # deletes files of finished, delivered studies; their rows stay. 0: no such rule
days = 0                                # when they were received so many days ago
failed_days = 0                         # of failed studies too, received so many days ago: nobody was told anything of them
undelivered_days = 0                    # of reported studies that go nowhere, received and reported so many days ago: no
                                        # destination, or it refused them or is away; their reports are deleted with them
maximum_bytes = 0                       # while received files take more, the oldest first
minimum_free_bytes = 0                  # while less is free on the disk, the oldest first

[web]
host = "127.0.0.1"                      # status page, /healthz, /readyz and /metrics
port = 8080
names = []                              # that browsers call the page by, as a proxy's: its addresses, localhost and the
                                        # machine's own name are known; it is shown under no other

# Figures for Prometheus of a process that shows no page: 'receive' and 'run', each with a port of its own.
# [metrics]
# host = "127.0.0.1"
# port = 9112

# The audit repository, which is sent DICOM audit messages by syslog. They hold patient IDs and study UIDs.
# [audit]
# host = "audit.example.org"
# port = 6514                           # UDP: mostly 514
# transport = "tls"                     # or "udp": readable by all, and nobody knows whether it arrives
# ca = "/etc/cxr-worker/tls/audit_ca.pem"   # default: that of [dicom.tls], whose certificate is shown too, unless there is a
#                                       # client_certificate = { certificate = "…", key = "…" }; check_name = false: any name
# source = ""                           # names this worker there; default: the AE title
# site = ""                             # names the site

# One block for each application entity that is to receive the results.
# [[destinations]]
# name = "pacs"
# ae_title = "ORTHANC"
# host = "127.0.0.1"
# port = 4242
# outputs = ["sr", "capture"]           # sr: Structured Report; capture: a picture for viewers that show no SR; also text_sr,
#                                       # heatmap, segmentation, presentation_state, key_object, pdf, not_analysed
# language = "en"                       # of what people read: en or es
# tls = false                           # true: by the ca and certificate of [dicom.tls], or its own: ca = "…",
#                                       # client_certificate = { certificate = "…", key = "…" }; check_name = false: any name
# sr_sop_class = "comprehensive"        # or "comprehensive-3d" (IHE AIR), where the destination takes it
# storage_commitment = false            # true: a report counts as delivered when the destination has committed to it
#                                       # to_sender = true and callers = [{ ae_title = "…", host = "…" }] in place of ae_title,
#                                       # host and port: each caller is sent the results of what it sent; their port: 104
# token = ""                            # for a DICOMweb service (STOW-RS): url = "https://…/dicom-web" in place of ae_title,
#                                       # host and port; with a token, or username and password; ca as for tls
"""


def write_example(path: Path, *, force: bool) -> None:
    """Write the example, for this account alone: passwords will stand in it.

    Raises
    ------
    ConfigurationError
        The file is there already, or cannot be written.
    """
    try:
        path.touch(mode=0o600, exist_ok=force)
        path.write_text(EXAMPLE, encoding="utf-8")
        path.chmod(0o600)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} is there already; --force overwrites it.") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}.") from error
