"""The claims: each a few lines, in the order in which they are told."""

from __future__ import annotations

from ritornello.errors import InputError, nearest
from ritornello.lab.reproduce.claim import Claim, Trial
from ritornello.lab.reproduce.min_gru import MIN_GRU, MinGRUClaim

__all__ = ["CLAIMS", "choose"]

SIGNED = "negative_eigenvalues=true"
WINDOWED = "attention:window=8+based:heads=1:value_size=4"
SMALL_STATE = "gla:heads=1:key_size=8:value_size=8"
TWICE = {"readings": 2, "train_length": 50, "test_lengths": (50,)}
EIGHT_HEADS = ":decay=false:heads=8:key_size=16"
LEARNS, DOES_NOT = 0.9, 0.2
"""Of scores from chance, 0, to the best, 1: of parity, 95 and 60 % right."""

GRAZZI = "Grazzi et al. 2024, arXiv:2411.12537, table 3 (2 layers, width 128)"
STUFFED = "Chen et al. 2024, arXiv:2410.07145; the cure: Buitrago & Gu 2025, arXiv:2507.02782, figure 1"
BECK = "Beck et al. 2024, arXiv:2405.04517, section 4.1; Merrill et al. 2024, arXiv:2404.08819"

_ALL = (
    Claim(
        name="negative_eigenvalues",
        claimed="With eigenvalues in [−1, 1] DeltaNet and Mamba learn parity beyond the lengths of training; with "
        "those in [0, 1] they do not.",
        source=GRAZZI,
        task="parity",
        length=160,
        trials=(
            Trial(f"delta_net:{SIGNED}", at_least=LEARNS, name="DeltaNet [−1, 1]"),
            Trial("delta_net", at_most=DOES_NOT, name="DeltaNet [0, 1]"),
            Trial(f"mamba:{SIGNED}", at_least=LEARNS, name="Mamba [−1, 1]"),
            Trial("mamba", at_most=DOES_NOT, name="Mamba [0, 1]"),
        ),
        steps=600,
    ),
    Claim(
        name="delta_product",
        claimed="Products of two Householder matrices solve the word problem of S3 in one layer; one Householder "
        "matrix does not.",
        source="Siems et al. 2025, arXiv:2502.10297, figure 4 (one layer, trained at 128)",
        task="s3",
        length=64,
        trials=(
            Trial(f"delta_product:householders=2{EIGHT_HEADS}", at_least=LEARNS, name="DeltaProduct, 2 Householders"),
            Trial(f"delta_product:householders=1{EIGHT_HEADS}", at_most=0.75, name="DeltaNet [−1, 1], 1 Householder"),
        ),
        steps=5000,
        depth=1,
        rates=(3e-3, 1e-3),
        note="Trained at length 16, scored at 64. One Householder matrix learns words of the training lengths, by its "
        "heads and its convolution, and falls off beyond them.",
    ),
    Claim(
        name="hybrid_recall",
        claimed="One attention layer closes most of the gap in recall between a recurrent model and attention.",
        source="Arora et al. 2023, arXiv:2312.04927 (97 % of the gap by attention where it is needed); Waleffe et al. "
        "2024, arXiv:2406.07887",
        task="mqar",
        length=64,
        trials=(
            Trial("attention", at_least=0.95),
            Trial("min_gru", at_most=0.5, name="minGRU"),
            Trial("min_gru+attention", at_least=0.9, name="minGRU, then one layer of attention"),
        ),
        steps=800,
    ),
    Claim(
        name="read_twice",
        claimed="Reading a text twice closes part of the gap in recall between a recurrent model of small state and "
        "attention.",
        source="Arora et al. 2024, arXiv:2407.05483: 11.0 ± 1.3 points, the mean over 16 language models and 6 tasks; "
        "set disjointness as in their section 3",
        task="set_disjointness",
        length=25,
        fields={"smaller": 3, "train_length": 25, "test_lengths": (25,)},
        trials=(
            Trial(SMALL_STATE, at_most=0.85, name="GLA of small state, read once"),
            Trial(SMALL_STATE, above=(0, 0.1), fields=TWICE, length=50, name="GLA of small state, read twice"),
            Trial("attention", at_least=0.95, name="attention, read once"),
        ),
        steps=1500,
        rates=(1e-2,),
        note="Sets of 20 and 3 of 32 tokens, the larger one first; a state of 64 numbers in each of two blocks. "
        "Published are language models that are shown a text again; here a model is trained to read twice.",
    ),
    Claim(
        name="state_tracking",
        claimed="LSTM and sLSTM, whose state is mixed by what it holds, track state; GLA and Mamba do not.",
        source=BECK,
        task="parity",
        length=160,
        trials=(
            Trial("lstm", at_least=LEARNS, name="LSTM"),
            Trial("slstm", at_least=LEARNS, name="sLSTM"),
            Trial("gla", at_most=DOES_NOT, name="GLA"),
            Trial("mamba", at_most=DOES_NOT, name="Mamba"),
        ),
        steps=600,
    ),
    Claim(
        name="state_size",
        claimed="A BASED-style model trades recall against state: more features, better recall.",
        source="Arora et al. 2024, arXiv:2402.18668, figures 2 and 3",
        task="mqar",
        length=64,
        fields={"spacing": 4, "mixture": ((1, 4, 1),)},
        trials=(
            Trial(f"{WINDOWED}:key_size=1", at_most=0.7, name="window 8, K = 1: 3 features"),
            Trial(f"{WINDOWED}:key_size=16", at_least=0.9, name="window 8, K = 16: 153 features"),
        ),
        steps=600,
        rates=(3e-3,),
        note="15 pairs in 64 steps, all the keys there are; one head with values of 4, so 12 or 612 numbers of state. "
        "With values of 64 six features are enough.",
    ),
    Claim(
        name="state_collapse",
        claimed="Beyond the length of training Mamba-2 loses what it can, in states that it has not met; trained from "
        "the states in which other sequences ended, it keeps it.",
        source=STUFFED,
        task="text",
        fields={"train_length": 64},
        length=1024,
        kept_from=64,
        trials=(
            Trial("mamba2", at_most=0.7, name="Mamba-2, begun in zero"),
            Trial("mamba2", at_least=0.95, passing=True, name="Mamba-2, begun in passed states"),
        ),
        steps=600,
        rates=(1e-2,),
        note="Scored is the part of the accuracy at the length of training that is left at 16 times it. Published are "
        "models of 130 million parameters and more, in which the loss explodes.",
    ),
    Claim(
        name="lower_bounds",
        claimed="HGRN's lower bounds on the forget gate, rising from layer to layer, let it learn what is far apart.",
        source="Qin et al. 2023, arXiv:2311.04823",
        task="adding",
        fields={"train_length": 100},
        length=100,
        trials=(
            Trial("hgrn", at_least=LEARNS, name="HGRN, learned bounds"),
            Trial("hgrn:lower_bound=0", at_most=0.5, name="HGRN without bounds"),
        ),
        steps=800,
        depth=4,
        note="The score is 1 − error / (1/6), the error of one who does not look. The bounds rise over four layers.",
    ),
)

CLAIMS: dict[str, Claim | MinGRUClaim] = {claim.name: claim for claim in (*_ALL, MIN_GRU)}


def choose(names: list[str]) -> list[Claim | MinGRUClaim]:
    """The claims that are meant; ``all`` of them.

    Raises:
        InputError: an unknown one; the nearest are offered.
    """
    for name in names:
        if name not in CLAIMS and name != "all":
            raise InputError(f"There is no claim {name!r}. {nearest(name, [*CLAIMS, 'all'])}")
    return [claim for name, claim in CLAIMS.items() if name in names or "all" in names]
