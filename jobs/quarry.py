"""The `quarry` command: `quarry <job> [flags]` runs `jobs/<job>.py`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from conf.errors import nearest

# In the order of a cycle.
JOBS = {
    "run_cycle": "the whole cycle: lake in, tables, manifests and report out; resumes where it stopped",
    "make_sample_lake": "write the built-in sample lake of street scenes",
    "train": "train a small detector from COCO annotations",
    "ingest": "find the images of a lake",
    "import_labels": "import labels: returns of labeling tools, COCO ground truth",
    "detect": "run a detector over the images",
    "import_detections": "take detections made elsewhere instead: COCO results, Parquet or Delta",
    "score": "score the hardness of every image",
    "evaluate": "compare rankings with ground truth",
    "acquire": "pick images for labeling under a budget",
    "export_manifest": "write files for labeling tools",
    "check": "judge a cycle's tables: the quality gates, as they are now",
    "status": "show where each cycle stands and what is out for labeling",
    "report": "write the HTML report of a cycle",
    "sql": "query the tables, at a prompt or from a file",
    "thrift_server": "serve the tables to JDBC and DB-API clients",
    "settings": "list every setting and its meaning",
    "fetch_jars": "fill a folder with Delta's jars, for machines without Maven Central",
}
REMEDY = "run `make setup` and then .venv/bin/quarry, or pip install -c constraints.txt ."
USAGE = "usage: quarry <job> [flags]      quarry <job> --help"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one job and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        width = max(map(len, JOBS))
        lines = [USAGE, "", *(f"  {name:<{width}}  {summary}" for name, summary in JOBS.items())]
        lines += ["", "first time: quarry run_cycle --config demo --sample-lake build/demo/lake"]
        sys.stdout.write("\n".join(lines) + "\n")
        return 0
    name, *flags = arguments
    if name not in JOBS:
        sys.stderr.write(f"error: no job {name!r}; {nearest(name, JOBS)}\n{USAGE}\n")
        return 2
    try:
        job = importlib.import_module(f"jobs.{name}").JOB
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: Python package {error.name} is missing in {sys.prefix}; {REMEDY}\n")
        return 2
    code: int = job.main(flags)
    return code


if __name__ == "__main__":
    sys.exit(main())
