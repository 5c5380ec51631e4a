"""Forecasting of chaotic systems, which are integrated here: Lorenz-96, Kuramoto–Sivashinsky, Mackey–Glass."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from ritornello.tasks._draw import check
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["Forecast", "KuramotoSivashinsky", "Lorenz96", "MackeyGlass", "etdrk4", "lorenz96", "mackey_glass"]


@dataclass(frozen=True, kw_only=True)
class Forecast(Task):
    """From x₁ … x_t, one sample of a system's attractor a step, say x_{t + horizon}; mean and variance are 0 and 1.

    The error of saying 0 is 1. A trajectory begins at one of 256 states of the attractor, changed by some per
    cent and then let run for a while. All is computed in float64.

    Fields:
        horizon: how many samples ahead.
    """

    kind: ClassVar[str] = "regress"
    prefixes: ClassVar[bool] = True
    mean: ClassVar[float]  # of the attractor, over time and places
    deviation: ClassVar[float]
    settle: ClassVar[int]  # samples until a random state has come to the attractor

    horizon: int
    training: Training = Training(steps=20_000, batch=32, learning_rates=(1e-3, 3e-4))

    def __post_init__(self) -> None:
        check(self.horizon >= 1, f"`horizon` is {self.horizon}; wanted 1 or more.")

    @property
    def classes(self) -> int:
        return self.inputs

    @property
    def float_inputs(self) -> bool:
        return True

    @property
    def chance(self) -> float:
        return 1.0

    @property
    def needed(self) -> int:
        """How many samples determine the next."""
        return 1

    @property
    def shortest(self) -> int:
        return self.needed

    @abstractmethod
    def start(self, rows: int, generator: torch.Generator) -> Tensor:
        """Random states, (rows, …)."""

    @abstractmethod
    def next(self, state: Tensor) -> Tensor:
        """The state one sample later; leading dimensions are free."""

    @abstractmethod
    def show(self, state: Tensor) -> Tensor:
        """The features (…, F) of a state."""

    @abstractmethod
    def read(self, x: Tensor) -> Tensor:
        """The states (B, T, …) that features (B, T, F) show; before `needed` of them anything."""

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        known = _attractor(self)
        state = known[torch.randint(len(known), (batch,), generator=generator)]
        state = state * (1 + 0.05 * torch.randn(state.shape, generator=generator, dtype=torch.float64))
        for _ in range(20):
            state = self.next(state)
        states = [state]
        for _ in range(length + self.horizon - 1):
            states.append(self.next(states[-1]))
        x = (self.show(torch.stack(states, 1)) - self.mean) / self.deviation
        mask = (torch.arange(length) >= self.needed - 1).repeat(batch, 1)
        return Batch(x[:, :length].float(), x[:, self.horizon :].float(), mask)

    def solve(self, inputs: Tensor) -> Tensor:
        state = self.read(inputs.double() * self.deviation + self.mean)
        for _ in range(self.horizon):
            state = self.next(state)
        return ((self.show(state) - self.mean) / self.deviation).to(inputs.dtype)


@cache
def _attractor(task: Forecast) -> Tensor:
    """(256, …) states on it, the same in every process."""
    state = task.start(256, torch.Generator().manual_seed(0))
    for _ in range(task.settle):
        state = task.next(state)
    return state


def _small(train_length: int, **fields: Any) -> MappingProxyType[str, Any]:
    training = Training(steps=500, batch=16, learning_rates=(3e-3, 1e-3))
    lengths = (train_length, 2 * train_length, 4 * train_length)
    return MappingProxyType({"train_length": train_length, "test_lengths": lengths, "training": training, **fields})


def rk4(f, x: Tensor, step: float) -> Tensor:
    """One step of Runge and Kutta's classical method for dx/dt = f(x)."""
    a = f(x)
    b = f(x + step / 2 * a)
    c = f(x + step / 2 * b)
    return x + step / 6 * (a + 2 * b + 2 * c + f(x + step * c))


# ---------------------------------------------------------------------------------------------------------- Lorenz-96


def lorenz96(x: Tensor, forcing: float) -> Tensor:
    """dx_i/dt = (x_{i+1} − x_{i−2}) x_{i−1} − x_i + F, on a circle."""
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + forcing


@dataclass(frozen=True, kw_only=True)
class Lorenz96(Forecast):
    """dx_i/dt = (x_{i+1} − x_{i−2}) x_{i−1} − x_i + F with F = 8, one sample every 0.05 (about six hours of weather).

    Runge–Kutta of fourth order with the step 0.01. Lorenz 1996; forecasting by
    recurrent networks: Vlachas et al. 2020, arXiv:1910.05266. Every sample determines the next.

    Fields:
        size: how many x_i.
    """

    name: ClassVar[str] = "lorenz96"
    about: ClassVar[About] = About(
        title="Lorenz-96",
        paper="Lorenz 1996; Vlachas et al. 2020, arXiv:1910.05266",
        tests="Learning the map of a chaotic system in many dimensions from its trajectories.",
        metric="error",
    )
    small: ClassVar = _small(32, size=8)
    mean: ClassVar[float] = 2.34
    deviation: ClassVar[float] = 3.64
    settle: ClassVar[int] = 200
    FORCING: ClassVar[float] = 8.0

    size: int = 40
    horizon: int = 4
    train_length: int = 128
    test_lengths: tuple[int, ...] = (128, 256, 512)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.size >= 4, f"`size` is {self.size}; wanted 4 or more.")

    @property
    def inputs(self) -> int:
        return self.size

    def start(self, rows: int, generator: torch.Generator) -> Tensor:
        return self.FORCING + torch.randn(rows, self.size, generator=generator, dtype=torch.float64)

    def next(self, state: Tensor) -> Tensor:
        for _ in range(5):
            state = rk4(lambda x: lorenz96(x, self.FORCING), state, 0.01)
        return state

    def show(self, state: Tensor) -> Tensor:
        return state

    def read(self, x: Tensor) -> Tensor:
        return x


# ----------------------------------------------------------------------------------------------- Kuramoto–Sivashinsky


@cache
def etdrk4(size: int, length: float, step: float) -> tuple[Tensor, ...]:
    """Coefficients of exponential time differencing for the Fourier modes of −u_xx − u_xxxx on a circle of `length`.

    e^{hL}, e^{hL/2}, and the four weights, as means over a circle in the complex plane around hL. Kassam & Trefethen
    2005, section 3. Also i·k of the modes.
    """
    k = 2 * torch.pi / length * torch.arange(size // 2 + 1, dtype=torch.float64)
    linear = k**2 - k**4
    around = torch.exp(1j * torch.pi * (torch.arange(1, 65, dtype=torch.float64) - 0.5) / 32)
    z = step * linear.unsqueeze(1) + around
    ez, ez2 = z.exp(), (z / 2).exp()
    half = ((ez2 - 1) / z).mean(1).real
    first = ((-4 - z + ez * (4 - 3 * z + z**2)) / z**3).mean(1).real
    middle = ((2 + z + ez * (z - 2)) / z**3).mean(1).real
    last = ((-4 - 3 * z - z**2 + ez * (4 - z)) / z**3).mean(1).real
    return (
        (step * linear).exp(), (step * linear / 2).exp(), step * half, step * first, step * middle, step * last, 1j * k,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class KuramotoSivashinsky(Forecast):
    """u_t = −u u_x − u_xx − u_xxxx on a circle of length 22 with zero mean, one sample every 0.25.

    Fifteen Fourier modes on 64 places; exponential time differencing of fourth order, Kassam & Trefethen 2005. Pathak
    et al. 2018. Features are u at every second place.
    """

    name: ClassVar[str] = "kuramoto_sivashinsky"
    about: ClassVar[About] = About(
        title="Kuramoto–Sivashinsky",
        paper="Pathak et al. 2018, Physical Review Letters 120; Vlachas et al. 2020, arXiv:1910.05266",
        tests="Forecasting a field in space and time: turbulence of a flame front.",
        metric="error",
    )
    small: ClassVar = _small(32)
    mean: ClassVar[float] = 0.0
    deviation: ClassVar[float] = 1.19
    settle: ClassVar[int] = 400
    LENGTH: ClassVar[float] = 22.0
    GRID: ClassVar[int] = 64
    STEP: ClassVar[float] = 0.25

    horizon: int = 8
    train_length: int = 128
    test_lengths: tuple[int, ...] = (128, 256, 512)

    @property
    def inputs(self) -> int:
        return self.GRID // 2

    def start(self, rows: int, generator: torch.Generator) -> Tensor:
        return self._cut(torch.fft.rfft(torch.randn(rows, self.GRID, generator=generator, dtype=torch.float64)))

    def _cut(self, modes: Tensor) -> Tensor:
        """Without the mean and without what products would fold back; what is left fits on every second place."""
        kept = torch.zeros_like(modes)
        kept[..., 1 : self.GRID // 4] = modes[..., 1 : self.GRID // 4]
        return kept

    def next(self, state: Tensor) -> Tensor:
        whole, half, a_half, first, middle, last, ik = etdrk4(self.GRID, self.LENGTH, self.STEP)

        def advect(v: Tensor) -> Tensor:
            return self._cut(-0.5 * ik * torch.fft.rfft(torch.fft.irfft(v, self.GRID) ** 2))

        n = advect(state)
        a = half * state + a_half * n
        na = advect(a)
        nb = advect(half * state + a_half * na)
        c = half * a + a_half * (2 * nb - n)
        return whole * state + first * n + 2 * middle * (na + nb) + last * advect(c)

    def show(self, state: Tensor) -> Tensor:
        return torch.fft.irfft(state, self.GRID)[..., ::2]

    def read(self, x: Tensor) -> Tensor:
        modes = 2 * torch.fft.rfft(x)  # twice as many places, twice the sum
        return self._cut(torch.nn.functional.pad(modes, (0, self.GRID // 4)))


# -------------------------------------------------------------------------------------------------------- Mackey–Glass


def mackey_glass(x: Tensor, delayed: Tensor) -> Tensor:
    """dx/dt = 0.2 x(t − τ) / (1 + x(t − τ)¹⁰) − 0.1 x(t)."""
    return 0.2 * delayed / (1 + delayed**10) - 0.1 * x


@dataclass(frozen=True, kw_only=True)
class MackeyGlass(Forecast):
    """dx/dt = 0.2 x(t − τ) / (1 + x(t − τ)¹⁰) − 0.1 x(t) with τ = 17, one sample every time unit.

    Runge–Kutta of fourth order with the step 1; between samples the past is a cubic through four of them. Mackey &
    Glass 1977; the horizon of Voelker et al. 2019.
    """

    name: ClassVar[str] = "mackey_glass"
    about: ClassVar[About] = About(
        title="Mackey–Glass",
        paper="Mackey & Glass 1977; Voelker et al. 2019 (Legendre Memory Units)",
        tests="A delay line: the next value depends on one 17 steps ago, and the present alone says little.",
        metric="error",
    )
    small: ClassVar = _small(64)
    mean: ClassVar[float] = 0.93
    deviation: ClassVar[float] = 0.23
    settle: ClassVar[int] = 2000
    DELAY: ClassVar[int] = 17

    horizon: int = 15
    train_length: int = 256
    test_lengths: tuple[int, ...] = (256, 512, 1024)

    @property
    def inputs(self) -> int:
        return 1

    @property
    def needed(self) -> int:
        return self.DELAY + 2

    def start(self, rows: int, generator: torch.Generator) -> Tensor:
        return (0.5 + torch.rand(rows, 1, generator=generator, dtype=torch.float64)).expand(-1, self.needed)

    def next(self, state: Tensor) -> Tensor:
        """The state is the last samples, the present last."""
        x = state[..., -1]
        before, now, then, after = (state[..., i] for i in range(4))  # at t − τ − 1, t − τ, t − τ + 1, t − τ + 2
        middle = (9 * (now + then) - before - after) / 16
        a = mackey_glass(x, now)
        b = mackey_glass(x + a / 2, middle)
        c = mackey_glass(x + b / 2, middle)
        new = x + (a + 2 * b + 2 * c + mackey_glass(x + c, then)) / 6
        return torch.cat((state[..., 1:], new.unsqueeze(-1)), -1)

    def show(self, state: Tensor) -> Tensor:
        return state[..., -1:]

    def read(self, x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x[..., 0], (self.needed - 1, 0)).unfold(1, self.needed, 1)
