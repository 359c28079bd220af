import pytest

from fedpref.cli.build import check_config, supplied
from fedpref.cli.compose import GROUPS, NODES, compose, jobs, options_of, parse_words, plain
from fedpref.cli.targets import check
from fedpref.errors import ConfigurationError


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("strategi=krum", "unknown option 'strategi'. Did you mean 'strategy'?"),
        ("roundz=3", "unknown option 'roundz'. Did you mean 'rounds'?"),
        ("strategy=fedprx", "strategy=fedprx does not exist. Did you mean 'fedprox'?"),
        ("rounds", "'rounds' is not of the form key=value"),
        ("hydra.run.dir=../../x", "hydra.run.dir is derived; choose out=DIR and name=NAME"),
        ("hydra.sweep.dir=/x", "hydra.sweep.dir is derived"),
        ("split=half", "split holds options; set split.OPTION=VALUE"),
        ("strategy=null", "strategy=None does not exist"),
        ("~strategy", "'~strategy' leaves no strategy, which every run needs"),
        ("~rounds", "'~rounds' leaves no rounds"),
        ("seed=1,2", "'seed=1,2' is a sweep; add -m"),
        ("--dryrun", "unknown option '--dryrun'. Did you mean '--dry-run'?"),
    ],
)
def test_a_wrong_word_is_named_with_its_mend(word: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_words([word])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("client.local_stepz=3", r"unknown option 'client\.local_stepz'\. Did you mean 'local_steps'"),
        ("client.lr=fast", r"client\.lr='fast' is not a number"),
        ("data.preset=clusterz", r"Did you mean 'clusters'"),
        ("rounds=0", r"rounds=0 must be an integer, at least 1"),
        ("rounds=many", r"rounds='many' must be an integer"),
        ("seed=-1", r"seed=-1 must be an integer, at least 0"),
        ("cohort_size=half", r"cohort_size='half' must be an integer or null"),
        ("cohort_size=0", r"cohort_size=0 must be at least 1"),
        ("checkpoint.evry=1", r"unknown option 'checkpoint\.evry'"),
        ("evaluation.every=0", r"evaluation\.every=0 must be an integer, at least 1"),
        ("evaluation.few_shot_resamples=-1", r"few_shot_resamples=-1 must be an integer, at least 0"),
        ("strategy._target_=flwr.serverapp.strategy.fedadam.np.save", "is not a class"),
        ("+strategy.extra=1", r"unknown option 'strategy\.extra'"),
        ("seed=9223372036854775808", r"seed=9223372036854775808 must be below 2\*\*63"),
        ("out=null", "out=None must be text"),
        ("out=", "out='' must name a folder"),
        ("name=null", "name=None must be text"),
        ("executor._target_=fedpref.strategies.fedavg.FedAvg", "is no Executor: it lacks start"),
        (
            "strategy._target_=fedpref.clients.linear_reward.LinearReward",
            "is no Strategy: it lacks init, plan",
        ),
        ("strategy._target_=flwr.serverapp.strategy.result.Result", "is no Strategy"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_loaded(word: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_config(plain(compose(parse_words([word]).all_overrides)))


def test_a_mandatory_value_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.path is required; set data\.path=VALUE"):
        plain(compose(parse_words(["data=jsonl"]).all_overrides))


def test_options_that_stand_only_in_the_dataclass_can_be_set() -> None:
    config = plain(compose(parse_words(["client.lr=0.5", "data.shares=[0.8,0.2]"]).all_overrides))
    assert config["client"]["lr"] == 0.5
    assert config["data"]["shares"] == [0.8, 0.2]


def test_a_sweep_is_the_product_of_its_choices() -> None:
    words = parse_words(["-m", "strategy=fedavg,fedprox", "seed=0,1", "client.lr=0.1"])
    assert jobs(words) == [
        [f"strategy={strategy}", f"seed={seed}", "++client.lr=0.1"]
        for strategy in ("fedavg", "fedprox")
        for seed in (0, 1)
    ]


def test_flags_are_sorted_out() -> None:
    words = parse_words(["--allow", "mine", "--allow=yours", "--dry-run", "--cfg", "job", "seed=1"])
    assert words.allow == ("mine", "yours")
    assert words.dry_run and words.hydra_flags == ("--cfg", "job") and words.overrides == ("seed=1",)
    assert parse_words(["--info=defaults"]).hydra_flags == ("--info", "defaults")
    with pytest.raises(ConfigurationError, match="--cfg needs a value, one of job, hydra, all"):
        parse_words(["--cfg", "nonsense"])
    with pytest.raises(ConfigurationError, match="--allow needs a value"):
        parse_words(["--allow"])
    with pytest.raises(ConfigurationError, match="not a directory"):
        parse_words(["--config-dir", "no/such/folder"])


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group in GROUPS for option in options_of(group)]
)
def test_every_file_of_every_group_composes_and_names_a_class(group: str, option: str) -> None:
    overrides = [f"{group}={option}", "++data.path=x", "++data.id=x", "++backbone.model=x", "++fleet.path=x"]
    needed = {"jsonl": [1], "hub": [2], "hf": [3], "traces": [4]}.get(option, [])
    config = plain(compose([overrides[0], *(overrides[i] for i in needed)]))
    for node in (*NODES, *GROUPS):
        value = config.get(node)
        if isinstance(value, dict) and "_target_" in value:
            given = {"client": ("backbone",), "backbone": supplied(config["backbone"])}.get(node, ())
            check(value, node, given)


@pytest.mark.parametrize(("word", "rounds"), [("experiment=demo", 15), ("debug=one_round", 1)])
def test_a_preset_changes_the_keys_that_it_names_and_the_command_line_wins(word: str, rounds: int) -> None:
    assert compose([word]).rounds == rounds
    assert compose([word, "rounds=7"]).rounds == 7
