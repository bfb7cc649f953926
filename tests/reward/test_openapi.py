"""The OpenAPI document is complete, and the running app keeps to it under generated requests."""

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance
from scoring_items import ServerFactory

from golongrl.reward.app import create_app
from golongrl.reward.config import RewardConfig


def document(config: RewardConfig) -> dict[str, Any]:
    return create_app(config).openapi()


@pytest.fixture(scope="module")
def url(serve: ServerFactory) -> str:
    """A real server with the limits that the document below names."""
    return serve("-m", "golongrl", "reward", "serve", "--host", "127.0.0.1", "--port", "{port}", *OPTIONS).url


OPTIONS = ("--workers", "1", "--max-batch", "8", "--log-level", "ERROR")
# Too large a batch breaks the document's maxItems, and is answered by 413.
CHECKS = {"checks": {"negative_data_rejection": {"expected-statuses": ["413", "422"]}}}


@pytest.mark.parametrize("mode", GenerationMode)
def test_the_service_keeps_to_its_document(mode: GenerationMode, url: str) -> None:
    # Read here, not at import: every worker imports this file, and generating takes seconds.
    schema = schemathesis.openapi.from_dict(
        document(RewardConfig(max_batch=8)), config=schemathesis.config.SchemathesisConfig.from_dict(CHECKS)
    )

    def keeps(case: schemathesis.Case[Any]) -> None:
        # A valid string is not always a known data_source: 422 is then the documented answer.
        case.call_and_validate(base_url=url, excluded_checks=[positive_data_acceptance])

    examined = settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        # What takes no input has no wrong one.
        if mode is GenerationMode.POSITIVE or operation.body:
            examined(given(operation.as_strategy(generation_mode=mode))(keeps))()


def test_every_answer_is_documented() -> None:
    paths = document(RewardConfig(token=SecretStr("t")))["paths"]
    post = paths["/v1/score"]["post"]
    assert set(post["responses"]) == {"200", "401", "408", "413", "422", "429", "503"}
    assert post["security"] == [{"HTTPBearer": []}]
    for code, answer in post["responses"].items():
        assert answer["description"]
        name = "ScoreResponse" if code == "200" else "Problem"
        assert answer["content"]["application/json"]["schema"]["$ref"].endswith(name)
    assert set(paths["/readyz"]["get"]["responses"]) == {"200", "503"}
    assert {"/healthz", "/metrics"} <= set(paths)
    assert "401" not in document(RewardConfig())["paths"]["/v1/score"]["post"]["responses"]


def test_the_configured_limits_are_in_the_document() -> None:
    request = document(RewardConfig(max_batch=7, max_deadline_s=33.0))["components"]["schemas"]["ScoreRequest"]
    assert request["properties"]["items"]["maxItems"] == 7
    assert request["properties"]["deadline_s"]["anyOf"][0]["maximum"] == 33.0


def test_every_reference_resolves_and_every_field_is_described() -> None:
    whole = document(RewardConfig())
    names = set(whole["components"]["schemas"])
    text = json.dumps(whole)
    assert {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]} <= names
    for name in ("ScoreRequest", "Item", "ScoreResult"):
        assert whole["components"]["schemas"][name]["description"]
