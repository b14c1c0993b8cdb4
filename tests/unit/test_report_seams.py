"""Where the rooms of a report meet: names of metrics, runs that count, values that no table or figure expects."""

import pytest

from research.report.goals import is_lower


@pytest.mark.parametrize("name", [
    "val/loss", "loss/val", "Loss/train", "val/loss_epoch", "val_loss_epoch", "train/loss_step", "val-loss", "val loss",
    "valLoss", "Val Loss", "loss_val", "val/loss/dataloader_idx_0", "eval_loss", "val.loss", "loss.min", "val/error_rate",
    "eval/ppl",
    "val/reward_rejected", "val/kl", "test/other_loss", "val/perplexity", "MSE", "val/l1_loss@10",
])  # fmt: skip
def test_less_is_better_of_losses_however_a_program_names_them(name):
    assert is_lower(name)


@pytest.mark.parametrize("name", [
    "val/accuracy", "accuracy/val", "val/rouge_l", "ndcg@10", "val/mrr@10", "val/reward_chosen", "val/loss_scale_ok", "eval/f1",
    "token_accuracy", "win_rate", "val/reward_margin", "",
])  # fmt: skip
def test_more_is_better_of_all_else(name):
    assert not is_lower(name)
