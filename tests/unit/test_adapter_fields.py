"""Every field of PEFT's configurations does what it says, or is refused by its name."""

import dataclasses
import warnings

import peft
import pytest
import torch

from research.errors import UserError
from research.models import adapters
from research.models.adapter_fields import HONOURED, check_fields, peft_warnings
from research.models.adapter_names import check_names
from tests.lm import tiny_llama

CAUSAL = {"task_type": "CAUSAL_LM"}
METHODS = {
    "LORA": peft.LoraConfig,
    "PROMPT_TUNING": peft.PromptTuningConfig,
    "PREFIX_TUNING": peft.PrefixTuningConfig,
    "P_TUNING": peft.PromptEncoderConfig,
}


def lora(**more):
    return peft.LoraConfig(**({"r": 4, "target_modules": ["q_proj", "v_proj"]} | CAUSAL | more))


def attached(config):
    """The way of a training: the fields first, then the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_fields(config)
        torch.manual_seed(0)
        return adapters.attach(tiny_llama(), config)


REFUSED = {
    "rank of no target": (lambda: lora(rank_pattern={"k_proj": 16}), r"names 'k_proj', which no adapted module has; .*q_proj"),
    "one rank of two": (lambda: lora(rank_pattern={"q_proj": 2, "qproj": 16}), r"names 'qproj'.*did you mean 'q_proj'"),
    "alpha of no target": (lambda: lora(alpha_pattern={"layers.7": 16}), r"alpha_pattern names 'layers\.7'"),
    "rank of 0": (lambda: lora(rank_pattern={"q_proj": 0}), r"rank_pattern has 0 for 'q_proj'; expected 1"),
    "rank of .5": (lambda: lora(rank_pattern={"q_proj": 0.5}), r"rank_pattern has 0.5"),
    "alpha of 0": (lambda: lora(alpha_pattern={"q_proj": 0}), r"alpha_pattern has 0 .*above 0"),
    "no expression": (lambda: lora(rank_pattern={"q_proj(": 4}), r"rank_pattern='q_proj\(' is no regular expression"),
    "eva": (lambda: lora(init_lora_weights="eva"), r"init_lora_weights='eva' is drawn from the inputs.*expected true"),
    "corda": (lambda: lora(init_lora_weights="corda"), r"init_lora_weights='corda' needs a pass"),
    "loftq": (lambda: lora(init_lora_weights="loftq", loftq_config={"loftq_bits": 4}), r"init_lora_weights='loftq' quantises"),
    "niter": (lambda: lora(init_lora_weights="pissa_niter_4"), r"'pissa_niter_4' draws"),
    "a config of eva": (lambda: lora(eva_config=peft.EvaConfig()), r"adapter\.eva_config"),
    "qalora": (lambda: lora(use_qalora=True), r"adapter\.use_qalora=True"),
    "group of qalora": (lambda: lora(qalora_group_size=8), r"adapter\.qalora_group_size=8"),
    "kasa": (lambda: lora(kasa_config={"beta": 0.1}), r"adapter\.kasa_config"),
    "megatron": (lambda: lora(megatron_config={"a": 1}), r"adapter\.megatron_config"),
    "offload": (lambda: lora(runtime_config=peft.LoraRuntimeConfig(ephemeral_gpu_offload=True)), r"adapter\.runtime_config"),
    "inference": (lambda: lora(inference_mode=True), r"adapter\.inference_mode=true"),
    "revision": (lambda: lora(revision="main"), r"adapter\.revision='main'.*model\.model: ORG/NAME@REVISION"),
    "another base": (lambda: lora(base_model_name_or_path="other"), r"adapter\.base_model_name_or_path='other'"),
    "excludes nothing": (lambda: lora(exclude_modules=["q_porj"]), r"exclude_modules names 'q_porj'.*did you mean 'q_proj'"),
    "excludes by no match": (lambda: lora(exclude_modules=r".*\.9\..*"), r"exclude_modules names"),
    "saves nothing": (lambda: lora(modules_to_save=["lm_haed"]), r"modules_to_save names 'lm_haed'.*did you mean 'lm_head'"),
    "saves one of two": (lambda: lora(modules_to_save=["lm_head", "nrom"]), r"modules_to_save names 'nrom'"),
    "no parameter": (lambda: lora(target_parameters=["q_proj.weigth"]), r"target_parameters names 'q_proj.weigth'"),
    "tokens beyond": (lambda: lora(trainable_token_indices=[4, 260]), r"trainable_token_indices has 260; expected 0 to 259"),
    "tokens of no module": (lambda: lora(trainable_token_indices={"embd": [4]}), r"trainable_token_indices names 'embd'"),
    "fan in": (lambda: lora(fan_in_fan_out=True), r"Setting fan_in_fan_out to False"),
    "ties untied": (
        lambda: lora(ensure_weight_tying=True, modules_to_save=["lm_head"]),
        r"no tied modules|not have tied weights",
    ),
    "layers of another list": (lambda: lora(layers_to_transform=[0], layers_pattern="blocks"), r"does not fit the model"),
    "text without TEXT": (
        lambda: peft.PromptTuningConfig(num_virtual_tokens=2, prompt_tuning_init_text="a", **CAUSAL),
        r"prompt_tuning_init_text without prompt_tuning_init=TEXT",
    ),
    "width of no projection": (
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=2, encoder_hidden_size=8, **CAUSAL),
        r"encoder_hidden_size=8 without prefix_projection",
    ),
    "the model's width": (
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=2, token_dim=32, **CAUSAL),
        r"token_dim=32; expected 16",
    ),
    "the model's layers": (
        lambda: peft.PromptTuningConfig(num_virtual_tokens=2, num_layers=1, **CAUSAL),
        r"num_layers=1; expected 2",
    ),
    "saves nothing beside a prompt": (
        lambda: peft.PromptTuningConfig(num_virtual_tokens=2, modules_to_save=["x"], **CAUSAL),
        r"modules_to_save names 'x'",
    ),
    "layers of an MLP": (
        lambda: peft.PromptEncoderConfig(num_virtual_tokens=2, encoder_hidden_size=8, encoder_num_layers=3, **CAUSAL),
        r"encoder_num_layers` is ignored",
    ),
    "dropout of an MLP": (
        lambda: peft.PromptEncoderConfig(num_virtual_tokens=2, encoder_hidden_size=8, encoder_dropout=0.1, **CAUSAL),
        r"encoder_dropout=0.1 with an MLP",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_nothing_is_refused_by_name(name):
    make, says = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = make()
    with pytest.raises(UserError, match=says):
        attached(config)


@pytest.mark.parametrize("kind", METHODS)
def test_a_field_that_nobody_looked_at_is_refused(kind):
    """Of every field of this PEFT it is said whether it is honoured; one of a later PEFT is refused where it is set."""

    @dataclasses.dataclass
    class Later(METHODS[kind]):
        brand_new: int = 0

    check_fields(Later())
    with pytest.raises(UserError, match=r"adapter\.brand_new=1 of Later"):
        check_fields(Later(brand_new=1))
    fields = {field.name for field in dataclasses.fields(METHODS[kind])}
    assert fields >= HONOURED[kind]


def targeted(model) -> set[str]:
    return {
        name.partition(".layers.")[2].removesuffix(".lora_A.default")
        for name, _ in model.named_modules()
        if name.endswith("lora_A.default")
    }


def test_one_name_is_a_list_of_it():
    both = {"0.self_attn.q_proj", "1.self_attn.q_proj"}
    assert targeted(attached(lora(target_modules="q_proj"))) == both
    assert targeted(attached(lora(target_modules="self_attn.q_proj"))) == both
    assert targeted(attached(lora(target_modules=["q_proj", "v_proj"], exclude_modules="v_proj"))) == both
    assert targeted(attached(lora(target_modules=r".*\.1\..*q_proj"))) == {"1.self_attn.q_proj"}  # an expression stays one


def test_ranks_and_scales_are_those_of_the_patterns():
    model = attached(lora(lora_alpha=8, rank_pattern={r"layers\.1\.self_attn\.q_proj": 2}, alpha_pattern={"v_proj": 2}))
    layers = [layer.self_attn for layer in model.get_base_model().model.layers]
    assert [layer.q_proj.r["default"] for layer in layers] == [4, 2]
    assert [layer.q_proj.scaling["default"] for layer in layers] == [2.0, 4.0]
    assert [layer.v_proj.scaling["default"] for layer in layers] == [0.5, 0.5]


def test_the_user_s_configuration_stays_as_it_is():
    config = lora(target_modules="q_proj")
    before = config.to_dict()
    attached(config)
    assert config.to_dict() == before
    check_names(config, tiny_llama())
    assert config.to_dict() == before


def test_warnings_of_peft_are_said_or_refused(capsys):
    source = peft.__file__
    with peft_warnings():
        warnings.warn_explicit("Something to know.", UserWarning, source, 1)
    assert "PEFT: Something to know." in capsys.readouterr().err
    with pytest.raises(UserError, match=r"the whole of x \(The key is ignored\.\)"), peft_warnings("x"):
        warnings.warn_explicit("The key is ignored.", UserWarning, source, 1)
    with pytest.warns(UserWarning, match="of another library"), peft_warnings():
        warnings.warn_explicit("of another library, ignored", UserWarning, __file__, 1)


ENCODER = {
    "a module beside": ({"modules_to_save": ["pooler"]}, r"modules_to_save=\['pooler'\] on an encoder"),
    "biases": ({"bias": "all"}, r"bias='all' on an encoder"),
    "tokens": ({"trainable_token_indices": [4]}, r"trainable_token_indices=\[4\] on an encoder"),
    "a rank of no target": ({"rank_pattern": {"key": 2}}, r"rank_pattern names 'key', which no adapted module has"),
    "excludes nothing": ({"exclude_modules": ["quary"]}, r"exclude_modules names 'quary'.*did you mean 'query'"),
    "eva": ({"init_lora_weights": "eva"}, r"init_lora_weights='eva'"),
}


@pytest.mark.parametrize("name", ENCODER)
def test_on_an_encoder_too(name, tiny_bert):
    from transformers import AutoModel

    more, says = ENCODER[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(**({"r": 4, "target_modules": ["query", "value"]} | more))
    with pytest.raises(UserError, match=says):
        adapters.inject(AutoModel.from_pretrained(tiny_bert), config)


def test_an_encoder_trains_what_peft_trains(tiny_bert):
    """MiCA keeps B as it is; one name is one target."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_bert)
    adapters.inject(model, peft.LoraConfig(r=4, target_modules="query", init_lora_weights="mica"))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2
    assert all("query.lora_A" in name for name in trained)
