"""Times the backends of PyTorch's scaled_dot_product_attention at the 16-bit shapes of fastmqa-bench-gpu.

Usage: fastmqa-bench-gpu | python3 torch-sdpa.py
Reads the bench's JSON lines and prints a line a shape: our median, each backend's, and the ratio to the best of them.
Events around batches, random data, inputs rotate among sets that exceed the L2 cache; decode packs the query heads of a
KV head as rows where that is possible, since PyTorch would otherwise copy the shared heads.
"""
import json
import re
import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def timed(step, sets):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def batch(calls):
        begin.record()
        for i in range(calls):
            step(i % sets)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / calls

    batch(2)
    calls = max(1, int(2e-3 / batch(2)))
    for _ in range(max(1, int(0.1 / (batch(calls) * calls)))):
        batch(calls)
    samples = [batch(calls)]
    while len(samples) < 10 or sum(samples) * calls < 0.2:
        samples.append(batch(calls))
    return statistics.median(samples)


def measure(b, h, g, d, s, q, causal):
    prefill = q == s
    side = 2 * b * g * s * d * 2
    sets = max(1, min(16, (256 << 20) // side))
    make = lambda *shape: torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
    keys = [make(b, g, s, d) for _ in range(sets)]
    values = [make(b, g, s, d) for _ in range(sets)]
    ways = {"": ([make(b, h, q, d) for _ in range(sets)], dict(is_causal=causal and prefill, enable_gqa=h != g))}
    if not prefill and q == 1 and h != g:  # the same result: the query heads of a KV head as its rows
        ways["packed "] = ([make(b, g, h // g, d) for _ in range(sets)], dict(is_causal=False))
    found = {}
    for way, (queries, options) in ways.items():
        for name, backend in BACKENDS.items():
            if name == "math" and prefill:
                continue  # would materialise the scores
            try:
                with sdpa_kernel(backend):
                    found[way + name] = timed(
                        lambda i: torch.nn.functional.scaled_dot_product_attention(queries[i], keys[i], values[i], **options), sets
                    )
            except RuntimeError:
                pass  # a backend that does not take this shape
            torch.cuda.empty_cache()
    return found


def main():
    torch.manual_seed(1)
    print(f"torch {torch.__version__}, cudnn {torch.backends.cudnn.version()}")
    for line in sys.stdin:
        ours = json.loads(line) if line.startswith("{") else {}
        if "case" not in ours or not ours["case"].endswith(" bf16") or ours["case"].startswith("verify"):
            continue
        b, h, g, d, s, q = map(int, re.match(r"B(\d+) H(\d+) G(\d+) D(\d+) S(\d+) q(\d+)", ours["shape"]).groups())
        found = measure(b, h, g, d, s, q, not ours["shape"].endswith("full"))
        best = min(found, key=found.get)
        times = ", ".join(f"{name} {seconds * 1e6:.1f}" for name, seconds in sorted(found.items(), key=lambda x: x[1])[:4])
        flash = f", {found['flash'] / ours['medianSeconds']:.2f}x flash" if "flash" in found else ""
        print(
            f"{ours['case']} {ours['shape']}: ours {ours['medianSeconds'] * 1e6:.1f} us; {times} us;"
            f" {found[best] / ours['medianSeconds']:.2f}x the best ({best}){flash}",
            flush=True,
        )


main()
