"""Where a labeling tool finds an image: the lake's URIs rewritten to what the tool can open."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from conf.errors import QuarryError
from conf.export_settings import ExportSettings

COMMAND_LIMIT_S = 300
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FIELD = re.compile(r"\{(uri|path|image_id|key)\}")


@dataclass(frozen=True)
class SentUris:
    """How URIs are rewritten; made once in the job, used by its tasks.

    Attributes:
        prefix: Stands for the lake's root.
        prefixes: Prefix of a URI to what stands for it; the longest that fits counts.
        template: The whole URI, with {uri}, {path}, {key} and {image_id}; its variables are filled in.
        command: Program and arguments that read a URI a line and write one a line.
    """

    prefix: str | None
    prefixes: Mapping[str, str]
    template: str | None
    command: tuple[str, ...]

    @classmethod
    def of(cls, settings: ExportSettings) -> SentUris:
        """The rewriting that settings ask for, `${NAME}` of the template taken from the environment.

        Secrets thus stay out of settings, which tables record, and out of messages.

        Raises:
            QuarryError: A variable of the template is not set.
        """
        template = settings.uri_template
        for name in _VARIABLE.findall(template or ""):
            if name not in os.environ:
                raise QuarryError(
                    f"export.uri_template: environment variable {name} is not set; export it before the job"
                )
        if template is not None:
            template = _VARIABLE.sub(lambda found: os.environ[found.group(1)], template)
        command = tuple(shlex.split(settings.uri_command or ""))
        return cls(settings.uri_prefix, dict(settings.uri_prefixes), template, command)

    def rewritten(self, images: Sequence[tuple[str, str, str]]) -> list[str]:
        """The URI to send for each image.

        Args:
            images: uri, path below the lake's root, image_id of each.

        Returns:
            As many URIs. Paths become part of http URIs and of queries (`/data/local-files/?d=`)
            percent-encoded, of others as they are.

        Raises:
            QuarryError: The command cannot start, fails, takes over five minutes or answers another number
                of lines.
        """
        uris = [self._with_prefix(uri, path) for uri, path, _ in images]
        if self.template is not None:
            uris = [
                _filled(self.template, uri, path, key)
                for uri, (_, path, key) in zip(uris, images, strict=True)
            ]
        for uri, (_, _, image_id) in zip(uris, images, strict=True):
            if self.command and ("\n" in uri or "\r" in uri):
                raise QuarryError(
                    f"export.uri_command: image {image_id!r} has a line break in its URI; rename it"
                )
        return self._commanded(uris) if self.command and uris else uris

    def _with_prefix(self, uri: str, path: str) -> str:
        # A listing without a lake root has paths that are whole URIs.
        if self.prefix is not None and path != uri:
            return f"{self.prefix.rstrip('/')}/{_in_uri(path, self.prefix)}"
        fitting = [old for old in self.prefixes if uri.startswith(old)]
        if not fitting:
            return uri
        longest = max(fitting, key=len)
        new = self.prefixes[longest]
        return new + _in_uri(uri[len(longest) :], new)

    def _commanded(self, uris: list[str]) -> list[str]:
        name = self.command[0]
        # What the command says may hold secrets: nothing of it is repeated.
        try:
            done = subprocess.run(
                self.command,
                input="\n".join(uris) + "\n",
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=COMMAND_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise QuarryError(
                f"export.uri_command {name!r}: not done with {len(uris)} URIs after {COMMAND_LIMIT_S} s; "
                f"{_TRY}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise QuarryError(f"export.uri_command {name!r}: {type(error).__name__}; {_TRY}") from None
        *lines, last = done.stdout.split("\n")  # a URI may hold what else is told to end a line
        lines += [last] if last else []
        if done.returncode != 0 or len(lines) != len(uris) or not all(lines):
            raise QuarryError(
                f"export.uri_command {name!r}: expected exit code 0 and {len(uris)} lines, got exit code "
                f"{done.returncode} and {len(lines)} lines; {_TRY}"
            )
        return lines


_TRY = "it must read a URI a line and write one a line: try `echo URI | command` on a worker"


def _filled(template: str, uri: str, path: str, image_id: str) -> str:
    values = {"uri": uri, "path": path, "image_id": image_id, "key": _key(uri)}
    return _FIELD.sub(lambda found: quote(values[found.group(1)]), template)


def _key(uri: str) -> str:
    """What follows the bucket or host of a URI; of a path all of it without the first slash."""
    return uri.partition("://")[2].partition("/")[2] if "://" in uri else uri.lstrip("/")


def _in_uri(path: str, prefix: str) -> str:
    is_web = prefix.startswith(("http://", "https://")) or "?" in prefix
    return quote(path) if is_web else path
