"""How fast unpaired translations are trained, and in how much memory, against the papers' settings written down plainly.

    python benchmarks/translate_training.py                               one thread of a processor, 64 pixels, small networks
    python benchmarks/translate_training.py --device cuda --side 256 --width 64 --blocks 9

The peer is an eager training loop with the same networks, losses and numbers as the papers (CycleGAN, ICCV 2017; CUT, ECCV 2020, with its
anti-aliased sampling in all): float32, each pass by itself, one image of each domain a step. Oteo's side trains the same losses (structure's
is off, answers are not residual, discriminators are normed) with its own trainer, in float32 and in bfloat16. Runs take turns, and what is
told is the median and the range. On a processor, seconds are the process's own, so that others on the machine do not count; memory is the peak of
what tensors take in a step, without weights. On a GPU it is the peak of the allocator, weights included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from measuring import table
from torch import nn
from torch.profiler import ProfilerActivity, profile

from oteo_translate.methods.unpaired import CUT, CycleGAN, FastCUT, SinCUT
from oteo_translate.methods.unpaired.crops import Crops, crop_sides
from oteo_translate.methods.unpaired.trainer import Trainer

METHODS = {"CycleGAN": CycleGAN, "CUT": CUT, "FastCUT": FastCUT, "SinCUT": SinCUT}
PUBLISHED = {"CycleGAN": (1.0, 1.0), "FastCUT": (0.5, 0.5)}
"""Time and memory against CycleGAN, as the authors of CUT tell them of their code: twice as fast, half the memory."""

Step = Callable[[], None]


# The peer: plain networks and loops.


class Down(nn.Module):
    """CUT's anti-aliased halving."""

    def __init__(self, channels):
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        kernel = line[:, None] * line[None, :] / 16
        self.register_buffer("kernel", kernel[None, None].repeat(channels, 1, 1, 1))

    def forward(self, x):
        """Blur and halve."""
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=x.shape[1])


class Up(nn.Module):
    """CUT's anti-aliased doubling."""

    def __init__(self, channels):
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = line[:, None] * line[None, :] / 16
        self.register_buffer("kernel", kernel[None, None].repeat(channels, 1, 1, 1))

    def forward(self, x):
        """Double and blur."""
        wide = F.conv_transpose2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.kernel, stride=2, padding=2, groups=x.shape[1])
        return wide[..., 1:-1, 1:-1]


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x):
        """Add to what came."""
        return x + self.body(x)


class PlainGenerator(nn.Module):
    """Layer by layer, with a stop at each that is asked for."""

    def __init__(self, width, blocks):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True)]
        for size in (width, 2 * width):
            layers += [nn.Conv2d(size, 2 * size, 3, padding=1), nn.InstanceNorm2d(2 * size), nn.ReLU(True), Down(2 * size)]
        layers += [Block(4 * width) for _ in range(blocks)]
        for size in (4 * width, 2 * width):
            layers += [Up(size), nn.Conv2d(size, size // 2, 3, padding=1), nn.InstanceNorm2d(size // 2), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.layers = nn.ModuleList(layers)
        self.stops = [0, 4, 8, 12, 12 + blocks // 2]
        self.widths = [3, 2 * width, 4 * width, 4 * width, 4 * width]

    def forward(self, x):
        """Translate images of -1 to 1."""
        for layer in self.layers:
            x = layer(x)
        return x

    def features(self, x):
        """Give the maps that CUT compares."""
        found = []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in self.stops:
                found.append(x)
            if number == self.stops[-1]:
                break
        return found


def plain_discriminator(width, layers):
    """Give a PatchGAN."""
    parts = [nn.Conv2d(3, width, 4, padding=1), nn.LeakyReLU(0.2, True), Down(width)]
    for level in range(1, layers + 1):
        inside, outside = width * min(8, 2 ** (level - 1)), width * min(8, 2**level)
        parts += [nn.Conv2d(inside, outside, 4, padding=1), nn.InstanceNorm2d(outside), nn.LeakyReLU(0.2, True)]
        parts += [Down(outside)] if level < layers else []
    return nn.Sequential(*parts, nn.Conv2d(width * min(8, 2**layers), 1, 4, padding=1))


def batches(images, side, device):
    """Give crops of -1 to 1, one at a time."""
    rng = np.random.default_rng(0)
    while True:
        image = images[rng.integers(len(images))]
        y, x = (rng.integers(size - side + 1) for size in image.shape[:2])
        part = image[y : y + side, x : x + side]
        if rng.random() < 0.5:
            part = part[:, ::-1]
        planes = torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))[None].to(device)
        yield planes.float() / 127.5 - 1.0


def adam(*networks):
    """Give the papers' optimiser."""
    return torch.optim.Adam([p for one in networks for p in one.parameters()], lr=2e-4, betas=(0.5, 0.999))


def ones(verdict):
    """Give the least-squares loss of being real."""
    return F.mse_loss(verdict, torch.ones_like(verdict))


def zeros(verdict):
    """Give the least-squares loss of being drawn."""
    return F.mse_loss(verdict, torch.zeros_like(verdict))


def plain_cyclegan(recipe, source, target):
    """Give CycleGAN's step."""
    device = recipe["device"]
    forth, back = (PlainGenerator(recipe["width"], recipe["blocks"]).to(device) for _ in range(2))
    judge_a, judge_b = (plain_discriminator(recipe["width"], recipe["layers"]).to(device) for _ in range(2))
    drawing, judging = adam(forth, back), adam(judge_a, judge_b)
    first, second = batches(source, recipe["side"], device), batches(target, recipe["side"], device)
    pools = [], []

    def pooled(pool, image):
        if len(pool) < 50:
            pool.append(image.detach())
            return pool[-1]
        place = int(torch.randint(50, ()))
        old, pool[place] = pool[place], image.detach()
        return old

    def step():
        a, b = next(first), next(second)
        as_b, as_a = forth(a), back(b)
        again_a, again_b = back(as_b), forth(as_a)
        for judge in (judge_a, judge_b):
            judge.requires_grad_(False)
        loss = ones(judge_b(as_b)) + ones(judge_a(as_a)) + 10 * (F.l1_loss(again_a, a) + F.l1_loss(again_b, b))
        loss = loss + 5 * (F.l1_loss(forth(b), b) + F.l1_loss(back(a), a))
        drawing.zero_grad()
        loss.backward()
        drawing.step()
        for judge in (judge_a, judge_b):
            judge.requires_grad_(True)
        judging.zero_grad()
        for judge, real, drawn, pool in ((judge_b, b, as_b, pools[0]), (judge_a, a, as_a, pools[1])):
            (0.5 * (ones(judge(real)) + zeros(judge(pooled(pool, drawn))))).backward()
        judging.step()

    return step


def plain_cut(recipe, source, target, identity, weight, mirrored, penalty=0.0, pixels=0.0):
    """Give the step of CUT and its kin."""
    device = recipe["device"]
    forth = PlainGenerator(recipe["width"], recipe["blocks"]).to(device)
    heads = nn.ModuleList(nn.Sequential(nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, 256)) for size in forth.widths).to(device)
    judge = plain_discriminator(recipe["width"], recipe["layers"]).to(device)
    drawing, vectors, judging = adam(forth), adam(heads), adam(judge)
    first, second = batches(source, recipe["side"], device), batches(target, recipe["side"], device)
    count = 0

    def contrast(from_image, to_image, flipped):
        queries, keys = forth.features(to_image), forth.features(from_image)
        if flipped:
            queries = [one.flip(3) for one in queries]
        total = 0.0
        for head, query, key in zip(heads, queries, keys, strict=True):
            query, key = query.flatten(2).permute(0, 2, 1)[0], key.flatten(2).permute(0, 2, 1)[0]
            places = torch.randperm(len(query), device=device)[:256]
            ours, theirs = F.normalize(head(query[places])), F.normalize(head(key[places])).detach()
            total = total + F.cross_entropy(ours @ theirs.T / 0.07, torch.arange(len(places), device=device))
        return total / len(heads)

    def step():
        nonlocal count
        a, b = next(first), next(second)
        flipped = mirrored and count % 2 == 1
        both = torch.cat([a, b]) if identity or pixels else a
        found = forth(both.flip(3) if flipped else both)
        drawn = found[:1]
        judge.requires_grad_(True)
        judging.zero_grad()
        loss = 0.5 * (zeros(judge(drawn.detach())) + ones(judge(b)))
        if penalty and count % 16 == 0:
            real = b.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
            loss = loss + 8 * penalty * slope.square().sum()
        loss.backward()
        judging.step()
        judge.requires_grad_(False)
        loss = contrast(a, drawn, flipped)
        loss = 0.5 * (loss + contrast(b, found[1:], flipped)) if identity else loss
        loss = ones(judge(drawn)) + weight * loss
        if pixels:
            loss = loss + pixels * F.l1_loss(found[1:], b.flip(3) if flipped else b)
        drawing.zero_grad()
        vectors.zero_grad()
        loss.backward()
        drawing.step()
        vectors.step()
        count += 1

    return step


PEERS = {
    "CycleGAN": plain_cyclegan,
    "CUT": lambda *a: plain_cut(*a, identity=True, weight=1.0, mirrored=False),
    "FastCUT": lambda *a: plain_cut(*a, identity=False, weight=10.0, mirrored=True),
    "SinCUT": lambda *a: plain_cut(*a, identity=False, weight=4.0, mirrored=False, penalty=1.0, pixels=5.0),
}


def ours(name, recipe, source, target, precision, batch=1):
    """Give a step of Oteo's trainer, on the papers' losses."""
    method = METHODS[name]()
    changed = {
        "batch": batch,
        "crop": recipe["side"],
        "width": recipe["width"],
        "blocks": recipe["blocks"],
        "critic_width": recipe["width"],
        "critic_layers": recipe["layers"],
        "critic_norm": True,
        "residual": False,
        "structure": 0.0,
        "vertical": False,
        "precision": precision,
        "steps": 1_000_000,
    }
    settled = method.recipe.changed(changed, name).settled(recipe["side"], recipe["side"], recipe["device"], 1)
    device = torch.device(recipe["device"])
    objective = method.objective(settled, 3, 0)
    height, width = crop_sides((source.shape, target.shape), settled.crop, objective.forth.multiple)
    crops = [Crops(one, height, width, zoom=settled.zoom, vertical=False, device=device) for one in (source, target)]
    trainer = Trainer(objective, *crops, seed=0, device=device)
    trainer.standing.half = precision != "float32"
    return lambda: trainer.step(0.0)


# Measuring.


def seconds(step: Step, steps: int, gpu: bool) -> float:
    """Give the seconds of some steps: of the clock on a GPU, of the process on a processor."""
    if gpu:
        torch.cuda.synchronize()
    clock = time.perf_counter if gpu else time.process_time
    began = clock()
    for _ in range(steps):
        step()
    if gpu:
        torch.cuda.synchronize()
    return clock() - began


def megabytes(step: Step, gpu: bool) -> float:
    """Give the peak memory of a step."""
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    chosen = parser.parse_args()
    gpu = chosen.device.startswith("cuda")
    layers = 3 if chosen.side >= 112 else 2
    recipe = {"device": chosen.device, "side": chosen.side, "width": chosen.width, "blocks": chosen.blocks, "layers": layers}
    rng = np.random.default_rng(0)
    source, target = (rng.integers(0, 256, (20, chosen.side + 16, chosen.side + 16, 3), np.uint8) for _ in range(2))
    rates, memory = {}, {}
    for name in chosen.methods:
        torch.manual_seed(0)
        one = source[:1], target[:1]
        data = one if name == "SinCUT" else (source, target)
        steps = {
            "peer": PEERS[name](recipe, *data),
            "float32": ours(name, recipe, *data, "float32"),
            "bfloat16": ours(name, recipe, *data, "bfloat16"),
        }
        rows: dict[str, list[float]] = {key: [] for key in steps}
        for step in steps.values():
            seconds(step, 2, gpu)
        for _ in range(chosen.repeats):
            for key, step in steps.items():
                rows[key].append(chosen.steps / seconds(step, chosen.steps, gpu))
        memory[name] = {key: megabytes(step, gpu) for key, step in steps.items()}
        rates[name] = rows
        table(f"{name}, {chosen.side} px, width {chosen.width}, {chosen.blocks} blocks", rows, {"x peer": "peer"})
        print("MB:", ", ".join(f"{key} {value:.1f}" for key, value in memory[name].items()), flush=True)
    if "CycleGAN" not in rates:
        return
    print("\n| against CycleGAN | published time, memory | float32 | bfloat16 | peer |\n|---|---|---|---|---|")
    for name in chosen.methods:
        cells = [name]
        cells.append("{:.2f}, {:.2f}".format(*PUBLISHED[name]) if name in PUBLISHED else "-")
        for key in ("float32", "bfloat16", "peer"):
            time_share = statistics.median(rates["CycleGAN"][key]) / statistics.median(rates[name][key])
            cells.append(f"{time_share:.2f}, {memory[name][key] / memory['CycleGAN'][key]:.2f}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
