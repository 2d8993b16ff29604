"""Mamba-1 by mamba-ssm: selective_scan_fn on [B, D, T], which adds the bias to dt, takes its softplus and adds D x by itself."""

NAME = "mamba-ssm selective_scan_fn"
REQUIRES = ("mamba_ssm.ops.selective_scan_interface",)


def prepare(arguments, sizes):
    x, dt_raw, B, C, A_log, dt_bias, D = arguments.values()
    rows = {"u": x, "delta": dt_raw, "B": B, "C": C}
    return {
        **{name: value.transpose(1, 2).contiguous() for name, value in rows.items()},
        "A": -A_log.float().exp(),
        "D": D,
        "bias": dt_bias,
    }


def run(inputs, sizes):
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    names = ("u", "delta", "A", "B", "C", "D")
    y = selective_scan_fn(*(inputs[name] for name in names), delta_bias=inputs["bias"], delta_softplus=True)
    return y.transpose(1, 2)
