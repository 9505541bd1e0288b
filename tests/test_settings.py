import copy
import dataclasses
import pickle
import re
from pathlib import Path

import pytest

import asyncjobs
from asyncjobs import JobClient
from asyncjobs.errors import SettingsError
from asyncjobs.settings import MEBIBYTE, Settings, ignored_variables

SOURCE = Path(asyncjobs.__file__).parent
DEFAULTS = {
    "max_retries": 3,
    "retry_delay": 15.0,
    "retry_max_delay": 60.0,
    "timeout": None,
    "kill_grace": 2.0,
    "stop_grace": 10.0,
    "interruptions": 10,
    "max_params_bytes": 10 * MEBIBYTE,
    "max_result_bytes": 10 * MEBIBYTE,
    "max_output_bytes": MEBIBYTE,
    "allowed_jobs": None,
    "jobs": (),
    "sqlite_synchronous": "NORMAL",
}
WRONG = [
    ("max_retries", -1),
    ("max_retries", "three"),
    ("max_retries", "1.5"),
    ("max_retries", 1.5),
    ("max_retries", True),
    ("max_retries", None),
    ("retry_delay", -0.1),
    ("retry_delay", "soon"),
    ("retry_delay", "nan"),
    ("retry_delay", float("inf")),
    ("retry_delay", False),
    ("retry_max_delay", "1e999"),
    ("timeout", 0),
    ("timeout", -1),
    ("timeout", "never"),
    ("timeout", "inf"),
    ("kill_grace", -1),
    ("stop_grace", [1]),
    ("interruptions", -1),
    ("isolation", "docker"),
    ("isolation", None),
    ("max_params_bytes", 0),
    ("max_params_bytes", "10MB"),
    ("max_result_bytes", 1),
    ("max_output_bytes", -1),
    ("allowed_jobs", 7),
    ("allowed_jobs", ["a", 7]),
    ("jobs", None),
    ("jobs", {"a": 1}),
    ("sqlite_synchronous", "OFF"),
    ("sqlite_synchronous", 1),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory of its own; nothing of asyncjobs in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.__dataclass_fields__:
        monkeypatch.delenv(f"ASYNCJOBS_{name.upper()}", raising=False)
    return tmp_path


def write_table(folder, *lines):
    (folder / "pyproject.toml").write_text("\n".join(["[tool.asyncjobs]", *lines]))


@pytest.mark.parametrize(("name", "value"), DEFAULTS.items())
def test_what_nobody_sets_has_its_default(name, value):
    assert getattr(Settings(), name) == value


def test_the_table_of_the_project_wins_over_the_default(folder):
    write_table(folder, "max_retries = 5")

    assert Settings().max_retries == 5


def test_the_environment_wins_over_the_table(folder, monkeypatch):
    write_table(folder, "max_retries = 5")
    monkeypatch.setenv("ASYNCJOBS_MAX_RETRIES", "6")

    assert Settings().max_retries == 6


def test_a_keyword_wins_over_the_environment(folder, monkeypatch):
    write_table(folder, "max_retries = 5")
    monkeypatch.setenv("ASYNCJOBS_MAX_RETRIES", "6")

    assert Settings(max_retries=7).max_retries == 7


def test_a_keyword_of_none_wins_too(monkeypatch):
    monkeypatch.setenv("ASYNCJOBS_TIMEOUT", "30")

    assert Settings(timeout=None).timeout is None


def test_each_setting_is_looked_for_on_its_own(folder, monkeypatch):
    write_table(folder, "retry_delay = 1.5")
    monkeypatch.setenv("ASYNCJOBS_KILL_GRACE", "3")

    settings = Settings(max_retries=7)

    assert (settings.retry_delay, settings.kill_grace, settings.max_retries) == (1.5, 3.0, 7)


def test_the_table_is_that_of_the_nearest_project_above(folder, monkeypatch):
    write_table(folder, "max_retries = 5")
    (folder / "src" / "package").mkdir(parents=True)
    monkeypatch.chdir(folder / "src" / "package")

    assert Settings().max_retries == 5


def test_a_project_without_a_table_hides_the_ones_above(folder, monkeypatch):
    write_table(folder, "max_retries = 5")
    (folder / "inner").mkdir()
    (folder / "inner" / "pyproject.toml").write_text("[project]\nname = 'inner'")
    monkeypatch.chdir(folder / "inner")

    assert Settings().max_retries == 3


def test_the_environment_is_read_when_settings_are_made(monkeypatch):
    before = Settings()
    monkeypatch.setenv("ASYNCJOBS_MAX_RETRIES", "6")

    assert (before.max_retries, Settings().max_retries) == (3, 6)


@pytest.mark.parametrize(
    ("text", "names"),
    [("a", ("a",)), ("a,b", ("a", "b")), (" a , b ,", ("a", "b")), ("", ()), (",", ())],
)
def test_a_list_in_the_environment_is_separated_by_commas(monkeypatch, text, names):
    monkeypatch.setenv("ASYNCJOBS_ALLOWED_JOBS", text)

    assert Settings().allowed_jobs == names


def test_a_list_in_the_table_is_a_list(folder):
    write_table(folder, 'jobs = ["app.jobs.resize", "app.jobs.send"]')

    assert Settings().jobs == ("app.jobs.resize", "app.jobs.send")


@pytest.mark.parametrize("names", [["a", "b"], ("a", "b"), "a,b"], ids=["list", "tuple", "text"])
def test_a_list_by_keyword_has_any_form(names):
    assert Settings(allowed_jobs=names).allowed_jobs == ("a", "b")


def test_an_empty_timeout_in_the_environment_is_none(monkeypatch):
    monkeypatch.setenv("ASYNCJOBS_TIMEOUT", "")

    assert Settings().timeout is None


def test_the_level_of_synchronous_may_be_written_small():
    assert Settings(sqlite_synchronous="full").sqlite_synchronous == "FULL"


@pytest.mark.parametrize("isolation", ["spawn", "inline"])
def test_an_isolation_is_taken_by_its_name(isolation):
    assert Settings(isolation=isolation).isolation == isolation


def test_numbers_become_floats_where_seconds_are_meant():
    assert isinstance(Settings(kill_grace=1).kill_grace, float)


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_that_cannot_be_used_is_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=name):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "text"),
    [("max_retries", "three"), ("timeout", "-1"), ("max_output_bytes", ""), ("sqlite_synchronous", "OFF")],
)
def test_a_value_of_the_environment_that_cannot_be_used_is_refused_by_name(monkeypatch, name, text):
    monkeypatch.setenv(f"ASYNCJOBS_{name.upper()}", text)

    with pytest.raises(SettingsError, match=rf"the setting {name} .* \(from ASYNCJOBS_{name.upper()} in the env"):
        Settings()


@pytest.mark.parametrize("line", ["max_retries = true", "max_retries = 1.0", 'max_retries = "x"', "max_retries = []"])
def test_a_value_of_the_table_that_cannot_be_used_is_refused_by_name(folder, line):
    write_table(folder, line)

    with pytest.raises(SettingsError, match=r"max_retries .* \(from \[tool.asyncjobs\] in pyproject.toml\)"):
        Settings()


def test_a_refused_keyword_is_not_put_down_to_the_table(folder):
    write_table(folder, "max_retries = 5")

    with pytest.raises(SettingsError) as caught:
        Settings(max_retries=-5)

    assert "pyproject" not in str(caught.value)


def test_an_unknown_name_in_the_table_is_refused(folder):
    write_table(folder, "max_retry = 3")

    with pytest.raises(SettingsError, match=r"pyproject\.toml names what is no setting: 'max_retry' \(did you mean"):
        Settings()


@pytest.mark.parametrize("content", [b"[tool.asyncjobs", b"\xff\xfe"], ids=["no TOML", "no UTF-8"])
def test_a_project_file_that_cannot_be_read_is_named(folder, content):
    (folder / "pyproject.toml").write_bytes(content)

    with pytest.raises(SettingsError, match=r"pyproject\.toml can't be read"):
        Settings()


@pytest.mark.parametrize("content", ["tool = 7", "[tool]\nasyncjobs = 7"])
def test_a_table_that_is_none_is_refused(folder, content):
    (folder / "pyproject.toml").write_text(content)

    with pytest.raises(SettingsError, match=r"tool\.asyncjobs"):
        Settings()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ASYNCJOBS_MAX_PROCESES", "ASYNCJOBS_MAX_PROCESSES"),
        ("ASYNCJOBS_PROCESSES", "ASYNCJOBS_MAX_PROCESSES"),
        ("ASYNCJOBS_Timeout", "ASYNCJOBS_TIMEOUT"),
        ("asyncjobs_timeout", "ASYNCJOBS_TIMEOUT"),
        ("ASYNCJOBS_FAVOURITE_COLOUR", None),
    ],
)
def test_a_variable_that_names_no_setting_is_found_and_the_one_meant_is_named(monkeypatch, variable, meant):
    monkeypatch.setenv(variable, "3")

    assert ignored_variables() == [(variable, meant)]


@pytest.mark.parametrize(
    "variable", ["ASYNCJOBS_ENVIRONMENTS", "ASYNCJOBS_PROCESS", "ASYNCJOBS_TEST_SECONDS", "ASYNCJOB", "MAX_PROCESES"]
)
def test_a_setting_and_what_is_none_of_ours_is_not_taken_for_a_misspelt_one(monkeypatch, variable):
    monkeypatch.setenv(variable, "3")

    assert ignored_variables() == []


def test_every_variable_that_our_own_code_names_is_known(monkeypatch):
    source = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    named = set(re.findall(r"ASYNCJOBS_[A-Z_]*[A-Z](?![A-Z_])", source))
    for variable in named:
        monkeypatch.setenv(variable, "")

    assert "ASYNCJOBS_PGBOUNCER" in named
    assert ignored_variables() == []


def test_seconds_beyond_every_float_are_refused():
    with pytest.raises(SettingsError, match="retry_delay"):
        Settings(retry_delay=10**400)


@pytest.mark.parametrize("name", ["max_retries", "retry_delay", "timeout", "stop_grace"])
def test_a_number_beyond_all_use_is_refused(name):
    with pytest.raises(SettingsError, match=name):
        Settings(**{name: 2**63})


def test_a_keyword_that_is_no_setting_is_refused_and_the_one_meant_is_named():
    with pytest.raises(
        SettingsError, match=r"Settings has no 'max_proceses' \(did you mean 'max_processes'\?\); there"
    ):
        Settings(max_proceses=3)


def test_a_setting_without_its_name_is_refused():
    with pytest.raises(SettingsError, match=r"Settings takes keywords, such as .*, not 7"):
        Settings(7)


def test_settings_can_be_copied_changed_and_pickled():
    settings = Settings(max_retries=7)

    assert copy.deepcopy(settings) == pickle.loads(pickle.dumps(settings)) == settings
    assert dataclasses.replace(settings, max_retries=8) == Settings(max_retries=8)


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        Settings().max_retries = 7


@pytest.mark.parametrize("option", ["connect_timeout=5", "application_name=shop", "command_timeout=1"])
def test_an_option_that_asyncpg_does_not_take_in_a_url_is_refused_by_name(option):
    with pytest.raises(SettingsError, match=f"takes no {option.partition('=')[0]} here"):
        JobClient(f"postgresql://localhost/shop?{option}")


def test_the_options_of_a_postgresql_url_may_be_spelt_as_libpq_does():
    JobClient("postgresql://localhost/shop?sslmode=require&target_session_attrs=primary&schema=ours")
