from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from conf.errors import QuarryError, nearest
from conf.load import DEFAULT_PROFILE, PROFILE_FOLDER, load_settings, profile_names
from conf.section import location
from conf.settings import AcquireSettings, ScoreSettings, Settings, settings_hash


def _write(folder: Path, content: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def _message(config: str | None = None, *overrides: str) -> str:
    with pytest.raises(QuarryError) as caught:
        load_settings(config, overrides)
    return str(caught.value)


def test_the_shipped_profiles_are_known() -> None:
    assert profile_names() == ["cluster", "demo", "local"]


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads_and_says_what_it_sets(name: str) -> None:
    settings = load_settings(name)
    written = yaml.safe_load((PROFILE_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    loaded = settings.model_dump(mode="json")
    for section, values in written.items():
        for key, value in values.items() if isinstance(values, dict) else [(section, values)]:
            found = loaded[section][key] if isinstance(values, dict) else loaded[key]
            assert found == value or found == location(value)


@pytest.mark.parametrize(
    "override",
    [
        "export.uri_template=https://x/{key}?sv=2&sig=hush-hush",
        "export.uri_prefix=https://ann:hush-hush@x/y",
        'export.uri_prefixes={"s3://b/": "https://x/y?X-Amz-Signature=hush-hush"}',
        "export.uri_template=https://x/{key}?api_key=hush-hush",
        "export.uri_template=https://x/{key}?auth=hush-hush&v=1",
        "lake.uri=s3://KEY:hush-hush@bucket/lake",
        "detector.weights=s3://KEY:hush-hush@bucket/x.pt",
    ],
)
def test_a_secret_written_out_is_refused_and_not_repeated(override: str) -> None:
    message = _message(None, override)
    assert "would be kept in tables and reports" in message and "hush-hush" not in message


@pytest.mark.parametrize(
    "override",
    [
        "export.uri_template=https://x/{key}?sv=2&sig=${SIGNATURE}",
        "export.uri_template=https://${U}:${P}@x/{path}",
        "export.uri_template=https://x/get?access_key={key}",
        "export.uri_template=/data/local-files/?d={path}&token_free=1",
        "lake.uri=abfss://lake@account.dfs.core.windows.net/day=1",
        "lake.uri=hdfs://ann@host:8020/lake",
    ],
)
def test_names_of_secrets_and_users_are_none(override: str) -> None:
    key, _, value = override.partition("=")
    section, _, name = key.partition(".")
    assert getattr(getattr(load_settings(None, [override]), section), name) == value


def test_without_a_name_the_default_profile_is_loaded() -> None:
    assert load_settings() == load_settings(DEFAULT_PROFILE)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_settings(_write(tmp_path, "")) == Settings()


def test_all_faults_are_told_at_once_with_file_key_and_what_is_allowed(tmp_path: Path) -> None:
    config = _write(
        tmp_path,
        {
            "lake": {"imageid": "uri", "max_pixels": "many", "sequence_pattern": "(?P<sequence>x)"},
            "detector": {"eta0": 0.7},
            "score": {"eta": 0.6, "estimator": "guess", "iou_threshold": 0},
            "evaluate": {"hard_fractions": [0.1, 1.5]},
            "train": {"min_size": 600, "max_size": 500},
            "scores": {},
        },
    )
    lines = _message(config).splitlines()
    assert all(line.startswith(f"{config}: ") for line in lines)
    faults = {line.removeprefix(f"{config}: ").partition(":")[0]: line for line in lines}
    assert set(faults) == {
        "lake.imageid",
        "lake.max_pixels",
        "lake.sequence_pattern",
        "score.estimator",
        "score.iou_threshold",
        "evaluate.hard_fractions.1",
        "scores",
        "detector.eta0",
        "train.min_size",
    }
    assert len(faults) == len(lines)
    assert "did you mean 'image_id'?" in faults["lake.imageid"]
    assert "did you mean 'score'" in faults["scores"]
    assert "integer" in faults["lake.max_pixels"]
    assert "'many'" in faults["lake.max_pixels"]
    assert "'exact' or 'monte_carlo'" in faults["score.estimator"]
    assert "greater than 0" in faults["score.iou_threshold"]
    assert "less than 1" in faults["evaluate.hard_fractions.1"]
    assert "(?P<frame>...)" in faults["lake.sequence_pattern"]
    assert "at most score.eta (0.6), got 0.7" in faults["detector.eta0"]
    assert "at most train.max_size (500), got 600" in faults["train.min_size"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("score.eta=1.01", "less than or equal to 1"),
        ("score.eta=-0.1", "greater than or equal to 0"),
        ("score.eta=.nan", "score.eta"),
        ("score.eta=.inf", "score.eta"),
        ("score.eta=high", "number"),
        ("score.max_component=17", "less than or equal to 16"),
        ("detect.batch_size=0", "greater than or equal to 1"),
        ("detect.batch_size=1.5", "integer"),
        ("acquire.budget_in=hours", "images"),
        ("score.queries=total_fp", "expected a list, as in [a, b], got 'total_fp'"),
        ("lake=", "lake"),
        ("lake.sequence_pattern='('", "not a regular expression"),
        ("detector.eta0=0.9", "score.eta"),
        ("score.eta=0.01", "detector.eta0"),
    ],
)
def test_impossible_values_are_refused(override: str, told: str) -> None:
    message = _message("local", override)
    assert override.partition("=")[0] in message
    assert told in message


@pytest.mark.parametrize(
    "override", ["score.eta", "=1", "score..eta=1", ".=1", "score.eta=[", "score.eta=a: b: c"]
)
def test_an_override_that_cannot_be_read_is_named(override: str) -> None:
    assert _message("local", override).startswith(f"--set {override}: ")


def test_overrides_win_over_the_profile_and_the_last_wins() -> None:
    settings = load_settings(
        "demo",
        [
            "score.eta=0.4",
            "score.eta=0.6",
            "score.queries=[total_fp, total_fn]",
            "lake.labels=null",
            "acquire.strategies=[random]",
            "export.uri_prefix=s3://bucket/a=b",
        ],
        root="s3://elsewhere",
    )
    assert settings.score.eta == 0.6
    assert settings.score.queries == ("total_fp", "total_fn")
    assert settings.lake.labels is None
    assert settings.acquire.strategies == ("random",)
    assert settings.export.uri_prefix == "s3://bucket/a=b"
    assert settings.root == "s3://elsewhere"
    assert settings.lake.image_id == "path"


@pytest.mark.parametrize(
    ("content", "told"),
    [("a: [", "not valid YAML"), ("- a", "expected a mapping of settings, got list"), ("7", "got int")],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, content: str, told: str) -> None:
    config = _write(tmp_path, content)
    message = _message(config)
    assert message.startswith(f"{config}: ")
    assert told in message
    assert len(message.splitlines()) == 1


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\xfa")
    assert "not valid YAML" in _message(str(tmp_path / "mine.yaml"))


def test_an_unknown_profile_lists_the_known_ones() -> None:
    assert _message("domo").endswith("shipped ones: cluster, demo, local")


def test_settings_cannot_be_changed() -> None:
    settings = load_settings("demo")
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.score.eta = 0.1  # type: ignore[misc]


def test_every_setting_says_what_it_means() -> None:
    def undescribed(model: type[BaseModel], prefix: str = "") -> list[str]:
        missing = []
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                missing += undescribed(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                missing.append(prefix + name)
        return missing

    assert undescribed(Settings) == []


def test_equal_values_have_equal_hashes_and_others_do_not() -> None:
    pinned = settings_hash(ScoreSettings(eta=0.5), AcquireSettings(), 7, "model")
    assert len(pinned) == 16
    assert int(pinned, 16) >= 0
    assert settings_hash(ScoreSettings(), AcquireSettings(), 7, "model") == pinned
    others = [
        settings_hash(ScoreSettings(eta=0.51), AcquireSettings(), 7, "model"),
        settings_hash(ScoreSettings(), AcquireSettings(budget=51), 7, "model"),
        settings_hash(ScoreSettings(), AcquireSettings(), 8, "model"),
        settings_hash(ScoreSettings(), AcquireSettings(), 7, "other"),
    ]
    assert len({pinned, *others}) == 5
    on_a_gpu = settings_hash(ScoreSettings(), AcquireSettings(device="cuda"), 7, "model")
    assert on_a_gpu == pinned, "where work runs changes no result"


def test_hashes_are_the_same_in_another_process() -> None:
    code = "from conf.settings import *; print(settings_hash(ScoreSettings(), 7))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(PROFILE_FOLDER.parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {settings_hash(ScoreSettings(), 7)}


def test_the_nearest_names_are_hinted() -> None:
    assert nearest("total_pf", ["total_fp", "entropy"]) == "did you mean 'total_fp'?"
    assert nearest("x", ["b", "a"]) == "known: a, b"


def test_paths_count_from_here_and_uris_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").touch()
    overrides = ["lake.uri=lake", "lake.labels=s3://bucket/labels", "detector.weights=model.pt"]
    settings = load_settings("local", overrides, root="my tables")
    assert settings.root == str(tmp_path / "my tables") and settings.lake.uri == str(tmp_path / "lake")
    assert settings.lake.labels == "s3://bucket/labels"
    assert settings.detector.weights == str(tmp_path / "model.pt")
    assert load_settings("local", ["detector.weights=COCO_V1"]).detector.weights == "COCO_V1"


def test_a_query_named_twice_counts_once_and_dots_in_paths_vanish(tmp_path: Path) -> None:
    overrides = ["score.queries=[total_fp,total_fn,total_fp]", f"lake.uri={tmp_path}/a/../b"]
    settings = load_settings("local", overrides)
    assert settings.score.queries == ("total_fp", "total_fn") and settings.lake.uri == f"{tmp_path}/b"


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(QuarryError, match="empty"):
        load_settings("local", root="")
