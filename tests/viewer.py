"""A browser, and the viewers that a radiologist opens in it: OHIF beside an Orthanc, and Orthanc's own."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests.requirements import lacking, need
from tests.servers import Orthanc, wait_for

OHIF_SETTINGS: Final = {
    "routerBasename": "/",
    "showStudyList": True,
    "extensions": [],
    "modes": [],
    "customizationService": [{"ohif.tours": {"$set": []}}],  # the tour of a first visit
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "dicomweb",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicomweb",
            "configuration": {
                "friendlyName": "Orthanc",
                "wadoUriRoot": "/wado",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}

PATIENCE_SECONDS: Final = 180.0
"""For what the browser is to show: the viewer is large, and a machine without a graphics card may be busy."""
SAME: Final = 40.0
"""A picture differs by less from itself as a viewer scales it, by more from one that lacks a single number."""
SIZE: Final = {"width": 1280, "height": 800}


def orthanc_plugins() -> list[str]:
    """Orthanc's DICOMweb, which OHIF reads, and Orthanc's own viewer."""
    folder = Path("/usr/share/orthanc/plugins")
    plugins = [folder / "libOrthancDicomWeb.so", folder / "libOrthancWebViewer.so"]
    return [str(plugin) if plugin.exists() else lacking(str(plugin)) for plugin in plugins]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium that draws without a graphics card and calls nobody."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=need("chromium"),
            args=[
                "--no-sandbox",  # CI runs as root
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()


def open_page(browser: Browser, address: str) -> Page:
    """Open an address in a window of its own."""
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(PATIENCE_SECONDS * 1000)
    page.goto(address, wait_until="commit")
    return page


def ohif_folder() -> Path:
    """The unpacked viewer."""
    found = next(Path(__file__).resolve().parents[1].glob(".viewer/ohif-*/index.html"), None)
    return found.parent if found is not None else lacking("the OHIF viewer (`make viewer`)")


@contextmanager
def ohif(pacs: Orthanc) -> Iterator[str]:
    """Serve OHIF and an Orthanc's DICOMweb from one origin; answer its address."""
    handler = partial(_Ohif, folder=ohif_folder(), orthanc=f"http://127.0.0.1:{pacs.http_port}")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Ohif(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, folder: Path, orthanc: str) -> None:
        self.orthanc = orthanc
        super().__init__(*arguments, directory=str(folder))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(("/dicom-web/", "/wado")):
            # Orthanc builds the addresses that it answers with from the host it is called by.
            kept = {name: self.headers[name] for name in ("Accept", "Host")}
            try:
                with urllib.request.urlopen(urllib.request.Request(self.orthanc + self.path, headers=kept)) as answer:
                    self._send(answer.status, answer.headers["Content-Type"], answer.read())
            except urllib.error.HTTPError as error:
                self._send(error.code, "text/plain", error.read())
        elif path == "/app-config.js":
            self._send(200, "text/javascript", b"window.config = " + json.dumps(OHIF_SETTINGS).encode())
        else:
            if not Path(self.translate_path(path)).is_file():
                self.path = "/index.html"  # a page of the application
            super().do_GET()

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def pick_in_ohif(page: Page, description: str) -> Locator:
    """Put the series of this description into the viewport, as a double click on it does; answer the viewport."""
    page.locator("[data-cy^=study-browser-thumbnail]").filter(has_text=description).dblclick()
    return page.locator("[data-cy=viewport-pane]")


def wait_until_shown(canvas: Locator, picture: NDArray[np.uint8]) -> None:
    """Wait until a canvas shows a picture whole, in the middle and as large as it fits; fail with how far from it it stays."""
    differences: list[float] = []

    def same() -> bool:
        differences.append(largest_difference(canvas, picture))
        return differences[-1] < SAME

    try:
        wait_for(same, "the picture is shown", seconds=PATIENCE_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; it differs by {differences[-1]:.0f}") from None


def largest_difference(canvas: Locator, picture: NDArray[np.uint8]) -> float:
    """How far a canvas is from showing a picture, wherever within a pixel the viewer puts it.

    Left out is where the viewer has words of its own, at the upper and the lower edge, and the frame of what is selected.

    Returns
    -------
    float
        0 to 255, of the square of 8 by 8 pixels and the colour that differ most.
    """
    shown = Image.open(BytesIO(canvas.screenshot())).convert("RGB")
    half_pixels = (-1, 0, 1)
    return min(_difference(shown, picture, right, down) for right in half_pixels for down in half_pixels)


def _difference(shown: Image.Image, picture: NDArray[np.uint8], right: int, down: int) -> float:
    """The same, for one place within a pixel: so many half pixels to the right and down."""
    height, width, _ = picture.shape
    scale = min(shown.width / width, shown.height / height)
    left, top = (width - (shown.width + right) / scale) / 2, (height - (shown.height + down) / scale) / 2
    expected = Image.fromarray(picture).transform(
        shown.size, Image.Transform.AFFINE, (1 / scale, 0, left, 0, 1 / scale, top), Image.Resampling.BILINEAR
    )
    squares = [
        np.asarray(image.resize((shown.width // 8, shown.height // 8), Image.Resampling.BOX), np.float32)
        for image in (shown, expected)
    ]
    rows = len(squares[0])
    return float(np.abs(squares[0] - squares[1])[rows // 5 : rows * 92 // 100, 1:-1].max())


def keep_picture(page: Page, path: Path) -> None:
    """Write what the window shows as a PNG, in fewer shades than the eye tells apart, for size."""
    ImageOps.posterize(Image.open(BytesIO(page.screenshot())).convert("RGB"), 6).save(path, optimize=True)
