"""Sessions whose SQL can only read: Spark hands every analyzed plan to a check before anything of it runs.

The check looks at plans, not at text, so it holds for whatever reaches the session: statements, scripts,
`EXECUTE IMMEDIATE`, JDBC clients. Refused are commands other than those that show something, and the two ways
in which a query itself can act: `TRANSFORM ... USING` starts a program, `reflect` calls Java methods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession

SHOWS = re.compile(r"(Show|Describe|Explain)\w*|SetCatalogAndNamespace|SetNamespaceCommand")
STARTS_A_PROGRAM = "ScriptTransformation"
ACTING_FUNCTIONS = ("reflect", "java_method", "try_reflect")


def read_only_session(session: SparkSession) -> SparkSession:
    """A new session of the same application that can only read; other sessions stay as they are."""
    reader = session.newSession()
    _check_plans(session, only=reader._jsparkSession, conf={})
    return reader


def make_later_sessions_read_only(session: SparkSession, conf: Mapping[str, str]) -> None:
    """Every session made from now on in this application can only read.

    Args:
        session: Of the application; stays as it is.
        conf: Set in each of those sessions, over what its client asked for.
    """
    _check_plans(session, only=None, conf=conf)


def _check_plans(session: SparkSession, *, only: Any, conf: Mapping[str, str]) -> None:
    context = session.sparkContext
    jvm, gateway = context._jvm, context._gateway
    assert jvm is not None and gateway is not None
    # Exceptions of the check reach the client as what they are, not as a Python traceback.
    gateway.callback_server_parameters.propagate_java_exceptions = True
    ensure_callback_server_started(gateway)  # type: ignore[no-untyped-call]
    java = session._jsparkSession
    java.sessionState().analyzer()  # built now, it never has the check

    def check_of(created: Any) -> Any:
        if only is not None and not created.equals(only):
            return getattr(jvm.scala.Predef, "$conforms")()
        # Hive gives the thread that opens a client's session a loader that does not know Spark's added jars.
        loader = created.sharedState().jarClassLoader()
        jvm.java.lang.Thread.currentThread().setContextClassLoader(loader)
        for function in ACTING_FUNCTIONS:
            name = jvm.org.apache.spark.sql.catalyst.FunctionIdentifier(function)
            created.sessionState().functionRegistry().dropFunction(name)
        for key, value in conf.items():
            created.conf().set(key, value)
        return _ScalaFunction(lambda plan: _refuse_changes(plan, jvm))

    java.extensions().injectCheckRule(_ScalaFunction(check_of))


class _ScalaFunction:
    """A Python function that Spark calls."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def apply(self, argument: Any) -> Any:
        return self._function(argument)

    class Java:
        implements = ["scala.Function1"]


def _refuse_changes(plan: Any, jvm: Any) -> None:
    command = jvm.org.apache.spark.sql.catalyst.trees.TreePattern.COMMAND()
    for node in _nodes(plan):
        name = str(node.getClass().getSimpleName())
        acts = name == STARTS_A_PROGRAM or (node.containsPattern(command) and SHOWS.fullmatch(name) is None)
        if acts:
            reason = f"read only: {name} is refused; tables are changed by jobs alone"
            raise Py4JJavaError(reason, jvm.java.lang.UnsupportedOperationException(reason))


def _nodes(plan: Any) -> Iterator[Any]:
    """The plan's nodes, those of subqueries too."""
    yield plan
    for parts in (plan.children(), plan.subqueries()):
        for index in range(parts.size()):
            yield from _nodes(parts.apply(index))
