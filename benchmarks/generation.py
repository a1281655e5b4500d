"""Spots generated a second by VARST, in one pass a scale, and by its own network token by token.

python benchmarks/generation.py [--sizes small] [--heads factorized joint] [--batches 1 64 1024] [--repeats 3]
python benchmarks/generation.py --sizes paper --heads joint --batches 1 64 --some-passes 8 --repeats 1

Both decode the 241 tokens of 200 genes with the same weights, which are random. The competitor takes a token a pass, as
language models do without a cache: the sequence so far goes through the network, causally, and the code of its last
token is drawn. Where that takes long, only some of its passes are made, spread evenly over the lengths of the
sequence, and their time is multiplied up (columns `token_passes_made`, `token_passes`). Scale by scale at most 256 spots
are drawn at once, as in `VARST.sample`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _runs import Runs
from torch import Tensor

from stomics_tools.model.var_st._codes import draw
from stomics_tools.model.var_st._gene_tree import gene_tree
from stomics_tools.model.var_st._module import VarSTModule
from stomics_tools.model.var_st._sampling import Sampling, draw_codes
from stomics_tools.model.var_st._settings import resolve

N_GENES = 200
BLOCK = 256
RESULTS = (
    "scale_passes",
    "token_passes",
    "token_passes_made",
    "scale_spots_per_s",
    "token_spots_per_s",
    "speedup",
    "cpu_speedup",
)


def random_networks(size: str, head: str) -> VarSTModule:
    """Untrained networks, but for the running statistics of stage 1, over a tree of genes of noise."""
    settings = resolve(size, {"head": head})
    noise = np.random.default_rng(0).normal(size=(500, N_GENES)).astype(np.float32)
    torch.manual_seed(0)
    tree = torch.as_tensor(gene_tree(noise, settings.scales))
    networks = VarSTModule(settings, tree, n_features=8, n_inputs=8, n_folds=2, n_landmarks=8)
    profiles = torch.as_tensor(noise)
    with torch.no_grad():
        networks.stage1.quantize(networks.stage1.encode(profiles, torch.ones_like(profiles)))
    return networks.eval()


class TokenByToken:
    """The transformer of `networks` as a model of the next token: the input of a token is the code before it."""

    @torch.no_grad()
    def __init__(self, networks: VarSTModule) -> None:
        stage1, self.transformer = networks.stage1, networks.transformer
        self.quantizer, self.settings = stage1.quantizer, networks.settings
        self.n_tokens = len(self.transformer.levels)
        self.places = self.transformer.position + self.transformer.level[self.transformer.levels]
        every = self.quantizer.lookup(torch.arange(self.quantizer.n_codes))
        self.values = torch.stack([whitening.inverse(every) for whitening in stage1.whitening])  # of a code, by scale
        self.unproject = stage1.unproject

    @torch.no_grad()
    def draw_codes(self, condition: Tensor, generator: torch.Generator, passes: set[int]) -> Tensor:
        """Codes ``(b, n_tokens)``; those of tokens whose pass is not among `passes` are noise."""
        inputs = condition[:, None].expand(-1, self.n_tokens, -1).clone()
        codes = torch.randint(self.quantizer.n_codes, (len(condition), self.n_tokens), generator=generator)
        causal = torch.ones(self.n_tokens, self.n_tokens, dtype=torch.bool).tril()
        for token in range(self.n_tokens):
            if token:
                value = self.values[self.transformer.levels[token - 1], codes[:, token - 1]]
                inputs[:, token] = self.transformer.embed(value @ self.unproject[token - 1])
            if token in passes:
                x = inputs[:, : token + 1] + self.places[: token + 1]
                for block in self.transformer.blocks:
                    x, _ = block(x, condition, mask=causal[: token + 1, : token + 1])
                logits = self.transformer._logits(x[:, -1:], condition)
                codes[:, token] = self._draw(logits, generator)[:, 0]
        return codes

    def _draw(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        how = {"temperature": 1.0, "top_k": None, "top_p": None}
        return draw(logits, self.quantizer, factorized=self.settings.factorized, generator=generator, **how)


def passes_of(networks: VarSTModule, function: Callable[[], object]) -> int:
    """Times that `function` sends tokens through the transformer."""
    calls = []
    handle = networks.transformer.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    function()
    handle.remove()
    return len(calls)


def seconds(function: Callable[[], object], at_least: float = 2.0) -> tuple[float, float]:
    """Time of a call, on the clock and of the processor, the mean of as many calls as fill `at_least` seconds."""
    calls, clock, processor = 0, time.perf_counter(), time.process_time()
    while calls == 0 or time.perf_counter() - clock < at_least:
        function()
        calls += 1
    return (time.perf_counter() - clock) / calls, (time.process_time() - processor) / calls


def measure(size: str, head: str, batch: int, repeat: int, n_made: int | None) -> dict[str, float]:
    """Both ways, one after the other."""
    networks = random_networks(size, head)
    slow = TokenByToken(networks)
    every = np.arange(slow.n_tokens)
    if n_made is not None:
        every = ((np.arange(n_made) + 0.5) * slow.n_tokens / n_made).astype(int)
    generator = torch.Generator().manual_seed(repeat)
    condition = torch.randn(batch, networks.settings.n_condition, generator=generator)
    by_token = partial(slow.draw_codes, condition, generator, set(every.tolist()))
    few = condition[:1]

    def by_scale() -> None:
        for block in condition.split(BLOCK):
            draw_codes(networks, block, Sampling(), generator)

    scale_passes = passes_of(networks, partial(draw_codes, networks, few, Sampling(), generator))
    token_passes = passes_of(networks, partial(slow.draw_codes, few, generator, set(range(slow.n_tokens))))
    clock, processor = seconds(by_scale)
    slow_clock, slow_processor = (value * slow.n_tokens / len(every) for value in seconds(by_token))
    return {
        "scale_passes": scale_passes,
        "token_passes": token_passes,
        "token_passes_made": len(every),
        "scale_spots_per_s": batch / clock,
        "token_spots_per_s": batch / slow_clock,
        "speedup": slow_clock / clock,
        "cpu_speedup": slow_processor / processor,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=["tiny", "small", "paper"], default=["small"])
    parser.add_argument("--heads", nargs="+", choices=["factorized", "joint"], default=["factorized", "joint"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--some-passes", type=int, help="passes made token by token (default: all up to 64 spots, or 8)"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "generation.csv")
    arguments = parser.parse_args()
    runs = Runs(arguments.out, RESULTS)
    for size in arguments.sizes:
        for head in arguments.heads:
            for batch in arguments.batches:
                made = arguments.some_passes or (None if batch <= 64 else 8)
                for repeat in range(arguments.repeats):
                    one = partial(measure, size, head, batch, repeat, made)
                    runs.run(f"{size}, {head}", f"batch {batch}", repeat, one)


if __name__ == "__main__":
    main()
