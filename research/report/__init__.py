"""Run folders → what people read: a table, a figure, a page. Pure up to `build`, which writes the files.

Trainings: runs.table (folders, sweeps, W&B → records) → groups (→ study) → study_sheets, factor_sheets, main_table → export
(LaTeX, CSV, Markdown) and figures. Retrievals: systems (folders → rows) → tables. Both → page, wandb. `training` draws the
curves of single trainings: their validation numbers never enter the tables of tests.
"""
