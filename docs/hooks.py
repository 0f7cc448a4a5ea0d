"""What mkdocs asks while it builds the site: the table of kernels comes from the kernels."""

import torch

import dilconv_ext as dc

MARK = "<!-- kernels -->"
# name, input, weight, options
LAYERS = [
    ("3×3, d = 1, 64 channels", (1, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    ("3×3, d = 2, 64 channels", (1, 64, 56, 56), (64, 64, 3, 3), {"padding": 2, "dilation": 2}),
    ("3×3, stride 2", (1, 64, 56, 56), (64, 64, 3, 3), {"padding": 1, "stride": 2}),
    ("3×3, one output", (1, 64, 56, 56), (1, 64, 3, 3), {"padding": 1}),
    ("1×1", (1, 64, 56, 56), (64, 64, 1, 1), {}),
    ("ASPP, 3×3, d = 18", (1, 256, 33, 33), (256, 256, 3, 3), {"padding": 18, "dilation": 18}),
    ("5×5, d = 2", (1, 32, 64, 64), (32, 32, 5, 5), {"padding": 4, "dilation": 2}),
    (
        "depthwise 3×3, d = 2",
        (1, 128, 56, 56),
        (128, 1, 3, 3),
        {"padding": 2, "dilation": 2, "groups": 128},
    ),
]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int32)


def kernel_table() -> str:
    """A row for each layer and dtype: the kernel of the forward and of both gradients."""
    lines = ["| layer | dtype | forward | grad_input | grad_weight |", "|---|---|---|---|---|"]
    for name, input_size, weight_size, options in LAYERS:
        for dtype in DTYPES:
            x, w = (torch.empty(size, dtype=dtype) for size in (input_size, weight_size))
            chosen = dc.explain(x, w, **options)
            choices = (chosen.forward, chosen.grad_input, chosen.grad_weight)
            names = [choice.kernel or "none" for choice in choices]
            cells = [name, str(dtype).removeprefix("torch."), *names]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the table where a page wants it."""
    return markdown.replace(MARK, kernel_table()) if MARK in markdown else markdown
