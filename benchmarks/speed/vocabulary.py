"""The vocabulary kernels against their naive twins: forward and backward, interleaved in one process.

    python benchmarks/speed/vocabulary.py [--bf16] [--batch 32] [--length 128] [--hidden 384] [--vocabulary 30522] ...

Prints, for each kernel, the best time of both and their ratio, and the memory that each allocates on top of its inputs
(the peak of torch's own allocations, taken in a separate pass).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from dupmae import kernels as vocabulary
from dupmae.kernels import naive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"batch": 32, "length": 128, "hidden": 384, "vocabulary": 30522, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bf16", action="store_true", help="run under bfloat16 autocast")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    hidden = torch.randn(arguments.batch, arguments.length, arguments.hidden).requires_grad_()
    weight = (0.05 * torch.randn(arguments.vocabulary, arguments.hidden)).requires_grad_()
    bias = torch.zeros(arguments.vocabulary).requires_grad_()
    mask = torch.rand(arguments.batch, arguments.length) < 0.7
    targets = torch.randint(arguments.vocabulary, (arguments.batch * arguments.length,))

    def cross_entropy(kernels: object) -> torch.Tensor:
        return kernels.linear_cross_entropy(hidden.flatten(0, 1), weight, bias, targets)  # type: ignore[attr-defined]

    def max_pool(kernels: object) -> torch.Tensor:
        return kernels.linear_max_pool(hidden, weight, bias, mask).square().sum()  # type: ignore[attr-defined]

    def step(kernel: Callable[[object], torch.Tensor], kernels: object) -> None:
        context: AbstractContextManager[object] = nullcontext()
        if arguments.bf16:
            context = torch.autocast("cpu", dtype=torch.bfloat16)
        with context:
            value = kernel(kernels)
        torch.autograd.grad(value, [hidden, weight, bias])

    precision = "bfloat16 autocast" if arguments.bf16 else "float32"
    table = Table("kernel", "ours, ms", "naive, ms", "ratio", "ours, MB", "naive, MB", "ratio")
    table.title = (
        f"{arguments.batch} x {arguments.length} tokens, D {arguments.hidden}, V {arguments.vocabulary}, {precision}"
    )
    for kernel in (cross_entropy, max_pool):
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            ours.append(seconds(lambda kernel=kernel: step(kernel, vocabulary)))
            theirs.append(seconds(lambda kernel=kernel: step(kernel, naive)))
        memory = [peak_megabytes(lambda kernel=kernel, side=side: step(kernel, side)) for side in (vocabulary, naive)]
        table.add_row(
            kernel.__name__,
            f"{1000 * min(ours):.0f}",
            f"{1000 * min(theirs):.0f}",
            f"{min(theirs) / min(ours):.1f} x",
            f"{memory[0]:.0f}",
            f"{memory[1]:.0f}",
            f"{memory[1] / memory[0]:.1f} x",
        )
    Console().print(table)


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_megabytes(run: Callable[[], None]) -> float:
    """The largest sum of live allocations made during `run`, in MB, from the profiler's allocation events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    live = peak = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak / 1e6


if __name__ == "__main__":
    main()
