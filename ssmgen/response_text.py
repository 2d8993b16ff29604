"""A convolution as text: what is kept, written and read, and the sums over tokens that they make."""

from __future__ import annotations

from .response import Convolution
from .scan_text import word
from .spec_text import expr_text


def convolution_lines(convolution: Convolution) -> list[str]:
    """The equations of whole sequences, *l* tokens apart."""
    lines = [f"kept of {name}: {expr_text(factor)}" for name, factor in convolution.factors]
    for number, drive in enumerate(convolution.drives):
        weights = "; ".join(f"{expr_text(weight)} into {name}" for name, weight in drive.weights)
        lines.append(f"x{number} = {expr_text(drive.value)}, times {weights}")
    for number, probe in enumerate(convolution.probes):
        weights = "; ".join(f"{expr_text(weight)} of {name}" for name, weight in probe.weights)
        sums = " + ".join(f"sum_l K{number}{j}[l] x{j}[t - l]" for j in range(len(convolution.drives)))
        lines.append(f"{word(probe.name)}[t] = {sums or '0'} + what is left of the initial state; reads {weights}")
    lines.append("Kij[l] the answer of read i to x_j, l tokens later; products of spectra, twice as long as the sequence")
    for number, value in enumerate(convolution.outputs, 1):
        output = expr_text(value)
        for probe in convolution.probes:
            output = output.replace(probe.name, word(probe.name))
        lines.append(f"{'y' if len(convolution.outputs) == 1 else f'row{number}'} = {output}")
    return lines
