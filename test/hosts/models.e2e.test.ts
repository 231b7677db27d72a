/** Whole models: their quality figures recomputed from logits, and levels that are exact by construction. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type Point, pointSchema } from '../../src-main/contract/metrics.ts';
import type { Recommendation } from '../../src-main/contract/recommendation.ts';
import { builtinModelShapes } from '../../src-main/engine/builtin-models.ts';
import { resolvePoint } from '../../src-main/engine/plan.ts';
import { builtinFolder } from '../../src-main/hosts/folders.ts';
import { openModel } from '../../src-main/hosts/model-backend.ts';
import { findModel } from '../../src-main/models/find.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { workerScript } from '../../src-main/worker/location.ts';
import { forkWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { tinyWeights, writeCheckpoint } from '../fakes/tiny-checkpoint.ts';
import { runCli } from './run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-models-'));
const backend = new Supervisor({ spawn: forkWorker(workerScript) });
afterAll(async () => {
  await backend.close();
  rmSync(folder, { recursive: true });
});

test('the shapes that sweeps know are those of the files', async () => {
  for (const [name, shape] of Object.entries(builtinModelShapes)) {
    const { config } = await findModel(name, builtinFolder);
    expect(shape).toEqual({
      ...{ hiddenDim: config.hiddenDim, heads: config.heads, headDim: config.headDim },
      ...{ referenceKvHeads: config.kvHeads, ropeTheta: config.layers[0]?.rope?.theta, layers: config.layers.length },
    });
  }
});

const softmax = (row: Float32Array): number[] => {
  const top = Math.max(...row);
  const weights = [...row].map((x) => Math.exp(x - top));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
};

test('quality figures follow from the logits', async () => {
  const seqLen = 64;
  const axes = { model: 'byte-mha', seqLen, calibrationTokens: 1024 };
  const { config } = resolvePoint({ ...axes, level: 'custom', cacheDtype: 'int3' });
  const { files, text } = await openModel(config);
  const prepared = await backend.prepareModel(config, files, text, 240);
  const tokens = { shape: [4, seqLen], data: Int32Array.from(text.documents.flatMap((document) => [...document])) };
  const under = (level: object): Promise<Float32Array> =>
    backend.logits(files, { ...resolvePoint({ ...axes, ...level }).config }, tokens, text.prompt, 240);
  const [exact, lossy] = [await under({ level: 'baseline' }), await under({ level: 'custom', cacheDtype: 'int3' })];
  const sums = { kl: 0, same: 0, overlap: 0, nll: 0, exactNll: 0, positions: 0, scored: 0 };
  for (let b = 0; b < 4; b += 1) {
    for (let t = text.prompt; t < seqLen; t += 1) {
      const at = (b * seqLen + t) * 256;
      const [p, q] = [softmax(exact.subarray(at, at + 256)), softmax(lossy.subarray(at, at + 256))];
      p.forEach((x, i) => {
        sums.kl += x * Math.log(x / (q[i] as number));
        sums.overlap += Math.min(x, q[i] as number);
      });
      sums.same += p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q)) ? 1 : 0;
      sums.positions += 1;
      const next = text.documents[b]?.[t + 1];
      if (next === undefined) continue;
      sums.nll -= Math.log(q[next] as number);
      sums.exactNll -= Math.log(p[next] as number);
      sums.scored += 1;
    }
  }
  const { quality } = prepared;
  expect(quality?.positions).toBe(sums.positions);
  expect(quality?.logitKl).toBeGreaterThan(1e-4);
  expect((quality?.logitKl as number) / (sums.kl / sums.positions)).toBeCloseTo(1, 3);
  expect(quality?.acceptance).toBeCloseTo(sums.overlap / sums.positions, 4);
  expect(quality?.top1Agreement).toBeCloseTo(sums.same / sums.positions, 2);
  expect((quality?.perplexity as number) / Math.exp(sums.nll / sums.scored)).toBeCloseTo(1, 4);
  expect((quality?.exactPerplexity as number) / Math.exp(sums.exactNll / sums.scored)).toBeCloseTo(1, 4);
  expect(prepared.error?.relativeL2).toBe(quality?.layerErrors.at(-1));
});

describe('a model of the user’s', () => {
  const shape = {
    hidden_size: 32,
    intermediate_size: 40,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    num_hidden_layers: 3,
  };
  const qwen = { ...shape, model_type: 'qwen2', vocab_size: 29, max_position_embeddings: 2048, rms_norm_eps: 1e-5 };
  const model = join(folder, 'qwen');
  writeCheckpoint(model, qwen, tinyWeights(qwen, 11));
  const tokenFile = join(folder, 'tokens.txt');
  writeFileSync(tokenFile, Array.from({ length: 2000 }, (_, i) => (i * i * 7 + (i >> 3)) % 29).join(' '));
  const sweep = async (...args: string[]): Promise<Point[]> => {
    const common = ['--set', `model=${model}`, '--set', `tokenFile=${tokenFile}`, '--set', 'calibrationTokens=1024'];
    const quickly = [
      '--set',
      'seqLen=96',
      '--set',
      'phase=decode',
      '--min-time',
      '0',
      '--max-noise',
      '1',
      '--format',
      'json',
    ];
    const { stdout } = await runCli(['sweep', 'custom', ...common, ...quickly, ...args]);
    return JSON.parse(stdout).points.map((point: unknown) => pointSchema.parse(point));
  };

  // Biases, which a latent does not see, must come back whole.
  test.each([
    ['every level that stores all there is', ['cacheKind=input', 'cacheDtype=f32']],
    ['a joint latent of full rank', ['cacheKind=latent-joint', 'cacheDtype=f32', 'keyRope=pre', 'latentRank=32']],
    [
      'two latents of full rank',
      ['cacheKind=latent-separate', 'cacheDtype=f32', 'keyRope=pre', 'latentRankKey=16', 'latentRankValue=16'],
    ],
    [
      'a latent of rotated keys',
      ['cacheKind=latent-separate', 'cacheDtype=f32', 'keyRope=post', 'latentRankKey=16', 'latentRankValue=16'],
    ],
    ['keys before their rotation', ['cacheDtype=f32', 'keyRope=pre']],
  ])('%s changes nothing', async (_, axes) => {
    const [point] = await sweep(...axes.flatMap((axis) => ['--set', axis]));
    expect(point).toMatchObject({ outcome: 'measured', config: { layers: 3, hiddenDim: 32, referenceKvHeads: 2 } });
    expect(point?.error?.relativeL2).toBeLessThan(1e-4);
    expect(point?.quality?.logitKl).toBeLessThan(1e-7);
  });

  test('one layer of it: every level fitted to the text the model reads, and judged on other text', async () => {
    const points = await sweep(
      '--set',
      'layer=1',
      '--set',
      'level=baseline,near-lossless,conservative',
      '--set',
      'batch=3',
    );
    for (const { config, outcome, quality, controls } of points) {
      expect({ outcome, layer: config.layer, quality }).toEqual({ outcome: 'measured', layer: 1, quality: undefined });
      expect(controls?.zeroOutput).toBe(1);
    }
    const errors = points.map(({ error }) => error?.relativeL2 as number);
    expect(errors[0]).toBeLessThan(1e-5);
    expect(errors[1]).toBeGreaterThan(1e-4);
    expect(errors[2]).toBeGreaterThan(errors[1] as number);
  });

  test('as its own draft: a speculating model says what it says alone, and both caches are counted', async () => {
    const [exact] = await sweep('--set', 'level=baseline');
    const [point] = await sweep(
      '--set',
      'phase=speculate',
      '--set',
      'level=near-lossless',
      '--set',
      'speculativeTokens=3',
    );
    const { speculation, memory, error, quality, throughput } = point as Point;
    expect(point?.outcome).toBe('measured');
    expect([error, quality]).toEqual([undefined, undefined]);
    expect(speculation).toMatchObject({ differing: 0 });
    expect(speculation?.acceptedByPlace).toHaveLength(3);
    expect(speculation?.tokensPerRound).toBeGreaterThan(1);
    expect(speculation?.speedUp).toBeCloseTo(
      (speculation?.tokensPerSecond as number) / (speculation?.plainTokensPerSecond as number),
      6,
    );
    // Both caches at the end of the last prompt: what is said adds to them.
    const { targetCacheBytes = 0, draftCacheBytes = 0 } = speculation ?? {};
    expect(memory?.kvAllocatedBytes).toBe(targetCacheBytes + draftCacheBytes);
    expect(memory?.kvAllocatedBytes).toBeGreaterThan(exact?.memory?.kvAllocatedBytes as number);
    expect(throughput?.tokensPerSecond).toBeGreaterThan(0);
    const [tooLong] = await sweep('--set', 'phase=speculate', '--set', 'seqLen=2040');
    expect(tooLong?.reason).toMatch(
      /^expected at most 1994, so that what is said fits the model's positions, for seqLen/,
    );
  });

  test('too few heads and too little text are rows with a reason', async () => {
    const [merged] = await sweep('--set', 'kvHeads=MQA');
    expect(merged?.outcome).toBe('measured');
    expect(merged?.quality?.logitKl).toBeGreaterThan(1e-3);
    const [aligned] = await sweep('--set', 'kvHeads=MQA', '--set', 'kvConversion=aligned');
    expect(aligned).toMatchObject({
      outcome: 'skipped',
      reason: 'expected projections without biases for aligned heads',
    });
    const [short] = await sweep('--set', 'seqLen=1500');
    expect(short?.reason).toMatch(
      /^expected at least 2524 token ids, calibration included, for tokenFile .* but received 2000$/,
    );
  });

  test('a folder without its text, and a shape that is not the model’s', async () => {
    const { stdout } = await runCli([
      'sweep',
      'baseline',
      '--set',
      `model=${model}`,
      '--set',
      'phase=decode',
      '--format',
      'json',
    ]);
    expect(JSON.parse(stdout).points[0]).toMatchObject({
      outcome: 'skipped',
      reason:
        'expected token ids in a file, for a model with a tokenizer of its own, for tokenFile but received nothing',
    });
    const other = await runCli(['sweep', 'baseline', '--set', 'model=byte-mha', '--set', 'hiddenDim=512', '--dry-run']);
    expect(other.stdout).toMatch(/impossible: .* model byte-mha has hiddenDim 256, not 512/);
  });
});

describe('a model with multi-head latent attention', () => {
  const model = join(folder, 'deepseek');
  const config = {
    model_type: 'deepseek_v2',
    ...{ hidden_size: 64, intermediate_size: 48, num_attention_heads: 4, num_hidden_layers: 2, vocab_size: 29 },
    ...{ max_position_embeddings: 2048, q_lora_rank: null, kv_lora_rank: 32, v_head_dim: 16 },
    ...{ qk_nope_head_dim: 16, qk_rope_head_dim: 16, n_routed_experts: 4, num_experts_per_tok: 2, n_shared_experts: 1 },
    ...{ moe_intermediate_size: 16, first_k_dense_replace: 1, routed_scaling_factor: 1, rms_norm_eps: 1e-6 },
  };
  writeCheckpoint(model, config, tinyWeights(config, 4));
  const tokenFile = join(folder, 'latent-tokens.txt');
  writeFileSync(tokenFile, Array.from({ length: 3000 }, (_, i) => (i * i * 7 + (i >> 3)) % 29).join(' '));
  const common = {
    model: [model],
    tokenFile: [tokenFile],
    calibrationTokens: [1024],
    seqLen: [192],
    phase: ['decode'],
  };

  test('its layers, the whole of it, and what it refuses', async () => {
    const file = join(folder, 'latent.json');
    const grid = (axes: Record<string, (string | number | boolean)[]>) => ({ axes: { ...common, ...axes } });
    const also = [
      grid({ layer: [1], level: ['custom'], cacheDtype: ['int4'], residualTokens: [192] }),
      grid({ layer: [1], level: ['custom'], keyRope: ['pre'] }),
      grid({ layer: [1], level: ['custom'], window: [64], sinkTokens: [4] }),
      grid({ level: ['baseline', 'near-lossless', 'conservative', 'mixed-latent'] }),
    ];
    const types = ['f32', 'f16', 'bf16', 'fp8-e4m3', 'int8', 'int4'];
    const layers = grid({ layer: [0, 1], level: ['custom'], symmetric: [true], cacheDtype: types });
    writeFileSync(file, JSON.stringify({ name: 'latent', ...layers, also }));
    const { stdout } = await runCli(['sweep', file, '--min-time', '0', '--max-noise', '1', '--format', 'json']);
    const points = JSON.parse(stdout).points.map((point: unknown) => pointSchema.parse(point)) as Point[];

    points.slice(0, 12).forEach(({ outcome, memory, error, config: { layer } }, i) => {
      const scales = i % 6 < 4 ? 0 : 2 * (1 + 1);
      expect({ outcome, layer, bytes: memory?.kvLogicalBytes }).toEqual({
        outcome: 'measured',
        layer: Math.floor(i / 6),
        bytes: 192 * ((48 * ([32, 16, 16, 8, 8, 4][i % 6] as number)) / 8 + scales),
      });
      // Against the latent in 16 bit, and against keys of 32 and values of 16 channels for each of four heads in f32.
      expect(memory?.multiplierVsOwn16Bit).toBeCloseTo((192 * 96) / (memory?.kvAllocatedBytes as number), 9);
      expect(memory?.multiplierVsF32Mha).toBeCloseTo((192 * 4 * 48 * 4) / (memory?.kvAllocatedBytes as number), 9);
      const most = [1e-5, 2e-3, 2e-2, 0.1, 0.02, 0.3][i % 6] as number;
      expect(error?.relativeL2).toBeLessThan(most);
      if (i % 6 > 0) expect(error?.relativeL2).toBeGreaterThan(most / 50);
    });
    const [recent, unrotated, window, baseline, lossless, ...refused] = points.slice(12);
    expect(recent?.error?.relativeL2).toBeLessThan(2e-3);
    expect(unrotated?.error?.relativeL2).toBeLessThan(1e-5);
    expect(window?.error?.relativeL2).toBeGreaterThan(1e-3);
    expect(window?.memory?.kvLogicalBytes).toBe(63 * 48 * 4 + 4 * 48 * 2);
    expect(baseline?.quality?.logitKl).toBeLessThan(1e-9);
    expect(lossless?.quality?.logitKl).toBeGreaterThan(0);
    expect(lossless?.quality?.logitKl).toBeLessThan(1e-2);
    const own = 'the model caches one latent of 32+16 for all heads already';
    expect(refused.map(({ outcome, reason }) => [outcome, reason])).toEqual([
      ['skipped', `${own}: there are no KV heads to merge`],
      ['skipped', `${own}: it is not converted into another one`],
    ]);
  });
});

test('recommend: nothing measured that keeps the budget is smaller, and the search is on record', async () => {
  const session = join(folder, 'search.fmqa');
  const args = [
    'recommend',
    '--context',
    '96',
    '--budget',
    'relativeL2=0.02',
    '--budget',
    'top1Agreement=0.9',
    '--out',
    session,
  ];
  const { code, stdout } = await runCli([...args, '--format', 'json']);
  expect(code).toBe(0);
  const { chosen, trace, rounds, others } = JSON.parse(stdout) as Recommendation;
  const keeps = ({ error, quality }: Point): boolean =>
    (error?.relativeL2 as number) <= 0.02 && (quality?.top1Agreement as number) >= 0.9;
  expect(keeps(chosen as Point)).toBe(true);
  for (const point of trace.filter(({ outcome, config }) => outcome === 'measured' && config.seqLen === 96))
    if (keeps(point))
      expect(chosen?.memory?.kvAllocatedBytes).toBeLessThanOrEqual(point.memory?.kvAllocatedBytes as number);
  expect(rounds.map(({ seqLen }) => seqLen)).toEqual([64, 64, 96]);
  expect(others).toHaveLength(5);
  const recorded = await readSession(session);
  expect([...recorded.points.keys()]).toEqual(trace.map(({ id }) => id));
});
