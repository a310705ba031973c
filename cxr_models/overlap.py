"""What two images show both, if one is a crop of the other or each is cropped on its own.

Chest films are much alike, so three things are compared in turn: the whole at 8 by 8 cells over many crops, which finds what
each image could be; then the crop's four sides are fitted at finer and finer detail; at last it is the detail alone that tells
(ribs, vessels), block by block, so that neither contrast nor a border nor a burned-in marker matters.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from cxr_models.progress import shown

SIDE = 128
"""Pixels a side of the images that are compared."""
STEPS = (-0.16, -0.08, 0.0, 0.08, 0.16)
"""How much more (or, negative, less) one image may show beyond each side than the other, in shares of its width or height."""
CELLS = 8
NEAREST = 24
"""So many images are compared closely with each."""
LEVELS = (32, 64, 128)
"""Pixels a side at which the crop is fitted, coarse to fine."""
WORTH = (0.73, 0.6, 0.4)
"""The correlation of detail at each level from which a pair goes on."""
ALIKE = 0.77
"""The mean correlation at the two finest levels from which images show the same, where no side of theirs coincides.

Crops of one film made at random reach 0.8 and more; different patients' films 0.75 (two of one child, it seems), else 0.68.
"""
COINCIDENCE = 0.04
"""By so much less for each side that coincides to `EDGE`: a fit ends on an image's own edge by chance once in ten times.

Copies reduced to a few grey values, of which covid19-dataset has many, reach 0.61 to 0.8 and mostly are cropped on few sides;
different patients' films of which three sides coincide reach 0.63, of which four do 0.58.
"""
EDGE = 0.008
WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0])
ROUNDS = 4
BLOCKS = 6
AT_ONCE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Pairs of images, and where each shows what the other shows too.

    Attributes
    ----------
    firsts, seconds
        Indices of the images, each of shape (pairs,).
    first_frames, second_frames
        Left, top, right, bottom as shares of the image's width and height: shape (pairs, 4).
    correlations
        Of the detail within the frames: shape (pairs,), -1..1.
    """

    firsts: Tensor
    seconds: Tensor
    first_frames: Tensor
    second_frames: Tensor
    correlations: Tensor

    def where(self, kept: Tensor | slice) -> Self:
        """Return some of the pairs."""
        return type(self)(**{name: getattr(self, name)[kept] for name in self.__slots__})

    def crops(self) -> Tensor:
        """Return where the second image's whole frame lies in the first: shape (pairs, 4)."""
        scale = (self.first_frames[:, 2:] - self.first_frames[:, :2]) / (self.second_frames[:, 2:] - self.second_frames[:, :2])
        start = self.first_frames[:, :2] - self.second_frames[:, :2] * scale
        return torch.cat([start, start + scale], dim=1)


def find_overlaps(images: Tensor) -> Overlaps:
    """Find the pairs of images that show the same, if each of them is cropped by no more than 15 % a side.

    Parameters
    ----------
    images
        Shape (images, SIDE, SIDE), values 0..1; two or more.
    """
    threads = torch.get_num_threads()
    # Many small steps: on a busy machine, threads that wait for each other made them ten times as long.
    torch.set_num_threads(1)
    try:
        return _compared(images)
    finally:
        torch.set_num_threads(threads)


def _compared(images: Tensor) -> Overlaps:
    found = _candidates(images)
    before = found.correlations
    for side, worth in zip(LEVELS, WORTH, strict=True):
        before = found.correlations
        found = _fitted(found, functional.avg_pool2d(images[:, None], SIDE // side)[:, 0])
        kept = found.correlations >= worth
        found, before = found.where(kept), before[kept]
    found = replace(found, correlations=(before + found.correlations) / 2)
    coinciding = ((found.crops() - WHOLE).abs() < EDGE).sum(dim=1)
    return found.where(found.correlations >= ALIKE - COINCIDENCE * coinciding)


def _fitted(pairs: Overlaps, images: Tensor) -> Overlaps:
    """Fit the second frames to the first ones by the detail of images of some side."""
    needed = sorted({*pairs.firsts.tolist(), *pairs.seconds.tolist()})
    detail = torch.empty_like(images)
    for start in range(0, len(needed), AT_ONCE):
        some = needed[start : start + AT_ONCE]
        detail[some] = _detail(images[some])
    fits = []
    for start in shown(range(0, len(pairs.firsts), AT_ONCE), words=f"Comparing images at {images.shape[1]} pixels"):
        few = pairs.where(slice(start, start + AT_ONCE))
        fits.append(_fit(detail[few.firsts], detail[few.seconds], few.first_frames, few.second_frames))
    if not fits:
        return pairs
    frames, correlations = (torch.cat(each) for each in zip(*fits, strict=True))
    return replace(pairs, second_frames=frames, correlations=correlations)


def _candidates(images: Tensor) -> Overlaps:
    """Return for each image those that it is most like under some crop."""
    small = _equalised(functional.avg_pool2d(images[:, None], 2)[:, 0])
    offsets = torch.tensor(list(product(STEPS, repeat=4)))
    firsts, seconds = _frames(offsets)
    described = {frame: _described(small, frame) for frame in map(tuple, torch.cat([firsts, seconds]).tolist())}
    scores = torch.full((len(images), len(images)), -1.0)
    crops = torch.zeros(scores.shape, dtype=torch.int16)
    for start in shown(range(0, len(images), AT_ONCE), words="Looking for copies"):
        rows = slice(start, start + AT_ONCE)
        best, which = scores[rows, start:], crops[rows, start:]
        for index, (first, second) in enumerate(zip(firsts.tolist(), seconds.tolist(), strict=True)):
            alike = described[tuple(first)][rows] @ described[tuple(second)][start:].T
            which.masked_fill_(alike > best, index)
            torch.maximum(best, alike, out=best)
    scores = scores.triu(1)
    # Below any correlation, so that no image is its own neighbour.
    nearest = (scores + scores.T).fill_diagonal_(-2).topk(min(NEAREST, len(images) - 1), dim=1).indices
    pairs = torch.stack([torch.arange(len(images))[:, None].expand_as(nearest), nearest], dim=-1).flatten(0, 1)
    pairs = torch.unique(pairs.sort(dim=1).values, dim=0)
    crop = crops[pairs[:, 0], pairs[:, 1]].int()
    return Overlaps(
        firsts=pairs[:, 0],
        seconds=pairs[:, 1],
        first_frames=firsts[crop],
        second_frames=seconds[crop],
        correlations=torch.ones(len(pairs)),
    )


def _frames(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frames in the first and the second image that both show, where the first shows that much more on each side."""
    inwards = torch.tensor([1.0, 1.0, -1.0, -1.0])
    return WHOLE + inwards * offsets.clamp(min=0), WHOLE + inwards * (-offsets).clamp(min=0)


def _equalised(images: Tensor) -> Tensor:
    """Replace each value by the share of the image's pixels below it: no gamma or window changes that."""
    values = images.flatten(1)
    ordered = values.sort(dim=1).values
    ranks = torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)
    return ranks.view(images.shape) / (2 * values.shape[1])


def _described(images: Tensor, frame: tuple[float, ...]) -> Tensor:
    """Return the means of a frame's cells as unit vectors: shape (images, CELLS * CELLS)."""
    left, top, right, bottom = frame
    cells = (_averages(top, bottom, images.shape[1]) @ images @ _averages(left, right, images.shape[2]).T).flatten(1)
    return functional.normalize(cells - cells.mean(dim=1, keepdim=True), dim=1)


def _averages(start: float, end: float, side: int) -> Tensor:
    """Return the weights of pixels in cells of even size between two places: shape (CELLS, side)."""
    edges = torch.linspace(start, end, CELLS + 1)[:, None] * side
    pixels = torch.arange(side)
    inside = torch.minimum(pixels + 1, edges[1:]) - torch.maximum(pixels, edges[:-1])
    return inside.clamp(min=0) / ((end - start) * side / CELLS)


def _detail(images: Tensor) -> Tensor:
    """Keep what changes over a few pixels, everywhere of the same strength."""
    change = _blurred(images, 0.7) - _blurred(images, 2.0)
    return change / (_blurred(change.square(), 4.0).sqrt() + 0.004)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    reach = round(3 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = functional.pad(images[:, None], (reach,) * 4, mode="reflect")
    return functional.conv2d(functional.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def _fit(first: Tensor, second: Tensor, first_frames: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Move the frames' sides in the second images until they show what the first frames show; return them and how alike.

    Gauss-Newton on the squared difference, contrast and brightness free (Baker and Matthews 2004, "Lucas-Kanade 20 Years On").
    """
    side = first.shape[1] * 3 // 4
    wanted = _sampled(first, first_frames, side)
    across = ((torch.arange(side) + 0.5) / side).expand(side, side)
    shares = torch.stack([1 - across, 1 - across.T, across, across.T]).flatten(1)
    for _ in range(ROUNDS):
        seen = _sampled(second, frames, side)
        down, right = (each.flatten(1) * side for each in torch.gradient(seen, dim=(1, 2)))
        gain = _covariance(seen, wanted) / _covariance(seen, seen).clamp(min=1e-6)
        gain = gain.clamp(0.3, 3)[:, None]
        width, height = (frames[:, 2:] - frames[:, :2]).clamp(min=0.1).T
        right, down = right * gain / width[:, None], down * gain / height[:, None]
        flat = seen.flatten(1)
        moves = torch.stack([right, down, right, down], dim=1) * shares
        basis = torch.cat([moves, flat[:, None], torch.ones_like(flat)[:, None]], dim=1)
        normal = basis @ basis.transpose(1, 2)
        damping = torch.diagonal(normal, dim1=1, dim2=2).mean(dim=1)[:, None, None] * 1e-4 + 1e-9
        missing = (wanted.flatten(1) - gain * flat)[:, :, None]
        step = torch.linalg.solve(normal + damping * torch.eye(6), basis @ missing)[:, :4, 0]
        frames = frames + step.clamp(-0.03, 0.03)
    return frames, _alike(wanted, _sampled(second, frames, side))


def _sampled(images: Tensor, frames: Tensor, side: int) -> Tensor:
    """Return the frames' content, each as (side, side) pixels."""
    place = (torch.arange(side) + 0.5) / side
    x, y = (frames[:, [axis]] + (frames[:, [axis + 2]] - frames[:, [axis]]) * place for axis in (0, 1))
    shape = (len(images), side, side)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1) * 2 - 1
    return functional.grid_sample(images[:, None], grid, align_corners=False, padding_mode="border")[:, 0]


def _covariance(first: Tensor, second: Tensor) -> Tensor:
    first, second = first.flatten(1), second.flatten(1)
    return ((first - first.mean(dim=1, keepdim=True)) * (second - second.mean(dim=1, keepdim=True))).mean(dim=1)


def _alike(first: Tensor, second: Tensor) -> Tensor:
    """Return the median over blocks of the correlation: what covers a few blocks, such as a marker, does not count."""
    blocks = [
        each.unfold(1, each.shape[1] // BLOCKS, each.shape[1] // BLOCKS)
        .unfold(2, each.shape[2] // BLOCKS, each.shape[2] // BLOCKS)
        .flatten(3)
        .flatten(0, 2)
        for each in (first, second)
    ]
    both = _covariance(blocks[0], blocks[1])
    spread = (_covariance(blocks[0], blocks[0]) * _covariance(blocks[1], blocks[1])).sqrt().clamp(min=1e-6)
    return (both / spread).view(len(first), -1).median(dim=1).values
