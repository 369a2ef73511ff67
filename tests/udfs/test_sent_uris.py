"""What labeling tools are told to open."""

from __future__ import annotations

import sys

import pytest

from conf.errors import QuarryError
from conf.export_settings import ExportSettings
from udfs.sent_uris import SentUris

IMAGE = ("s3://lake/day 1/ä#1.jpg", "day 1/ä#1.jpg", "id/1")
UPPER = "import sys; [print(line.strip().upper()) for line in sys.stdin]"


def _sent(image: tuple[str, str, str] = IMAGE, **settings: object) -> str:
    (uri,) = SentUris.of(ExportSettings.model_validate(settings)).rewritten([image])
    return uri


def test_without_settings_the_uri_is_sent_as_it_is() -> None:
    assert _sent() == IMAGE[0]


def test_a_prefix_stands_for_the_lake_s_root_and_is_quoted_for_the_web() -> None:
    assert _sent(uri_prefix="gs://other/") == "gs://other/day 1/ä#1.jpg"
    assert _sent(uri_prefix="https://x.example/l") == "https://x.example/l/day%201/%C3%A4%231.jpg"
    local = _sent(uri_prefix="/data/local-files/?d=l")
    assert local == "/data/local-files/?d=l/day%201/%C3%A4%231.jpg", "a # or & would end the query"
    listed = ("https://y.example/a.jpg", "https://y.example/a.jpg", "i")
    assert _sent(listed, uri_prefix="gs://other") == listed[0], "the path of a listed image is its URI"


def test_the_longest_prefix_that_fits_counts() -> None:
    prefixes = {"s3://lake/": "A/", "s3://lake/day 1/": "B/", "s3://other/": "C/"}
    assert _sent(uri_prefixes=prefixes) == "B/ä#1.jpg"
    assert _sent(("gs://x/1", "1", "i"), uri_prefixes=prefixes) == "gs://x/1"


def test_a_template_is_filled_in_once_with_quoted_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNATURE", "{path}")
    sent = _sent(uri_template="https://x.example/{key}?id={image_id}&s=${SIGNATURE}&{unknown}")
    assert sent.startswith("https://x.example/day%201/%C3%A4%231.jpg?id=id/1&s=")
    assert sent.endswith("&{unknown}")


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(QuarryError, match="environment variable NO_SUCH is not set"):
        _sent(uri_template="{uri}?${NO_SUCH}")


def test_a_command_gets_and_gives_a_line_each() -> None:
    assert (
        _sent(("s3://a/b c.jpg", "b c.jpg", "i"), uri_command=f'{sys.executable} -c "{UPPER}"')
        == "S3://A/B C.JPG"
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (f'{sys.executable} -c "print(1); print(2)"', "1 lines, got exit code 0 and 2"),
        (f"{sys.executable} -c \"import sys; print(1); sys.exit('hush-hush')\"", "exit code 1"),
        (f"{sys.executable} -c pass", "1 lines, got exit code 0 and 0 lines"),
        (f'{sys.executable} -c "print()"', "exit code 0 and 1 lines"),
        (f'{sys.executable} -c "import time; time.sleep(60)"', "not done with 1 URIs after 5 s"),
        ("/no/such/program", "FileNotFoundError"),
    ],
)
def test_a_command_that_fails_is_told_without_what_it_said(
    command: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udfs.sent_uris.COMMAND_LIMIT_S", 5)
    with pytest.raises(QuarryError, match=reason) as caught:
        _sent(uri_command=command)
    assert "hush-hush" not in str(caught.value)


def test_shell_characters_are_data() -> None:
    image = ("s3://a/$(touch x); `id`.jpg", "p", "i")
    assert _sent(image, uri_command="cat") == image[0]
    odd = ("s3://a/one\u2028line\x0b\x85.jpg", "p", "i")
    assert _sent(odd, uri_command="cat") == odd[0]
    with pytest.raises(QuarryError, match="line break"):
        _sent(("s3://a/b\nc", "p", "i"), uri_command="cat")


def test_a_line_break_is_told_without_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush-hush\n")
    with pytest.raises(QuarryError, match="image 'id/1' has a line break") as caught:
        _sent(uri_template="https://x.example/{key}?t=${TOKEN}", uri_command="cat")
    assert "hush-hush" not in str(caught.value)


def test_two_rewritings_of_the_same_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        ExportSettings(uri_prefix="a", uri_prefixes={"b": "c"})
