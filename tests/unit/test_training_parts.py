"""The small parts of the trainers, each against arithmetic that stands in the test."""

import json
import math

import pytest
import torch
from torch import nn

from research.errors import UserError
from research.models.cross_encoder import load_cross_encoder
from research.models.dual_encoder import DualEncoder
from research.models.hashed import hash_model
from research.models.plain import compare
from research.models.saving import save_cross_encoder, save_dual_encoder
from research.models.training import set_dropout
from research.runs.curves import read_lines
from research.runs.files import replace_folder
from research.training.cross_encoder import CrossEncoderModule, score
from research.training.curves import Curves
from research.training.dual_encoder import DualEncoderModule, embed
from research.training.optimisation import Optimisation, build_optimizer, rate
from research.types import TokenBatch

# ---- schedules and optimizer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "decay", "expected"),
    [
        (0, "linear", 1 / 5),
        (3, "linear", 4 / 5),
        (4, "linear", 1.0),
        (7, "linear", 0.5),
        (9, "linear", 1 / 6),
        (4, "cosine", 1.0),
        (7, "cosine", 0.5),
        (7, "constant", 1.0),
        (2, "constant", 3 / 5),
    ],
)
def test_rate_rises_over_4_steps_and_falls_over_6(step, decay, expected):
    assert rate(step, steps=10, warmup=4, decay=decay) == pytest.approx(expected)


def test_no_step_of_a_training_has_rate_zero():
    assert all(rate(step, 7, 2, decay) > 0 for step in range(7) for decay in ("linear", "cosine", "constant"))


def test_norms_biases_and_temperature_are_not_decayed():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Embedding(4, 2))
    model.temperature = nn.Parameter(torch.tensor(0.0))
    model.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    built = build_optimizer(model, Optimisation(lr=0.1, weight_decay=0.5), 10, {"temperature": 0.9})
    groups = {
        (group["initial_lr"], group["weight_decay"]): sorted(tuple(p.shape) for p in group["params"])
        for group in built["optimizer"].param_groups
    }
    assert groups == {(0.1, 0.5): [(2, 3), (4, 2)], (0.1, 0.0): [(2,), (2,), (2,)], (0.9, 0.0): [()]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0},
        {"lr": math.nan},
        {"weight_decay": -1},
        {"warmup": 1},
        {"decay": "step"},
        {"clip": 0},
        {"accumulate": 0},
        {"betas": (1.0, 0.9)},
        {"eps": 0},
    ],
)
def test_wrong_optimisation_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=rf"optimisation\.{name}=.*; expected"):
        Optimisation(**wrong)


# ---- forward in chunks ----------------------------------------------------------------------------------------------


def test_embeddings_in_chunks_are_those_of_each_text_alone(tiny_bert):
    from research.data.chunks import chunked

    encoder = DualEncoder.load(tiny_bert).doc
    texts = ["the of", "a", "when we there can an your which their", "and to in", "water long little"]

    def collate(rows):
        input_ids, mask = encoder.collate(rows)
        return {"input_ids": input_ids, "attention_mask": mask}

    batch = chunked(encoder.tokenize(texts, "doc"), len, collate, 0)
    together = embed(encoder, batch, "doc")
    for text, row in zip(texts, together, strict=True):
        alone = nn.functional.normalize(encoder(*encoder.collate(encoder.tokenize([text], "doc"))), dim=-1)
        assert torch.allclose(alone[0], row, atol=1e-6)
    assert together.norm(dim=1).tolist() == pytest.approx([1.0] * 5)  # cosine: as search compares them


class Sums(nn.Module):
    """A reranker whose score is the sum of the ids."""

    def forward(self, input_ids):
        return input_ids.sum(1).float()


@pytest.mark.parametrize("queries", [1, 2, 3])
def test_scores_of_a_partial_batch_stay_with_their_queries(queries):
    """Groups of 3, 1 and 2 candidates in a batch of N = 3, laid out in two chunks in another order."""
    sizes = [3, 1, 2][:queries]
    present = torch.tensor([[j < size for j in range(3)] for size in sizes])
    values = torch.arange(1, sum(sizes) + 1)
    order = torch.randperm(len(values))
    halves = values[order].unsqueeze(1).split(2)
    pairs = TokenBatch(tuple({"input_ids": half} for half in halves), order.argsort())
    expected, count = torch.zeros(queries, 3), 0
    for i, size in enumerate(sizes):
        for j in range(size):
            count += 1
            expected[i, j] = count
    assert torch.equal(score(Sums(), pairs, present), expected)


# ---- models ---------------------------------------------------------------------------------------------------------


def test_dropout_is_set_everywhere_or_left_alone(tiny_bert):
    model = DualEncoder.load(tiny_bert)

    def values():
        return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}

    set_dropout(model, None)
    assert values() == {0.1}
    set_dropout(model, 0.25)
    assert values() == {0.25}


def test_separate_towers_start_equal_and_share_nothing(tiny_bert):
    module = DualEncoderModule(str(tiny_bert), towers="separate")
    pairs = list(zip(module.model.query.parameters(), module.model.doc.parameters(), strict=True))
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)


@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_saved_dual_encoder_embeds_as_before(tiny_bert, tmp_path, towers):
    module = DualEncoderModule(
        str(tiny_bert), towers=towers, query_max_length=8, doc_max_length=16, query_prompt="of ", pooling="cls"
    )
    for parameter in module.model.query.parameters():
        parameter.data.mul_(1.01)
    save_dual_encoder(module.model, tmp_path / "saved")
    loaded = DualEncoder.load(tmp_path / "saved")
    module.eval()
    text = ["the quick water " * 10]
    for role in ("query", "doc"):
        before, after = module.model.tower(role), loaded.tower(role)
        assert after.settings == before.settings
        ids = before.tokenize(text, role)
        assert after.tokenize(text, role) == ids
        assert torch.equal(before(*before.collate(ids)), after(*after.collate(ids)))
    assert (loaded.query is loaded.doc) == (towers == "shared")


def test_saved_dual_encoder_is_a_sentence_transformers_folder(tiny_bert, tmp_path):
    from sentence_transformers import SentenceTransformer

    module = DualEncoderModule(str(tiny_bert), query_prompt="the ", pooling="mean").eval()
    save_dual_encoder(module.model, tmp_path / "saved")
    peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    tower = module.model.query
    ours = tower(*tower.collate(tower.tokenize(["water long", "a"], "query")))
    assert torch.allclose(torch.tensor(peer.encode_query(["water long", "a"])), ours, atol=1e-5)


def test_new_head_is_drawn_from_the_seed_and_saved(tiny_bert, tmp_path):
    modules = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        modules.append(CrossEncoderModule(str(tiny_bert)).model.transformer.classifier.weight)
    assert torch.equal(modules[0], modules[1])
    assert not torch.equal(modules[0], modules[2])
    module = CrossEncoderModule(str(tiny_bert), max_length=32).eval()
    save_cross_encoder(module.model, tmp_path / "saved")
    loaded = load_cross_encoder(tmp_path / "saved")  # no head is missing now
    assert loaded.max_length == 32
    pairs = loaded.tokenize(["water"], ["long little"])
    assert torch.equal(loaded(**loaded.collate(pairs, [0])), module.model(**module.model.collate(pairs, [0])))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.0}, "temperature=0.0; expected a finite number above 0"),
        ({"temperature_lr": math.inf}, "temperature_lr=inf; expected a finite number above 0"),
        ({"dropout": 1.0}, r"dropout=1\.0; expected 0 to below 1 | null"),
        ({"temperature": 0.6, "learn_temperature": True}, r"temperature_range=\[0.01, 0.5\]"),
        ({"towers": "shard"}, r"towers='shard'; expected shared \| separate\. Did you mean 'shared'\?"),
        ({"query_max_length": 1000}, "expected 4 to 64 tokens"),
        ({"pooling": "max"}, "'max' is not supported"),
        ({"model": "./nowhere"}, "does not exist"),
    ],
)
def test_wrong_dual_encoder_is_refused(tiny_bert, options, says):
    with pytest.raises(UserError, match=says):
        DualEncoderModule(**({"model": str(tiny_bert)} | options))


def test_learned_temperature_is_clamped(tiny_bert):
    module = DualEncoderModule(str(tiny_bert), learn_temperature=True, temperature_range=(0.02, 0.2))
    for value, expected in ((0.001, 0.02), (5.0, 0.2), (0.1, 0.1)):
        module.log_temperature.data.fill_(math.log(value))
        module.clamp_temperature()
        assert module.log_temperature.exp().item() == pytest.approx(expected)


def test_cross_encoder_is_no_retriever_and_an_encoder_no_reranker(tiny_bert, tmp_path):
    save_cross_encoder(load_cross_encoder(tiny_bert, new_head=True), tmp_path / "cross")
    with pytest.raises(UserError, match=r"is a CrossEncoder of .* Name it as --reranker"):
        DualEncoder.load(tmp_path / "cross")
    with pytest.raises(UserError, match="it is an encoder, for --retriever"):
        load_cross_encoder(tiny_bert)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_rewound_curves_drop_what_is_computed_again_and_half_a_line(tmp_path):
    curves = Curves(tmp_path)
    for step in (1, 2, 3):
        curves.log_metrics({"train/loss": float(step)}, step)
    with open(tmp_path / "curves.jsonl", "a") as stream:
        stream.write('{"step": 4, "train/lo')
    curves.rewind(2)
    curves.log_metrics({"train/loss": 30.0}, 3)
    assert [(line["step"], line["train/loss"]) for line in read_lines(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_curves_that_cannot_be_written_do_not_end_training(tmp_path, capsys):
    curves = Curves(tmp_path / "nowhere")
    sent = []
    curves.send = lambda values, step: sent.append((values, step))
    curves.log_metrics({"train/loss": 1.0}, 1)
    curves.log_metrics({"train/loss": 1.0}, 2)
    assert capsys.readouterr().err.count("warning") == 1
    assert len(sent) == 2


def test_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"
    with replace_folder(target) as new:
        (new / "a").write_text("1")
    with replace_folder(target) as new:
        (new / "b").write_text("2")
    assert [path.name for path in target.iterdir()] == ["b"]

    def fail():
        with replace_folder(target) as new:
            (new / "c").write_text("3")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_plain_sentence_transformers_embeds_long_and_short_texts_of_both_roles_alike(tiny_bert, tmp_path, towers):
    """One folder, whose lengths and prompts differ by role; two towers are a Router there."""
    from sentence_transformers import SentenceTransformer

    options = {"query_max_length": 8, "doc_max_length": 24, "query_prompt": "of "}
    module = DualEncoderModule(str(tiny_bert), towers=towers, **options).eval()
    if towers == "separate":
        for parameter in module.model.query.parameters():
            parameter.data.mul_(1.1)
    save_dual_encoder(module.model, tmp_path / "saved")
    peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    texts = ["water", "long water just more " * 2, "where most know get " * 20]
    for role, encode in (("query", peer.encode_query), ("doc", peer.encode_document)):
        tower = module.model.tower(role)
        ours = tower(*tower.collate(tower.tokenize(texts, role)))
        assert torch.allclose(torch.tensor(encode(texts)), ours, atol=1e-5), role
    compared = compare(tmp_path / "saved")
    assert compared.is_equal
    assert compared.difference < 1e-5
    equal, *others = compared.sentences()
    assert equal.startswith("plain sentence-transformers' encode_query and encode_document give these embeddings")
    assert "its length of 8 tokens; use encode_query" in " ".join(others)
    assert "encode_document" not in " ".join(others)


def test_a_folder_that_plain_sentence_transformers_reads_otherwise_is_told(tiny_bert, tmp_path):
    module = DualEncoderModule(str(tiny_bert), query_max_length=8, doc_max_length=24).eval()
    save_dual_encoder(module.model, tmp_path / "saved")
    file = tmp_path / "saved/sentence_bert_config.json"
    config = json.loads(file.read_text())
    (tmp_path / "saved/tandem.json").write_text(json.dumps({"query_max_length": 8, "doc_max_length": 24}))
    file.write_text(json.dumps({name: value for name, value in config.items() if not name.endswith("_length")}))
    compared = compare(tmp_path / "saved")
    assert not compared.is_equal
    assert compared.sentences()[0].startswith("plain sentence-transformers differs from these embeddings (encode_query by")


def test_the_router_over_two_towers_is_no_part_of_their_hash(tiny_bert, tmp_path):
    save_dual_encoder(DualEncoderModule(str(tiny_bert), towers="separate").model, tmp_path / "saved")
    before = hash_model(tmp_path / "saved")
    for name in ("modules.json", "router_config.json", "config_sentence_transformers.json"):
        (tmp_path / "saved" / name).unlink()
    assert hash_model(tmp_path / "saved") == before
