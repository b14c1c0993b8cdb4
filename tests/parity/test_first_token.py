"""A last layer that computes the first token's row alone gives the same values and the same gradients."""

import copy

import pytest
import torch
import transformers as tf

from research.models.first_token import keep_first_token

SHAPE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "num_labels": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
KINDS = ["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra"]


def model_of(kind: str, implementation: str = "sdpa"):
    torch.manual_seed(0)
    config = getattr(tf, f"{kind}Config")(**SHAPE, pad_token_id=0, attn_implementation=implementation)
    return getattr(tf, f"{kind}ForSequenceClassification")(config).double()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_gradients_are_those_of_the_whole_layer(kind, implementation):
    plain = model_of(kind, implementation)
    short = copy.deepcopy(plain)
    assert keep_first_token(short)
    mask = (torch.arange(12) < torch.tensor([12, 5, 9, 1])[:, None]).long()
    ids = torch.randint(5, 100, (4, 12), generator=torch.Generator().manual_seed(1)) * mask
    logits = [model(input_ids=ids, attention_mask=mask).logits for model in (plain, short)]
    for values in logits:
        (values.squeeze(1) * torch.tensor([1.0, -2.0, 3.0, 0.5])).sum().backward()
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-13)
    for (name, one), other in zip(plain.named_parameters(), short.parameters(), strict=True):
        assert one.grad is not None or name.endswith(("pooler.dense.weight", "pooler.dense.bias")), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-12, msg=name)
    body = short.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert body.shape == (4, 1, 32)


@pytest.mark.parametrize(
    "config",
    [
        tf.DistilBertConfig(vocab_size=100, dim=32, n_layers=1, n_heads=2, hidden_dim=32),
        tf.BertConfig(**SHAPE, is_decoder=True),
    ],
)
def test_other_models_are_left_alone(config):
    assert not keep_first_token(tf.AutoModel.from_config(config))
