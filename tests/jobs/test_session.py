"""Every start says what is missing and how to get it; the session is the one the settings describe."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.errors import QuarryError
from conf.settings import SparkSettings
from jobs import session as sessions


def fake_java(folder: Path, version: str) -> None:
    """A `java` that says it is of some version."""
    program = folder / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
    program.chmod(0o755)


def test_missing_java_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QuarryError, match="apt-get install openjdk-17-jre-headless"):
        sessions.require_java()


@pytest.mark.parametrize(
    ("version", "supported"), [("17.0.9", True), ("21.0.1", True), ("11.0.2", False), ("1.8.0", False)]
)
def test_java_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, supported: bool
) -> None:
    fake_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if supported:
        sessions.require_java()
    else:
        with pytest.raises(QuarryError, match=f"is {version.split('.')[0]}"):
            sessions.require_java()


def test_a_jar_folder_without_delta_names_the_command_that_fills_it(tmp_path: Path) -> None:
    (tmp_path / "other.jar").touch()
    with pytest.raises(QuarryError, match="quarry fetch_jars"):
        sessions._session_conf(SparkSettings(jars_dir=str(tmp_path)), submitted=False)


def test_jars_are_fetched_into_a_relative_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    jars = sessions.fetch_delta_jars(Path("jars"))
    assert any("delta-spark" in jar.name for jar in jars)
    assert "spark.jars" in sessions._session_conf(SparkSettings(jars_dir="jars"), submitted=False)


def test_a_failed_fetch_names_its_cause_not_its_stack() -> None:
    log = """:: loading settings
Exception in thread "main" java.lang.RuntimeException: [unresolved dependency: io.delta#delta: not found]
\tat org.apache.spark.deploy.SparkSubmit.main(SparkSubmit.scala)
"""
    assert "unresolved dependency" in sessions._cause(log)
    assert sessions._cause("") == "no output"


def test_under_spark_submit_master_and_jars_are_left_alone() -> None:
    settings = SparkSettings(master="local[1]", driver_memory="1g", shuffle_partitions=3)
    submitted = sessions._session_conf(settings, submitted=True)
    assert not {"spark.master", "spark.driver.memory", "spark.jars", "spark.jars.packages"} & set(submitted)
    assert submitted["spark.sql.shuffle.partitions"] == "3"


def test_own_spark_settings_win() -> None:
    conf = sessions._session_conf(
        SparkSettings(conf={"spark.sql.session.timeZone": "Europe/Paris"}), submitted=True
    )
    assert conf["spark.sql.session.timeZone"] == "Europe/Paris"


def test_the_session_has_delta_and_speaks_utc(session: SparkSession) -> None:
    assert session.conf.get("spark.sql.session.timeZone") == "UTC"
    assert "delta" in str(session.conf.get("spark.sql.extensions")).lower()
