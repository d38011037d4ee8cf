"""Products with the rows of a matrix, read from end to end: forms that hold on every machine, in the caches and beyond them.

A pass over P does one multiplication and one addition for each number read, so beyond the caches memory is the limit. There a
matrix is read as one stream, a row at a time: several rows at once are several streams, which one kind of processor fetches a
fifth faster and another at less than half the speed. What one stream lacks is work for memory at the end of a row, where a dot
product ends in a chain of dependent additions; so lines are asked for AHEAD, whatever the processor's own prefetcher guesses.
Within the caches arithmetic is the limit, the chain counts and asking ahead costs a fifth: there several rows at a time are
better. So are they where rows are SHORT, and four of them no more than one stream.

Which form is taken is decided by shapes alone (``far`` is ``beyond_caches`` of all that a pass reads, every stage of it): one
machine gives the same bits always. ``benchmarks/speed/streams.py`` prints the forms side by side for the machine at hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import lower_builtin, type_callable

from mdpsim.kernels._jit import helper

CACHED = 1 << 17  # float64 numbers: 1 MiB, the L2 cache of a core (1 to 2 MiB today)
AHEAD = 512  # numbers, 4 KiB: 256 to 2048 are alike where memory is idle, and more than 1024 spill out of L1
LINE = 8  # numbers in a line of the cache
SHORT = 64  # numbers: rows up to here are taken together always


def _prefetch(x: Any, i: int) -> None:
    """Ask memory for the line of x[i], x [n], without waiting for it. Changes nothing; as plain Python it does nothing."""


@type_callable(_prefetch)
def _type_prefetch(context):
    return lambda x, i: types.none if isinstance(x, types.Array) and x.ndim == 1 else None


@lower_builtin(_prefetch, types.Array, types.Integer)
def _lower_prefetch(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    intrinsic = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    fetch = cgutils.get_or_insert_function(builder.module, intrinsic, "llvm.prefetch.p0")
    where = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
    builder.call(fetch, [where, word(0), word(3), word(1)])  # for reading, into every cache, data
    return context.get_dummy_value()


@helper
def beyond_caches(x):
    """Whether x, of any shape, is larger than the caches of a core: then it is read as one stream."""
    return x.size > CACHED


@helper
def fetch_ahead(x, first, stop):
    """Ask for the lines that lie AHEAD of x[first:stop], x [n]; those beyond the end are not asked for."""
    for i in range(first + AHEAD, min(stop + AHEAD, x.size), LINE):
        _prefetch(x, np.intp(i))


@helper
def products(rows, v, base, out, far):
    """out [n] = base [n] + rows [n, m] v [m]; base None is zero."""
    flat, width = rows.reshape(-1), v.size
    whole = 0 if far and width > SHORT else out.size // 4 * 4
    for i in range(0, whole, 4):
        if far:
            fetch_ahead(flat, i * width, (i + 4) * width)
        x0, x1, x2, x3 = 0.0, 0.0, 0.0, 0.0
        for j in range(width):
            x0 += rows[i, j] * v[j]
            x1 += rows[i + 1, j] * v[j]
            x2 += rows[i + 2, j] * v[j]
            x3 += rows[i + 3, j] * v[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = x0, x1, x2, x3
    for i in range(whole, out.size):
        if far:
            fetch_ahead(flat, i * width, (i + 1) * width)
        total = 0.0
        for j in range(width):
            total += rows[i, j] * v[j]
        out[i] = total
    if base is not None:
        for i in range(out.size):
            out[i] += base[i]


@helper
def paired_products(rows, v, k, base, x, y, far):
    """x [n] = base [n] + rows [n, m] v [m] and y [n] = rows k [m] from one read of rows; base None is zero."""
    flat, width = rows.reshape(-1), v.size
    whole = 0 if far and width > SHORT else x.size // 2 * 2
    for i in range(0, whole, 2):
        if far:
            fetch_ahead(flat, i * width, (i + 2) * width)
        x0, x1, y0, y1 = 0.0, 0.0, 0.0, 0.0
        for j in range(width):
            x0 += rows[i, j] * v[j]
            y0 += rows[i, j] * k[j]
            x1 += rows[i + 1, j] * v[j]
            y1 += rows[i + 1, j] * k[j]
        x[i], x[i + 1], y[i], y[i + 1] = x0, x1, y0, y1
    for i in range(whole, x.size):
        if far:
            fetch_ahead(flat, i * width, (i + 1) * width)
        x0, y0 = 0.0, 0.0
        for j in range(width):
            x0 += rows[i, j] * v[j]
            y0 += rows[i, j] * k[j]
        x[i], y[i] = x0, y0
    if base is not None:
        for i in range(x.size):
            x[i] += base[i]


@helper
def add_rows(rows, chosen, weight, n, out, far):
    """out [m] += sum over i < n of weight[i] rows[chosen[i]]; chosen (increasing) and weight have room for n + 3.

    Four rows at a time within the caches: one at a time reads and writes ``out`` for each number of rows.
    """
    if far and out.size > SHORT:
        flat = rows.reshape(-1)
        for i in range(n):
            row, w = chosen[i], weight[i]
            fetch_ahead(flat, row * out.size, (row + 1) * out.size)
            for j in range(out.size):
                out[j] += w * rows[row, j]
        return
    for i in range(n, n + 3):
        chosen[i], weight[i] = chosen[max(n - 1, 0)], 0.0
    for i in range(0, n, 4):
        a, b, c, d = chosen[i], chosen[i + 1], chosen[i + 2], chosen[i + 3]
        w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        if far:
            fetch_ahead(rows.reshape(-1), a * out.size, (d + 1) * out.size)
        for j in range(out.size):
            out[j] += (w0 * rows[a, j] + w1 * rows[b, j]) + (w2 * rows[c, j] + w3 * rows[d, j])
