"""Point ids: what is part of them, and what is not."""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import yaml

from research.data.pairs import PairData
from research.losses import contrastive, language, preference, ranking
from research.runs import defaults, identity, known_code
from research.runs.changes import CHANGES, Change, has_router_loss
from research.runs.defaults import KNOWN, SINCE, spelled, without_later_defaults
from research.runs.hashes import hash_json
from research.runs.identity import differences, ids_of
from research.runs.known_code import numbers_key, stale_because
from research.runs.options import options_from
from research.runs.spelling import HOW, one_spelling, without

HEAD = Path(__file__).parents[1] / "fixtures/head"
RUNS = [path.parent for path in sorted(HEAD.rglob("provenance.json")) if "point" in json.loads(path.read_text())]


def read(run: Path) -> tuple[dict, str, dict, str]:
    facts = json.loads((run / "provenance.json").read_text())
    return yaml.safe_load((run / "config.yaml").read_text()), facts["model_hash"], facts["data"], facts["point"]


def point_of(*made_of) -> str:
    return ids_of(*made_of)[0]


def changed(config: dict, **options) -> dict:
    """A configuration with options by dotted name, `__` for a dot."""
    config = json.loads(json.dumps(config))
    for name, value in options.items():
        *sections, option = name.split("__")
        part = config
        for section in sections:
            part = part[section]
            part = part.get("init_args", part)
        part[option] = value
    return config


def test_the_ids_of_what_was_typed_are_among_the_ids():
    """Once `--trainer.devices 2` was the text "2", and precision: 32 the number."""
    config, base, data, _ = read(HEAD / "runs/dual")
    now = changed(config, trainer__devices=2, trainer__precision="32-true")
    for devices, precision in ((2, "32-true"), ("2", "32-true"), ("2", 32), (2, "32")):
        typed = changed(config, trainer__devices=devices, trainer__precision=precision)
        old = without(typed, (*HOW, *identity.PATHS))
        assert hash_json([old, base, data])[: identity.LENGTH] in ids_of(now, base, data)


@pytest.fixture
def dual():
    config, base, data, _ = read(HEAD / "runs/dual")
    return lambda **options: point_of(changed(config, **options), base, data)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: str(run.relative_to(HEAD)))
def test_the_id_of_before_is_one_of_the_ids(run):
    config, base, data, point = read(run)
    assert point in ids_of(config, base, data)


def test_devices_at_an_equal_global_batch_are_one_point(dual):
    assert dual() == dual(trainer__devices=1) == dual(trainer__devices="1")
    two = {"trainer__devices": 2, "trainer__strategy": "ddp"}
    assert dual(**two, data__batch_size=2) == dual(trainer__devices=[0, 1], data__batch_size=2) == dual()
    assert dual(trainer__num_nodes=4, trainer__devices=1, data__batch_size=1) == dual()
    assert dual(**two) == dual(data__batch_size=8) != dual()
    # without a gather each process has negatives of its own: there the number of processes tells
    assert dual(**two, data__batch_size=2, model__gather=False) != dual(model__gather=False)
    # how many devices "auto" means is known on the machine alone
    assert dual(trainer__accelerator="auto", trainer__devices="auto") != dual()


def test_an_option_at_its_documented_default_is_no_part(dual):
    """Lightning's default is None, of which it makes the value that its documentation names."""
    for name in ("train", "val", "test"):
        assert dual(**{f"trainer__limit_{name}_batches": 1.0}) == dual() != dual(**{f"trainer__limit_{name}_batches": 1})
    assert dual(trainer__precision="32-true") == dual(trainer__precision=None) != dual(trainer__precision="64-true")
    assert dual(trainer__val_check_interval=1.0) == dual(trainer__val_check_interval=None)


def test_the_id_of_a_documented_default_that_was_spelled_is_known():
    config, base, data, _ = read(HEAD / "runs/dual")
    typed = changed(config, trainer__precision="32-true", trainer__devices=2, data__batch_size=2)
    old = without(one_spelling(spelled(typed), {}), (*HOW, *identity.PATHS))
    assert old["trainer"]["precision"] == "32-true"
    assert hash_json([old, base, data])[: identity.LENGTH] in ids_of(typed, base, data)


def test_what_says_how_is_no_part(dual):
    how = {
        "model__fast": False,
        "data__chunk_overhead": 64,
        "data__workers": 2,
        "trainer__profiler": "simple",
        "out": "x",
        "data__train": "beir:elsewhere",
    }
    for name, value in how.items():
        assert dual(**{name: value}) == dual(), name
    assert dual(trainer__accelerator="gpu", trainer__devices=1) == dual()
    for name, value in {
        "model__temperature": 0.1,
        "trainer__precision": "bf16-mixed",
        "seed_everything": 1,
        "model__optimisation": {"lr": 1.0},
    }.items():
        assert dual(**{name: value}) != dual(), name


class Optimised:
    """Stands for a class of ours that has got an option since."""

    def __init__(self, known: int = 1, since: float = 0.5, later: tuple[int, ...] = (1, 2)): ...


class Own(Optimised):
    """Stands for a user's subclass."""

    def __init__(self, own: str = "a", **more): ...


@pytest.fixture
def optimised(monkeypatch):
    name = f"{__name__}.{{}}"
    monkeypatch.setitem(KNOWN, name.format("Optimised"), ["known"])
    for table in (defaults._known, defaults._later):
        table.cache_clear()
    yield lambda which="Optimised", **init: {"model": {"class_path": name.format(which), "init_args": init}}
    for table in (defaults._known, defaults._later):
        table.cache_clear()


def test_an_option_that_came_later_is_no_part_at_its_default(optimised):
    def one(**init):
        return point_of(optimised(**init), "base", {})

    before = one(known=1)
    assert one(known=1, since=0.5) == one(known=1, since=0.5, later=[1, 2]) == before
    assert len({before, one(known=1, since=0.6), one(known=2), one(), one(known=1, later=[1])}) == 5


def test_a_default_that_changes_is_named_from_then_on(optimised, monkeypatch):
    monkeypatch.setitem(SINCE, f"{__name__}.Optimised", {"since": 0.25})  # it came with .25; now the class says .5
    before = point_of(optimised(known=1), "base", {})
    assert point_of(optimised(known=1, since=0.25), "base", {}) == before
    assert point_of(optimised(known=1, since=0.5), "base", {}) != before


LOSSES = {name for room in (contrastive, language, preference, ranking) for name in room.LOSSES}


@pytest.mark.parametrize("trainer", ["dual", "cross", "sft", "dpo"])
def test_two_losses_never_share_an_id(trainer):
    """A loss that a user adds may have the name of another trainer's."""
    config, base, data, point = read(HEAD / "runs" / trainer)
    ids = {name: ids_of(changed(config, model__loss=name), base, data) for name in sorted(LOSSES)}
    assert len({one for several in ids.values() for one in several}) == sum(map(len, ids.values()))
    first, *others = sorted(ids, key=lambda name: point not in ids[name])  # the trainer's own default
    assert point in ids[first]
    for name in others:
        assert differences(changed(config, model__loss=first), changed(config, model__loss=name)) != {}
    shown = {name: options_from(without_later_defaults(changed(config, model__loss=name))) for name in ids}
    assert len({shown[name].get("model.loss") for name in ids}) == len(ids)


class Separate:
    """Stands for a user's trainer that inherits nothing of ours, and has options of the same names."""

    def __init__(self, loss: str = "mine", columns: str = "all"): ...


def test_an_option_of_the_user_s_own_is_dropped_at_its_own_default_alone(optimised):
    ids = {value: point_of(optimised("Separate", loss=value), "base", {}) for value in ("mine", *sorted(LOSSES))}
    assert len({*ids.values()}) == len(ids)
    assert ids["mine"] == point_of(optimised("Separate"), "base", {})
    assert point_of(optimised("Separate", columns=None), "base", {}) != point_of(
        optimised("Separate", columns="all"), "base", {}
    )
    shown = [without_later_defaults(optimised("Separate", loss=value)) for value in ids]
    assert all(one not in shown[:i] for i, one in enumerate(shown))


class Calling:
    """Stands for a user's class that inherits nothing of ours: options of the same names say what is computed."""

    def __init__(self, fast: int = 0, workers: int = 0, chunk_overhead: int = 0): ...


class Inheriting(PairData):
    """Stands for a user's subclass, which hands these options on."""


@pytest.mark.parametrize(("section", "option"), [("model", "fast"), ("data", "workers"), ("data", "chunk_overhead")])
def test_an_option_of_another_class_is_not_mistaken_for_ours_of_that_name(section, option):
    def config(owner: str, value: int) -> dict:
        return {section: {"class_path": owner, "init_args": {option: value}}}

    one, other = (config(f"{__name__}.Calling", value) for value in (1, 2))
    assert not {*ids_of(one, "base", {})} & {*ids_of(other, "base", {})}
    assert differences(one, other) == {f"{section}.init_args.{option}": (1, 2)}
    for owner in ("research.data.pairs.PairData", f"{__name__}.Inheriting"):
        one, other = (config(owner, value) for value in (1, 2))
        assert differences(one, other) == {}
        assert point_of(one, "base", {}) == point_of(other, "base", {})


def test_a_users_subclass_drops_what_its_trainer_drops(optimised, monkeypatch):
    monkeypatch.setitem(SINCE, f"{__name__}.Optimised", {"since": 0.5})
    assert point_of(optimised("Own", known=1, since=0.5), "base", {}) == point_of(optimised("Own", known=1), "base", {})


def test_a_users_subclass_is_found_under_the_id_that_spells_all(optimised):
    whole = optimised("Own", known=1, own="a")
    new, old = ids_of(whole, "base", {})
    assert new == point_of(optimised("Own", known=1), "base", {}) != point_of(optimised("Own", known=1, own="b"), "base", {})
    assert old == hash_json([whole, "base", {}])[: identity.LENGTH]


def test_facts_of_data_that_came_later_and_say_nothing_are_no_part():
    assert point_of({}, "base", {"train": "x", "blank": 0}) == point_of({}, "base", {"train": "x"})
    assert point_of({}, "base", {"train": "x", "blank": 1}) != point_of({}, "base", {"train": "x"})
    assert point_of({}, "base", {"train": None}) != point_of({}, "base", {})


def test_differences_are_of_what_is_computed():
    config, *_ = read(HEAD / "runs/dual")
    assert differences(config, changed(config, trainer__devices=2, data__batch_size=2, model__fast=False)) == {}
    assert differences(config, changed(config, trainer__devices=2)) == {"trainer.devices": ("auto", 2)}
    assert differences(config, changed(config, data__batch_size=8)) == {"data.init_args.batch_size": (4, 8)}
    assert differences(config, changed(config, model__temperature=0.1)) == {"model.init_args.temperature": (0.05, 0.1)}
    assert differences(config, changed(config, data__train="y")) == {"data.init_args.train": ("beir:beir", "y")}


def test_every_option_of_ours_is_known_or_came_later_with_a_default():
    """A new option of a training or of its data goes into SINCE with its first default, so that ids and reports stay."""
    missing = []
    for path, known in KNOWN.items():
        if not path.startswith("research."):
            continue
        for name, one in inspect.signature(defaults._class(path).__init__).parameters.items():
            if name in ("self", "seed"):
                continue
            inner = (
                [f"{name}.{field.name}" for field in dataclasses.fields(one.default)]
                if (dataclasses.is_dataclass(one.default))
                else []
            )
            missing += [
                f"{path}: {place}" for place in (name, *inner) if place not in known and place not in SINCE.get(path, {})
            ]
    assert missing == []


def test_stale_is_what_a_change_touches(monkeypatch):
    changes = (Change("first", "a was wrong", lambda c: c["a"] > 1), Change("second", "b was wrong", lambda c: c["b"] > 1))
    monkeypatch.setattr(known_code, "CHANGES", changes)
    monkeypatch.setattr(known_code, "known_code", lambda: {"old": 0, "mid": 1, "new": 2, "newer": 2})
    monkeypatch.setattr(known_code, "fingerprint", lambda config: "newer")
    assert stale_because(["old"], {"a": 1, "b": 1}) == ""
    assert stale_because(["old"], {"a": 2, "b": 2}) == "a was wrong; b was wrong"
    assert stale_because(["mid"], {"a": 2, "b": 2}) == stale_because(["new", "mid"], {"a": 2, "b": 2}) == "b was wrong"
    assert stale_because(["new"], {"a": 2, "b": 2}) == ""
    assert "other code than this (own)" in stale_because(["own"], {"a": 1, "b": 1})
    assert "other code" in stale_because([None], {"a": 1, "b": 1})
    keys = {code: numbers_key([code], {"a": 2, "b": 1}) for code in ("old", "mid", "new", "newer", "own")}
    assert keys["mid"] == keys["new"] == keys["newer"] != keys["old"]
    assert keys["own"] not in (keys["old"], keys["new"])
    assert len({numbers_key([code], {"a": 1, "b": 1}) for code in ("old", "mid", "new")}) == 1


def test_what_the_data_tells_is_stale_by_its_count(monkeypatch):
    """A run of before the count is found under its id, and is stale where there is something to count."""
    config, base, data, point = read(HEAD / "runs/dual")
    counted = data | {"known_by_text": 3}
    new, *former = ids_of(config, base, counted)
    assert new != point
    assert point in former
    monkeypatch.setattr(known_code, "known_code", lambda: {"old": 0, "new": 0})
    monkeypatch.setattr(known_code, "fingerprint", lambda config: "new")
    assert "queries of equal text" in stale_because(["old"], config, data=(data, counted))
    assert stale_because(["old"], config, data=(data, data)) == stale_because(["old"], config, data=(counted, counted)) == ""


def test_a_base_model_that_is_not_here_decides_nothing(tmp_path, monkeypatch):
    """Where only the model can tell, a run is stale and apart; found from the run's own place, it tells wherever one stands."""
    monkeypatch.setattr(known_code, "known_code", lambda: {"old": 0, "new": len(CHANGES)})
    monkeypatch.setattr(known_code, "fingerprint", lambda config: "new")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, facts in (("dense", {}), ("experts", {"num_local_experts": 4, "router_aux_loss_coef": 0.01})):
        (tmp_path / "place/models" / name).mkdir(parents=True)
        (tmp_path / "place/models" / name / "config.json").write_text(json.dumps(facts))
        run, config = tmp_path / "place/runs" / name, tuned(model=f"models/{name}") | {"out": f"runs/{name}"}
        monkeypatch.chdir(tmp_path)
        assert "models/{} is not here".format(name) in stale_because(["old"], config)  # noqa: UP032
        assert numbers_key(["old"], config) != numbers_key(["new"], config)
        from_elsewhere = stale_because(["old"], config, run), numbers_key(["old"], config, run)
        monkeypatch.chdir(tmp_path / "place")
        assert from_elsewhere == (stale_because(["old"], config), numbers_key(["old"], config))
        assert ("router's loss" in from_elsewhere[0]) == (name == "experts")
    assert "org/unknown is not here" in stale_because(["old"], tuned(model="org/unknown"))


def test_a_model_of_the_hub_s_cache_or_of_a_package_is_read_there(tmp_path, monkeypatch):
    import huggingface_hub

    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/config.json").write_text('{"router_aux_loss_coef": 0.01}')
    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda repo, file, revision=None: asked.append((repo, revision)) or str(tmp_path / "snapshot" / file),
    )
    assert touched(tuned(model="org/name@v1")) == touched(tuned(model="org/name")) == ["router-loss"]
    assert {*asked} == {("org/name", "v1"), ("org/name", None)}
    package = tmp_path / "packaged_experts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, keys in (("dense", b"llama.block_count"), ("experts", b"qwen2moe.expert_count")):
        (package / f"{name}.gguf").write_bytes(b"GGUF" + keys)
    monkeypatch.syspath_prepend(tmp_path)
    assert has_router_loss(tuned(model="pkg:packaged_experts/dense.gguf")) is False
    assert has_router_loss(tuned(model="pkg:packaged_experts/experts.gguf")) is True


def test_processes_tell_where_a_router_is_trained(tmp_path):
    """Its loss is of the tokens that one process has: it is no mean over rows."""
    for name, facts in (("dense", {}), ("experts", {"router_aux_loss_coef": 0.01})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(facts))
        config, base, data, _ = read(HEAD / "runs/sft")
        config = changed(config, model__model=str(tmp_path / name))
        size = config["data"]["init_args"]["batch_size"]
        two = changed(config, trainer__devices=2, trainer__strategy="ddp", data__batch_size=size // 2)
        assert (ids_of(two, base, data)[0] == ids_of(config, base, data)[0]) == (name == "dense")


def test_an_option_that_a_release_of_peft_lacks_has_its_old_default():
    config, base, data, point = read(HEAD / "runs/sft")
    for name in ("velora_config", "lora_bias"):
        lacking = json.loads(json.dumps(config))
        del lacking["model"]["init_args"]["adapter"]["init_args"][name]
        assert ids_of(lacking, base, data) == ids_of(config, base, data)
        assert point in ids_of(lacking, base, data)


def test_where_rows_named_by_id_lie_is_no_part(dual):
    assert dual(data__corpus_file="a.tsv", data__queries_file="q.tsv") == dual(
        data__corpus_file="elsewhere/a.tsv", data__queries_file="b.tsv"
    )


def test_what_other_code_computed_is_stale_where_this_code_is_somebodys_own(monkeypatch):
    monkeypatch.setattr(known_code, "known_code", lambda: {"old": 0})
    monkeypatch.setattr(known_code, "fingerprint", lambda config: "edited")
    assert stale_because(["edited"], {}) == ""
    assert "other code" in stale_because(["old"], {})


def tuned(module: str = "SFTModule", **options) -> dict:
    """A resolved configuration with some options of its module."""
    model = {"class_path": f"research.training.x.{module}", "init_args": {"model": "nowhere", **options}}
    return {"model": model, "trainer": {}}


def peft(kind: str, **options) -> dict:
    return {"class_path": f"peft.{kind}", "init_args": options}


def touched(config: dict) -> list[str]:
    return [change.name for change in CHANGES if change.touches(config)]


def test_changes_touch_what_they_name_and_nothing_else(tmp_path):
    for place in ("dense", "experts", "window", "base"):
        (tmp_path / place).mkdir()
    facts = {
        "dense": {"attention_dropout": 0.0},
        "experts": {"output_router_logits": True, "router_aux_loss_coef": 0.01},
        "window": {"sliding_window": 16, "attention_dropout": 0},
        "base": {},
    }
    for place, config in facts.items():
        (tmp_path / place / "config.json").write_text(json.dumps(config))
    dense, experts, window = (str(tmp_path / place) for place in ("dense", "experts", "window"))
    for temperature, learned, expected in ((1.0, False, True), (0.005, False, True), (0.05, False, False), (0.5, True, False)):
        config = tuned("DualEncoderModule", temperature=temperature, learn_temperature=learned, temperature_range=[0.01, 0.5])
        assert touched(config) == ["fixed-temperature"] * expected
    assert touched(tuned(model=experts)) == touched(tuned("DPOModule", model=experts)) == ["router-loss"]
    assert touched(tuned("DualEncoderModule", model=experts)) == touched(tuned(model=dense)) == touched(tuned()) == []
    prefix = {"adapter": peft("PrefixTuningConfig"), "metrics": ["loss", "rouge_l"]}
    assert touched(tuned(model=window, **prefix)) == ["prefix-in-a-window"]
    assert touched(tuned(model=window, **prefix | {"metrics": ["loss"]})) == touched(tuned(model=dense, **prefix)) == []
    assert touched(tuned("DualEncoderModule", model=window, dropout=0.1)) == ["whole-dropout"]
    assert touched(tuned("DualEncoderModule", model=dense, dropout=0.1)) == []
    lora = {"adapter": peft("LoraConfig", layer_replication=[[0, 2]])}
    assert touched(tuned("DPOModule", **lora)) == ["replicated-reference"]
    assert touched(tuned(**lora)) == touched(tuned("DPOModule", adapter=peft("LoraConfig", layer_replication=None))) == []
    lstm = {"encoder_reparameterization_type": "LSTM", "encoder_dropout": 0.1}
    assert touched(tuned(adapter=peft("PromptEncoderConfig", **lstm))) == ["p-tuning-dropout"]
    assert touched(tuned(adapter=peft("PromptEncoderConfig", **lstm | {"encoder_dropout": 0.0}))) == []
    for path, expected in (("EMAWeightAveraging", True), ("StochasticWeightAveraging", False), ("EarlyStopping", False)):
        callback = {"class_path": f"lightning.pytorch.callbacks.{path}", "init_args": {}}
        assert touched(tuned() | {"trainer": {"callbacks": [callback]}}) == ["averaged-weights"] * expected
    plugin = {"class_path": "lightning.pytorch.plugins.MixedPrecision", "init_args": {"precision": "16-mixed"}}
    assert touched(tuned() | {"trainer": {"plugins": [plugin]}}) == ["scaled-gradients"]


def test_a_template_of_an_adapter_s_own_touches_it(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for place in (base, adapter):
        place.mkdir()
    (base / "config.json").write_text("{}")
    (base / "chat_template.jinja").write_text("base")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert touched(tuned(model=str(adapter))) == []
    (adapter / "chat_template.jinja").write_text("base")
    assert touched(tuned(model=str(adapter))) == []
    (adapter / "chat_template.jinja").write_text("own")
    assert touched(tuned(model=str(adapter))) == ["own-template"]
    assert touched(tuned(model=str(base))) == []
    assert touched(tuned("DualEncoderModule", model=str(base))) == ["encoder-template"]
    (base / "modules.json").write_text("[]")
    assert touched(tuned("DualEncoderModule", model=str(base))) == []


@pytest.mark.parametrize(
    ("targets", "more", "stale"),
    [
        (["q_proj", "lm_head"], {}, True),
        (["model.lm_head"], {}, True),
        ("(.*q_proj|lm_head)", {}, True),
        ("lm_head", {}, True),
        (["q_proj", "embed_tokens"], {"ensure_weight_tying": True}, True),
        (["q_proj", "embed_tokens"], {}, False),
        ("all-linear", {}, False),
        (["q_proj"], {"modules_to_save": ["lm_head"]}, False),
        (".*q_proj", {}, False),
    ],
)
def test_lora_on_the_output_layer_is_stale(targets, more, stale, tmp_path):
    values = {"target_modules": targets, **more}
    adapter = {"class_path": "peft.LoraConfig", "init_args": values}
    assert ("output-layer-lora" in touched(tuned(adapter=adapter))) is stale
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x", **values}))
    assert ("output-layer-lora" in touched(tuned(model=str(tmp_path), adapter=None))) is stale


@pytest.mark.parametrize(
    ("settings", "words", "stale"),
    [
        ({"add_eos_token": True}, {}, True),
        ({"eos_token": "</s>"}, {}, False),
        ({"eos_token": {"content": "</s>"}}, {"post_processor": {"single": [{"SpecialToken": {"id": "</s>"}}]}}, True),
        ({"eos_token": "</s>"}, {"post_processor": ["another", "form"]}, False),
        ({"eos_token": "</s>"}, {"post_processor": {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {}}]}}, False),
    ],
)
def test_answers_after_an_end_are_stale(settings, words, stale, tmp_path):
    for name, values in (("config", {}), ("tokenizer_config", settings), ("tokenizer", words)):
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    assert touched(tuned(model=str(tmp_path), metrics=["loss", "rouge_l"])) == (["ended-prompts"] if stale else [])
    assert touched(tuned(model=str(tmp_path), metrics=["loss"])) == []


@pytest.mark.parametrize("run", RUNS, ids=lambda run: str(run.relative_to(HEAD)))
def test_no_change_touches_what_was_trained_at_head(run):
    assert touched(read(run)[0]) == []
