"""TLS contexts: what they let through, and what every mistake of a configuration is called."""

import socket
import ssl
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_io.handshake import explain
from tests.certificates import Authority, Pair, encrypt
from worker.configuration import read_settings
from worker.destination import Destination
from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.tls import certificate_files, client_context, known_certificate, server_context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("worker")


def settings_for(pair: Pair, ca: Path, *, destination: dict[str, Any] | None = None, **changes: Any) -> Settings:
    tls = {"certificate": pair.certificate, "key": pair.key, "ca": ca, **changes}
    usual = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104, "tls": True}
    return Settings.model_validate({"dicom": {"tls": tls}, "destinations": [{**usual, **(destination or {})}]})


def contexts(settings: Settings) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = server_context(settings), client_context(settings, settings.destinations[0])
    assert server is not None
    assert client is not None
    return server, client


def handshake(server: ssl.SSLContext, client: Callable[[socket.socket], ssl.SSLSocket]) -> str:
    """Let a client in by TLS; answer which version, or raise what the server did."""

    def call() -> None:
        try:
            with client(theirs) as wrapped:
                wrapped.recv(1)
        except OSError:
            pass

    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    with ThreadPoolExecutor(1) as pool, ours, theirs:
        pool.submit(call)
        try:
            with server.wrap_socket(ours, server_side=True) as wrapped:
                return str(wrapped.version())
        finally:
            ours.close()


def by(context: ssl.SSLContext, name: str = "127.0.0.1") -> Callable[[socket.socket], ssl.SSLSocket]:
    return lambda transport: context.wrap_socket(transport, server_hostname=name)


def older(version: str) -> ssl.SSLContext:
    """A client that speaks this version only, with every cipher suite that OpenSSL has, and asks for no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


def test_without_a_section_there_is_no_context() -> None:
    assert server_context(Settings()) is None
    plain = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
    assert client_context(Settings(), plain) is None
    assert certificate_files(Settings(destinations=(plain,))) == {}


def test_our_own_two_ends_understand_each_other_by_1_3(authority: Authority, pair: Pair) -> None:
    server, client = contexts(settings_for(pair, authority.file))
    assert handshake(server, by(client)) == "TLSv1.3"


def test_of_tls_1_2_only_ephemeral_keys_and_authenticated_encryption_are_offered(authority: Authority, pair: Pair) -> None:
    for context in contexts(settings_for(pair, authority.file)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        suites = [suite for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
        assert suites
        assert all(suite["aead"] and "ECDHE" in suite["name"] for suite in suites)
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION


def test_tls_1_2_is_let_in_and_1_1_is_not(authority: Authority, pair: Pair) -> None:
    server, _ = contexts(settings_for(pair, authority.file, require_client_certificate=False))
    assert handshake(server, by(older("TLSv1_2"))) == "TLSv1.2"
    with pytest.raises(ssl.SSLError) as caught:
        handshake(server, by(older("TLSv1_1")))
    assert explain(caught.value) == "it speaks no TLS 1.2 or 1.3"


def test_who_shows_no_certificate_is_let_in_only_where_none_is_asked_for(authority: Authority, pair: Pair) -> None:
    server, _ = contexts(settings_for(pair, authority.file))
    with pytest.raises(ssl.SSLError) as caught:
        handshake(server, by(older("TLSv1_3")))
    assert explain(caught.value).startswith("it shows no certificate")
    relaxed, _ = contexts(settings_for(pair, authority.file, require_client_certificate=False))
    assert handshake(relaxed, by(older("TLSv1_3"))) == "TLSv1.3"


def test_a_certificate_of_another_ca_or_an_expired_one_is_refused_in_words(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    server, _ = contexts(settings_for(pair, authority.file))
    stranger = Authority(tmp_path, "other").issue("stranger")
    for shown, words in ((stranger, "not in the ca"), (authority.issue("old", ends=timedelta(days=-1)), "has expired")):
        client = older("TLSv1_3")
        client.load_cert_chain(shown.certificate, shown.key)
        with pytest.raises(ssl.SSLError) as caught:
            handshake(server, by(client))
        assert words in explain(caught.value)


def test_plain_text_on_the_port_of_tls_is_called_so(authority: Authority, pair: Pair) -> None:
    def plain(transport: socket.socket) -> ssl.SSLSocket:
        transport.sendall(b"\x01\x00\x00\x00\x00\xcd\x00\x01" + bytes(200))  # the head of an A-ASSOCIATE-RQ
        raise OSError

    server, _ = contexts(settings_for(pair, authority.file))
    with pytest.raises(ssl.SSLError) as caught:
        handshake(server, plain)
    assert explain(caught.value) == "it speaks no TLS on this port"


def test_one_certificate_can_be_trusted_instead_of_all_that_its_ca_signed(authority: Authority, pair: Pair) -> None:
    server, _ = contexts(settings_for(pair, authority.issue("friend").certificate))
    _, friend = contexts(
        settings_for(
            Pair(certificate=authority.file.with_name("friend.pem"), key=authority.file.with_name("friend.key")), authority.file
        )
    )
    assert handshake(server, by(friend)) == "TLSv1.3"
    _, another = contexts(settings_for(authority.issue("another"), authority.file))
    with pytest.raises(ssl.SSLError):
        handshake(server, by(another))


def test_a_destination_may_have_its_own_ca_and_certificate(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    theirs, for_them = other.issue("theirs"), other.issue("for_them")
    at_theirs, _ = contexts(settings_for(theirs, other.file))
    own = {"ca": other.file, "client_certificate": {"certificate": for_them.certificate, "key": for_them.key}}
    _, client = contexts(settings_for(pair, authority.file, destination=own))
    assert handshake(at_theirs, by(client)) == "TLSv1.3"


def test_a_key_with_a_password_is_opened_by_the_key_or_the_file(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    encrypt(pair.key, "open sesame")
    (tmp_path / "password").write_text("open sesame\n")
    for given in ({"key_password": "open sesame"}, {"key_password_file": tmp_path / "password"}):
        server, client = contexts(settings_for(pair, authority.file, **given))
        assert handshake(server, by(client)) == "TLSv1.3"


def refusal(settings: Settings) -> str:
    with pytest.raises(ConfigurationError) as caught:
        server_context(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_mistake_names_the_key_the_file_and_the_cure(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    ca, other = authority.file, authority.issue("other")
    missing, der = tmp_path / "missing.pem", tmp_path / "worker.der"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(other.certificate.read_text()))
    mixed = Pair(certificate=pair.certificate, key=other.key)
    assert refusal(settings_for(mixed, ca)) == (
        f"dicom.tls.key: {other.key} does not belong to the first certificate in {pair.certificate}."
    )
    assert refusal(settings_for(pair, ca, certificate=missing)) == f"dicom.tls.certificate: {missing}: no such file."
    assert f"dicom.tls.certificate: {der} holds no certificate in PEM" in refusal(settings_for(pair, ca, certificate=der))
    assert f"dicom.tls.ca: {pair.key} holds no certificate in PEM" in refusal(settings_for(pair, pair.key))
    assert refusal(settings_for(pair, ca, key=ca)) == f"dicom.tls.key: {ca} holds no private key in PEM."
    assert f"dicom.tls.key: {tmp_path} cannot be read: " in refusal(settings_for(pair, ca, key=tmp_path))
    encrypt(pair.key, "open sesame")
    assert "is encrypted: set key_password or key_password_file" in refusal(settings_for(pair, ca))
    wrong = refusal(settings_for(pair, ca, key_password="hunter2"))  # noqa: S106  made up
    assert wrong == f"dicom.tls.key_password: wrong for {pair.key}, or the file is damaged."


def test_the_certificate_that_ends_first_is_the_one_that_counts(authority: Authority) -> None:
    soon = authority.issue("soon", ends=timedelta(days=10))
    both = authority.issue("later")
    both.certificate.write_bytes(both.certificate.read_bytes() + soon.certificate.read_bytes())
    files = certificate_files(settings_for(both, authority.file))
    assert files == {authority.file: "dicom.tls.ca", both.certificate: "dicom.tls.certificate"}
    known = {key: known_certificate(path, key) for path, key in files.items()}
    assert known["dicom.tls.certificate"].not_after < datetime.now(UTC) + timedelta(days=11)
    assert known["dicom.tls.ca"].not_after > datetime.now(UTC) + timedelta(days=11)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[dicom.tls]\ncertificate = "a"\nkey = "b"', "dicom.tls.ca: field required"),
        ('[dicom.tls]\ncertificate = "a"\nkey = "b"\nca = "c"\nport = 70000', "dicom.tls.port: "),
        (
            '[[destinations]]\nname = "p"\nae_title = "P"\nhost = "h"\nport = 1\ntls = true',
            "p: tls needs a ca, there or in [dicom",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "cxr-worker.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_settings(path, {})
    assert named in str(caught.value)


def test_the_password_of_the_key_is_in_no_representation(pair: Pair) -> None:
    environment = {
        "CXR_DICOM__TLS__CERTIFICATE": str(pair.certificate),
        "CXR_DICOM__TLS__KEY": str(pair.key),
        "CXR_DICOM__TLS__CA": str(pair.certificate),
        "CXR_DICOM__TLS__KEY_PASSWORD": "hunter2",
    }
    settings = read_settings(environment=environment)
    assert settings.dicom.tls is not None
    assert settings.dicom.tls.key_password.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings.model_dump_json()}"
