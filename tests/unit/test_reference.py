from __future__ import annotations

import json
from pathlib import Path

import pytest

from defectd import reference
from defectd.examples import EXAMPLES
from defectd.inspection.messages import ALL_MESSAGES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("message", ALL_MESSAGES, ids=lambda message: message.__name__)
def test_every_example_is_valid_by_its_published_schema(message):
    jsonschema = pytest.importorskip("jsonschema", reason="installed by make setup")
    schema = json.loads((DOCS / "schemas" / reference._file_name(message)).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(EXAMPLES[message].to_json()))


@pytest.mark.parametrize("message", ALL_MESSAGES, ids=lambda message: message.__name__)
def test_consumers_may_meet_fields_they_do_not_know(message):
    jsonschema = pytest.importorskip("jsonschema", reason="installed by make setup")
    schema = json.loads((DOCS / "schemas" / reference._file_name(message)).read_text())
    example = {**json.loads(EXAMPLES[message].to_json()), "new_field_of_tomorrow": 1}
    jsonschema.Draft202012Validator(schema).validate(example)


@pytest.mark.parametrize("message", ALL_MESSAGES, ids=lambda message: message.__name__)
def test_every_example_survives_the_wire(message):
    example = EXAMPLES[message]
    assert type(example).model_validate_json(example.to_json()) == example


def test_the_documents_are_what_the_models_say_now():
    stale = [
        name
        for name, text in {
            "wire.md": reference.wire_document(),
            "configuration.md": reference.configuration_document(),
            "rollout.md": reference.rollout_document(),
        }.items()
        if (DOCS / name).read_text() != text
    ]
    assert not stale, f"docs/{stale[0]} is out of date: run `make docs`"
