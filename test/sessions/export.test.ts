import { beforeAll, describe, expect, it } from 'vitest';
import { formatBytes, formatMetric, formatSeconds } from '../../src-main/contract/format.ts';
import { metrics, type Point, pointSchema } from '../../src-main/contract/metrics.ts';
import { skippedPoint } from '../../src-main/engine/measure.ts';
import { exportPoints } from '../../src-main/sessions/export.ts';
import { environment, measured, planOf } from '../fakes/points.ts';

let points: Point[];
beforeAll(async () => {
  const [first, second] = planOf('baseline', 'balanced');
  points = [await measured(first), skippedPoint(second, 'too "large", by far\nsee above')];
});

/** A small reader of RFC 4180. */
const parseCsv = (text: string): string[][] =>
  [...text.matchAll(/((?:"(?:[^"]|"")*"|[^",\r\n]*)(?:,(?:"(?:[^"]|"")*"|[^",\r\n]*))*)\r\n/g)].map(([, row]) =>
    [...`${row},`.matchAll(/("(?:[^"]|"")*"|[^",]*),/g)].map(([, cell]) =>
      cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell,
    ),
  );

describe('export', () => {
  it('csv: every metric a column, raw numbers, empty where not applicable', () => {
    const [names, first, second] = parseCsv(exportPoints({ environment, points }, 'csv'));
    const row = Object.fromEntries(names.map((name, i) => [name, first[i]]));
    for (const { id, read } of metrics) expect(row[id]).toBe(String(read(points[0]) ?? ''));
    expect(row).toMatchObject({ level: 'baseline', outcome: 'measured', window: '', grade: 'near-lossless' });
    expect(second[names.indexOf('reason')]).toBe('too "large", by far\nsee above');
    expect(second[names.indexOf('relativeL2')]).toBe('');
    expect(second).toHaveLength(names.length);
  });

  it('json: the environment and the points, as the schema has them', () => {
    const parsed = JSON.parse(exportPoints({ environment, points }, 'json')) as { points: unknown[] };
    expect(Object.keys(parsed)).toEqual(['environment', 'points']);
    expect(parsed.points.map((point) => pointSchema.parse(point))).toEqual(points);
  });

  it('md: what varies, what matters, the controls and the machine', () => {
    const lines = exportPoints({ environment, points }, 'md').split('\n');
    expect(lines[0]).toMatch(/^\| level \| phase \| cache allocated \| .* \| grade \| outcome \|$/);
    expect(lines[2]).toContain('| 1.07 KiB |');
    expect(lines[3]).toContain('skipped: too "large", by far see above |');
    expect(new Set(lines.slice(0, 4).map((line) => line.split(' | ').length)).size).toBe(1);
    expect(lines.join('\n')).toContain('all-zero output 1.00, uniform attention 0.99, an independent layer 1.41');
    expect(lines.join('\n')).toContain('Measured on Test CPU, 2 threads');
  });
});

describe('numbers as people read them', () => {
  it('has units and three digits', () => {
    expect([0, 1023, 1024, 1.5 * 2 ** 20, 80 * 2 ** 30].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1 KiB',
      '1.5 MiB',
      '80 GiB',
    ]);
    expect([4.2e-6, 0.0123, 2.5, 150].map(formatSeconds)).toEqual(['4.2 µs', '12.3 ms', '2.5 s', '2 min 30 s']);
    expect([99.8, 100, 148.6, 7].map((value) => formatMetric(value, '%'))).toEqual([
      ...['99.80 %', '100 %', '148.6 %', '7.0 %'],
    ]);
    expect([0.978125, 1].map((value) => formatMetric(value, 'share'))).toEqual(['97.8 %', '100 %']);
    expect(formatMetric(541.2, 'x')).toBe('541x');
    expect(formatMetric(123456, 'tokens/s')).toBe('123 k tokens/s');
    expect([-0.01, 145252.4].map((value) => formatMetric(value, '%'))).toEqual(['0.0 %', '145252 %']);
    expect(formatMetric(2.74e12, 'bytes/s')).toBe('2.74 TB/s');
    expect(formatMetric(0.00432, 'ratio')).toBe('0.00432');
    expect(formatMetric(6.1e10, 'FLOP/s')).toBe('61 GFLOP/s');
  });
});
