"""Figures of a claim: rate plots, laws and margin strips, in one style, made to be printed.

:func:`claim_figure` chooses the figure from the claim's rule and grid. matplotlib is imported when a figure is made,
not with this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdpsim.claims.claim import Claim
from mdpsim.claims.rules import Limit
from mdpsim.claims.within import unfold
from mdpsim.verdict.records import Records, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["claim_figure"]


def claim_figure(claim: Claim, records: Records, verdict: Verdict) -> Figure:
    """The figure of a claim: its law, a rate plot where there is an axis to plot against, else margins point by point."""
    from mdpsim.plots.distributions import margin_plot
    from mdpsim.plots.laws import law_plot
    from mdpsim.plots.rates import rate_plot
    from mdpsim.plots.series import rate_axis

    claim, records = unfold(claim, records)
    if isinstance(claim.rule, Limit) and claim.rule.law is not None:
        return law_plot(claim, records, verdict)
    plot = margin_plot if rate_axis(claim, records) is None else rate_plot
    return plot(claim, records, verdict)
