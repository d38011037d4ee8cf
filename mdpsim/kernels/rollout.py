"""Episodes and visit counts of a policy in a tabular MDP, and what they are made of.

Setting: s_0 ~ mu0; at stage h = 0 .. H-1, a_h ~ pi[h, s_h] and s_{h+1} ~ P[h, s_h, a_h]. Rows are probabilities.

Streams. Number t of episode e is mix(start(e) + (t + 1) golden), the splitmix64 generator, where start(e) =
mix(mix(key0 + e golden) ^ key1) hashes the episode under a 128-bit key; t = 0 draws s_0, 2h + 1 the action of stage h,
2h + 2 the state after it. So episode e depends on (key, e) alone: neither on how many episodes there are, nor on their
order. What is claimed: within an episode the numbers are splitmix64's (it passes BigCrush; no 64-bit number comes
twice). The starts of different episodes are hashed, not provably disjoint: take them as independent uniform points of
the cycle of length 2^64, and two episodes share a piece of it with probability below (4H + 3) / 2^64 (1e-3 for one
such pair among 1e7 episodes at H = 50).

Inverse transform. A row is accumulated from the left; u in [0, 1) picks the first j with u < p_0 + .. + p_j. A guide
table (Chen and Asau 1974) says where the search starts, so that it ends after about one step: the same index, bit for
bit, as a scan of the row. The last positive entry counts as infinite: u beyond a rounded sum falls there. An outcome of
probability zero is never drawn; each probability is off by at most S 2^-53 (rounding of the sums, grid of u). A row of
P is scanned at its first visits, then tabulated: cost O(rows visited * S + steps). A block of episodes passes each
stage in three short loops, so that the cache misses of different episodes overlap and mispredicted branches do not wait
for them.

Counts. The counts of N trajectories are multinomial given those before them: N_h(s, .) ~ Mult(N_h(s), pi[h, s]), and
N_{h+1} is the sum of Mult(N_h(s, a), P[h, s, a]). A multinomial is split by binomials down a tree of partial sums: each
share is p / (p + q) of two sums of nonnegative terms, so there is no cancellation, no mass for an entry of probability
zero, and branches without trajectories cost nothing. Where few trajectories meet a row, they are drawn one by one.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import exact, helper, kernel
from mdpsim.kernels.pcg64 import binomial, uniform

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
BLOCK = 1024  # episodes advanced together: the tables of one stage stay in cache, and their misses overlap
SCANS = 1  # visits of a row of P before it is tabulated, which costs what three scans do: few rows are seen just once
FEW = 4  # up to FEW * S trajectories in a row are drawn one by one (a binomial costs about as much as 4-8 draws)


@helper
def mix(x):
    """Finaliser of splitmix64 (Steele, Lea and Flood 2014; Stafford's variant 13): a bijection of uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@helper
def stream_start(key0, key1, episode):
    """Where the stream of an episode starts. All arguments uint64: with a signed one numba computes in float64."""
    return mix(mix(key0 + GOLDEN * episode) ^ key1)


@helper
def stream_uniform(start, t):
    """Number t (uint64) of a stream, uniform on the multiples of 2^-53 in [0, 1)."""
    bits = mix(start + GOLDEN * (t + np.uint64(1)))
    return np.float64(np.int64(bits >> np.uint64(11))) * 2.0**-53


@exact
def tabulate(p, first, cumulative, guide):
    """Fill the tables of the rows of ``p`` [R, C], which are rows first, first + 1, .. of the tables.

    cumulative[i, j] is the sum of p[i, 0 .. j] from the left (infinite at the last positive entry); guide[i, k] is 1 +
    the first j whose sum exceeds k / G. G is a power of two, so that every comparison is exact.
    """
    n_rows, n_columns = p.shape
    width = guide.shape[1]
    for i in range(n_rows):
        row = first + i
        guide[row, :] = 1
        total, last = 0.0, 0
        for j in range(n_columns):
            if p[i, j] > 0.0:
                last = j
            total += p[i, j]
            cumulative[row, j] = total
        cumulative[row, last] = np.inf
        for j in range(last):  # from this cell on, the search may start behind j (no scan of cells: it would mispredict)
            cell = int(np.ceil(cumulative[row, j] * width))
            if cell < width:
                guide[row, cell] = j + 2
        for k in range(1, width):
            guide[row, k] = max(guide[row, k], guide[row, k - 1])


@exact
def locate(row, u, cumulative, guide):
    """First index j with u < p_0 + .. + p_j. Kept small: the compiler then inlines it, which halves its time."""
    j = guide[row, int(u * guide.shape[1])] - 1
    while cumulative[row, j] <= u:
        j += 1
    return j


@exact
def scan(p, row, u):
    """The same index without tables, in O(C)."""
    total, last = 0.0, 0
    for j in range(p.shape[1]):
        total += p[row, j]
        if u < total:
            return j
        if p[row, j] > 0.0:
            last = j
    return last


@helper
def power_of_two(n):
    """Least power of two >= n."""
    width = 1
    while width < n:
        width *= 2
    return width


@helper
def guide_width(n):
    """Cells of a row's guide table: 4-8 an outcome while the table is small, 1/2 where it competes for the cache."""
    return max(min(4 * power_of_two(n), 128), power_of_two(n) // 2)


@helper
def tables(p):
    """Tables of every row of ``p`` [R, C]: (sums [R, C], guide [R, G])."""
    sums, guide = np.empty(p.shape), np.empty((p.shape[0], guide_width(p.shape[1])), np.int32)
    tabulate(p, 0, sums, guide)
    return sums, guide


@helper
def begin(first, size, key0, key1, sums, guide, starts, states):
    """Streams and first states of the episodes first .. first + size - 1; the tables are those of mu0.

    Tables without a row: the first states are given, and stand in ``states`` already.
    """
    for i in range(size):
        starts[i] = stream_start(key0, key1, np.uint64(first + i))
        if sums.shape[0] > 0:
            states[first + i, 0] = locate(0, stream_uniform(starts[i], np.uint64(0)), sums, guide)


@helper
def act(h, first, size, t, starts, states, sums, guide, actions):
    """Actions of stage h, by number t (uint64) of each stream; the tables are those of pi [H S, A]."""
    n_states = sums.shape[0] // actions.shape[1]
    for i in range(size):
        s = states[first + i, h]
        actions[first + i, h] = locate(h * n_states + s, stream_uniform(starts[i], t), sums, guide)


@helper
def move(size, t, starts, P, sums, guide, scanned, rows, u, drawn):
    """drawn[i] ~ P[rows[i]] by number t (uint64) of each stream; P, sums, guide, scanned [R, ..]; u [size] is work space.

    One loop a dependent cache miss (guide, then sums), each without a branch that waits for it. Spoils rows.
    """
    for i in range(size):
        u[i] = stream_uniform(starts[i], t)
    for i in range(size):
        row, k = rows[i], int(u[i] * guide.shape[1])
        if guide[row, k] == 0:
            if scanned[row] < SCANS:
                scanned[row] += 1
                drawn[i] = scan(P, row, u[i])
                rows[i] = -1  # done
                continue
            tabulate(P[row : row + 1], row, sums, guide)
        j = guide[row, k] - 1
        drawn[i] = j + (sums[row, j] <= u[i])
    for i in range(size):
        j = drawn[i]
        while rows[i] >= 0 and sums[rows[i], j] <= u[i]:
            j += 1
        drawn[i] = j


@helper
def roll(P, ids, r, R, pi, mu0, key0, key1, cumulative, guide, states, actions, rewards):
    """The episodes of ``roll_episodes``; outcome k of row i of P is the state ids[i, k], or k itself for ids [0, 0].

    Outcome k earns R[h, s, a, k], for R of size 0 r[h, s, a].
    """
    n_stages, n_states, n_actions = pi.shape
    P_rows, P_sums = P.reshape(-1, P.shape[-1]), cumulative.reshape(-1, P.shape[-1])
    P_guide, P_stages = guide.reshape(-1, guide.shape[-1]), P.shape[0]
    pi_sums, pi_guide = tables(pi.reshape(-1, n_actions))
    mu0_sums, mu0_guide = tables(mu0)
    scanned = np.zeros(P_rows.shape[0], np.uint8)
    starts, rows = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
    u, drawn = np.empty(BLOCK), np.empty(BLOCK, np.int64)
    for first in range(0, states.shape[0], BLOCK):
        size = min(BLOCK, states.shape[0] - first)
        begin(first, size, key0, key1, mu0_sums, mu0_guide, starts, states)
        for h in range(n_stages):
            act(h, first, size, np.uint64(2 * h + 1), starts, states, pi_sums, pi_guide, actions)
            base, r_stage = min(h, P_stages - 1) * n_states, min(h, r.shape[0] - 1)
            for i in range(size):
                s, a = states[first + i, h], actions[first + i, h]
                rewards[first + i, h] = r[r_stage, s, a]
                rows[i] = (base + s) * n_actions + a
            move(size, np.uint64(2 * h + 2), starts, P_rows, P_sums, P_guide, scanned, rows, u, drawn)
            for i in range(size):
                j, s, a = drawn[i], states[first + i, h], actions[first + i, h]
                if R.size > 0:
                    rewards[first + i, h] = R[min(h, R.shape[0] - 1), s, a, j]
                if ids.size > 0:
                    j = ids[(base + s) * n_actions + a, j]
                states[first + i, h + 1] = j


@kernel
def roll_episodes(P, r, R, pi, mu0, key0, key1, cumulative, guide, states, actions, rewards):
    """Roll N episodes out; episode e uses the stream (key0, key1, e).

    Args:
        P, r: [H or 1, S, A, S] and [H or 1, S, A]. pi: [H, S, A]. key0, key1: uint64.
        R: [H or 1, S, A, S] the rewards where they depend on the next state; of size 0 where r says all.
        mu0: [1, S], or [0, S] where the first states stand in ``states`` already.
        cumulative, guide: work space for the rows of P: float64 [H or 1, S, A, S]; int32 zeros [H or 1, S, A, G], G =
            guide_width(S) (allocated by the caller: the system's untouched zeros cost nothing).
        states, actions, rewards: outputs [N, H + 1], [N, H], [N, H].
    Cost: 15-30 ns a step while the tables of a stage stay in L2, 100-200 ns from L3.
    """
    ids = np.empty((0, 0), np.int64)
    roll(P, ids, r, R, pi, mu0, key0, key1, cumulative, guide, states, actions, rewards)


@exact
def split(p, n, stream, mass, number):
    """Draw multinomial(n, p): number[K + j] counts outcome j, K = len(mass) / 2 a power of two >= len(p).

    mass and number are heaps: node i has the children 2i and 2i + 1, leaf j is node K + j. The binomial is drawn for
    the lighter child, so that numpy's 1 - p never cancels.
    """
    width = mass.size // 2
    mass[width : width + p.size] = p
    mass[width + p.size :] = 0.0
    for i in range(width - 1, 0, -1):
        mass[i] = mass[2 * i] + mass[2 * i + 1]
    number[1] = n
    for i in range(1, width):
        light, heavy = 2 * i, 2 * i + 1
        if mass[light] > mass[heavy]:
            light, heavy = heavy, light
        number[light] = 0
        if number[i] > 0 and mass[light] > 0.0:
            number[light] = binomial(stream, number[i], mass[light] / (mass[light] + mass[heavy]))
        number[heavy] = number[i] - number[light]


@exact
def deal(p, n, stream, mass, number, cumulative, guide, out):
    """Add a multinomial(n, p[0]) draw to ``out`` [C]; p is [1, C], the four arrays before ``out`` are work space."""
    n_outcomes = p.shape[1]
    if n > FEW * n_outcomes:
        split(p[0], n, stream, mass, number)
        for j in range(n_outcomes):
            out[j] += number[mass.size // 2 + j]
    else:
        tabulate(p, 0, cumulative, guide)
        for _ in range(n):
            out[locate(0, uniform(stream), cumulative, guide)] += 1


@helper
def deal_space(n):
    """The work space of ``deal`` for rows of n outcomes: (mass, number, cumulative, guide)."""
    width = power_of_two(n)
    return np.empty(2 * width), np.empty(2 * width, np.int64), np.empty((1, n)), np.empty((1, guide_width(n)), np.int32)


@helper
def forward(P, ids, pi, mu0, n, stream, visits):
    """The visits of ``roll_counts``; outcome k of row i of P is the state ids[i, k], or k itself for ids [0, 0]."""
    n_stages, n_states, n_actions = pi.shape
    S_mass, S_number, S_sums, S_guide = deal_space(n_states)
    A_mass, A_number, A_sums, A_guide = deal_space(n_actions)
    K_mass, K_number, K_sums, K_guide = deal_space(P.shape[-1])
    here, after, part = np.zeros(n_states, np.int64), np.zeros(n_states, np.int64), np.empty(ids.shape[1], np.int64)
    deal(mu0, n, stream, S_mass, S_number, S_sums, S_guide, here)
    for h in range(n_stages):
        after[:] = 0
        stage = min(h, P.shape[0] - 1)
        for s in range(n_states):
            if here[s] == 0:
                continue
            deal(pi[h, s : s + 1], here[s], stream, A_mass, A_number, A_sums, A_guide, visits[h, s])
            for a in range(n_actions):
                if visits[h, s, a] == 0 or h + 1 == n_stages:
                    continue
                p = P[stage, s, a : a + 1]
                if ids.size == 0:
                    deal(p, visits[h, s, a], stream, K_mass, K_number, K_sums, K_guide, after)
                else:
                    part[:] = 0
                    deal(p, visits[h, s, a], stream, K_mass, K_number, K_sums, K_guide, part)
                    for k in range(part.size):
                        after[ids[(stage * n_states + s) * n_actions + a, k]] += part[k]
        here, after = after, here


@kernel
def roll_counts(P, pi, mu0, n, stream, visits):
    """Visits [H, S, A] (int64, zeros on entry) of n trajectories, drawn forward in their exact joint law.

    Args:
        P: [H or 1, S, A, S]. pi: [H, S, A]. mu0: [1, S]. n: int64. stream: uint64 [4], the state of a PCG64 (advanced).
    Cost: O(H S A S) at most, whatever n; O(n H + rows visited * S) for small n.
    """
    forward(P, np.empty((0, 0), np.int64), pi, mu0, n, stream, visits)
