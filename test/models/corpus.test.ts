import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { corpusDocument, documentLength, haystack, needle } from '../../src-main/models/corpus.ts';

test('the corpus is the one that the built-in models learned from', () => {
  const text = Array.from({ length: 64 }, (_, seed) => corpusDocument(seed).text).join('');
  expect(text).toHaveLength(64 * documentLength);
  expect(createHash('sha256').update(text).digest('hex')).toBe(
    '896f21b395313060382698d0056bcc2df9c08d129393bca9f145667b88e746fe',
  );
});

test('every line follows from the document before it', () => {
  let questions = 0;
  for (let seed = 0; seed < 50; seed++) {
    const { text, lines } = corpusDocument(seed);
    const facts = new Map<string, string>();
    for (const { kind, at, text: line, answerAt, distance } of lines) {
      expect(text.slice(at, at + line.length + 1)).toBe(`${line}\n`);
      const answer = line.slice(answerAt);
      if (kind === 'fact') facts.set(line.slice(1, 3), line.slice(4));
      if (kind === 'question') {
        questions++;
        expect(answer).toBe(facts.get(line.slice(1, 3)));
        const fact = `@${line.slice(1, 3)}=${answer}`;
        expect(text.lastIndexOf(fact, at) + fact.length).toBe(at - (distance ?? 0));
      }
      if (kind === 'copy') expect(answer).toBe(line.slice('copy '.length, answerAt - 1));
      if (kind === 'arithmetic') {
        const [, x, sign, y] = /^(\d+)([+-])(\d+)=/.exec(line) ?? [];
        expect(Number(answer)).toBe(sign === '+' ? Number(x) + Number(y) : Number(x) - Number(y));
      }
      if (kind === 'nesting') {
        let left = line;
        for (let pairs = line.length / 2; pairs > 0; pairs--) left = left.replace(/\(\)|\[\]|\{\}|<>/, '');
        expect(left).toBe('');
      }
    }
  }
  expect(questions).toBeGreaterThan(500);
});

test('a needle lies at its depth, once, and the prompt ends before its answer', () => {
  for (const depth of [0, 0.25, 0.5, 1]) {
    for (const length of [128, 512, 2000]) {
      const { prompt, answer } = needle(7, length, depth);
      const fact = `@kx=${answer}\n`;
      expect(prompt).toHaveLength(length);
      expect(prompt.endsWith('\n?kx=')).toBe(true);
      expect(prompt.split('@kx=')).toHaveLength(2);
      expect(Math.abs(prompt.indexOf(fact) / length - depth)).toBeLessThan(0.03 + 80 / length);
    }
  }
});

test('a haystack holds its needles once each, in their order, and is exactly as long as asked for', () => {
  for (const [seed, length, count] of [
    [1, 2048, 9],
    [3, 512, 9],
    [5, 60, 2],
  ] as const) {
    const { text, probes } = haystack(seed, length, count);
    expect(text).toHaveLength(length);
    expect(probes.map(({ depth }) => depth)).toEqual(Array.from({ length: count }, (_, i) => i / (count - 1)));
    const places = probes.map(({ question, answer }) => {
      const fact = `@${question.slice(1)}${answer}\n`;
      expect(text.split(`@${question.slice(1)}`)).toHaveLength(2);
      return text.indexOf(fact);
    });
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(places[0]).toBeGreaterThanOrEqual(0);
    expect(haystack(seed, length, count)).toEqual({ text, probes });
  }
});
