"""Adapters as people bring them: with a tokenizer of their own, in a pickle, incomplete, or of a kind that cannot be merged."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from research.data.instructions import InstructionData
from research.errors import UserError
from research.models import adapters
from research.models.hashed import hash_model
from research.models.policy import load_policy, save_policy
from research.training.sft import SFTModule
from tests.lm import TEMPLATE, byte_tokenizer, rows, save_tiny, tiny_llama

CAUSAL = {"task_type": "CAUSAL_LM"}
OTHER = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(tmp_path) -> Path:
    return save_tiny(tmp_path / "base")


def lora(**more):
    return peft.LoraConfig(**({"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False} | CAUSAL | more))


def plain_adapter(base: Path, folder: Path, config=None) -> Path:
    """As PEFT saves it, without a tokenizer."""
    torch.manual_seed(1)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config or lora()).save_pretrained(folder)
    return folder


def logits(model) -> torch.Tensor:
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("how", ["tokenizer", "template alone", "in tokenizer_config.json"])
def test_the_adapter_s_own_template_is_its_template(how, base, tmp_path):
    adapter = plain_adapter(base, tmp_path / "adapter")
    before = hash_model(adapter)
    assert load_policy(str(adapter)).model.tokenizer.chat_template == TEMPLATE  # it has none: the base's
    if how == "tokenizer":
        byte_tokenizer(OTHER).save_pretrained(adapter)
    elif how == "template alone":
        (adapter / "chat_template.jinja").write_text(OTHER)
    else:
        (adapter / "tokenizer_config.json").write_text(json.dumps({"chat_template": OTHER}))
    tokenizer = load_policy(str(adapter)).model.tokenizer
    assert tokenizer.apply_chat_template(HELLO, tokenize=False) == "[INST] Hi [/INST]"
    assert hash_model(adapter) != before
    # a training that goes on, or has it merged, is in that template too
    for options in ({}, {"adapter": peft.LoraConfig(r=2, target_modules="all-linear", **CAUSAL)}):
        module = SFTModule(str(adapter), **options)
        assert module.model.tokenizer.apply_chat_template(HELLO, tokenize=False) == "[INST] Hi [/INST]"


def test_tokens_that_the_adapter_has_added_have_its_rows(base, tmp_path):
    """As PEFT's AutoPeftModelForCausalLM loads it."""
    words = byte_tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<|new|>", "<|newer|>"]})
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(words))
    adapted = peft.get_peft_model(model, lora(modules_to_save=["embed_tokens", "lm_head"]))
    adapted.save_pretrained(tmp_path / "adapter")
    words.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, len(words) - 1, 9, len(words) - 2]])
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    ours = load_policy(str(tmp_path / "adapter")).model.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours.transformer(input_ids=ids).logits, theirs(input_ids=ids).logits, rtol=0, atol=1e-6)
    assert ours.vocabulary == len(words)


@pytest.mark.parametrize(("rows_of_base", "words_added"), [(264, 2), (272, 0), (256, -4)])
def test_a_resized_vocabulary_has_the_rows_that_were_saved(rows_of_base, words_added, base, tmp_path):
    """Padded to a multiple beyond the tokenizer; or cut to it, as resize_token_embeddings(len(tokenizer)) does to Qwen's."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(rows_of_base)
    peft.get_peft_model(model, lora()).save_pretrained(tmp_path / "adapter")
    set_base(tmp_path / "adapter", base)
    if words_added > 0:
        words = byte_tokenizer()
        words.add_tokens([f"<|new {i}|>" for i in range(words_added)])
        words.save_pretrained(tmp_path / "adapter")
    resized = AutoModelForCausalLM.from_pretrained(base)
    resized.resize_token_embeddings(rows_of_base)
    theirs = logits(peft.PeftModel.from_pretrained(resized, tmp_path / "adapter"))
    for options in ({}, {"merge": True}, {"trainable": True}):
        ours = load_policy(str(tmp_path / "adapter"), **options).model
        torch.testing.assert_close(logits(ours.transformer), theirs, rtol=0, atol=1e-5)
    assert load_policy(str(base)).model.vocabulary == 260  # another load has its own


def set_base(adapter: Path, base: Path, **more) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(base)} | more))


def test_what_a_later_peft_has_written_is_read_where_it_says_nothing(base, tmp_path):
    adapter = plain_adapter(base, tmp_path / "adapter")
    expected = logits(load_policy(str(adapter)).model.transformer)
    set_base(adapter, base, later=None, latest=False, last={}, runtime_config={"ephemeral_gpu_offload": False})
    assert torch.equal(logits(load_policy(str(adapter)).model.transformer), expected)
    set_base(adapter, base, later="yes")
    with pytest.raises(UserError, match=r"has later=yes, which PEFT .* does not know.*Leave it out of the file"):
        load_policy(str(adapter))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "PEFT would draw another one .*Save it as plain LoRA"),
        ({"peft_type": "SUPERLORA"}, "of type 'SUPERLORA'; expected one of PEFT"),
        ({"peft_type": None}, "of type None; expected one of PEFT"),
    ],
)
def test_an_adapter_that_no_peft_loads_as_it_was_is_refused(more, says, base, tmp_path):
    adapter = plain_adapter(base, tmp_path / "adapter")
    set_base(adapter, base, **more)
    with pytest.raises(UserError, match=says):
        load_policy(str(adapter))


def test_tokens_without_rows_are_refused(base, tmp_path):
    adapter = plain_adapter(base, tmp_path / "adapter")
    words = byte_tokenizer()
    words.add_tokens(["<|new|>"])
    words.save_pretrained(adapter)
    with pytest.raises(UserError, match=r"ids up to 260, its base 260 rows.*they would be random"):
        load_policy(str(adapter))


@pytest.mark.parametrize("beside", [False, True])
def test_a_pickled_adapter_is_never_read(beside, base, tmp_path):
    """Whatever safetensors lie beside it."""
    adapter = plain_adapter(base, tmp_path / "adapter")
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    if beside:
        shutil.copy(base / "model.safetensors", adapter / "other.safetensors")
    for options in ({}, {"merge": True}):
        with pytest.raises(UserError, match=r"has no adapter_model\.safetensors; it has adapter_model\.bin, and pickled"):
            load_policy(str(adapter), **options)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop(next(iter(state))), r"missing adapter keys"),
        (lambda state: state.update({"base_model.model.model.layers.9.x.lora_A.weight": torch.ones(2)}), r"no place in it"),
    ],
)
def test_weights_that_are_not_the_adapter_s_are_refused(change, says, base, tmp_path):
    adapter = plain_adapter(base, tmp_path / "adapter")
    state = load_file(adapter / "adapter_model.safetensors")
    change(state)
    save_file(state, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=says):
        load_policy(str(adapter))


REPLICATED = {"layer_replication": [[0, 2], [1, 2]]}


def saved_policy(base: Path, folder: Path, config) -> Path:
    torch.manual_seed(1)
    policy = load_policy(str(base), merge=True)
    policy.model.transformer = adapters.attach(policy.model.transformer, config)
    save_policy(policy.model, folder, policy)
    return folder


@pytest.mark.parametrize("more", [REPLICATED, {"lora_bias": True}], ids=["replicated", "a bias that has no place"])
def test_what_cannot_be_merged_is_exported_as_it_is(more, base, research, tmp_path):
    adapter = saved_policy(base, tmp_path / "adapter", lora(**more))
    result = research("export", adapter, "--merge", "--out", tmp_path / "merged")
    assert result.code == 2
    assert "cannot become part of its base's weights" in result.err
    assert "Free space" not in result.err
    assert not (tmp_path / "merged").exists()
    assert research("export", adapter, "--out", tmp_path / "out", "--json").json["difference"] == 0  # the message's cure


def test_what_is_no_disk_s_error_keeps_its_words(tmp_path):
    from research.runs.disk import write_errors

    with pytest.raises(RuntimeError, match="shared tensors"), write_errors(tmp_path):
        raise RuntimeError("The weights contained shared tensors")
    with pytest.raises(UserError, match="Free space"), write_errors(tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")


@pytest.mark.parametrize("tied", [False, True])
def test_trained_tokens_train_and_are_saved_merged_and_exported(tied, research, tmp_path):
    base = tmp_path / "base"
    tiny_llama(tie_word_embeddings=tied).save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    data_file = tmp_path / "train.jsonl"
    data_file.write_text("".join(json.dumps(row) + "\n" for row in rows(16)))

    import lightning as L

    from research.training.best_model import BestModel

    module = SFTModule(str(base), adapter=lora(trainable_token_indices=[2, 30], init_lora_weights=True))
    data = InstructionData(str(data_file), None, str(data_file), None, batch_size=8, max_length=256)
    start = {name: p.detach().clone() for name, p in module.model.transformer.named_parameters() if "tokens_delta" in name}
    L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        callbacks=[BestModel(tmp_path / "run", "val/loss", lower=True)],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    ).fit(module, datamodule=data)
    assert module.language.describe()["base_parameters_trained"] == 0
    parameters = dict(module.model.transformer.named_parameters())
    assert all(float((parameters[name] - value).abs().max()) > 1e-5 for name, value in start.items())
    policy = load_policy(str(tmp_path / "run/model"))
    torch.testing.assert_close(logits(policy.model.transformer), logits(module.model.transformer), rtol=0, atol=1e-6)
    hidden = policy.model.hidden(torch.arange(4, 24)[None], torch.ones(1, 20, dtype=torch.long))
    torch.testing.assert_close(hidden @ policy.model.head["weight"].T, logits(policy.model.transformer), rtol=0, atol=1e-5)
    merged = load_policy(str(tmp_path / "run/model"), merge=True)
    torch.testing.assert_close(logits(merged.model.transformer), logits(policy.model.transformer), rtol=0, atol=1e-5)
    result = research("export", tmp_path / "run", "--merge", "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err


def test_a_model_without_end_and_padding_trains_and_answers(research, tmp_path):
    """Padding is any token: it is masked. Conversations do not need an end token either."""
    base = tmp_path / "base"
    tiny_llama().save_pretrained(base)
    for path in base.glob("*config.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps(values | {"eos_token_id": None, "pad_token_id": None}))
    words = byte_tokenizer()
    words.save_pretrained(base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    for name in ("eos_token", "pad_token"):
        settings.pop(name, None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    (base / "special_tokens_map.json").unlink(missing_ok=True)
    model = load_policy(str(base)).model
    assert (model.tokenizer.eos_token, model.tokenizer.pad_token, model.pad_token_id) == (None, None, 0)
    (tmp_path / "prompts.txt").write_text("a\nthe longer prompt of them\n")
    args = ("generate", "--model", base, "--prompts", tmp_path / "prompts.txt", "--raw", "--max-new-tokens", "4")
    answers = []
    for size in ("1", "2"):
        result = research(*args, "--batch-size", size, "--out", tmp_path / f"out{size}")
        assert result.code == 0, result.err
        answers.append((tmp_path / f"out{size}/answers.jsonl").read_text())
    assert answers[0] == answers[1]


MOE = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.2,
}
ROUND = {
    "patterns": {"rank_pattern": {r"layers\.1\..*q_proj": 2}, "alpha_pattern": {"v_proj": 2}},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "bias of the update": {"lora_bias": True},
    "dropout": {"lora_dropout": 0.2},
    "one layer": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "all but one": {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "saved norm": {"modules_to_save": ["norm"]},
    "output layer": {"target_modules": ["q_proj", "lm_head"], "lora_dropout": 0.1},
    "saved ends": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "saved tied ends": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "trained tokens of a name": {"trainable_token_indices": {"embed_tokens": [4, 7]}},
    "experts": {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    "experts and attention": {"target_parameters": ["mlp.experts.down_proj"]},
    "experts by all-linear": {"target_modules": "all-linear"},
    "replicated": {"layer_replication": [[0, 2], [1, 2]]},
    "pissa": {"init_lora_weights": "pissa"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "random": {"init_lora_weights": False},
}
VIRTUAL = {
    "prompt with a head": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, modules_to_save=["lm_head"], **CAUSAL),
    "prefix from zero": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, init_weights="zero", **CAUSAL),
    "prefix with a norm": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, modules_to_save=["norm"], **CAUSAL),
    "p-tuning by an LSTM": lambda: peft.PromptEncoderConfig(
        num_virtual_tokens=3,
        encoder_hidden_size=8,
        encoder_dropout=0.1,
        encoder_num_layers=3,
        encoder_reparameterization_type="LSTM",
        **CAUSAL,
    ),
}


@pytest.mark.parametrize("name", [*ROUND, *VIRTUAL])
def test_a_trained_adapter_of_every_field_is_the_same_when_loaded_again(name, research, tmp_path):
    import lightning as L
    from transformers import MixtralConfig, MixtralForCausalLM

    from research.training.optimisation import Optimisation

    base = tmp_path / "base"
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**MOE)) if "experts" in name else tiny_llama(tie_word_embeddings="tied" in name)
    model.save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    data_file = tmp_path / "train.jsonl"
    data_file.write_text("".join(json.dumps(row) + "\n" for row in rows(8)))
    torch.manual_seed(1)
    config = VIRTUAL[name]() if name in VIRTUAL else lora(**({"init_lora_weights": True} | ROUND[name]))
    module = SFTModule(str(base), adapter=config, optimisation=Optimisation(lr=1e-2, warmup=0.0))
    before = {n: p.detach().clone() for n, p in module.model.transformer.named_parameters()}
    data = InstructionData(str(data_file), None, val_split=None, batch_size=8, max_length=256)
    L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    ).fit(module, datamodule=data)
    still = [n for n, p in module.model.transformer.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
    assert not still, "these were to be trained"
    frozen = [n for n, p in module.model.transformer.named_parameters() if not p.requires_grad]
    assert all(torch.equal(dict(module.model.transformer.named_parameters())[n], before[n]) for n in frozen)
    module.save(tmp_path / "run")
    trained = logits(module.model.transformer)[:, -20:]
    hidden = module.model.hidden(torch.arange(4, 24)[None], torch.ones(1, 20, dtype=torch.long))
    torch.testing.assert_close(hidden @ module.model.head["weight"].T, trained, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        logits(load_policy(str(tmp_path / "run")).model.transformer)[:, -20:], trained, rtol=0, atol=1e-5
    )
    result = research("export", tmp_path / "run", "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
