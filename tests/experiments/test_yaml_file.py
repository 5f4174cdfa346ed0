"""How YAML files are read: numbers as people write them, no key given twice."""

import pytest

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.yaml_file import read_yaml


@pytest.fixture
def read(tmp_path):
    """Returns a function that reads a text as a file."""

    def write_and_read(text):
        (tmp_path / "file.yaml").write_text(text)
        return read_yaml(tmp_path / "file.yaml")

    return write_and_read


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3E5", 3e5), ("-1e+2", -100.0), (".5e1", 5.0), ("1.e-3", 1e-3)],
)
def test_exponents_without_a_point_are_floats(read, text, value):
    number = read(f"a: {text}")["a"]
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize("text", ["1e", "e5", "1e5x", "v1e5"])
def test_words_that_look_like_numbers_stay_words(read, text):
    assert read(f"a: {text}") == {"a": text}


def test_a_key_given_twice(read):
    with pytest.raises(CommandError, match=r"file.yaml: line 3: 'b' is given twice"):
        read("a:\n  b: 1\n  b: 2\n")


def test_a_merged_key_may_be_given_again(read):
    content = read("base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}")
    assert content["other"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a\n  b: 1", "line 2: mapping values are not allowed here"),
        ("a: 1\nb: [\n", "line 3: expected the node content"),
        ("a: \x01", "unacceptable character"),
    ],
)
def test_what_is_not_yaml_is_told_in_a_line(read, text, fault):
    with pytest.raises(CommandError, match=f"file.yaml: not valid YAML: {fault}") as error:
        read(text)
    assert "\n" not in str(error.value)
