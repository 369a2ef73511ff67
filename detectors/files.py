"""Bytes from and to local paths and URIs, and the annotation files below a folder."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from urllib.parse import unquote

import fsspec

from conf.errors import QuarryError


def local_path(uri: str) -> Path | None:
    """The local path of a plain path or a `file:` URI; none for any other URI (`s3://`, `hdfs://`, ...)."""
    if uri.startswith("file:"):
        return Path(unquote("/" + uri[len("file:") :].lstrip("/")))
    return None if "://" in uri else Path(uri)


def read_bytes(uri: str) -> bytes:
    """Content of one file.

    Args:
        uri: Local path, `file:` URI, or a URI that fsspec opens (`s3://` needs s3fs, `gs://` gcsfs).

    Raises:
        OSError: The file is missing or cannot be read.
        QuarryError: No driver for the URI's scheme is installed.
    """
    path = local_path(uri)
    if path is not None:
        return path.read_bytes()
    try:
        with fsspec.open(uri, "rb") as stream:
            content: bytes = stream.read()
            return content
    except (ImportError, ValueError) as error:
        raise QuarryError(f"cannot open {uri}: {error}") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write one file so that readers see the old content or the new, never a part.

    Args:
        uri: Local path (folders are made), `file:` URI, or a URI that fsspec opens; object stores publish an
            object only once it is complete.
        content: What the file shall hold.

    Raises:
        QuarryError: The place cannot be written.
    """
    path = local_path(uri)
    try:
        if path is None:
            with fsspec.open(uri, "wb") as stream:
                stream.write(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(content)
        os.replace(partial, path)
    except (OSError, ImportError, ValueError) as error:
        raise QuarryError(f"cannot write {uri}: {error}") from error


def annotation_files(uri: str) -> list[str]:
    """COCO JSON files named by a file, a folder (searched to any depth) or a glob pattern, in sorted order.

    Raises:
        QuarryError: There is none.
    """
    path = local_path(uri)
    if path is None:
        system, root = fsspec.core.url_to_fs(uri)
        pattern = f"{root.rstrip('/')}/**/*.json" if system.isdir(root) else root
        found = sorted(str(system.unstrip_protocol(name)) for name in system.glob(pattern))
    elif path.is_dir():
        found = sorted(str(p) for p in path.rglob("*.json"))
    else:
        found = sorted(glob.glob(str(path), recursive=True))
    if not found:
        raise QuarryError(f"no COCO annotations at {uri}: expected a JSON file, a folder or a pattern")
    return found
