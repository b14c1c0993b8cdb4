"""Run folders → what people read: a table, a plot, a page. Pure up to the verb, which writes the files.

runs (folders → rows) → tables, figures, examples, notes (rows → what is shown) → markdown, html (shown → text).
Beside them, training (folders of `fit`) → curves, training_words: validation numbers never enter the tables.
"""
