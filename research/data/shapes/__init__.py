"""Rows of retrieval training as people have them, one reader a shape; `table.py` lists them."""
