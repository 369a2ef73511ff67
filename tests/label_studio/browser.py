"""A headless Chromium with one page, driven over a pipe by the DevTools protocol."""

from __future__ import annotations

import base64
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

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WAIT_LIMIT_S = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",  # needed as root; it opens pages of our own server only
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1400,900",
    "--remote-debugging-pipe",
)


def installed_browser() -> str | None:
    """The program, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        """Opens the page; arguments are file descriptors."""
        self._to_browser, self._from_browser = to_browser, from_browser
        self._session: dict[str, str] = {}
        self._received, self._n_calls = b"", 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Sends a command and waits for its result; events are passed over."""
        self._n_calls += 1
        message = {"id": self._n_calls, "method": method, "params": params, **self._session}
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._received:
                part = os.read(self._from_browser, 1 << 16)
                assert part, "the browser has ended"
                self._received += part
            text, _, self._received = self._received.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self._n_calls:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result

    def value(self, script: str) -> Any:
        """What JavaScript gives in the page; None where it fails."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return None if "exceptionDetails" in done else done["result"].get("value")

    def open(self, url: str) -> None:
        """Leaves the page for another."""
        self.call("Page.navigate", url=url)

    def wait_for(self, script: str) -> Any:
        """The value of JavaScript, once it is true."""
        deadline = time.monotonic() + WAIT_LIMIT_S
        while time.monotonic() < deadline:
            if value := self.value(script):
                return value
            time.sleep(0.2)
        raise AssertionError(f"not true after {WAIT_LIMIT_S:g} s: {script}")

    def press(self, key: str) -> None:
        """A digit."""
        code = {"key": key, "code": f"Digit{key}", "windowsVirtualKeyCode": ord(key)}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=key, **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def drag(self, start: tuple[float, float], end: tuple[float, float], *, modifiers: int = 0) -> None:
        """Left button down at x, y of the page, up at another; modifiers as the protocol counts them."""
        (x1, y1), (x2, y2) = start, end
        steps = [(x1 + (x2 - x1) * n / 5, y1 + (y2 - y1) * n / 5) for n in range(6)]
        kinds = [("mousePressed", steps[0]), *(("mouseMoved", at) for at in steps), ("mouseReleased", end)]
        for kind, (x, y) in kinds:
            held = {"button": "left", "buttons": 1, "clickCount": 1, "modifiers": modifiers}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def screenshot(self, file: Path) -> None:
        """Writes what is seen as PNG."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """Runs a browser until the block ends; its profile is a folder that may be absent."""
    to_read, to_browser = os.pipe()
    from_browser, to_write = os.pipe()
    # The protocol's descriptors are 3 and 4.
    script = (
        f"import os, sys; os.dup2({to_read}, 3); os.dup2({to_write}, 4); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, program, *_FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        command, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(to_write)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        os.close(to_browser)  # which ends it
        os.close(from_browser)
        process.terminate()
        process.wait(timeout=WAIT_LIMIT_S)
