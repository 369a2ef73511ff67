"""Spark's Thrift server (HiveServer2's protocol) over a catalog: for JDBC, ODBC and DB-API clients."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from conf.errors import QuarryError
from pipelines.read_only import make_later_sessions_read_only

CLIENT_CONF = {
    # A client reads the tables, not whatever file the server's user may read.
    "spark.sql.runSQLOnFiles": "false",
    # Rows stream to the client; a large result never lies in the driver as a whole.
    "spark.sql.thriftServer.incrementalCollect": "true",
}


@contextmanager
def thrift_server(session: SparkSession, host: str, port: int) -> Iterator[int]:
    """A running server; each client gets a session of its own that can only read.

    Sessions made elsewhere in the application from now on can only read, too: it should do nothing else.

    Args:
        session: Shares its catalog with the clients; they start in the database `default`.
        host: Address to listen on.
        port: 0 takes a free one.

    Yields:
        The port.

    Raises:
        QuarryError: The server does not start: a port in use, or a Spark without Hive's Thrift server.
    """
    make_later_sessions_read_only(session, CLIENT_CONF)
    with tempfile.TemporaryDirectory(prefix="quarry-thrift-") as folder:
        server = _started(session, _settings(host, port, Path(folder)), f"{host}:{port}")
        try:
            services = server.getServices().iterator()
            while services.hasNext():
                service = services.next()
                if service.getName() == "ThriftBinaryCLIService":
                    port = service.getPortNumber()
            yield port
        finally:
            server.stop()


def _settings(host: str, port: int, folder: Path) -> dict[str, str]:
    # Hive's scratch files go where they are removed; its defaults are shared by all users of the machine.
    (folder / "local").mkdir()
    return {
        "hive.server2.thrift.bind.host": host,
        "hive.server2.thrift.port": str(port),
        "hive.exec.scratchdir": str(folder / "scratch"),
        "hive.exec.local.scratchdir": str(folder / "local"),
        "hive.downloaded.resources.dir": str(folder / "resources"),
        "hive.querylog.location": str(folder / "queries"),
        "hive.server2.logging.operation.log.location": str(folder / "operations"),
    }


def _started(session: SparkSession, settings: dict[str, str], address: str) -> Any:
    jvm = session._jvm
    assert jvm is not None
    for key, value in settings.items():
        session.conf.set(key, value)
    # Hive opens an empty metastore in memory; its database would leave a log in the working folder.
    jvm.java.lang.System.setProperty("derby.stream.error.file", os.devnull)
    try:
        server = jvm.org.apache.spark.sql.hive.thriftserver.HiveThriftServer2
        return server.startWithSparkSession(session._jsparkSession, False)
    except (Py4JError, TypeError) as error:
        java = getattr(error, "java_exception", None)
        reason = _cause(java) if java is not None else "this Spark has no Hive Thrift server in its jars"
        raise QuarryError(f"the Thrift server does not start on {address}: {reason}") from None


def _cause(error: Any) -> str:
    while error.getCause() is not None:
        error = error.getCause()
    return str(error.toString()).splitlines()[0]
