"""Names short enough to stand in a figure."""

import unicodedata
from collections.abc import Iterable, Iterator

LONGEST = 44  # characters of a name in a figure; the tables have the whole


def brief(names: Iterable[str], most: int = LONGEST) -> dict[str, str]:
    """Map each name to one of at most `most` characters that no other name has.

    All long names lose the same stretch, or two, so that what is left shows where they differ; a number is cut only where
    there is no other way (ef 15… is not ef 150), and names are numbered where nothing so short tells them apart.
    """
    names = list(dict.fromkeys(names))
    too_long = [name for name in names if len(name) > most]
    short = {name: name for name in names if len(name) <= most}
    cuts = list(_cuts(too_long, most)) if too_long else [[]]
    numbered = [f"{name[: most - 6]}… #{i + 1}" for i, name in enumerate(too_long)]
    texts = [["…".join(name[a:b] for a, b in spans) for name, spans in zip(too_long, cut, strict=True)] for cut in cuts]
    apart = [i for i, cut_names in enumerate(texts) if len({*cut_names, *short}) == len(names)]
    clean = [i for i in apart if all(map(_is_clean, too_long, cuts[i]))]
    chosen = dict(zip(too_long, texts[(clean or apart)[0]] if apart else numbered, strict=True))
    return {name: {**short, **chosen}[name] for name in names}


def _cuts(names: list[str], most: int) -> Iterator[list[list[tuple[int, int]]]]:
    """Yield ways to shorten all of the names: for each name the spans of it that stay.

    First head and tail, cut near the middle; then head, a window near the first difference, and tail.
    """
    for k in sorted(range(1, most - 1), key=lambda k: abs(k - most // 2)):
        yield [[(0, k), (len(name) - (most - 1 - k), len(name))] for name in names]
    head, tail = most // 8, most // 4
    window = most - head - tail - 2
    differ = next((i for i, characters in enumerate(zip(*names, strict=False)) if len({*characters}) > 1), 0)
    for k in sorted(range(head, max(map(len, names)) - window), key=lambda k: abs(k + window // 2 - differ)):
        yield [[(0, head), (k, k + window), (len(name) - tail, len(name))] for name in names]


def _is_clean(name: str, spans: list[tuple[int, int]]) -> bool:
    """Return whether no number is cut."""
    ends = [end for span in spans for end in span if 0 < end < len(name)]
    return not any((name[end - 1].isdigit() or name[end - 1] == ".") and name[end].isdigit() for end in ends)


def widest(texts: Iterable[str], size: float) -> float:
    """Estimate the px that the longest text takes at most: nobody knows which sans-serif font a reader has."""

    def width(text: str) -> float:
        wide = sum(unicodedata.east_asian_width(char) in "WF" or char in "MWm@—" for char in text)
        return size * (0.57 * (len(text) - wide) + 1.0 * wide)

    return max(map(width, texts), default=0.0)
