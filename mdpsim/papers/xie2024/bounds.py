r"""What the claims of this paper share: the citation, and the theorem's bound as transcribed."""

from __future__ import annotations

from mdpsim.claims.claim import Paper

PAPER = Paper(
    key="xie2024",
    authors=(
        "Xie, Tengyang and Foster, Dylan J. and Krishnamurthy, Akshay and Rosset, Corby and Awadallah, Ahmed and "
        "Rakhlin, Alexander"
    ),
    title="Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for Sample-Efficient RLHF",
    venue="International Conference on Learning Representations (ICLR)",
    year=2025,
    arxiv="2405.21046",
)
