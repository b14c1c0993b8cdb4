"""`python -m research <verb>` is the console script `research`."""

from research.cli import entry

if __name__ == "__main__":
    entry()
