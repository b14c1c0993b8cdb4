"""A loss is a function and a row in its room's table: then a configuration names it, and its trainer trains with it."""

import pytest

from research.errors import UserError
from research.losses import contrastive, language, preference, ranking

KNOWN = {
    "dual_encoder": (contrastive, "info_nce"),
    "cross_encoder": (ranking, "softmax"),
    "sft": (language, "cross_entropy"),
    "dpo": (preference, "sigmoid"),
}


def one_more(loss):
    """The loss, one higher for each example."""

    def losses(*args, **options):
        values = loss(*args, **options)
        return values._replace(losses=values.losses + 1) if isinstance(values, language.TokenLosses) else values + 1

    return losses


@pytest.mark.parametrize("kind", KNOWN)
def test_a_loss_added_to_the_table_is_trained_by_its_name(training, monkeypatch, kind):
    room, name = KNOWN[kind]
    monkeypatch.setitem(room.LOSSES, "one_more", one_more(room.LOSSES[name]))
    curves = []
    for loss in (name, "one_more"):
        run = training(kind, loss, module={"loss": loss}, trainer={"max_steps": 2, "limit_val_batches": 0})
        run.run()
        curves.append([line for line in run.curve() if "train/loss" in line])
    plain, added = curves
    assert [line["step"] for line in added] == [1, 2]
    for a, b in zip(plain, added, strict=True):  # a constant has no gradient
        assert b["train/loss"] == pytest.approx(a["train/loss"] + 1, abs=1e-5)
        assert b["train/grad_norm"] == pytest.approx(a["train/grad_norm"], rel=1e-4)


@pytest.mark.parametrize("kind", KNOWN)
def test_an_unknown_loss_is_refused_with_those_that_are_known(training, kind):
    known = " | ".join(KNOWN[kind][0].LOSSES)
    with pytest.raises(UserError) as refused:
        training(kind, "unknown", module={"loss": "mine"}).parts()
    assert f"loss='mine'; expected {known}." in str(refused.value)
