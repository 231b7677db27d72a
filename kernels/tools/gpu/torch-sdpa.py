"""Times the backends of PyTorch's scaled_dot_product_attention at the 16-bit shapes of fastmqa-bench-gpu.

Usage: python3 torch-sdpa.py BENCH.jsonl PEERS.jsonl
Reads the bench's JSON lines; writes a JSON line a shape with every backend's median seconds, and prints our kernels as
ratios to the best of them and to FLASH. Events around batches, random data, inputs rotate among sets that exceed the L2
cache; decode also with the query heads of a KV head as rows, since PyTorch would otherwise copy the shared heads.
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
    for _ in range(max(1, int(0.04 / (batch(calls) * calls)))):
        batch(calls)
    samples = [batch(calls)]
    while len(samples) < 10 or sum(samples) * calls < 0.1:
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
        ways = {"packed ": ([make(b, g, h // g, d) for _ in range(sets)], dict(is_causal=False))}
    found = {}
    for way, (queries, options) in ways.items():
        for name, backend in BACKENDS.items():
            try:
                with sdpa_kernel(backend):
                    found[way + name] = timed(
                        lambda i: torch.nn.functional.scaled_dot_product_attention(queries[i], keys[i], values[i], **options), sets
                    )
            except RuntimeError:
                pass  # a backend that does not take this shape
    del keys, values, ways
    torch.cuda.empty_cache()
    return found


def ceilings():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = timed(lambda i: a @ b, 1)
    x, y = (torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    copy = timed(lambda i: x.copy_(y), 1)
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
            "productFlopsPerSecond": 2 * 8192**3 / product, "copyBytesPerSecond": 4 * (1 << 30) / copy}


def main(bench, peers):
    torch.manual_seed(1)
    first = ceilings()
    peers.write(json.dumps(first) + "\n")
    print(first)
    shapes = {}
    for line in bench:
        ours = json.loads(line) if line.startswith("{") else {}
        if " bf16" in ours.get("case", "") and not ours["case"].startswith(("verify", "latent")):
            shapes.setdefault(ours["shape"], []).append(ours)
    for shape, ours in shapes.items():
        b, h, g, d, s, q = map(int, re.match(r"B(\d+) H(\d+) G(\d+) D(\d+) S(\d+) q(\d+)", shape).groups())
        if s == 1024:
            continue  # single steps: launches would be measured, not kernels
        try:
            found = measure(b, h, g, d, s, q, not shape.endswith("full"))
        except RuntimeError as error:
            print(shape, error)
            continue
        peers.write(json.dumps({"shape": shape, "medianSeconds": found}) + "\n")
        peers.flush()
        best = min(found, key=found.get)
        print(f"{shape}: " + ", ".join(f"{name} {seconds * 1e6:.1f}" for name, seconds in sorted(found.items(), key=lambda x: x[1])) + " us", flush=True)
        for one in ours:
            flash = f", {found['flash'] / one['medianSeconds']:.2f}x flash" if "flash" in found else ""
            print(f"  {one['case']} ({one['path']}) {one['medianSeconds'] * 1e6:.1f} us, {one['flopsPerSecond'] / 1e12:.0f} TFLOP/s, {one['ofCopyBandwidth']:.2f} of copy:"
                  f" {found[best] / one['medianSeconds']:.2f}x the best ({best}){flash}", flush=True)


with open(sys.argv[1]) as bench, open(sys.argv[2], "w") as peers:
    main(bench, peers)
