"""If the package of an extra is missing, the error names the extra: storages, runners, filters, and the demo."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from triggers import Triggers, plugins
from triggers.cli import main
from triggers.exceptions import PluginError
from triggers.kwargs import filter_kwargs


@pytest.fixture
def without(monkeypatch):
    """Make a package, and the module of ours that imports it, as if neither had been imported or installed."""

    def without(package, ours):
        for name in list(sys.modules):
            if name.partition(".")[0] == package or name == ours or name.startswith(f"{ours}."):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return without


@pytest.mark.parametrize(
    ("url", "package", "ours", "extra"),
    [
        ("postgresql://host/name", "psycopg", "triggers.storages.postgres", "postgres"),
        ("redis://host/0", "redis", "triggers.storages.redis", "redis"),
    ],
)
def test_a_storage_names_its_extra(without, url, package, ours, extra):
    """The message says which package is missing, and which extra installs it."""
    without(package, ours)
    message = rf"needs {package}, which is not installed: install Triggers with the extra '{extra}'"
    with pytest.raises(PluginError, match=message):
        Triggers(url)


def test_a_runner_names_its_extra(without):
    """The runner that is given by name is the same."""
    without("celery", "triggers.runners.celery")
    with pytest.raises(PluginError, match=r"the runner 'celery' needs celery.* the extra 'celery'"):
        plugins.load(plugins.RUNNERS, "celery")


def test_the_import_names_its_extra(without, tmp_path):
    """The command needs Redis, also if the storage does not."""
    without("redis", "triggers.storages.redis")
    sys.modules.pop("triggers.version2.cache", None)
    given = ["import-v2", "--redis", "redis://host/0", "--storage", f"sqlite:///{tmp_path / 'x.db'}"]
    result = CliRunner().invoke(main, given)
    assert (
        "import-v2 needs redis, which is not installed: install Triggers with the extra 'redis'"
        in result.stderr
    )


def test_filters_name_their_extra(without):
    """A mapping of filters needs the Filters library."""
    without("filters", "filters")
    with pytest.raises(ImportError, match=r"needs filters, which is not installed: .* the extra 'filters'"):
        filter_kwargs({"go": {}}, {"go": {"name": None}})


def test_another_package_has_no_extra():
    """A plugin of somebody else, whose package is missing, gets no advice that would not help."""
    assert (
        plugins.missing("the storage 'x'", "other") == "the storage 'x' needs other, which is not installed"
    )


def test_the_extras_exist():
    """Each extra that is named is one of this distribution."""
    from importlib.metadata import metadata  # noqa: PLC0415 - for this test alone

    assert set(plugins.EXTRAS.values()) <= set(metadata("session-triggers").get_all("Provides-Extra"))
