"""What a configuration may name. The hostile paths must be refused, and none may be executed."""

import sys
from pathlib import Path

import pytest

from fedpref.cli.targets import build, check, resolve
from fedpref.errors import ConfigurationError
from fedpref.strategies.fedprox import FedProx

HOSTILE = [
    "os.system",
    "posix.system",
    "logging.os.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "pickle.loads",
    "marshal.loads",
    "subprocess.Popen",
    "subprocess.run",
    "distutils.spawn.spawn",
    "joblib.load",
    "pathlib.Path.write_text",
    "pathlib.Path",
    "multiprocessing.Process",
    "threading.Thread",
    "ctypes.CDLL",
    "importlib.import_module",
    "runpy.run_path",
    "shutil.rmtree",
    "socket.socket",
    "urllib.request.urlopen",
    "torch.load",
    "torch.hub.load",
    "numpy.load",
    "numpy.save",
    "hydra.utils.instantiate",
    "hydra._internal.utils._locate",
    "ray.init",
    "flwr.simulation.run_simulation",
    "flwr.serverapp.strategy.fedadam.np.save",
    "flwr.serverapp.strategy.fedadam.np.ndarray",
    "flwr.serverapp.strategy.fedavg.Grid",
    "flwr.serverapp.strategy.strategy.time.sleep",
    "flwr.serverapp.strategyx.FedAvg",
    "fedpref.cli.run.signal.signal",
    "fedpref.cli.run.Path",
    "fedpref.cli.main",
    "fedpref.federation.checkpoint.shutil.rmtree",
    "fedpref.strategies.fedavg.np.save",
    "fedpref.strategies.global_model.stepped",
    "fedpref.strategies.fedavg",
    "fedpref.strategies.fedavg.FedAvg.init",
    "fedpref.strategies.fedavg.FedAvg.__init__.__globals__",
    "fedpref.strategies.fedavg.FedAvg.__class__",
    "fedpref..strategies",
    "fedpref.strategies.fedavg.FedAvg()",
    "fedpref",
    "",
    "FedAvg",
    "../fedpref.strategies",
    ".fedpref.strategies.fedavg.FedAvg",
    None,
    7,
    ["fedpref.strategies.fedavg.FedAvg"],
]


@pytest.mark.parametrize("target", HOSTILE)
def test_a_hostile_target_is_refused_with_key_and_mend(target: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(target, "strategy._target_")
    assert str(caught.value).startswith("strategy._target_=")
    assert "--allow" in str(caught.value)


@pytest.mark.parametrize("target", [target for target in HOSTILE if isinstance(target, str)])
def test_a_hostile_target_is_found_anywhere_in_the_tree(target: str) -> None:
    with pytest.raises(ConfigurationError):
        check({"_target_": "fedpref.strategies.fedavg.FedAvg", "combine": {"_target_": target}}, "strategy")
    with pytest.raises(ConfigurationError):
        build({"deep": [{"deeper": {"_target_": target}}]}, "data")


def test_modules_outside_the_allowed_packages_are_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="outside the allowed packages"):
        resolve("trap_module.Thing", "strategy._target_")
    assert "trap_module" not in sys.modules


def test_a_package_named_by_allow_is_reached_and_its_imports_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guest_strategy.py").write_text("from pathlib import Path\nclass Guest:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    allowed = ("fedpref", "guest_strategy")
    assert resolve("guest_strategy.Guest", "strategy._target_", allowed).__name__ == "Guest"
    with pytest.raises(ConfigurationError, match="is a class of pathlib"):
        resolve("guest_strategy.Path", "strategy._target_", allowed)


def test_classes_of_fedpref_and_flowers_strategies_resolve() -> None:
    assert resolve("fedpref.strategies.fedprox.FedProx", "strategy._target_") is FedProx
    assert resolve("flwr.serverapp.strategy.FedAdam", "strategy._target_").__name__ == "FedAdam"


def test_a_misspelt_class_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'FedProx'"):
        resolve("fedpref.strategies.fedprox.FedProxx", "strategy._target_")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"muu": 0.1}, r"unknown option 'strategy\.muu'\. Did you mean 'mu'\? FedProx takes"),
        ({"mu": "strong"}, r"strategy\.mu='strong' is not a number"),
        ({"mu": True}, r"strategy\.mu=True is not a number"),
        ({"cohort_size": 2.5}, r"strategy\.cohort_size=2\.5 is not an integer or null"),
        ({"share": "people"}, r"strategy\.share='people' is not one of pairs, sqrt, clients"),
        ({"_partial_": True}, r"unknown option 'strategy\._partial_'"),
        ({"_args_": [1]}, r"unknown option 'strategy\._args_'"),
        ({"mu": -1.0}, r"strategy\.mu=-1\.0 must be 0 or more"),
    ],
)
def test_a_wrong_option_is_named_with_its_mend(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build({"_target_": "fedpref.strategies.fedprox.FedProx", **options}, "strategy")


def test_a_built_object_has_the_given_options_and_its_own_defaults() -> None:
    node = {
        "_target_": "fedpref.strategies.fedprox.FedProx",
        "mu": 1,
        "combine": {"_target_": "fedpref.maths.lora.SvdMean"},
    }
    built = build(node, "strategy")
    assert (built.mu, built.share, type(built.combine).__name__) == (1, FedProx().share, "SvdMean")


def test_a_required_option_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.path is required"):
        build({"_target_": "fedpref.data.sources.PreferenceFile"}, "data")


def test_a_class_that_cannot_play_the_part_is_not_built_although_it_is_allowed(tmp_path: Path) -> None:
    log = {"_target_": "fedpref.report.jsonl.JsonLines", "path": str(tmp_path / "log.jsonl")}
    node = {"_target_": "fedpref.strategies.fedavg.FedAvg", "combine": log}
    with pytest.raises(ConfigurationError, match=r"strategy\.combine\._target_=.*JsonLines is no Combine"):
        build(node, "strategy")
    assert not list(tmp_path.iterdir())


def test_a_function_cannot_be_given_as_text() -> None:
    node = {"_target_": "flwr.serverapp.strategy.FedAvg", "train_metrics_aggr_fn": "os.system"}
    with pytest.raises(ConfigurationError, match=r"'os\.system' is not a function"):
        build(node, "strategy")
