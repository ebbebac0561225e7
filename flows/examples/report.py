"""The weekly market report itself: prices -> statistics -> Markdown and a picture. Plain functions, without Prefect."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import new as hmac
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Closes = dict[str, float]
"""By trading day, "2013-03-01", in the order of days. Plain values: they have JSON, and a hash that stays."""

COLUMNS = ("symbol", "last", "week", "high", "low", "error")
WEEK = 5  # trading days
PICTURE = (6.4, 3.2)  # inches, at 80 dots each


def closes(bars: pd.DataFrame) -> Closes:
    """Bars as a provider gives them -> their closes."""
    return {str(time.date()): float(close) for time, close in zip(bars["time"], bars["close"], strict=True)}


def statistics(symbol: str, prices: Closes) -> dict[str, Any]:
    """The last close, its change in a week as a share, the range of all. Raises ValueError with less than a week."""
    values = list(prices.values())
    if len(values) <= WEEK:
        raise ValueError(f"{symbol} has {len(values)} closes; a week's change needs {WEEK + 1}: take more days.")
    week = values[-1] / values[-1 - WEEK] - 1
    numbers = {"last": values[-1], "week": week, "high": max(values), "low": min(values)}
    return {"symbol": symbol, **{name: round(number, 4) for name, number in numbers.items()}, "error": ""}


def failed(symbol: str, error: BaseException) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"symbol": symbol, "error": str(error) or type(error).__name__}


def markdown(rows: Sequence[Mapping[str, Any]], day: str, title: str) -> str:
    """The report without its signature: the best week first, what failed last."""
    ordered = sorted(rows, key=lambda row: (bool(row["error"]), -(row["week"] or 0)))
    lines = [line(row) for row in ordered]
    return "\n".join([f"# {title}, {day}", "", "| symbol | last | week |", "|---|---|---|", *lines, ""])


def line(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"| {row['symbol']} | | {row['error']} |"
    return f"| {row['symbol']} | {row['last']:.2f} | {row['week']:+.1%} |"


def best(rows: Sequence[Mapping[str, Any]]) -> str:
    return str(max((row for row in rows if not row["error"]), key=lambda row: row["week"])["symbol"])


def signed(text: str, key: str) -> str:
    """By its last line a reader who has the key too knows that the text is ours, and whole."""
    return f"{text}\nSignature: {signature(text, key)}\n"


def signature(text: str, key: str) -> str:
    return hmac(key.encode(), text.encode(), sha256).hexdigest()


def check(text: str, symbols: Sequence[str]) -> None:
    """Raises ValueError unless every symbol has its line, and the signature, which is written last, is there to its end."""
    missing = [symbol for symbol in symbols if f"| {symbol} |" not in text]
    if missing or "\nSignature: " not in text or not text.endswith("\n"):
        raise ValueError(f"The report is not whole. It lacks {', '.join(missing) or 'its signature'}.")


def chart(prices: Mapping[str, Closes]) -> bytes:
    """A PNG of about 20 kB: each symbol's closes, as a percentage of its first."""
    from matplotlib.figure import Figure  # not pyplot: that one keeps every figure, and belongs to one thread

    figure = Figure(figsize=PICTURE, dpi=80, layout="constrained")
    axes = figure.subplots()
    for symbol, values in prices.items():
        first = next(iter(values.values()))
        axes.plot(range(len(values)), [100 * value / first for value in values.values()], label=symbol)
    axes.set_ylabel("% of the first day")
    axes.set_xlabel("trading days")
    axes.legend(ncols=len(prices), fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def data_uri(png: bytes) -> str:
    """The picture inside of its own address: a browser shows it, and nothing has to be stored anywhere else."""
    return f"data:image/png;base64,{b64encode(png).decode()}"
