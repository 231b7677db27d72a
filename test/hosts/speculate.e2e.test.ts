/** Speculative decoding says what the target alone would say: token by token when greedy, in distribution when sampled. */
import { afterAll, expect, test } from 'vitest';
import type { PointConfig } from '../../src-main/contract/sweep.ts';
import { resolvePoint } from '../../src-main/engine/plan.ts';
import { openModel } from '../../src-main/hosts/model-backend.ts';
import { corpusDocument } from '../../src-main/models/corpus.ts';
import { workerScript } from '../../src-main/worker/location.ts';
import { forkWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { runCli } from './run-cli.ts';

const backend = new Supervisor({ spawn: forkWorker(workerScript) });
afterAll(() => backend.close());

const level = (axes: Record<string, string | number>): PointConfig =>
  resolvePoint({ model: 'byte-mqa', seqLen: 64, calibrationTokens: 1024, ...axes }).config;
const target = level({ level: 'baseline' });
const twoBits = level({ level: 'custom', cacheDtype: 'int2' });
const promptsOf = (count: number, length: number): Int32Array[] =>
  Array.from({ length: count }, (_, i) =>
    Int32Array.from(Buffer.from(corpusDocument(2 * i + 1, length).text, 'latin1')),
  );
const { files, text } = await openModel(target);
const greedy = { target, temperature: 0, seed: 1, plain: true };

test('greedy: 10,000 tokens, each the one that the target alone says', async () => {
  const request = { ...greedy, draft: twoBits, draftTokens: 4, tokens: 500, prompts: promptsOf(20, 64) };
  const result = await backend.speculate(files, text, request, 120);
  const said = result.plainOutput.reduce((sum, list) => sum + list.length, 0);
  expect(said).toBe(10_000);
  expect(result.output).toEqual(result.plainOutput);
  // It was speculation: some proposals were kept and some were not, and every round made one token more than it kept.
  const [offered, accepted] = [result.offered, result.accepted].map((list) => list.reduce((a, b) => a + b, 0));
  expect(accepted).toBeGreaterThan(1000);
  expect(offered).toBeGreaterThan((accepted as number) + 500);
  expect(result.tokens).toBe((accepted as number) + result.rounds);
  expect(result.draftCacheBytes).toBeGreaterThan(0);
});

test.each([
  ['the same cache', target, 3],
  ['a quantised cache on both sides', twoBits, 5],
])('acceptance is 1 where draft and target have %s', async (_, cache, draftTokens) => {
  for (const temperature of [0, 1]) {
    const request = { ...greedy, temperature, plain: false, target: cache, draft: cache, draftTokens, tokens: 120 };
    const result = await backend.speculate(files, text, { ...request, prompts: promptsOf(2, 100) }, 240);
    expect(result.accepted).toEqual(result.offered);
    expect(result.tokens / result.rounds).toBe(draftTokens + 1);
  }
});

/**
 * Where in its distribution a token lies, spread evenly over the token's own share: even between 0 and 1 if, and only if, the
 * tokens come from these distributions. Pearson's statistic over 20 bins.
 */
async function chiSquare(
  outputs: readonly Int32Array[],
  prompts: readonly Int32Array[],
  under: PointConfig,
): Promise<number> {
  const bins = new Float64Array(20);
  let count = 0;
  for (const [i, output] of outputs.entries()) {
    const prompt = prompts[i] as Int32Array;
    const whole = Int32Array.from([...prompt, ...output]);
    // A prompt is read with exact keys and values: what a cache changes shows in what is decoded.
    const reads = under === target ? whole.length : prompt.length;
    const logits = await backend.logits(files, under, { shape: [1, whole.length], data: whole }, reads, 240);
    output.forEach((token, t) => {
      const at = (prompt.length + t - 1) * 256;
      const row = logits.subarray(at, at + 256);
      const top = Math.max(...row);
      const weights = [...row].map((x) => Math.exp(x - top));
      const sum = weights.reduce((a, b) => a + b, 0);
      const before = weights.slice(0, token).reduce((a, b) => a + b, 0);
      const spread = ((count * 0.618033988749895) % 1) * (weights[token] as number);
      bins[Math.min(19, Math.floor((20 * (before + spread)) / sum))] =
        (bins[Math.min(19, Math.floor((20 * (before + spread)) / sum))] as number) + 1;
      count += 1;
    });
  }
  return bins.reduce((sum, n) => sum + (n - count / 20) ** 2 / (count / 20), 0);
}

test('sampled: the tokens come from the target’s distribution, not from the draft’s', async () => {
  const prompts = promptsOf(10, 64);
  const request = { ...greedy, temperature: 1, plain: false, draft: twoBits, draftTokens: 3, tokens: 400, prompts };
  const result = await backend.speculate(files, text, { ...request, seed: 7 }, 120);
  expect(result.accepted[0]).toBeLessThan(result.offered[0] as number);
  // 19 degrees of freedom: 43.8 is exceeded once in a thousand. The seed is fixed.
  expect(await chiSquare(result.output, prompts, target)).toBeLessThan(43.8);
  expect(await chiSquare(result.output, prompts, twoBits)).toBeGreaterThan(100);
});

test('the command: both regimes, and what it costs', async () => {
  const args = [
    'speculate',
    '--model',
    'byte-mqa',
    '--context',
    '256',
    '--draft-tokens',
    '2',
    '--tokens',
    '40',
    '--format',
    'json',
  ];
  const { code, stdout } = await runCli([
    ...args,
    '--draft',
    'shared-64x',
    '--draft',
    'custom cacheDtype=int2 window=32',
  ]);
  const { rows } = JSON.parse(stdout);
  expect({ code, count: rows.length }).toEqual({ code: 0, count: 2 });
  const [close, far] = rows;
  expect(close.tokensPerRound).toBeGreaterThan(2.5);
  expect(far.tokensPerRound).toBeLessThan(close.tokensPerRound);
  for (const row of rows) {
    expect(row).toMatchObject({ differing: 0, context: 256, draftTokens: 2 });
    expect(row.speedUp).toBeGreaterThan(0);
    expect(row.draftCacheBytes).toBeGreaterThan(0);
  }
  const long = await runCli([...args, '--context', '2048']);
  expect(long).toMatchObject({
    code: 2,
    stderr: 'expected at most 2004, so that 40 more tokens fit the model, for context but received 2048\n',
  });
});
