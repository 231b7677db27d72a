import { expect, test } from 'vitest';
import { withNearest } from '../../src-main/contract/nearest.ts';

const names = ['heads', 'kvHeads', 'hiddenDim', 'seqLen', 'window', 'Llama-3.1-8B', 'Llama-3.1-70B'];

test.each([
  ['numHeads', 'heads'],
  ['seq_len', 'seqLen'],
  ['hidenDim', 'hiddenDim'],
  ['llama-3.1-8b', 'Llama-3.1-8B'],
  ['windows', 'window'],
])('%s is near to %s', (received, meant) => {
  expect(withNearest(names, received)).toBe(`${received} (Did you mean ${meant}?)`);
});

test.each(['colour', 'x', '', 'GPT-5'])('%j is near to nothing', (received) => {
  expect(withNearest(names, received)).toBe(received);
});
