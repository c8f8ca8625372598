"""From samples to figures: medians over the rounds, ratios within each round, percentiles over all imports."""

from collections.abc import Callable
from statistics import median, quantiles

from tests.benchmarks.imports import CONTENDERS, Sample

Rounds = list[list[Sample]]
Figures = dict[str, float]
_HEADING = " imports/s  x SDK  x floor | CPU ms  x SDK  x floor | latency ms p50    p99 | added ms p50    p99"


def summarise(rounds: Rounds) -> dict[str, dict[str, Figures]]:
    """Figures by concurrency and contender."""
    concurrencies = sorted({sample.concurrency for sample in rounds[0]})
    return {
        str(concurrency): {name: _figures(rounds, concurrency, name) for name in CONTENDERS}
        for concurrency in concurrencies
    }


def table(summary: dict[str, dict[str, Figures]]) -> list[str]:
    """The summary for people."""
    lines: list[str] = []
    for concurrency, contenders in summary.items():
        lines += ["", f"{concurrency} at a time".ljust(24) + _HEADING]
        lines += [_row(name, figures) for name, figures in contenders.items()]
        broker = contenders["broker"]
        lines.append(
            f"  beside the broker an import cost its caller {broker['client_cpu_ms']:.2f} ms of CPU, the emulator "
            f"{broker['emulator_cpu_ms']:.2f} ms"
        )
    return lines


def _figures(rounds: Rounds, concurrency: int, name: str) -> Figures:
    by_name = [{s.contender: s for s in samples if s.concurrency == concurrency} for samples in rounds]
    own = [samples[name] for samples in by_name]

    def ratio(other: str, value: Callable[[Sample], float]) -> float:
        return median(value(samples[name]) / value(samples[other]) for samples in by_name)

    latency_p50, latency_p99 = percentiles([value for sample in own for value in sample.latencies_ms])
    added_p50, added_p99 = percentiles([value for sample in own for value in sample.added_ms])
    return {
        "imports_per_second": median(s.imports_per_second for s in own),
        "imports_per_second_to_sdk": ratio("sdk", lambda s: s.imports_per_second),
        "imports_per_second_to_floor": ratio("floor", lambda s: s.imports_per_second),
        "cpu_ms": median(s.cpu_ms for s in own),
        "cpu_to_sdk": ratio("sdk", lambda s: s.cpu_ms),
        "cpu_to_floor": ratio("floor", lambda s: s.cpu_ms),
        "client_cpu_ms": median(s.client_cpu_ms for s in own),
        "emulator_cpu_ms": median(s.emulator_cpu_ms for s in own),
        "latency_p50_ms": latency_p50,
        "latency_p99_ms": latency_p99,
        "added_p50_ms": added_p50,
        "added_p99_ms": added_p99,
    }


def percentiles(values: list[float]) -> tuple[float, float]:
    """The 50th and the 99th."""
    if len(values) == 1:
        return values[0], values[0]
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]


def _row(name: str, figures: Figures) -> str:
    title = {"broker": "broker", "on disk": "broker, on disk", "sdk": "vendor's SDK", "floor": "floor (http.client)"}[
        name
    ]
    return (
        f"  {title:<22} {figures['imports_per_second']:9.1f} {figures['imports_per_second_to_sdk']:6.2f} "
        f"{figures['imports_per_second_to_floor']:8.2f} | {figures['cpu_ms']:6.2f} {figures['cpu_to_sdk']:6.2f} "
        f"{figures['cpu_to_floor']:8.2f} | {figures['latency_p50_ms']:14.2f} {figures['latency_p99_ms']:6.2f} | "
        f"{figures['added_p50_ms']:12.2f} {figures['added_p99_ms']:6.2f}"
    )
