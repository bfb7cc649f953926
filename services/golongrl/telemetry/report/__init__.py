"""The run report: `gather` reads a run, `figures` and `timeline` draw, `page` and `compare` put a page together."""

from golongrl.telemetry.report import compare
from golongrl.telemetry.report.figures import smooth, throughput_figure
from golongrl.telemetry.report.page import FILE, is_another, write
from golongrl.telemetry.report.style import PALETTE, STYLE, plotly_script, section, small, styled

__all__ = [
    "FILE",
    "PALETTE",
    "STYLE",
    "compare",
    "is_another",
    "plotly_script",
    "section",
    "small",
    "smooth",
    "styled",
    "throughput_figure",
    "write",
]
