"""YAML as its author meant it, or a problem with its line."""

from __future__ import annotations

import pytest

from deployer.yamlfile import Document, dotted, guess, parse


def read(text: str) -> Document:
    return parse(text, "file.yaml")


def faults(text: str) -> list[tuple[int | None, str, str]]:
    return [(p.line, p.path, p.message) for p in read(text).problems]


def test_every_key_and_item_remembers_its_line() -> None:
    found = read("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    assert found.problems == ()
    places = [("a",), ("a", "b"), ("a", "c"), ("a", "c", 0), ("a", "c", 1), ("a", "c", 1, "d")]
    assert [found.line(p) for p in places] == [1, 2, 3, 4, 5, 5]


def test_what_is_missing_stands_at_the_line_of_what_lacks_it() -> None:
    found = read("a:\n  b: 1\nc: 2\n")
    assert found.line(("a", "missing", "deeper")) == 1
    assert Document("none.yaml", None).line(("a",)) is None


@pytest.mark.parametrize("text", ["20:00", "1:30:00", "2026-01-31", "2026-01-31T10:00:00Z", "1.2.3", "1:2.5", "1_a"])
def test_times_and_dates_and_versions_stay_text(text: str) -> None:
    found = read(f"a: {text}")
    assert found.problems == () and found.data == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("true", True), ("False", False), ("12", 12), ("-3", -3), ("0x1f", 31), ("0.5", 0.5), ("1.5e+3", 1500.0)),
        *(("~", None), ("null", None), ("", None), ("'no'", "no"), ('"010"', "010"), ("'1e3'", "1e3"), ("a b", "a b")),
    ],
)
def test_plain_values_are_what_they_look_like(text: str, value: object) -> None:
    found = read(f"a: {text}")
    assert found.problems == () and found.data == {"a": value}


@pytest.mark.parametrize("text", ["no", "No", "off", "NO", "yes", "on", "010", "0b11", "1_000", "1e3", "2E-5", "1_0.5"])
def test_what_editors_and_parsers_read_differently_is_a_problem(text: str) -> None:
    ((line, path, message),) = faults(f"a: 1\nb: {text}")
    assert (line, path) == (2, "b")
    assert message.startswith(f"'{text}' means different things") and "quote it" in message


@pytest.mark.parametrize(("text", "instead"), [("no", "write false"), ("On", "write true")])
def test_a_doubtful_word_comes_with_the_clear_one(text: str, instead: str) -> None:
    assert instead in faults(f"a: {text}")[0][2]


def test_a_key_given_twice_names_both_lines() -> None:
    assert faults("a: 1\nb: 2\na: 3\n") == [(3, "a", "given twice (first in line 1).")]


@pytest.mark.parametrize("key", ["on", "1", "1.5", "~", "[x]", "{x: y}", "? [x]\n"])
def test_a_key_must_be_text(key: str) -> None:
    ((line, path, message),) = faults(f"{key}: value")
    assert (line, path) == (1, "") and message.startswith("a key must be text")


def test_a_mappings_own_keys_win_over_merged_ones_and_keep_their_lines() -> None:
    for text in (
        "base: &b {x: 1, y: 2}\nc:\n  <<: *b\n  x: 3\n",
        "base: &b {x: 1, y: 2}\nc:\n  # own first\n  x: 3\n  <<: *b\n",
    ):
        found = read(text)
        assert found.problems == () and found.data["c"] == {"x": 3, "y": 2}
        assert found.line(("c", "x")) == 4 and found.line(("c", "y")) == 1


def test_the_first_of_several_merged_mappings_wins() -> None:
    found = read("one: &a {x: 1}\ntwo: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\n")
    assert found.problems == () and found.data["c"] == {"x": 1, "y": 2}


def test_only_keys_and_values_can_be_merged() -> None:
    assert faults("a: {<<: 5}") == [(1, "a", "<< takes keys and values, or a list of such.")]


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: *x}", "a: &x\n  b: {c: *x}"])
def test_an_alias_that_contains_itself_is_a_problem(text: str) -> None:
    assert "contains itself" in faults(text)[0][2]


def test_an_exploding_alias_is_a_problem_and_not_a_full_memory() -> None:
    levels = ["a: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "too much data" in faults("\n".join(levels))[0][2]


@pytest.mark.parametrize("text", ["[" * 60 + "]" * 60, "{a: " * 60 + "}" * 60, "[" * 5_000, "- " * 3000])
def test_what_is_nested_too_deeply_is_a_problem(text: str) -> None:
    assert "nested too deeply." in [message for _, _, message in faults(text)]


@pytest.mark.parametrize("value", ["!!set {a, b}", "!!python/object:os.system {}", "!mine [1]", "!!python/tuple [1]"])
def test_a_tag_makes_no_object(value: str) -> None:
    ((line, path, message),) = faults(f"x: 1\na: {value}")
    assert (line, path) == (2, "a") and "means nothing here" in message


@pytest.mark.parametrize("value", ["!mine x", "!!binary aGVsbG8=", ".inf", "-.inf", ".nan", "1.0e+999", "9" * 5000])
def test_what_json_cannot_say_is_a_problem(value: str) -> None:
    ((line, path, message),) = faults(f"a: {value}")
    assert (line, path) == (1, "a") and message.startswith("cannot read '") and len(message) < 100


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "a: 1\nb: [1,\n",
            3,
            "not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'.",
        ),
        (
            "a: 1\n---\nb: 2\n",
            2,
            "not valid YAML: expected a single document in the stream, but found another document.",
        ),
        (
            "a: 1\nb:\n\t- x\n",
            3,
            "not valid YAML: while scanning for the next token, found character '\\t' that cannot start any token.",
        ),
        ("a: 1\nb: *gone\n", 2, "not valid YAML: found undefined alias 'gone'."),
        ("a: 1\nb: \x07\n", 2, "not valid YAML: special characters are not allowed (#x7)."),
        ("a: 1\nb: caf\ufffd\n", 2, "holds bytes that are not UTF-8."),
        (
            "a: 1\nb: '\\x'\n- c",
            3,
            "not valid YAML: while parsing a block mapping, expected <block end>, but found '-'.",
        ),
    ],
)
def test_text_that_is_no_yaml_has_a_reason_and_a_line(text: str, line: int, message: str) -> None:
    assert read(text).data is None
    assert faults(text) == [(line, "", message)]


def test_a_number_that_python_does_not_read_is_no_crash_of_the_parser() -> None:
    ((_, _, message),) = faults(f"%YAML {'1' * 5000}.1\n---\na: 1\n")
    assert message.startswith("not valid YAML: ")


@pytest.mark.parametrize("text", ["", "# only words\n", "---\n"])
def test_a_file_without_content_is_empty_and_no_fault(text: str) -> None:
    assert read(text).data is None and faults(text) == []


def test_a_path_reads_as_people_write_it() -> None:
    assert dotted(("schedules", 0, "cron")) == "schedules[0].cron"
    assert dotted((2, "name")) == "[2].name"
    assert dotted(()) == ""


def test_a_typo_is_answered_with_a_guess_and_a_stranger_with_none() -> None:
    assert guess("work_pool", ["refs", "work_pools"]) == " Did you mean 'work_pools'?"
    assert guess("zebra", ["refs", "work_pools"]) == ""


def test_half_a_character_is_a_fault_and_no_text() -> None:
    document = parse('a: "x\\ud800y"', "a.yaml")
    assert [str(p) for p in document.problems] == [
        "a.yaml:1: a: holds half a character (a surrogate), which is no text."
    ]


def test_a_nul_character_is_told() -> None:
    (problem,) = parse('a: "x\\0y"', "a.yaml").problems
    assert str(problem) == "a.yaml:1: a: holds a NUL character, which PostgreSQL takes in no text."
