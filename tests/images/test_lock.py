"""The lock: constraints.txt pins all that pyproject.toml asks for, once, and every installation takes it."""

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.helm import ROOT, Helm, tool

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LINES = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not re.match(r"\s*#", line)]
PINS = [Requirement(line.partition(" #")[0]) for line in LINES]
PINNED = {canonicalize_name(pin.name): pin for pin in PINS}
UNLOCKED = "run `make lock` and commit constraints.txt"


def version(name: str) -> str:
    (pin,) = PINNED[canonicalize_name(name)].specifier
    return pin.version


def asked() -> Iterator[Requirement]:
    """Every requirement of the project: its own, its extras' and its groups'."""
    project = PROJECT["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    texts += [text for group in PROJECT["dependency-groups"].values() for text in group if isinstance(text, str)]
    for text in texts:
        requirement = Requirement(text)
        if requirement.name != project["name"]:
            yield requirement


@pytest.mark.parametrize("requirement", sorted(set(asked()), key=str), ids=str)
def test_what_the_project_asks_for_is_pinned_to_a_version_that_it_takes(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert name in PINNED, f"{requirement} is not in constraints.txt: {UNLOCKED}"
    assert requirement.specifier.contains(version(name), prereleases=True), f"{requirement}, {PINNED[name]}: {UNLOCKED}"


def test_a_package_has_one_version_for_all_images() -> None:
    """Two pins under different markers would let the images part: data tokenised by one are decoded by another."""
    assert sorted(PINNED) == sorted(canonicalize_name(pin.name) for pin in PINS)
    for pin in PINS:
        assert [item.operator for item in pin.specifier] == ["=="], pin
        assert pin.url is None, pin


def test_the_lock_holds_versions_only() -> None:
    """No address of an index and no hashes: a mirror serves other files under the same versions."""
    assert [line for line in LINES if line.startswith("-") or "--hash" in line or "://" in line] == []


def test_kuberay_is_told_the_ray_of_the_lock() -> None:
    (job,) = Helm(tool("helm4")).template().of("RayJob")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")


INSTALLS = re.compile(r"pip install (?P<what>(?:[^\n\\&;]|\\\n)*)")


@pytest.mark.parametrize("path", ["Makefile", "images/Dockerfile"])
def test_every_installation_takes_the_lock(path: str) -> None:
    found = [match["what"] for match in INSTALLS.finditer((ROOT / path).read_text("utf-8"))]
    assert found
    for what in found:
        # What --no-deps installs is one file or this project, which bring nothing else.
        assert "--constraint constraints.txt" in what or re.search(
            r'--no-deps .*("\$\{FLASH_ATTN_WHEEL\}"| \.)', what
        ), what
