"""Combinations of model, adapter, reference and data whose numbers were, or would be, silently wrong."""

import itertools
import json
import math
from pathlib import Path

import lightning as L
import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from research.data.instructions import InstructionData
from research.data.preferences import PreferenceData
from research.errors import UserError
from research.losses.language import token_losses
from research.models import adapters
from research.models.causal_lm import CausalLM
from research.models.generate import Decoding, generate
from research.models.lora import faster_lora
from research.models.policy import load_policy, save_policy
from research.training.best_model import BestModel
from research.training.dpo import DPOModule
from research.training.optimisation import Optimisation
from research.training.packing import packing_is_exact, shares_prompt
from research.training.sft import SFTModule
from tests.lm import byte_tokenizer, rows, save_tiny, tiny_llama

CAUSAL = {"task_type": "CAUSAL_LM"}
PAIRS = [
    {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(rows(17))
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_tiny(tmp_path / "model")


def lora(**more):
    return peft.LoraConfig(**({"r": 4, "target_modules": "all-linear"} | CAUSAL | more))


def written(path: Path, lines: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return str(path)


def trainer(*callbacks, **more) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **more,
    )


def dpo(folder, tmp_path, adapter, **options):
    torch.manual_seed(0)
    data = options.pop("data", {})
    module = DPOModule(str(folder), adapter=adapter, optimisation=Optimisation(lr=3e-3, warmup=0.0), **options)
    file = written(tmp_path / "pairs.jsonl", PAIRS)
    val = written(tmp_path / "val.jsonl", PAIRS[:6])
    return module, PreferenceData(file, None, val, None, test=val, batch_size=4, max_length=256, **data)


def fitted(module, data, out: Path, **more) -> dict:
    trainer(BestModel(out, "val/loss", lower=True), **more).fit(module, datamodule=data)
    return json.loads((out / "metrics.json").read_text())


# ---- the reference of DPO --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_cached_reference_of_an_init_that_moves_the_base_is_the_base(init, folder, tmp_path):
    """And leaves nothing wrong behind for a plain LoRA on the same weights and pairs."""
    for adapter in (lora(init_lora_weights=init), lora()):
        found = fitted(*dpo(folder, tmp_path, adapter, reference="cached"), tmp_path / "run")
        assert found["untrained"]["loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("kind", ["full", "last layer", "an SFT adapter goes on"])
def test_test_has_the_cached_reference_as_validation_has(kind, folder, tmp_path):
    start, options, adapter = folder, {}, None
    if kind == "last layer":
        options = {"train_layers": 1}
    elif kind != "full":
        policy = load_policy(str(folder))
        policy.model.transformer = adapters.attach(policy.model.transformer, lora(init_lora_weights=False))
        start = tmp_path / "sft"
        save_policy(policy.model, start, policy)
    module, data = dpo(start, tmp_path, adapter, reference="cached", **options)
    found = fitted(module, data, tmp_path / "run")["metrics"]
    again, data = dpo(start, tmp_path, adapter, reference="cached", **options)
    again.restore(tmp_path / "run/model")
    trainer().test(again, datamodule=data, verbose=False)  # on the validation pairs
    assert again.means() == pytest.approx({name: found[name] for name in again.means()}, abs=1e-5)
    assert again.means()["reward_margin"] > 1e-3


def test_damaged_cache_of_the_reference_is_computed_again(folder, tmp_path):
    first = fitted(*dpo(folder, tmp_path, lora(), reference="cached"), tmp_path / "a")
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:40])
    assert fitted(*dpo(folder, tmp_path, lora(), reference="cached"), tmp_path / "b")["metrics"] == first["metrics"]


def test_best_by_kl_is_refused_where_it_is_not_measured(folder, tmp_path):
    module, data = dpo(folder, tmp_path, None, reference="cached")
    with pytest.raises(UserError, match=r"monitor=val/kl, which is not measured"):
        trainer(BestModel(tmp_path / "run", "val/kl", lower=True)).fit(module, datamodule=data)


# ---- layouts ---------------------------------------------------------------------------------------------------------

SMALL = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "initializer_range": 0.2,
}
SHAPES = {
    "llama": {},
    "llama eager": {"attn": "eager"},
    "gpt_neox": {},
    "mistral": {"sliding_window": None},
    "mistral, short window": {"sliding_window": 16},
    "gemma2": {"head_dim": 8, "sliding_window": 512},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {"alibi": False},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512, "expansion_ratio": 2},
}
"""Architectures, and what their configurations want beside SMALL."""


def architecture(name: str) -> CausalLM:
    values = dict(SHAPES[name])
    attention = values.pop("attn", None)
    kind = name.split(",")[0].split()[0]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(SMALL | values))
    more = {} if attention is None else {"attn_implementation": attention}
    model = AutoModelForCausalLM.from_config(config, **more).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return CausalLM(model, byte_tokenizer())


def saved(name: str, folder: Path) -> Path:
    model = architecture(name)
    model.transformer.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", SHAPES)
def test_a_pair_has_the_same_numbers_in_whatever_layout_is_taken(name, tmp_path):
    """Where the model does not give them with the prompt computed once, it is computed twice; asked for, it is refused."""
    from research.training.dpo import sequence_logps

    model = saved(name, tmp_path / "arch")
    if name == "llama eager":  # not in the folder: the user's choice
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"attn_implementation": "eager"}))
    found = []
    for share in (None, False):
        module, data = dpo(model, tmp_path, None, reference="copy", data={"share_prompt": share})
        module.trainer = trainer()
        module.trainer.datamodule = data
        data.trainer = module.trainer
        data.prepare(module.model.tokenizer)
        data.share_prompt = shares_prompt(module, lambda chunk, of=module: sequence_logps(of.model, chunk)[0])
        taken = data.share_prompt
        with torch.no_grad():
            chunk = data.collate(module.model).collate(list(enumerate(data.tokens["val"].rows)))
            found.append(sequence_logps(module.model.eval(), chunk)[0])
        if share is None:
            shared = taken
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-3)
    assert shared == (name in ("llama", "llama eager", "gpt_neox", "mistral", "gemma2", "opt", "falcon"))
    if not shared:
        data.share_prompt = True
        with pytest.raises(UserError, match="share_prompt=true"):
            shares_prompt(module, lambda chunk: sequence_logps(module.model, chunk)[0])


@pytest.mark.parametrize("name", SHAPES)
def test_packing_is_exact_or_refused(name):
    model = architecture(name)
    ids = [torch.randint(4, 260, (1, n), generator=torch.Generator().manual_seed(n)) for n in (11, 6)]
    with torch.no_grad():
        alone = torch.cat([model.hidden(i, torch.ones_like(i))[0] for i in ids])
        positions = torch.cat([torch.arange(11), torch.arange(6)])[None]
        try:
            packed = model.hidden(torch.cat(ids, 1), position_ids=positions)[0]
            same = bool((packed - alone).abs().max() < 1e-3)
        except (RuntimeError, TypeError, ValueError):
            same = False
    assert packing_is_exact(model) == same
    assert same or name not in ("llama", "gpt_neox", "mistral", "gemma2")


def test_inexact_packing_is_refused_before_training(tmp_path):
    module = SFTModule(str(saved("opt", tmp_path / "opt")))
    data = InstructionData(
        written(tmp_path / "r.jsonl", rows(16)), None, val_split=None, packing=True, batch_size=2, max_length=128
    )
    with pytest.raises(UserError, match=r"packing: in OPT.* has other numbers than alone"):
        trainer().fit(module, datamodule=data)


@pytest.mark.parametrize("kind", ["sft", "dpo", "virtual tokens"])
def test_rows_as_long_as_the_context_are_trained_on(kind, tmp_path):
    """Padding has no position beyond the model's: GPT-2 has a table of them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=100, eos_token_id=0, bos_token_id=0)
    )
    model.save_pretrained(tmp_path / "gpt2")
    byte_tokenizer().save_pretrained(tmp_path / "gpt2")
    long = [{"prompt": "a" * 60, "completion": "b" * 60, "chosen": "b" * 60, "rejected": "c" * 39}] * 8
    if kind == "dpo":
        module = DPOModule(str(tmp_path / "gpt2"), reference="copy")
        file = written(tmp_path / "p.jsonl", [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in long])
        data = PreferenceData(file, None, file, None, batch_size=4, max_length=100)
    else:
        adapter = peft.PromptTuningConfig(num_virtual_tokens=10, **CAUSAL) if kind == "virtual tokens" else None
        module = SFTModule(str(tmp_path / "gpt2"), adapter=adapter)
        file = written(tmp_path / "p.jsonl", [{k: row[k] for k in ("prompt", "completion")} for row in long])
        data = InstructionData(file, None, file, None, batch_size=4, max_length=90 if adapter else 100)
    assert fitted(module, data, tmp_path / "run")["metrics"]["loss"] > 0


# ---- adapters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", [True, "pissa", "olora"])
def test_a_restored_run_has_the_numbers_of_its_training(init, folder, tmp_path):
    """On the weights as they lie in model/, wherever the initialisation has moved them."""
    train, val = written(tmp_path / "t.jsonl", rows(16)), written(tmp_path / "v.jsonl", rows(9))

    def parts():
        torch.manual_seed(0)
        module = SFTModule(str(folder), adapter=lora(init_lora_weights=init), optimisation=Optimisation(lr=3e-2, warmup=0.0))
        return module, InstructionData(train, None, val, None, batch_size=4, max_length=256)

    found = fitted(*parts(), tmp_path / "run")
    module, data = parts()
    module.restore(tmp_path / "run/model")
    trainer().validate(module, datamodule=data, verbose=False)
    assert module.means()["loss"] == pytest.approx(found["metrics"]["loss"], abs=1e-5)
    assert found["untrained"]["loss"] != pytest.approx(found["metrics"]["loss"], abs=1e-2)


def test_an_adapter_is_not_validated_on_another_base(folder, tmp_path):
    train = written(tmp_path / "t.jsonl", rows(8))

    def parts():
        return SFTModule(str(folder), adapter=lora()), InstructionData(train, None, train, None, batch_size=4, max_length=256)

    fitted(*parts(), tmp_path / "run")
    save_tiny(folder, seed=7)
    with pytest.raises(UserError, match="expected the same weights"):
        parts()[0].restore(tmp_path / "run/model")


def test_a_checkpoint_is_of_the_adapter_that_was_trained_on(folder, tmp_path):
    """Continued from an adapter, the training depends on it as on the base."""
    start = tmp_path / "start"
    hashes = []
    for seed in (0, 1):
        policy = load_policy(str(folder))
        torch.manual_seed(seed)
        policy.model.transformer = adapters.attach(policy.model.transformer, lora(init_lora_weights=False))
        save_policy(policy.model, start, policy)
        module = SFTModule(str(start))
        hashes.append(module.base_hash)
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        if seed == 0:
            first = checkpoint
    assert hashes[0] != hashes[1]
    with pytest.raises(UserError, match="trained on a base of hash"):
        module.on_load_checkpoint(first)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"lora_dropout": 0.3, "target_modules": ["lm_head"]},
        {"lora_bias": True},
        {"use_rslora": True, "target_modules": "all-linear"},
    ],
    ids=str,
)
@pytest.mark.parametrize("tied", [False, True])
def test_lora_on_the_output_layer_has_peft_s_loss_and_gradients(more, tied):
    """As it is drawn by default, with B = 0, the logits are the base's: only the gradients tell that it is trained."""
    ids, labels = torch.arange(40).view(2, 20) + 4, torch.arange(40).view(2, 20) + 4
    labels[:, :5] = -100
    model = tiny_llama(tie_word_embeddings=tied)
    config = lora(**({"target_modules": ["q_proj", "lm_head"]} | more))
    if config.target_modules == "all-linear":  # PEFT leaves the output layer out there
        config.target_modules = r".*(q_proj|lm_head)"
    adapted = CausalLM(peft.get_peft_model(model, config), byte_tokenizer()).train()
    found = []
    for ours in (True, False):
        torch.manual_seed(3)
        adapted.zero_grad()
        if ours:
            at = adapted.labelled(ids, labels, attention_mask=torch.ones_like(ids))
            loss = token_losses(at.hidden, labels=at.labels, **adapted.head).losses.mean()
        else:
            loss = adapted.transformer(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        found.append({n: p.grad.clone() for n, p in adapted.named_parameters() if p.requires_grad} | {"loss": loss.detach()})
    assert any("lm_head" in name and float(grad.abs().max()) > 1e-4 for name, grad in found[1].items())
    for name, theirs in found[1].items():
        torch.testing.assert_close(found[0][name], theirs, rtol=1e-5, atol=1e-6, msg=name)
    with adapted.adapter_off():
        assert adapted.head["weight"] is adapted.base.get_output_embeddings().get_base_layer().weight


@pytest.mark.parametrize("more", [{"use_dora": True}, {"target_modules": [], "target_parameters": ["lm_head.weight"]}], ids=str)
def test_another_adapter_on_the_output_layer_is_refused(more, folder):
    with pytest.raises(UserError, match=r"around the output layer, where plain LoRA alone .* Leave the output layer out"):
        SFTModule(str(folder), adapter=lora(**({"target_modules": ["q_proj", "lm_head"]} | more)))


def test_a_saved_output_layer_is_trained_and_is_the_base_s_while_the_adapter_is_off(folder, tmp_path):
    module, data = dpo(folder, tmp_path, lora(modules_to_save=["lm_head"]), reference="adapter_off")
    found = fitted(module, data, tmp_path / "run")
    assert found["untrained"]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    layer = module.model.base.get_output_embeddings()
    original, trained = layer.original_module.weight, layer.modules_to_save["default"].weight
    assert float((trained - original).abs().max()) > 1e-3
    assert module.model.head["weight"] is trained
    with module.model.adapter_off():
        assert module.model.head["weight"] is original


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_biases_beside_lora_are_trained(bias):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    def gradients(fast: bool) -> dict:
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=64,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=1,
                num_attention_heads=4,
                num_key_value_heads=2,
            )
        ).eval()
        model = peft.get_peft_model(model, lora(bias=bias, target_modules=["q_proj", "k_proj"], init_lora_weights=False))
        if fast:
            faster_lora(model)
        ids = torch.arange(9)[None]
        model(input_ids=ids, labels=ids).loss.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    ours, theirs = gradients(True), gradients(False)
    assert any("bias" in name and float(grad.abs().max()) > 0 for name, grad in theirs.items())
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("options", "reference", "says"),
    [
        ({"alora_invocation_tokens": [5]}, None, "switches itself on within a text"),
        ({"init_lora_weights": "pissa_niter_4"}, None, "draws the part of the base"),
        ({"bias": "lora_only"}, "adapter_off", "stay trained when the adapter is off"),
    ],
)
def test_adapter_is_refused(options, reference, says):
    with pytest.raises(UserError, match=says):
        adapters.check(adapters.plain(lora(**options)), reference=reference)


def test_an_adapter_that_is_its_own_base_is_refused(folder, tmp_path):
    policy = load_policy(str(folder))
    policy.model.transformer = adapters.attach(policy.model.transformer, lora())
    save_policy(policy.model, tmp_path / "loop", policy)
    facts = json.loads((tmp_path / "loop/tandem.json").read_text())
    (tmp_path / "loop/tandem.json").write_text(json.dumps(facts | {"base": str(tmp_path / "loop")}))
    with pytest.raises(UserError, match="is its own base"):
        load_policy(str(tmp_path / "loop"))


def test_plain_peft_does_not_find_an_adapter_for_its_base(folder, tmp_path):
    """It would put the second adapter in the first one's place, without a word."""
    sft, dpo_folder = tmp_path / "sft", tmp_path / "dpo"
    for start, out in ((folder, sft), (sft, dpo_folder)):
        policy = load_policy(str(start), merge=True)
        policy.model.transformer = adapters.attach(policy.model.transformer, lora(init_lora_weights=False))
        save_policy(policy.model, out, policy)
    assert len(load_policy(str(dpo_folder)).model.transformer.peft_config) == 1
    with pytest.raises((OSError, ValueError)):
        peft.AutoPeftModelForCausalLM.from_pretrained(dpo_folder)


def test_virtual_tokens_are_not_trained_on(folder, tmp_path):
    policy = load_policy(str(folder))
    policy.model.transformer = adapters.attach(
        policy.model.transformer, peft.PromptTuningConfig(num_virtual_tokens=3, **CAUSAL)
    )
    save_policy(policy.model, tmp_path / "prompt", policy)
    with pytest.raises(UserError, match="PROMPT_TUNING, which is neither made part of the weights nor trained"):
        SFTModule(str(tmp_path / "prompt"))


# ---- data, decoding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [InstructionData, PreferenceData])
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_file_is_not_validated_on_its_own_rows(kind, ending, tmp_path, capfd):
    lines = rows(8) if kind is InstructionData else PAIRS[:8]
    train, val = written(tmp_path / f"t.{ending}", lines), written(tmp_path / f"v.{ending}", lines[:3])
    assert "val" not in kind(train, None).collections  # val_split is dev, as in the configurations
    assert "no validation" in capfd.readouterr().err
    assert len(kind(train, None, val).collections["val"].rows) == 3
    assert len(kind(train, None, val, None).collections["val"].rows) == 3


def test_half_a_surrogate_pair_is_refused_by_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a \\ud800", "completion": "b"}\n')
    with pytest.raises(UserError, match=r"t\.jsonl:2.*prompt has half a surrogate pair"):
        InstructionData(str(path), None, batch_size=1)
    path.write_text('{"prompt": "a", "chosen": "b \\udfff", "rejected": "c"}\n')
    with pytest.raises(UserError, match=r"t\.jsonl:1.*chosen has half a surrogate pair"):
        PreferenceData(str(path), None, batch_size=1)


def test_decoding_is_the_same_for_every_model_and_ends_where_the_model_says(folder):
    model = CausalLM(tiny_llama(), byte_tokenizer()).eval()
    prompts = [torch.randint(4, 260, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 9)]
    plain = generate(model, prompts, Decoding(12))
    model.base.generation_config.repetition_penalty = 3.0
    model.base.generation_config.temperature = 0.3
    assert generate(model, prompts, Decoding(12)) == plain
    assert model.base.generation_config.repetition_penalty == 3.0  # it is the model's own
    first = model.base.generate(torch.tensor([prompts[0]]), max_new_tokens=3, do_sample=False, repetition_penalty=1.0)[0, -1]
    model.base.generation_config.eos_token_id = [0, int(first)]
    answer = generate(model, prompts[:1], Decoding(12))[0]
    assert answer.ended
    assert answer.tokens < plain[0].tokens


@pytest.mark.parametrize("kind", ["dual_encoder", "cross_encoder", "sft", "dpo"])
def test_setup_computes_where_the_weights_are(training, kind):
    """In `setup` Lightning says the device of the training already, and the weights are still on the CPU."""

    class Ahead(L.Callback):
        def setup(self, trainer, module, stage) -> None:
            module._device = torch.device("meta")

    run = training(kind, "run", trainer={"max_steps": 1})
    run.run(callbacks=(Ahead(),))
    assert run.curve()[-1]["step"] == 1
