"""Faults that well-known libraries had, or that we nearly had: each planted here must turn its test red."""

from typing import NamedTuple


class Fault(NamedTuple):
    """Args:
    name: what goes wrong.
    file: under research/.
    old, new: the patch; `old` stands once in the file.
    test: of the test that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


DDP = "tests/integration/test_ddp.py::test_ranks_give_the_single_process_gradient[hard negatives-2]"
ORACLE = "tests/integration/test_gradients.py"
ADAPTERS = "tests/unit/test_adapters.py"
VALIDATION = "tests/integration/test_language_validation.py"
SFT, DPO = "tests/parity/test_trl_sft.py", "tests/parity/test_trl_dpo.py"
RESUME = "tests/integration/test_resume.py"
PARTS = "tests/unit/test_training_parts.py"
LEDGER, SEARCH = "tests/unit/test_sweep_ledger.py", "tests/unit/test_sweep_search.py"
SWEEP = "tests/e2e/test_sweep.py"
LOSSES = "tests/unit/test_losses.py"
ASKED = "tests/e2e/test_invariants.py::test_a_training_is_what_was_asked_for[fixed]"

FAULTS = [
    Fault(
        "gradient W times too large",
        "training/step.py",
        "trainer.world_size / totals[0]",
        "trainer.world_size**2 / totals[0]",
        DDP,
    ),
    Fault("gradient W times too small", "training/step.py", "trainer.world_size / totals[0]", "1 / totals[0]", DDP),
    Fault("detached gather", "training/dual_encoder.py", "sync_grads=rows.requires_grad", "sync_grads=False", DDP),
    Fault(
        "labels of rank 0 on every rank",
        "training/dual_encoder.py",
        "positives = number + first_doc",
        "positives = number",
        DDP,
    ),
    Fault(
        "gathered padding scored as documents",
        "training/dual_encoder.py",
        "[part[:count] for part, count in",
        "[part for part, count in",
        DDP,
    ),
    Fault(
        "lost temperature",
        "losses/contrastive.py",
        "_scores(query, docs) / temperature",
        "_scores(query, docs)",
        f"{LOSSES}::test_info_nce_by_hand",
    ),
    Fault(
        "unmasked duplicate",
        "losses/contrastive.py",
        "logits.masked_fill(masked, -torch.inf)",
        "logits",
        f"{ORACLE}::test_dual_encoder_step_equals_the_oracle",
    ),
    Fault(
        "duplicates known by id only, not by text",
        "data/pairs.py",
        "numbers.setdefault(corpus[doc].content, len(numbers))",
        "numbers.setdefault(corpus[doc].content + doc, len(numbers))",
        "tests/unit/test_training_data.py::test_one_example_a_judged_pair_and_equal_texts_are_one_document",
    ),
    Fault(
        "bf16 similarities under autocast",
        "losses/contrastive.py",
        "with torch.autocast(query.device.type, enabled=False):",
        "if True:",
        f"{LOSSES}::test_scores_stay_fp32_under_autocast",
    ),
    Fault(
        "validation searches in bf16",
        "retrieval/exact.py",
        ", torch.autocast(device.type, enabled=False):",
        ":",
        "tests/unit/test_index.py::test_exact_search_is_float32_under_autocast",
    ),
    Fault(
        "a small set's first items again and again",
        "data/rows.py",
        "count = min(count, len(items))",
        "pass",
        "tests/unit/test_training_data.py::test_evenly_spaced_items_repeat_nothing",
    ),
    Fault(
        "reshape by batch size on a partial batch",
        "training/cross_encoder.py",
        "flat.new_zeros(present.shape).masked_scatter(present, flat)",
        "flat.reshape(3, -1)",
        f"{PARTS}::test_scores_of_a_partial_batch_stay_with_their_queries",
    ),
    Fault(
        "chunks not put back in order",
        "training/dual_encoder.py",
        "for chunk in texts.chunks])[texts.rows]",
        "for chunk in texts.chunks])",
        f"{PARTS}::test_embeddings_in_chunks_are_those_of_each_text_alone",
    ),
    Fault(
        "cosine model trained on dot products",
        "training/dual_encoder.py",
        "if encoder.settings.normalize_outside",
        "if False",
        f"{ORACLE}::test_dual_encoder_step_equals_the_oracle",
    ),
    Fault(
        "negatives in the symmetric direction's way",
        "losses/contrastive.py",
        "return (forward + backward) / 2",
        "return forward + backward",
        f"{ORACLE}::test_dual_encoder_step_equals_the_oracle",
    ),
    Fault(
        "candidates of a group averaged over the padded size",
        "losses/ranking.py",
        "/ present.sum(1)",
        "/ present.shape[1]",
        f"{ORACLE}::test_cross_encoder_step_equals_the_oracle",
    ),
    Fault(
        "mean of means over unequal micro-batches",
        "training/step.py",
        "total = losses.sum()",
        "total = losses.mean() * 8",
        "tests/integration/test_ddp.py::test_last_smaller_batch_weighs_its_examples_on_every_rank",
    ),
    Fault(
        "labels not shifted",
        "models/causal_lm.py",
        "index_select(0, at)",
        "index_select(0, at + 1)",
        f"{SFT}::test_five_steps_are_those_of_trl",
    ),
    Fault(
        "places of labels counted by another width",
        "data/instruction_tokens.py",
        "row * width + place",
        "row * (width - 1) + place",
        f"{SFT}::test_five_steps_are_those_of_trl",
    ),
    Fault(
        "virtual tokens not cut off",
        "models/causal_lm.py",
        "states.last_hidden_state[:, count:]",
        "states.last_hidden_state[:, :-count]",
        "tests/unit/test_adapters.py::test_hidden_states_give_the_model_s_own_logits_with_any_padding",
    ),
    Fault(
        "packed texts see each other",
        "data/instruction_tokens.py",
        'for length in row["seq_lengths"] for at in range(length)]',
        'for at in range(sum(row["seq_lengths"]))]',
        "tests/unit/test_adapters.py::test_packed_rows_have_the_losses_of_their_texts",
    ),
    Fault(
        "reference with the adapter on",
        "training/dpo.py",
        "with self.model.adapter_off():",
        "if True:",
        f"{DPO}::test_five_steps_are_those_of_trl",
    ),
    Fault(
        "rejected completion sees the chosen one",
        "data/preference_tokens.py",
        " & ~hidden & ",
        " & ",
        f"{DPO}::test_five_steps_are_those_of_trl",
    ),
    Fault(
        "rejected completion placed after the chosen one",
        "data/preference_tokens.py",
        "torch.where(rejected, place - second + prompt, place)",
        "place.expand(len(rows), -1)",
        f"{DPO}::test_five_steps_are_those_of_trl",
    ),
    Fault(
        "first rejected token predicted by the chosen one",
        "data/preference_tokens.py",
        "p + c - 1 + k if k else p - 1",
        "p + c - 1 + k",
        f"{DPO}::test_five_steps_are_those_of_trl",
    ),
    Fault(
        "a cached reference believed unseen",
        "training/reference.py",
        "trusted = _fits(module, parts, folder)",
        "trusted = True",
        "tests/integration/test_references.py::test_a_cache_of_another_model_is_not_believed",
    ),
    Fault(
        "lost scale of LoRA",
        "models/lora.py",
        "out.addmm_(inner, up.T, alpha=scaling)",
        "out.addmm_(inner, up.T)",
        "tests/parity/test_fast_training.py::test_faster_lora_is_peft_s",
    ),
    Fault(
        "adapter that is no identity at the start",
        "models/adapters.py",
        "adapted = peft.get_peft_model(model, config)",
        "config.init_lora_weights = False; adapted = peft.get_peft_model(model, config)",
        f"{ADAPTERS}::test_lora_is_the_base_at_init_and_when_off_and_merged_as_unmerged",
    ),
    Fault(
        "merged without the update",
        "models/policy.py",
        "merge_and_unload()",
        "unload()",
        "tests/e2e/test_export.py::test_merged_export_is_an_ordinary_model",
    ),
    Fault(
        "encoder merged without the update",
        "models/adapters.py",
        "child.merge(safe_merge=True)",
        "pass",
        f"{ADAPTERS}::test_merged_encoder_is_the_unmerged_one",
    ),
    Fault(
        "padding believed to be unseen",
        "models/generate.py",
        "return float((alone - beside).abs().max()) <= limit",
        "return True",
        "tests/integration/test_windows.py::test_answers_under_a_prefix_are_those_of_one_at_a_time",
    ),
    Fault(
        "KL to the policy itself",
        "training/dpo.py",
        "with off:",
        "if True:",
        f"{VALIDATION}::test_kl_is_that_of_the_whole_vocabulary",
    ),
    Fault(
        "forgetting on the trained text",
        "training/sft.py",
        'data.tokens["other"]',
        "data.tokens[name]",
        f"{VALIDATION}::test_forgetting_is_the_loss_on_other_text",
    ),
    Fault(
        "frozen base unchecked on resume",
        "training/language.py",
        'checkpoint.get("base_hash") != self.reference_hash',
        "False",
        f"{RESUME}::test_checkpoint_of_an_adapter_holds_no_frozen_weight_and_another_base_is_refused",
    ),
    Fault(
        "dropout not seeded by the step",
        "training/resume.py",
        "bits.seed(value)",
        "pass",
        f"{RESUME}::test_resumed_at_awkward_steps_equals_straight",
    ),
    Fault(
        "torch's generator not seeded by the step",
        "training/resume.py",
        "torch.manual_seed(value % 2**63)",
        "pass",
        f"{RESUME}::test_resumed_with_torch_s_own_dropout_equals_straight",
    ),
    Fault(
        "resumed at the epoch's first batch",
        "data/base.py",
        "self.place = state_dict or None",
        "self.place = None",
        f"{RESUME}::test_resumed_at_awkward_steps_equals_straight",
    ),
    Fault(
        "checkpoint inside an accumulation window",
        "training/resume.py",
        "if not module.window.open and not self._validation_follows(trainer):",
        "if not self._validation_follows(trainer):",
        f"{RESUME}::test_resumed_with_accumulation_equals_straight",
    ),
    Fault(
        "damaged checkpoint taken for a good one",
        "training/resume.py",
        'hash_file(path) == entry["sha256"]',
        "True",
        f"{RESUME}::test_damaged_last_checkpoint_falls_back_loudly",
    ),
    Fault(
        "curve's line lost at the stop",
        "training/curves.py",
        "lines = read_lines(self.path.parent)",
        "lines = read_lines(self.path.parent)[:-1]",
        f"{RESUME}::test_resumed_at_awkward_steps_equals_straight",
    ),
    Fault(
        "order of the data the same in every epoch",
        "data/sampler.py",
        "+ self.epoch) % 2**63",
        ") % 2**63",
        "tests/unit/test_sampler.py::test_epoch_is_a_permutation_and_differs_by_epoch_and_seed",
    ),
    Fault(
        "norms and biases decayed",
        "training/optimisation.py",
        "if parameter.ndim > 1 else 0.0",
        "if parameter.ndim > 0 else 0.0",
        f"{PARTS}::test_norms_biases_and_temperature_are_not_decayed",
    ),
    Fault(
        "pairs without token types",
        "models/cross_encoder.py",
        '{"token_type_ids": token_type_ids}',
        "{}",
        "tests/parity/test_cross_encoder.py",
    ),
    Fault(
        "reranker saturated by a sigmoid",
        "models/cross_encoder.py",
        ".logits  # (B, labels)",
        ".logits.sigmoid()  # (B, labels)",
        "tests/parity/test_cross_encoder.py",
    ),
    Fault(
        "padding read as the end of a pair",
        "models/cross_encoder.py",
        "if alone is None or model.choose_pad(alone, precision):",
        "if True:",
        "tests/parity/test_model_folders.py::test_score_of_a_decoder_does_not_depend_on_padding",
    ),
    Fault(
        "inputs of a model left out",
        "models/dual_encoder.py",
        "is_known(stack) and takes_ids_alone(stack[0])",
        "is_known(stack)",
        "tests/parity/test_model_folders.py::test_inputs_that_the_fast_path_would_leave_out",
    ),
    Fault(
        "two workers on one point",
        "runs/ledger.py",
        "yield try_lock(stream, path)",
        "yield True",
        f"{LEDGER}::test_fifty_kills_lose_no_point_and_run_none_twice",
    ),
    Fault(
        "a point that was killed is forgotten",
        "runs/ledger.py",
        'state = "killed"',
        'state = "done"',
        f"{LEDGER}::test_running_without_a_claim_was_killed",
    ),
    Fault(
        "wrong input tried again",
        "runs/ledger.py",
        'and standing.last.get("code") != WRONG_INPUT',
        "",
        f"{LEDGER}::test_a_crash_is_tried_again_and_wrong_input_is_not",
    ),
    Fault(
        "a full disk ends a training through its log",
        "sweeps/process.py",
        "_in_process(arguments, _Lossy(stream), run, variables)",
        "_in_process(arguments, stream, run, variables)",
        f"{LEDGER}::test_a_full_disk_ends_no_point_and_no_worker",
    ),
    Fault(
        "one trial more than run_cap",
        "sweeps/search.py",
        "if len(points) >= sweep.run_cap:",
        "if len(points) > sweep.run_cap:",
        f"{SEARCH}::test_workers_that_grow_a_search_together_do_not_overshoot",
    ),
    Fault(
        "proposals without a lock",
        "sweeps/search.py",
        "with locked(folder / LOCK):",
        "if True:",
        f"{SEARCH}::test_workers_that_grow_a_search_together_do_not_overshoot",
    ),
    Fault(
        "a search away from its goal",
        "sweeps/search.py",
        "create_study(direction=sweep.goal,",
        'create_study(direction="maximize",',
        f"{SEARCH}::test_the_search_finds_the_valley_and_dice_do_not",
    ),
    Fault(
        "hyperband on the wrong side",
        "sweeps/hyperband.py",
        "sign = -1 if goal",
        "sign = 1 if goal",
        "tests/parity/test_wandb_sweeps.py::test_hyperband_stops_the_runs_that_w_and_b_would_stop",
    ),
    Fault(
        "a pruned training called done",
        "training/run.py",
        'results | ({"pruned": pruned[0]} if pruned else {})',
        "results",
        f"{SWEEP}::test_hyperband_prunes_what_lags_behind_and_says_so",
    ),
    Fault(
        "null that becomes the text None",
        "sweeps/command.py",
        "[name for name, value in point.items() if value is None]",
        "[]",
        "tests/unit/test_sweep_sources.py::test_null_is_lost_in_a_command_and_kept_in_json",
    ),
    Fault(
        "seeds lost in a size of a sweep",
        "sweeps/compile.py",
        "(all_sizes | changed).items()",
        "changed.items()",
        "tests/unit/test_sweep_sources.py::test_a_size_changes_the_parameters_that_it_names_and_keeps_the_others",
    ),
    Fault(
        "two data sets in one sweep's folder",
        "sweeps/folder.py",
        'if (before := owner.get("overlay", [])) != list(sweep.overlay) and',
        'if (before := owner.get("overlay", [])) is None and',
        "tests/e2e/test_sweep_own_data.py::test_one_folder_takes_one_overlay",
    ),
    Fault(
        "a report on the GPUs",
        "sweeps/directives.py",
        "asked = {name: value for name, value in FINISH.items() if name not in named}",
        'named, asked = {*named, "account"}, {"partition": options.partition, "gres": options.gpus and f"gpu:{options.gpus}"}',
        "tests/e2e/test_sweep_submit.py::test_the_last_job_asks_for_no_gpu_and_has_a_time",
    ),
    Fault(
        "the seed left out of a point's name",
        "runs/identity.py",
        "(hash_json([form, ",
        '(hash_json([{**form, "seed_everything": 0}, ',
        f"{SWEEP}::test_points_are_planned_run_once_and_are_those_of_fit",
    ),
    Fault(
        "tokens of another loss from the disk",
        "data/instruction_tokens.py",
        "max_length=max_length,\n        loss_on=loss_on,",
        "max_length=max_length,",
        "tests/unit/test_token_cache.py::test_whatever_changes_the_tokens_is_another_file",
    ),
    Fault(
        "deterministic kernels for every later point",
        "training/trainer.py",
        "torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])",
        "pass",
        f"{SWEEP}::test_what_one_point_sets_for_its_process_is_not_there_for_the_next",
    ),
    Fault(
        "runs of other code in one mean",
        "report/groups.py",
        "parts.setdefault(run.origin, [])",
        "parts.setdefault((), [])",
        "tests/unit/test_study.py::test_runs_of_other_code_or_data_are_never_averaged",
    ),
    Fault(
        "pruned runs in the mean",
        "report/groups.py",
        'if run.state != "done" or metric not in run.metrics:',
        "if metric not in run.metrics:",
        "tests/unit/test_study.py::test_what_has_no_value_is_shown_and_not_averaged",
    ),
    Fault(
        "an interaction that holds its main effects",
        "metrics/factorial.py",
        "part = part - mean if axis in axes else mean",
        "part = part if axis in axes else mean",
        "tests/unit/test_factorial.py::test_a_grid_s_variance_is_the_sum_of_its_parts",
    ),
    Fault(
        "a block's degrees of freedom left in the residual",
        "metrics/factorial.py",
        "- (1 if blocked else 0)",
        "- 0",
        "tests/parity/test_statsmodels_anova.py",
    ),
    Fault(
        "levels weighed by their numbers in the forest",
        "report/importance.py",
        "    if has_levels:",
        "    if False:",
        "tests/unit/test_importance.py::test_levels_weigh_alike_in_the_forest_though_their_numbers_do_not",
    ),
    Fault(
        "leaves of a forest weighed alike",
        "metrics/fanova.py",
        "volume = sides.prod(axis=1)",
        "volume = np.full(len(sides), 1 / len(sides))",
        "tests/parity/test_optuna_fanova.py",
    ),
    Fault(
        "labels of a figure on each other",
        "report/figures/cost.py",
        "max(place, down[-1] + apart) if down else place",
        "place",
        "tests/unit/test_plots_factors.py::test_names_in_the_margin_stand_apart_and_near_their_points",
    ),
    Fault(
        "p values not corrected",
        "metrics/significance.py",
        "p[order] * np.arange(p.size, 0, -1)",
        "p[order]",
        "tests/unit/test_seeds.py",
    ),
    Fault(
        "devices that make another point",
        "runs/spelling.py",
        '"devices": 1, ',
        "",
        "tests/unit/test_identity.py::test_devices_at_an_equal_global_batch_are_one_point",
    ),
    # of these only the invariant knows: no curve shows them, and no number is wrong but for the configuration
    Fault(
        "a fixed temperature clamped", "training/dual_encoder.py", "if self.log_temperature.requires_grad:", "if True:", ASKED
    ),
    Fault(
        "the data's order of another seed",
        "data/base.py",
        "self.batch_size,\n            self.seed,",
        "self.batch_size,\n            0,",
        ASKED,
    ),
    Fault(
        "a changed base kept for the next point",
        "models/base_cache.py",
        "cached.checksums != _checksums(cached.model)",
        "False",
        "tests/unit/test_base_cache.py::test_a_change_that_nobody_announced_is_noticed",
    ),
]
