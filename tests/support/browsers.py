"""A real headless Chromium, driven through ChromeDriver's own protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.label_servers import free_port

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--window-size=1500,950",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE 198.18.*",
]
"""A window drawn without a GPU, and nothing from the Internet."""


class Browser:
    """One window.

    Args:
        url: ChromeDriver's address.
        session: Its session.
    """

    def __init__(self, url: str, session: str) -> None:
        self._root = f"{url}/session/{session}"

    def open(self, url: str) -> None:
        call("POST", f"{self._root}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        body = {"script": script, "args": list(arguments)}
        return call("POST", f"{self._root}/execute/sync", body)

    def text(self) -> str:
        # While a page loads, it has no body.
        return str(self.run("return document.body?.innerText ?? ''"))

    def wait(
        self, what: str, ready: Callable[[], Any], seconds: float = 120
    ) -> Any:
        """Return what ``ready`` returns, once it is something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = ready()
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(
            f"no {what} after {seconds} s; the page says:\n{self.text()[:2000]}"
        )

    def picture(self, file: Path) -> Path:
        """Save what the window shows."""
        file.write_bytes(
            base64.b64decode(call("GET", f"{self._root}/screenshot"))
        )
        return file

    def emulate(self, width: int, *, dark: bool = False) -> None:
        """Show pages as a screen of this width would, light or dark."""
        self._send(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": width,
                "height": 900,
                "deviceScaleFactor": 1,
                "mobile": width < 600,
            },
        )
        theme = "dark" if dark else "light"
        scheme = {"name": "prefers-color-scheme", "value": theme}
        self._send("Emulation.setEmulatedMedia", {"features": [scheme]})

    def stop_emulating(self) -> None:
        """Show pages as the window is."""
        self._send("Emulation.clearDeviceMetricsOverride", {})
        self._send("Emulation.setEmulatedMedia", {"features": []})

    def press(self, key: str) -> None:
        """Press and release a key, such as ``Escape``."""
        for kind in ("keyDown", "keyUp"):
            self._send(
                "Input.dispatchKeyEvent",
                {
                    "type": kind,
                    "key": key,
                    "code": key,
                    "windowsVirtualKeyCode": {"Escape": 27}[key],
                },
            )

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self._send("Input.insertText", {"text": text})

    def click(self, x: float, y: float) -> None:
        """Press and release the left mouse button."""
        self.drag(x, y, x)

    def drag(self, x: float, y: float, end: float) -> None:
        """Draw a level line with the left mouse button."""
        self._mouse("mouseMoved", x, y)
        self._mouse("mousePressed", x, y, button="left", clickCount=1)
        if end != x:
            for part in range(1, 9):
                along = x + (end - x) * part / 8
                self._mouse("mouseMoved", along, y, button="left", buttons=1)
        self._mouse("mouseReleased", end, y, button="left", clickCount=1)

    def scroll(self, x: float, y: float) -> None:
        """Turn the mouse wheel by one step."""
        self._mouse("mouseWheel", x, y, deltaX=0, deltaY=100)

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        event = {"type": kind, "x": x, "y": y, **more}
        self._send("Input.dispatchMouseEvent", event)

    def page(self, file: Path) -> Path:
        """Save the whole page as a picture, not only what the window shows."""
        made = self._send(
            "Page.captureScreenshot", {"captureBeyondViewport": True}
        )
        file.write_bytes(base64.b64decode(made["data"]))
        return file

    def _send(self, command: str, parameters: dict[str, Any]) -> Any:
        """Send a command of Chrome's own protocol."""
        body = {"cmd": command, "params": parameters}
        return call("POST", f"{self._root}/goog/cdp/execute", body)

    def log(self) -> list[str]:
        """Return what the page wrote to its console."""
        found = call("POST", f"{self._root}/se/log", {"type": "browser"})
        return [str(line["message"]) for line in found]


def call(method: str, url: str, body: Any = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, content, headers, method=method)
    with urllib.request.urlopen(request, timeout=180) as answer:
        return json.loads(answer.read())["value"]


@contextlib.contextmanager
def open_chromium(folder: Path) -> Iterator[Browser]:
    """Open a window; skip where there is no Chromium."""
    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or program is None:
        pytest.skip(
            "no Chromium here; on Debian: apt-get install chromium chromium-driver"
        )
    url = f"http://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            driver,
            f"--port={url.rpartition(':')[2]}",
            f"--log-path={folder / 'driver.log'}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(url)
        options = {"args": ARGUMENTS, "binary": program}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            # A busy machine takes its time to compile a viewer's 30 MB of code.
            "timeouts": {"script": 170_000, "pageLoad": 170_000},
        }
        made = call(
            "POST", f"{url}/session", {"capabilities": {"alwaysMatch": wanted}}
        )
        try:
            yield Browser(url, made["sessionId"])
        finally:
            call("DELETE", f"{url}/session/{made['sessionId']}")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if call("GET", f"{url}/status")["ready"]:
                return
        time.sleep(0.1)
    raise AssertionError("ChromeDriver did not start")
