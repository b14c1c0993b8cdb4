"""How numbers look: 4 decimals for shares, no zero before the point, a true minus sign. One place, so that every
table, sentence and figure agrees."""

import math
from collections.abc import Iterable, Sequence

MOST = 6  # decimals of a column


def share(value: float) -> str:
    """Format a share: 0.46379 → `.4638`; 1 → `1.0000`."""
    text = f"{value:.4f}".replace("-", "−")
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def signed(value: float) -> str:
    """Format a difference: 0.1289 → `+.1289`; −0.0822 → `−.0822`; what rounds to nothing has no sign."""
    text = share(abs(value))
    return text if text == ".0000" else ("+" if value > 0 else "−") + text


def p_value(p: float) -> str:
    """Format p as `.032`, and as a bound where three decimals would claim too much."""
    return "< .001" if p < 0.001 else "> .999" if p > 0.999 else f"{p:.3f}".replace("0.", ".", 1)


def p_phrase(p: float) -> str:
    """Format p as a phrase: `p < .001`, `p = .032`."""
    text = p_value(p)
    return f"p {text}" if text[0] in "<>" else f"p = {text}"


def column(values: Sequence[float], least: int = 2) -> list[str]:
    """Format numbers with equal decimals: `least`, or as many as its smallest value but 0 needs for two digits.

    Where those were more than 6, each number is written for itself.
    """
    decimals = decimals_of(values, least)
    return [plain(value) if decimals > MOST else f"{value:,.{decimals}f}" for value in values]


def decimals_of(values: Iterable[float], least: int) -> int:
    """Count the decimals that show two digits of the smallest value but 0, `least` or more."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    return max(least, 1 - math.floor(math.log10(min(sizes)))) if sizes else least


def plain(value: float) -> str:
    """Format three digits that mean something: 0.0499999 → `.05`, 0.0001 → `1e−4`, 17.61 → `17.6`."""
    if 0 < abs(value) < 0.001 or abs(value) >= 9999.5:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    elif abs(value) >= 999.5:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3g}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3g}"
    return text.replace("-", "−")


def counted(n: int, noun: str) -> str:
    """Write a count with its noun: `1 run`, `3 runs`."""
    return f"{n} {noun}" if n == 1 else f"{n:,} {noun}s"
