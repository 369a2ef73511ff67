"""Which settings a cycle goes on with."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest

from conf.errors import QuarryError
from conf.load import load_settings
from conf.settings import NOT_KEPT, Settings
from jobs import run_cycle

PLUGIN = "detector.plugin=team.detectors:make"


@pytest.fixture
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cycle `old` was started with a plugin and another threshold; nothing else was."""
    text = load_settings(None, [PLUGIN, "score.eta=0.7"]).model_dump_json(exclude=NOT_KEPT)
    row = SimpleNamespace(cycle_id="old", settings=text)
    monkeypatch.setattr(run_cycle, "cycle_row", lambda _, cycle_id: row if cycle_id == "old" else None)


def going_on(*overrides: str, **given: Any) -> Settings:
    """What `run_cycle` works with."""
    args = Namespace(**{"cycle": "old", "from_cycle": None, "config": None, "root": None} | given)
    args.set = list(overrides)
    settings = load_settings(args.config, args.set, args.root)
    return run_cycle._settings_of_cycle(SimpleNamespace(), settings, args)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_recorded")
@pytest.mark.parametrize("given", [{}, {"cycle": "new", "from_cycle": "old"}])
def test_a_record_s_own_code_is_refused_until_it_is_given_again(given: dict[str, str]) -> None:
    with pytest.raises(QuarryError, match="cycle 'old' .*: --set detector.plugin=team.detectors:make$"):
        going_on("score.eta=0.6", **given)
    settings = going_on(PLUGIN, **given)
    assert (settings.detector.plugin, settings.score.eta) == ("team.detectors:make", 0.7)
    assert going_on("detector.plugin=mine:make", **given).detector.plugin == "mine:make"
    assert going_on("detector.plugin=null", **given).detector.plugin is None


@pytest.mark.usefixtures("_recorded")
def test_a_profile_and_a_new_cycle_take_nothing_from_the_record() -> None:
    assert going_on("score.eta=0.6", config="local") == load_settings("local", ["score.eta=0.6"])
    assert going_on(cycle="new") == load_settings()
