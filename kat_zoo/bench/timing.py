"""How a call is timed: by replays of a CUDA graph on a GPU, by the host's clock in a dry run on a CPU."""

import contextlib
import itertools
import statistics
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], Any]

HOST_CALLS = 8  # issued in a row for the host's cost; few enough that no queue of launches fills up


@dataclass(frozen=True)
class Timing:
    """The figures of a call.

    Attributes:
        us: median time in microseconds.
        host_us: time in microseconds until the host has issued the call.
        peak_mib: memory in MiB that the call and its operands take at most; None on a CPU.
        launches: kernels, copies and fills of the call; operators of PyTorch on a CPU; None where they were not counted.
        error: largest relative error of the results.
    """

    us: float
    host_us: float
    peak_mib: float | None
    launches: int | None
    error: float


class Timer(ABC):
    """A device and its clock.

    Attributes:
        device: name of the device for PyTorch.
        name: name of the device for people.
        repeats: repetitions whose median is taken.
        activity: activity of the profiler that counts launches.
    """

    device: str
    name: str
    repeats: int
    activity: ProfilerActivity

    def measure(
        self,
        make: Callable[[], Call],
        check: Callable[[Any], float],
        copies: int = 1,
        *,
        graph: bool = True,
        issue_graph: bool = False,
        count_launches: bool = False,
    ) -> Timing:
        """Check a call, then time it.

        Args:
            make: function that makes the call, on operands of its own.
            check: function of a result that returns its relative error, and raises where it is too large.
            copies: number of calls that are made and take turns, so that none finds its operands in the cache of the device.
            graph: whether the device repeats the calls by itself, without the host.
            issue_graph: whether the host's cost is that of issuing the graph, as where a whole step is one.
            count_launches: whether to count launches.

        Returns:
            The figures of one call.

        Raises:
            ValueError: raised by `check`, before anything is timed.
        """
        with self.stream():
            for _ in range(3):  # compiles, chooses kernels
                make()()
            peak = self.peak_mib(lambda: make()())
            launches = self._launches(make()) if count_launches else None
            calls = [make() for _ in range(copies)]

            def turn() -> list[Any]:
                return [call() for call in calls]  # results stay: memory that is freed and used again would lie in the cache

            replay, results = self.captured(turn) if graph else (turn, turn())
            replay()
            self.synchronize()
            error = max(check(results[0]), check(results[-1]))
            host_us = statistics.median(self._issue([replay] if issue_graph else calls[:HOST_CALLS]) for _ in range(5))
            us = statistics.median(self.elapsed(replay)) / copies
        return Timing(us, host_us, peak, launches, error)

    def copies(self, size: int) -> int:
        """Number of sets of operands of `size` bytes that fill the cache of the device four times."""
        return max(2, min(64, -(-4 * self.cache_bytes() // size)))

    def _issue(self, calls: Sequence[Call]) -> float:
        self.synchronize()
        start = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - start) / len(calls) * 1e6

    def _launches(self, call: Call) -> int:
        with profile(activities=[self.activity]) as found:
            call()
            self.synchronize()
        return sum(event.device_type.name.lower() == self.device for event in found.events())

    @abstractmethod
    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function compiled for fixed shapes."""

    @abstractmethod
    def versions(self) -> str:
        """Return the software that the times depend on."""

    @abstractmethod
    def cache_bytes(self) -> int:
        """Return the size of the last cache."""

    @abstractmethod
    def clock_mhz(self) -> int | None:
        """Return the clock of the multiprocessors, where it can be read."""

    @abstractmethod
    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which calls are made and captured."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for the device."""

    @abstractmethod
    def peak_mib(self, call: Call) -> float | None:
        """Call, and return the memory that was added at most."""

    @abstractmethod
    def captured(self, call: Call) -> tuple[Call, Any]:
        """Return a function that repeats the call on the device alone, and the result, which is valid after it has been called."""

    @abstractmethod
    def elapsed(self, call: Call) -> list[float]:
        """Return the microseconds of each of `repeats` calls."""


class HostTimer(Timer):
    """The host's clock and no graphs: the same code for a dry run, whose figures say nothing of a GPU."""

    device = "cpu"
    repeats = 2
    activity = ProfilerActivity.CPU

    def __init__(self) -> None:
        self.name = f"CPU, {torch.get_num_threads()} threads"

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Trace forward and backward, and run them as they are: C++ would take minutes to compile."""
        torch.compiler.reset()
        return torch.compile(function, dynamic=False, backend="aot_eager")

    def versions(self) -> str:
        """Return the versions of this package and torch."""
        return f"kat_zoo {version('kat_zoo')}, torch {torch.__version__}"

    def cache_bytes(self) -> int:
        """Return 0: two sets of operands are enough for a dry run."""
        return 0

    def clock_mhz(self) -> None:
        """Return None."""

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        """Do nothing: a CPU has finished when it returns."""

    def peak_mib(self, call: Call) -> None:
        """Call; the peak of a CPU's memory is not measured."""
        call()

    def captured(self, call: Call) -> tuple[Call, Any]:
        """Return the call itself and its result."""
        return call, call()

    def elapsed(self, call: Call) -> list[float]:
        """Return the microseconds of each call by the host's clock."""
        return [self._issue([call]) for _ in range(self.repeats)]


class CudaTimer(Timer):
    """Events and graphs of the current GPU.

    Raises:
        ValueError: torch sees no GPU.
    """

    device = "cuda"
    repeats = 20
    activity = ProfilerActivity.CUDA

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ValueError("--device cuda: expected --device cpu, as torch sees no GPU")
        self.name = torch.cuda.get_device_name()
        self._stream = torch.cuda.Stream()
        self._clock: tuple[float, int | None] = (float("-inf"), None)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile by Inductor, afresh: what was compiled for other shapes would count toward the limit of recompilations."""
        torch.compiler.reset()
        return torch.compile(function, dynamic=False)

    def versions(self) -> str:
        """Return the versions of this package, torch, CUDA and Triton."""
        import triton

        return f"kat_zoo {version('kat_zoo')}, torch {torch.__version__}, CUDA {torch.version.cuda}, Triton {triton.__version__}"

    def cache_bytes(self) -> int:
        """Return the size of the L2 cache."""
        return int(torch.cuda.get_device_properties().L2_cache_size)

    def clock_mhz(self) -> int | None:
        """Return the clock as nvidia-smi reads it, every five seconds at most."""
        if time.monotonic() - self._clock[0] > 5:
            gpu = f"--id=GPU-{torch.cuda.get_device_properties().uuid}"
            command = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", gpu]
            try:
                text = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
            except (OSError, subprocess.SubprocessError):
                text = ""
            self._clock = (time.monotonic(), int(text) if text.isdigit() else None)
        return self._clock[1]

    @contextlib.contextmanager
    def stream(self) -> Any:
        """Use a stream of our own: the default one cannot be captured, and backward runs on the stream of its forward."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def synchronize(self) -> None:
        """Wait for all streams."""
        torch.cuda.synchronize()

    def peak_mib(self, call: Call) -> float:
        """Call, and return the peak of allocated memory above that before the call."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def captured(self, call: Call) -> tuple[Call, Any]:
        """Capture the call in a CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            result = call()
        return graph.replay, result

    def elapsed(self, call: Call) -> list[float]:
        """Return the microseconds between events around each call; calls follow one another without a pause."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(self.repeats + 1)]
        for _ in range(3):
            call()
        events[0].record()
        for event in events[1:]:
            call()
            event.record()
        torch.cuda.synchronize()
        return [1e3 * before.elapsed_time(after) for before, after in itertools.pairwise(events)]


def timer(device: str) -> Timer:
    """Return the timer of "cuda" or "cpu".

    Raises:
        ValueError: torch sees no GPU.
    """
    return CudaTimer() if device == "cuda" else HostTimer()
