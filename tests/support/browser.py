"""A headless Chromium, driven through a pipe: what a page shows, what it complains of, and what it asks the network for."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
# WebGL by software, since no GPU is promised
OPTIONS = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage",
           "--disable-background-networking", "--disable-component-update", "--no-first-run", "--hide-scrollbars",
           "--allow-file-access-from-files=false", "--remote-debugging-pipe")  # fmt: skip
# Chromium reads commands from descriptor 3 and answers on 4
BRIDGE = "import os, sys; os.dup2(int(sys.argv[1]), 103); os.dup2(int(sys.argv[2]), 104); os.dup2(103, 3); os.dup2(104, 4); os.execv(sys.argv[3], sys.argv[3:])"


class Browser:
    """One page in a browser.

    Attributes:
        complaints: what the console has said as a warning or an error, and errors that nobody caught.
        asked: addresses that the page has asked for.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.number, self.buffer, self.session = 0, b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The answer to a command of the DevTools protocol; events that come first are noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        self.writing.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self.buffer:
            part = self.reading.read(2**20)
            assert part, "the browser has ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        event = json.loads(message)
        self._note(event.get("method"), event.get("params", {}))
        return event

    def _note(self, method: str | None, about: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(
                " ".join(str(one.get("value", one.get("description"))) for one in about["args"])
            )
        elif method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])

    def show(self, page: Path, width: int = 1280, height: int = 900) -> None:
        """Opens a file and waits until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url=page.as_uri())
        self.wait("document.readyState === 'complete'")

    def ask(self, code: str) -> Any:
        """The value of an expression, or of the promise that it gives."""
        answer = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 60) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.ask(code):
            assert time.monotonic() < end, f"never true: {code}; {self.complaints}"
            time.sleep(0.05)

    def left(self, folder: Path) -> list[str]:
        """Addresses outside a folder that the page has asked for."""
        return [
            to
            for to in self.asked
            if not to.startswith(("data:", "blob:", "about:", folder.as_uri()))
        ]

    def screenshot(self, element: str | None = None) -> np.ndarray:
        """What is to be seen, `(rows, columns, 3)`: of the whole page, or of an element."""
        rectangle = (
            "document.documentElement"
            if element is None
            else f"document.querySelector({element!r})"
        )
        box = self.ask(
            f"(({{x, y, width, height}}) => ({{x: x + scrollX, y: y + scrollY, width, height}}))({rectangle}.getBoundingClientRect())"
        )
        taken = self.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            clip=box | {"scale": 1},
        )
        with Image.open(io.BytesIO(base64.b64decode(taken["data"]))) as image:
            return np.asarray(image.convert("RGB"))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in this folder, ended at the end."""
    assert CHROMIUM is not None
    from_us, to_chromium = os.pipe()
    from_chromium, to_us = os.pipe()
    call = [
        sys.executable,
        "-c",
        BRIDGE,
        str(from_us),
        str(to_us),
        CHROMIUM,
        *OPTIONS,
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    with subprocess.Popen(
        call, pass_fds=(from_us, to_us), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        os.close(from_us)
        os.close(to_us)
        opened = Browser(from_chromium, to_chromium)
        try:
            yield opened
        finally:
            opened.reading.close()
            opened.writing.close()
            process.terminate()
            process.wait(30)
