"""What all jobs share: the same flags, one session, errors in one line, exit codes.

Exit codes: 0 done, 1 unexpected failure (with its traceback), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.errors import QuarryError
from conf.load import DEFAULT_PROFILE, load_settings, profile_names
from conf.section import location
from conf.settings import Settings
from jobs.progress import TaskProgress, say

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
DEFAULT_CYCLE = "cycle-1"
OF_CYCLE = "the cycle's, else the one registered last"

Flags = Callable[[argparse.ArgumentParser], None]
Overrides = Callable[[argparse.Namespace], list[str]]
Work = Callable[[Any, Settings, argparse.Namespace], None]


def _no_flags(_: argparse.ArgumentParser) -> None:
    return None


def _no_notes() -> str:
    return ""


def _no_overrides(_: argparse.Namespace) -> list[str]:
    return []


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job: what `quarry <name>` and `spark-submit jobs/<name>.py` run.

    Attributes:
        name: Of the job and its file.
        summary: One sentence for `--help`.
        example: A command that works, for `--help`.
        work: Takes the run (None where `needs_spark` is false), the settings and the flags.
        flags: Adds the job's own flags.
        overrides: The job's flags as `a.b=value` settings, so that a flag and `--set` mean the same.
        notes: Further text for `--help`.
        needs_root: Whether the job reads or writes tables.
        needs_spark: Whether the job builds a session.
    """

    name: str
    summary: str
    example: str
    work: Work
    flags: Flags = _no_flags
    overrides: Overrides = _no_overrides
    notes: Callable[[], str] = _no_notes
    needs_root: bool = True
    needs_spark: bool = True

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parses flags, runs the job and returns its exit code."""
        args = self._parser().parse_args(argv)
        try:
            settings = load_settings(args.config, [*args.set, *self.overrides(args)], args.root)
            if self.needs_root and settings.root is None:
                raise QuarryError("no root for the tables: give --root DIR, or root: in the profile")
            self._run(settings, args)
        except QuarryError as error:
            return _fail(str(error))
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; run the same command again to go on\n")
            return EXIT_INTERRUPTED
        except Exception as error:
            return _unexpected(self.name, error)
        return 0

    def _run(self, settings: Settings, args: argparse.Namespace) -> None:
        if not self.needs_spark:
            self.work(None, settings, args)
            return
        from pyspark.sql import SparkSession

        from jobs.session import build_session
        from pipelines.run import Run
        from pipelines.tables import TableStore

        # A notebook's own session is used and left open.
        active = SparkSession.getActiveSession()
        session = active or build_session(settings.spark, app_name=f"quarry {self.name}")
        try:
            store = TableStore(session, settings.root or "")
            if self.needs_root:
                store.require_versions()
            run = Run(store=store, tell=say)
            with TaskProgress(session.sparkContext, self.name, run.goal):
                self.work(run, settings, args)
        finally:
            if active is None:
                session.stop()

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"quarry {self.name}",
            description=self.summary,
            epilog="\n\n".join(
                [
                    *([notes] if (notes := self.notes()) else []),
                    f"example:\n  {self.example}",
                    "every setting and its meaning: quarry settings",
                ]
            ),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        profiles = ", ".join(profile_names())
        parser.add_argument(
            "--config", metavar="FILE", help=f"YAML file or profile: {profiles} (default {DEFAULT_PROFILE})"
        )
        parser.add_argument("--root", metavar="DIR", help="where the tables live: a path or URI")
        parser.add_argument(
            "--set",
            metavar="a.b=c",
            action="append",
            default=[],
            help="override one setting; may be repeated",
        )
        self.flags(parser)
        return parser


def as_settings(section: str, given: Mapping[str, object]) -> list[str]:
    """A job's own flags as `--set` items, those that were not given left out.

    Args:
        section: Section of the settings.
        given: Key to value; None where the flag was not given.
    """
    # JSON, which YAML reads back as it was, whatever characters a path holds.
    return [
        f"{section}.{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in given.items()
        if value is not None
    ]


def add_cycle_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that names the cycle a job works for."""
    parser.add_argument(
        "--cycle", metavar="NAME", default=DEFAULT_CYCLE, help=f"name of the cycle (default {DEFAULT_CYCLE})"
    )


def add_model_flag(parser: argparse.ArgumentParser, default: str = "the one registered last") -> None:
    """The flag that names the model whose rows a job works on."""
    parser.add_argument("--model", metavar="NAME", help=f"name or id of the model (default: {default})")


def path_or_uri(text: str) -> str:
    """As `location`, with the reason in the message of the command line.

    Raises:
        ArgumentTypeError: An empty one, or one that holds a secret.
    """
    try:
        return location(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def listed(text: str) -> list[str]:
    """The names of a flag such as `--queries a,b`."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_query_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that choose hardness queries."""
    parser.add_argument("--queries", metavar="a,b", help="hardness queries (setting score.queries)")
    parser.add_argument(
        "--query-file",
        metavar="FILE",
        help="YAML file of your own queries, or the shipped `street` (setting score.query_file)",
    )


def query_overrides(args: argparse.Namespace) -> list[str]:
    """The flags of `add_query_flags` as settings."""
    queries = None if args.queries is None else listed(args.queries)
    return as_settings("score", {"queries": queries, "query_file": args.query_file})


def _fail(message: str) -> int:
    for line in message.splitlines():
        sys.stderr.write(f"error: {line}\n")
    return EXIT_BAD_INPUT


def _unexpected(name: str, error: Exception) -> int:
    known = _quarry_error_inside(error)
    if known is not None:
        return _fail(known)
    traceback.print_exc()
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    sys.stderr.write(f"quarry {name} failed: {first}\n")
    return 1


def _quarry_error_inside(error: Exception) -> str | None:
    """The message of a QuarryError that a worker raised; Spark hands its traceback over as text."""
    marker = "conf.errors.QuarryError: "
    lines = [line for line in str(error).splitlines() if marker in line]
    return lines[-1].split(marker, 1)[1] if lines else None
