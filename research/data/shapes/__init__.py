"""Rows of retrieval training in the usual shapes, one reader for each shape; `table.py` lists them."""
