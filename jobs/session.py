"""The one place where a SparkSession is built: Delta, Arrow, the right Python, sane memory on a laptop."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

from conf.errors import QuarryError
from conf.settings import SparkSettings

DELTA_PACKAGE = "io.delta:delta-spark_4.1_2.13:4.4.0"
# Where `quarry fetch_jars` puts jars unless told otherwise: inside the Python environment.
DEFAULT_JARS_DIR = Path(sys.prefix) / "jars"
# Every core, and four tries per task as on a cluster: plain local[*] gives up at the first lost worker.
LOCAL_MASTER = "local[*,4]"
# Spark loads and compiles so many classes that Java's default sizes make it clear both caches on the way.
JVM_FOR_SHORT_JOBS = "-XX:+UseParallelGC -XX:MetaspaceSize=512m -XX:ReservedCodeCacheSize=512m"
SUPPORTED_JAVA = (17, 21)
JAVA_REMEDY = "install it (Debian/Ubuntu: apt-get install openjdk-17-jre-headless) or point JAVA_HOME at it"

# What Delta needs beyond the jars that ship with Spark; its other dependencies are Spark's own.
DELTA_JAR_PREFIXES = ("io.delta_", "io.unitycatalog_")


def build_session(settings: SparkSettings, app_name: str) -> SparkSession:
    """A session with Delta, or the cluster's own when spark-submit started this process.

    Values already set by spark-submit or the cluster's defaults win over the profile's.

    Args:
        settings: The profile's Spark section.
        app_name: Shown in the Spark UI.

    Raises:
        QuarryError: Java is missing or unsupported, the jar folder lacks Delta, or Delta is not on the class
            path.
    """
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not submitted:
        require_java()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    given = _given_by_submitter() if submitted else set()
    for key, value in _session_conf(settings, submitted=submitted).items():
        if key not in given:
            builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    # Errors reach the user as exceptions; this logger would print their Java stack a second time.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    _require_delta(session)
    return session


def _session_conf(settings: SparkSettings, *, submitted: bool) -> dict[str, str]:
    conf = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Batches of detections that stay in a core's cache; Spark's 4,096 and 10,000 rows cost a tenth more.
        "spark.sql.parquet.columnarReaderBatchSize": "1024",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "4000",
        "spark.ui.showConsoleProgress": "false",
        # A worker process holds a model; a second job in the same session must find it warm.
        "spark.python.worker.reuse": "true",
    }
    if settings.shuffle_partitions is not None:
        conf["spark.sql.shuffle.partitions"] = str(settings.shuffle_partitions)
    if settings.snapshot_partitions is not None:
        conf["spark.databricks.delta.snapshotPartitions"] = str(settings.snapshot_partitions)
    if not submitted:
        conf["spark.master"] = settings.master or LOCAL_MASTER
        # Local workers reach the driver without the machine's host name having to resolve.
        if conf["spark.master"].startswith("local"):
            conf["spark.driver.host"] = conf["spark.driver.bindAddress"] = "127.0.0.1"
            conf["spark.ui.enabled"] = "false"
            # Spark makes this folder though no table of ours is ever in it.
            conf["spark.sql.warehouse.dir"] = str(Path(tempfile.gettempdir()) / "quarry-warehouse")
        # Names of tables end with the process; they have no place in a metastore that others share.
        conf["spark.sql.catalogImplementation"] = "in-memory"
        log_settings = Path(__file__).with_name("log4j2.properties").as_uri()
        conf["spark.driver.extraJavaOptions"] = (
            f"-Dlog4j2.configurationFile={log_settings} {JVM_FOR_SHORT_JOBS}"
        )
        # A table that is broadcast, of one row too, holds a page as long as its plan lives: 16 MB of a heap
        # of 2 GB unless told, and plans of dozens of joins fill it. A task has at most 8,192 pages.
        conf["spark.buffer.pageSize"] = "2m"
        # A cycle compiles 800 pieces of code; Spark's cache of 100 would compile most of them twice.
        conf["spark.sql.codegen.cache.maxEntries"] = "1000"
        if settings.driver_memory is not None:
            conf["spark.driver.memory"] = settings.driver_memory
        conf |= _delta_jars_conf(settings.jars_dir)
    return conf | settings.conf


def _delta_jars_conf(jars_dir: str | None) -> dict[str, str]:
    jars = sorted(Path(jars_dir or DEFAULT_JARS_DIR).glob("*.jar"))
    if not any("delta-spark" in jar.name for jar in jars):
        if jars_dir is None:
            return {"spark.jars.packages": DELTA_PACKAGE}
        raise QuarryError(
            f"spark.jars_dir {jars_dir}: no delta-spark jar in it; fill it on a machine with Maven Central: "
            f"quarry fetch_jars {jars_dir}"
        )
    return {"spark.jars": ",".join(str(jar.resolve()) for jar in jars)}


def _given_by_submitter() -> set[str]:
    from pyspark.conf import SparkConf
    from pyspark.core.context import SparkContext

    SparkContext._ensure_initialized()
    return {key for key, _ in SparkConf(loadDefaults=True).getAll()}


def _require_delta(session: SparkSession) -> None:
    try:
        session._jvm.java.lang.Class.forName(  # type: ignore[union-attr]
            "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            True,
            session._jvm.java.lang.Thread.currentThread().getContextClassLoader(),  # type: ignore[union-attr]
        )
    except Exception:
        raise QuarryError(
            f"Delta Lake is not on Spark's class path: add `--packages {DELTA_PACKAGE}` to spark-submit, or "
            "`--jars` with the folder that `quarry fetch_jars` fills"
        ) from None


def require_java() -> None:
    """Fails with the remedy unless a supported Java is there.

    Raises:
        QuarryError: No Java, or a version Spark 4 does not run on.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    wanted = " or ".join(map(str, SUPPORTED_JAVA))
    if java is None or not Path(java).exists():
        raise QuarryError(f"Java {wanted} is needed and none was found: {JAVA_REMEDY}")
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', text)
    if found is None or int(found.group(1)) not in SUPPORTED_JAVA:
        version = found.group(1) if found else "an unknown version"
        raise QuarryError(f"Java {wanted} is needed, {java} is {version}: {JAVA_REMEDY}")


def fetch_delta_jars(folder: Path) -> list[Path]:
    """Copies the jars Delta needs beyond Spark's own into a folder, for machines without Maven Central.

    Resolution, checksums and cache are Ivy's (through Spark).

    Args:
        folder: Made when absent.

    Returns:
        The jars now in the folder.

    Raises:
        QuarryError: Maven Central could not be reached; the message ends with the cause Ivy named.
    """
    require_java()
    import pyspark

    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    ivy = folder.resolve() / "ivy"
    no_op = Path(__file__).with_name("no_op.py")
    done = subprocess.run(
        [str(submit), "--packages", DELTA_PACKAGE, "--conf", f"spark.jars.ivy={ivy}", str(no_op)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
    )
    jars = [jar for jar in ivy.glob("jars/*.jar") if jar.name.startswith(DELTA_JAR_PREFIXES)]
    if done.returncode != 0 or not jars:
        raise QuarryError(f"{DELTA_PACKAGE} could not be fetched from Maven Central: {_cause(done.stderr)}")
    for jar in jars:
        shutil.copy2(jar, folder / jar.name)
    shutil.rmtree(ivy)
    return sorted(folder.glob("*.jar"))


def _cause(log: str) -> str:
    """The line of a JVM's log that names the failure, rather than its stack."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("at ")]
    named = [line for line in told if "Exception" in line or "ERROR" in line]
    return (named or lines or ["no output"])[-1]
