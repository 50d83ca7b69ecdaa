"""What all tests share: the folder of real scans, one small phantom, one thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support.browser import CHROMIUM, Browser, browser

from segpipe import extensions, registry

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-data",
        type=Path,
        help="folder of real scans (see the README); their tests are skipped without it",
    )
    parser.addoption("--slow", action="store_true", help="also run the tests that are marked slow")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples a test of Hypothesis draws that does not say so itself."""
    settings.register_profile("quick", max_examples=40)
    settings.register_profile("slow", max_examples=400)
    settings.load_profile("slow" if config.getoption("--slow") else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def real_data(pytestconfig: pytest.Config) -> Path:
    folder = pytestconfig.getoption("--real-data")
    if folder is None:
        pytest.skip("needs real scans: pytest tests --real-data DIR")
    if not folder.is_dir():
        pytest.fail(f"--real-data {folder}: no such folder")
    return folder.resolve()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium, as from apt-get install chromium")
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_extensions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget after each test which extensions it has loaded, and what they have registered."""
    monkeypatch.setattr(extensions, "_loaded", dict(extensions._loaded))
    registries = [
        value for value in vars(registry).values() if isinstance(value, registry.Registry)
    ]
    before = [set(one.added) for one in registries]
    yield
    for one, names in zip(registries, before, strict=True):
        for name in set(one.added) - names:
            del one.added[name]
            del one.values[name]
