"""Fixtures that several rooms use; tests/conftest.py makes them known to pytest."""

from pathlib import Path

import pytest

from support.tiny_model import build_tiny_mixture, build_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Qwen3 model with tokenizer. Read-only: build your own to change it."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model_next(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture and tokenizer as `tiny_model` with other weights: what a policy update looks like."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny-next", seed=1)


@pytest.fixture(scope="session")
def tiny_mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random mixture of experts with tokenizer. Read-only."""
    return build_tiny_mixture(tmp_path_factory.mktemp("models") / "mixture")


@pytest.fixture(scope="session")
def tiny_mixture_next(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_mixture` with other weights."""
    return build_tiny_mixture(tmp_path_factory.mktemp("models") / "mixture-next", seed=6)
