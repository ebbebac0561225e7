"""When a run fails because of the symbols that did. Pure."""

from __future__ import annotations


def too_many_failed(failed: int, of: int, max_share: float) -> str:
    """Why the run fails, or nothing. All symbols are always too many, whatever the share."""
    if failed and failed == of:
        return "All failed."
    return f"More than {max_share:.0%} may not fail." if failed > max_share * of else ""
