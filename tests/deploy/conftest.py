"""Prints what the tests of the image measured, which xdist would swallow."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    measured = [
        f"  {name}: {value}"
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and "tests/deploy" in report.nodeid
        for name, value in report.user_properties
    ]
    if measured:
        terminalreporter.write_line("The image, measured:")
        for line in measured:
            terminalreporter.write_line(line)
