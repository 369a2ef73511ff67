"""A Label Studio server on localhost with its data in a folder, and what its users do through its API."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_LIMIT_S = 300.0  # it makes its tables first
CALL_LIMIT_S = 60.0
EMAIL = "ann@labels.example"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, kw_only=True)
class LabelStudio:
    """A running server.

    Attributes:
        url: Without a slash at the end.
        token: Of the only user's API access.
        password: For the browser; the user is `EMAIL`.
        documents: Folder below which it serves local files.
    """

    url: str
    token: str
    password: str
    documents: Path

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON that the API answers; a refusal is an assertion error with its text."""
        sent = None if body is None else json.dumps(body).encode()
        return json.loads(self._answer(method, path, sent, "application/json"))

    def get(self, path: str) -> bytes:
        """What lies at a path, an image for example."""
        return self._answer("GET", path, None, "application/json")

    def _answer(self, method: str, path: str, body: bytes | None, content_type: str) -> bytes:
        headers = {"Authorization": f"Token {self.token}", "Content-Type": content_type}
        request = urllib.request.Request(f"{self.url}{path}", body, headers, method=method)
        try:
            with _DIRECT.open(request, timeout=CALL_LIMIT_S) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:2000]}") from None

    def new_project(self, manifest: Path) -> int:
        """A project with a manifest's interface and files, made as its README says."""
        config = (manifest / "label_studio_config.xml").read_text("utf-8")
        made = self.call("POST", "/api/projects/", {"title": manifest.stem[:50], "label_config": config})
        project: int = made["id"]
        storage = {"project": project, "path": str(self.documents / "images"), "use_blob_urls": True}
        self.call("POST", "/api/storages/localfiles/", storage)
        self.import_files(project, manifest)
        return project

    def import_files(self, project: int, manifest: Path) -> None:
        """Uploads a manifest's files in the order of their names; all tasks and boxes must be taken."""
        for file in sorted(manifest.glob("tasks-*.json")):
            boundary, content = secrets.token_hex(16), file.read_bytes()
            head = f'Content-Disposition: form-data; name="file"; filename="{file.name}"'
            start = f"--{boundary}\r\n{head}\r\nContent-Type: application/json\r\n\r\n".encode()
            body = start + content + f"\r\n--{boundary}--\r\n".encode()
            type_ = f"multipart/form-data; boundary={boundary}"
            told = json.loads(self._answer("POST", f"/api/projects/{project}/import", body, type_))
            tasks = json.loads(content)
            counts = len(tasks), sum(len(task["predictions"]) for task in tasks)
            assert (told["task_count"], told["prediction_count"]) == counts, told

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks with their predictions and annotations, in the order in which labelers get them."""
        found = self.call("GET", f"/api/tasks?project={project}&fields=all&page_size=1000")
        return sorted(found["tasks"], key=lambda task: int(task["id"]))

    def annotate(self, task: dict[str, Any], result: list[dict[str, Any]], **said: object) -> None:
        """Submits an annotation that was begun from the prediction, as the editor does."""
        shown = [prediction["id"] for prediction in task["predictions"]]
        begun = {"parent_prediction": shown[0] if shown else None, "result": result}
        self.call("POST", f"/api/tasks/{task['id']}/annotations/", begun | said)

    def export(self, project: int, file: Path) -> Path:
        """*Export*, JSON."""
        file.write_bytes(self.get(f"/api/projects/{project}/export?exportType=JSON"))
        return file


@contextmanager
def label_studio(program: Path, folder: Path) -> Iterator[LabelStudio]:
    """Runs a server until the block ends.

    Args:
        program: `label-studio` of the environment it is installed in.
        folder: Its data, its log and the folder of local files go here.

    Raises:
        AssertionError: It ended, or does not answer in time; with the end of its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, log = folder / "data", folder / "server.log"
    server = LabelStudio(
        url=f"http://127.0.0.1:{port}",
        token=secrets.token_hex(20),
        password=secrets.token_hex(8),
        documents=folder / "documents",
    )
    (server.documents / "images").mkdir(parents=True)
    data.mkdir()
    # All of the environment: one of the user's own may name a database. It must tell nobody about this run.
    environment = {
        "PATH": os.defpath,
        "HOME": str(data),
        "LANG": "C.UTF-8",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USERNAME": EMAIL,
        "LABEL_STUDIO_PASSWORD": server.password,
        "LABEL_STUDIO_USER_TOKEN": server.token,
        # Else only tokens that a user makes in the browser are taken.
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(server.documents),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    command = [str(program), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
        try:
            _wait_until_it_answers(server, process, log)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=CALL_LIMIT_S)


def _wait_until_it_answers(server: LabelStudio, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.get("/api/version")
            return
        except (OSError, AssertionError):
            time.sleep(0.5)
    raise AssertionError(f"Label Studio does not answer:\n{log.read_text('utf-8', 'replace')[-3000:]}")
