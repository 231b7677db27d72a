"""Trains the two built-in models: the same network and the same batches, once with eight key/value heads and once with one.

    node dist/src-main/models/builtin/write-corpus.js 40000 /tmp/corpus
    python3 src-main/models/builtin/train.py /tmp/corpus OUT_FOLDER [--steps N | --seconds S]

Writes OUT_FOLDER/{byte-mha,byte-mqa}/{config.json,model.safetensors,card.json}: a Llama-family checkpoint in f16, one token per
byte. With --seconds the number of steps is chosen from the speed of the first ones; the card states it. Needs torch and a GPU for a
run of minutes; `--steps 2 --batch 1` tries it on a CPU.
"""
import argparse
import json
import math
import struct
import time
from pathlib import Path

import torch
import torch.nn.functional as F

VOCABULARY, HIDDEN, LAYERS, HEADS, HEAD_DIM, MLP, CONTEXT = 256, 256, 4, 8, 32, 640, 2048
THETA, EPSILON, SEED = 10000.0, 1e-5, 1


class Attention(torch.nn.Module):
    def __init__(self, kv_heads):
        super().__init__()
        self.kv_heads = kv_heads
        self.q_proj = torch.nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False)
        self.k_proj = torch.nn.Linear(HIDDEN, kv_heads * HEAD_DIM, bias=False)
        self.v_proj = torch.nn.Linear(HIDDEN, kv_heads * HEAD_DIM, bias=False)
        self.o_proj = torch.nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)

    def forward(self, x, cos, sin):
        batch, tokens, _ = x.shape

        def heads(y, count):
            return y.view(batch, tokens, count, HEAD_DIM).transpose(1, 2)

        def rotate(y):
            a, b = y.chunk(2, dim=-1)
            return (y * cos + torch.cat([-b, a], dim=-1) * sin).to(y.dtype)

        q = rotate(heads(self.q_proj(x), HEADS))
        k = rotate(heads(self.k_proj(x), self.kv_heads)).repeat_interleave(HEADS // self.kv_heads, dim=1)
        v = heads(self.v_proj(x), self.kv_heads).repeat_interleave(HEADS // self.kv_heads, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj = torch.nn.Linear(HIDDEN, MLP, bias=False)
        self.up_proj = torch.nn.Linear(HIDDEN, MLP, bias=False)
        self.down_proj = torch.nn.Linear(MLP, HIDDEN, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(torch.nn.Module):
    def __init__(self, kv_heads):
        super().__init__()
        self.input_layernorm = torch.nn.RMSNorm(HIDDEN, eps=EPSILON)
        self.self_attn = Attention(kv_heads)
        self.post_attention_layernorm = torch.nn.RMSNorm(HIDDEN, eps=EPSILON)
        self.mlp = Mlp()

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(torch.nn.Module):
    """Names as in a Llama checkpoint, without their common prefix `model.`; the output head is the embedding."""

    def __init__(self, kv_heads):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = torch.nn.ModuleList(Layer(kv_heads) for _ in range(LAYERS))
        self.norm = torch.nn.RMSNorm(HIDDEN, eps=EPSILON)
        angles = torch.outer(torch.arange(CONTEXT).float(), THETA ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM))
        self.register_buffer("cos", torch.cat([angles, angles], dim=-1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angles, angles], dim=-1).sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                torch.nn.init.normal_(parameter, std=0.04 / (math.sqrt(2 * LAYERS) if deep else 1))

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def loss(self, ids):
        return F.cross_entropy(self(ids[:, :-1]).float().flatten(0, 1), ids[:, 1:].flatten())


def optimizer_of(model):
    decayed = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=next(model.parameters()).is_cuda)


def learning_rate(step, steps, peak):
    if step < 200:
        return peak * (step + 1) / 200
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - 200) / max(1, steps - 200))))


@torch.no_grad()
def card(model, folder, device):
    """Loss in nats per byte, and the share of lines of which every byte of the answer is the likeliest, on documents never seen."""
    documents = torch.frombuffer(bytearray((folder / "held-out.bin").read_bytes()), dtype=torch.uint8).view(-1, CONTEXT).long()
    lines = json.loads((folder / "held-out.json").read_text())
    losses, counts, right, asked = {}, {}, {}, {}
    total = 0.0
    for first in range(0, len(documents), 16):
        ids = documents[first : first + 16].to(device)
        logits = model(ids[:, :-1]).float()
        nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu()
        hits = (logits.argmax(-1) == ids[:, 1:]).cpu()
        total += nats.sum().item()
        for row, document in enumerate(lines[first : first + 16]):
            for kind, answer, end, distance in document:
                if answer == end:
                    continue
                where = slice(answer - 1, end - 1)
                losses[kind] = losses.get(kind, 0.0) + nats[row, where].sum().item()
                counts[kind] = counts.get(kind, 0) + end - answer
                for name in [kind] + ([f"question up to {2 ** max(6, math.ceil(math.log2(distance)))} bytes back"] if distance else []):
                    right[name] = right.get(name, 0) + bool(hits[row, where].all())
                    asked[name] = asked.get(name, 0) + 1
    return {
        "heldOutDocuments": len(documents),
        "lossNatsPerByte": round(total / (len(documents) * (CONTEXT - 1)), 4),
        "answerLossNatsPerByte": {kind: round(losses[kind] / counts[kind], 4) for kind in sorted(losses)},
        "answersRight": {name: {"share": round(right[name] / asked[name], 4), "of": asked[name]} for name in sorted(right)},
    }


def save(model, kv_heads, folder):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": p.detach().half().cpu().contiguous() for name, p in sorted(model.named_parameters())}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.numel() * 2]}
        offset += tensor.numel() * 2
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": kv_heads,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPSILON,
        "rope_theta": THETA,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak", type=float, default=3e-3)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    documents = torch.frombuffer(bytearray((arguments.corpus / "train.bin").read_bytes()), dtype=torch.uint8).view(-1, CONTEXT).to(device)
    models = {name: Model(kv_heads).to(device) for name, kv_heads in [("byte-mha", HEADS), ("byte-mqa", 1)]}
    optimizers = {name: optimizer_of(model) for name, model in models.items()}
    step_of = {name: torch.compile(model.loss) if device == "cuda" else model.loss for name, model in models.items()}
    order = torch.Generator().manual_seed(SEED)
    shuffled = torch.empty(0, dtype=torch.long)
    steps, step, begun, timed = arguments.steps, 0, time.time(), 0.0
    while steps is None or step < steps:
        if step == 20:
            timed = time.time()
        if steps is None and step == 60:
            torch.cuda.synchronize()
            steps = int(60 + (arguments.seconds - (time.time() - begun)) / ((time.time() - timed) / 40))
            print(f"{steps} steps", flush=True)
        if len(shuffled) < arguments.batch:
            shuffled = torch.cat([shuffled, torch.randperm(len(documents), generator=order)])
        ids = documents[shuffled[: arguments.batch].to(device)].long()
        shuffled = shuffled[arguments.batch :]
        for name in models:
            for group in optimizers[name].param_groups:
                group["lr"] = learning_rate(step, steps or 10**9, arguments.peak)
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = step_of[name](ids)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(models[name].parameters(), 1.0)
            optimizers[name].step()
            optimizers[name].zero_grad(set_to_none=True)
            if step % 250 == 0 or step + 1 == steps:
                print(f"{time.time() - begun:7.1f} s  step {step}  {name}  {loss.item():.4f}", flush=True)
        step += 1
    for name, model in models.items():
        save(model, model.layers[0].self_attn.kv_heads, arguments.out / name)
        # The card is of the weights as they are stored.
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
        facts = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": steps,
            "trainingBytes": steps * arguments.batch * CONTEXT,
            "differentDocuments": len(documents),
            "seconds": round(time.time() - begun),
            "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
            **card(model, arguments.corpus, device),
        }
        (arguments.out / name / "card.json").write_text(json.dumps(facts, indent=2) + "\n")
        print(name, json.dumps(facts), flush=True)


main()
